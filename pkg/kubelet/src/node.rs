//! What all parts of a running kubelet share.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use k8s_openapi::api::core::v1::{Node as ApiNode, ObjectReference, Pod, PodStatus};
use kube::Resource;
use kube1_client::{EventRecorder, Informer, ObjectKey};
use kube1_cri::Runtime;
use kube1_cri::v1::{RuntimeHandlerFeatures, StatusResponse};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::cgroup::Cgroups;
use crate::config::KubeletConfig;
use crate::downward::PodFacts;
use crate::env::KnownService;
use crate::image::Images;
use crate::machine::Machine;
use crate::meters::Meters;
use crate::object_cache::ObjectCache;
use crate::pod::{ContainerKind, PodExt};
use crate::status::Verdict;
use crate::turns::Turns;
use crate::user_namespace::UserNamespaces;
use crate::volume::VolumeManager;

/// A running kubelet's parts.
pub struct Node {
    pub config: KubeletConfig,
    pub runtime: Runtime,
    pub turns: Turns,
    pub user_namespaces: UserNamespaces,
    /// What the runtime can do, as it said last.
    pub features: Mutex<RuntimeFeatures>,
    pub recorder: EventRecorder,
    pub objects: Arc<ObjectCache>,
    pub volumes: VolumeManager,
    pub images: Images,
    pub cgroups: Cgroups,
    pub machine: Machine,
    pub meters: Arc<Meters>,
    pub services: Informer<KnownService>,
    /// This node's own object.
    pub api_node: Informer<ApiNode>,
    pub pods: Arc<PodTable>,
    pub owners: Owners,
    /// Uids of the pods of which the runtime had something when this node agent began; set soon after.
    pub existing: OnceLock<HashSet<String>>,
    /// What pods may use in all.
    pub allocatable: Mutex<Allocatable>,
}

/// What a runtime says that it can do.
#[derive(Clone, Debug, Default)]
pub struct RuntimeFeatures {
    /// By the name of a runtime class's handler; empty for the default one.
    pub handlers: BTreeMap<String, RuntimeHandlerFeatures>,
    pub supplemental_groups_policy: bool,
}

impl RuntimeFeatures {
    pub fn of(answer: &StatusResponse) -> Self {
        let handlers = answer.runtime_handlers.iter().map(|h| (h.name.clone(), h.features.unwrap_or_default()));
        let supplemental_groups_policy = answer.features.is_some_and(|f| f.supplemental_groups_policy);
        Self { handlers: handlers.collect(), supplemental_groups_policy }
    }

    /// Nothing for a handler of which the runtime says nothing.
    pub fn handler(&self, name: &str) -> RuntimeHandlerFeatures {
        self.handlers.get(name).copied().unwrap_or_default()
    }
}

/// What the scheduler may give to pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allocatable {
    pub cpu_millis: i64,
    pub memory: i64,
    pub ephemeral_storage: i64,
    pub pods: i64,
}

impl Node {
    pub fn api_node(&self) -> Option<Arc<ApiNode>> {
        self.api_node.get(&ObjectKey::new("", self.config.node_name.clone()))
    }

    pub fn facts(&self, pod_ips: Vec<String>) -> PodFacts {
        let allocatable = *self.allocatable.lock();
        PodFacts {
            pod_ips,
            host_ips: vec![self.config.node_ip.to_string()],
            node_name: self.config.node_name.clone(),
            allocatable_cpu_millis: allocatable.cpu_millis,
            allocatable_memory: allocatable.memory,
        }
    }
}

/// A reference to a container, for events.
pub fn container_ref(pod: &Pod, kind: ContainerKind, name: &str) -> ObjectReference {
    let list = match kind {
        ContainerKind::Init | ContainerKind::Sidecar => "initContainers",
        ContainerKind::Regular => "containers",
        ContainerKind::Ephemeral => "ephemeralContainers",
    };
    ObjectReference { field_path: Some(format!("spec.{list}{{{name}}}")), ..pod.object_ref(&()) }
}

/// What a pod's task is told.
#[derive(Clone)]
pub struct PodUpdate {
    pub pod: Arc<Pod>,
    /// The API's copy of a static pod, once there is one.
    pub mirror: Option<Arc<Pod>>,
    /// The API (or the manifest directory) has the pod no more.
    pub removed: bool,
    /// The node itself ends the pod.
    pub evicted: Option<Verdict>,
}

impl PodUpdate {
    /// The object whose status the API shows.
    pub fn api_pod(&self) -> Option<&Arc<Pod>> {
        if self.pod.is_static() { self.mirror.as_ref() } else { Some(&self.pod) }
    }
}

/// A pod that this node knows.
pub struct PodEntry {
    pub update: watch::Sender<PodUpdate>,
    /// Wakes the pod's task.
    pub nudge: Arc<Notify>,
    /// Set when something that the pod mounts or reads has changed.
    pub objects_changed: AtomicBool,
    pub admitted: AtomicBool,
    /// Nothing of it runs or will run.
    pub ended: AtomicBool,
    pub status: Mutex<Option<PodStatus>>,
    /// What the pod holds of the node while a resize of it waits for room.
    pub holds: Mutex<Option<Arc<Pod>>>,
    /// Id of the current sandbox.
    pub sandbox: Mutex<Option<String>>,
}

impl PodEntry {
    pub fn new(update: PodUpdate) -> Self {
        Self {
            update: watch::Sender::new(update),
            nudge: Arc::new(Notify::new()),
            objects_changed: AtomicBool::new(false),
            admitted: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            status: Mutex::default(),
            holds: Mutex::default(),
            sandbox: Mutex::default(),
        }
    }

    pub fn pod(&self) -> Arc<Pod> {
        Arc::clone(&self.update.borrow().pod)
    }

    /// The pod with the resources that it holds.
    pub fn holding(&self) -> Arc<Pod> {
        self.holds.lock().clone().unwrap_or_else(|| self.pod())
    }

    /// Whether the pod takes its share of the node.
    pub fn is_active(&self) -> bool {
        self.admitted.load(Ordering::Relaxed) && !self.ended.load(Ordering::Relaxed)
    }
}

/// The pods of this node, by uid.
#[derive(Default)]
pub struct PodTable {
    entries: Mutex<HashMap<String, Arc<PodEntry>>>,
}

impl PodTable {
    pub fn get(&self, uid: &str) -> Option<Arc<PodEntry>> {
        self.entries.lock().get(uid).cloned()
    }

    pub fn insert(&self, uid: &str, entry: Arc<PodEntry>) {
        self.entries.lock().insert(uid.to_owned(), entry);
    }

    pub fn remove(&self, uid: &str) {
        self.entries.lock().remove(uid);
    }

    pub fn all(&self) -> Vec<Arc<PodEntry>> {
        self.entries.lock().values().cloned().collect()
    }

    /// The pod of a name that came last.
    pub fn by_name(&self, namespace: &str, name: &str) -> Option<Arc<PodEntry>> {
        let fits = |entry: &Arc<PodEntry>| {
            let pod = entry.pod();
            pod.namespace() == namespace && pod.name() == name
        };
        let mut found: Vec<_> = self.all().into_iter().filter(fits).collect();
        found.sort_by_key(|entry| {
            (!entry.ended.load(Ordering::Relaxed), entry.pod().metadata.creation_timestamp.clone())
        });
        found.pop()
    }

    /// Wakes a pod's task because something that it reads has changed.
    pub fn objects_changed(&self, uid: &str) {
        if let Some(entry) = self.get(uid) {
            entry.objects_changed.store(true, Ordering::Relaxed);
            entry.nudge.notify_one();
        }
    }
}

/// To which pod a container or sandbox belongs, and whether the runtime has told its end.
#[derive(Default)]
pub struct Owners {
    by_id: Mutex<HashMap<String, Owner>>,
}

struct Owner {
    uid: String,
    ended: bool,
}

impl Owners {
    pub fn set(&self, id: &str, uid: &str) {
        let owner = || Owner { uid: uid.to_owned(), ended: false };
        self.by_id.lock().entry(id.to_owned()).or_insert_with(owner);
    }

    /// Records an end; gives the pod.
    pub fn end(&self, id: &str) -> Option<String> {
        let mut by_id = self.by_id.lock();
        let owner = by_id.get_mut(id)?;
        owner.ended = true;
        Some(owner.uid.clone())
    }

    pub fn has_ended(&self, id: &str) -> bool {
        self.by_id.lock().get(id).is_some_and(|owner| owner.ended)
    }

    /// Forgets everything of a pod but the given ids.
    pub fn retain(&self, uid: &str, keep: impl Fn(&str) -> bool) {
        self.by_id.lock().retain(|id, owner| owner.uid != uid || keep(id));
    }
}
