//! What the controllers keep of a pod.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use k8s_openapi::api::core::v1::{Affinity, Container, ContainerStatus, ObjectReference, Pod, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube1_client::{Keep, Pool};

use crate::daemon_set::target_node;
use crate::job;
use crate::owner::controller_of;
use crate::volume::claims_of;

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// A pod as far as controllers read it; all of them share one cache of these.
///
/// What pods of one template have in common is kept once, and what few of them have apart.
#[derive(Clone, Debug)]
pub struct CachedPod {
    pub namespace: Arc<str>,
    pub name: Box<str>,
    pub uid: Box<str>,
    version: u64,
    pub generation: Option<i64>,
    pub labels: Arc<BTreeMap<String, String>>,
    /// The reference to the controller.
    pub owner: Option<Arc<OwnerReference>>,
    pub created: Option<Time>,
    pub deleted: Option<Time>,
    /// Containers with their names, ports and resources, and what of the rest quotas and evictions look at.
    pub spec: Arc<PodSpec>,
    /// Empty before the pod is bound.
    pub node: Arc<str>,
    /// Empty when it is none of those that the API defines.
    pub phase: &'static str,
    /// Whether the pod is ready and since when, once anybody has said so.
    pub ready: Option<(bool, Option<Time>)>,
    /// When the scheduling became what it is.
    pub scheduled: Option<Time>,
    pub started: Option<Time>,
    addresses: Box<str>,
    /// Restarts of all containers together, and of the regular one that was restarted most.
    pub restarts: (i32, i32),
    special: Option<Box<Special>>,
}

/// What most pods do not have.
#[derive(Clone, Debug, Default, PartialEq)]
struct Special {
    hostname: Option<String>,
    subdomain: Option<String>,
    claims: Vec<Claim>,
    target_node: Option<String>,
    deletion_cost: i32,
    /// Held by the Job until its end is counted.
    tracked: bool,
    index: Option<i32>,
    failures: i32,
    end: Option<End>,
}

/// A claim that a pod uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub name: String,
    /// Made for this pod alone.
    pub ephemeral: bool,
}

/// How a pod failed or succeeded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct End {
    /// Of the containers that ended, the regular ones first: name and exit code.
    pub exits: Vec<(String, i32)>,
    /// When the last regular container ended.
    pub finished: Option<Time>,
    /// Conditions by type and status.
    pub conditions: Vec<(String, String)>,
}

impl CachedPod {
    /// All addresses, the primary one first.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        self.addresses.split(',').filter(|ip| !ip.is_empty())
    }

    pub fn hostname(&self) -> Option<&str> {
        self.special.as_ref()?.hostname.as_deref()
    }

    pub fn subdomain(&self) -> Option<&str> {
        self.special.as_ref()?.subdomain.as_deref()
    }

    pub fn claims(&self) -> &[Claim] {
        self.special.as_ref().map(|s| s.claims.as_slice()).unwrap_or_default()
    }

    /// The node the pod is on or, before it is scheduled, the one that its DaemonSet made it for.
    pub fn target_node(&self) -> Option<&str> {
        let bound = Some(&*self.node).filter(|node| !node.is_empty());
        bound.or_else(|| self.special.as_ref()?.target_node.as_deref())
    }

    pub fn deletion_cost(&self) -> i32 {
        self.special.as_ref().map_or(0, |s| s.deletion_cost)
    }

    /// Whether the pod's Job has not let it go yet.
    pub fn is_tracked(&self) -> bool {
        self.special.as_ref().is_some_and(|s| s.tracked)
    }

    /// The completion index.
    pub fn index(&self) -> Option<i32> {
        self.special.as_ref()?.index
    }

    /// Earlier failures of the pod's completion index.
    pub fn failures(&self) -> i32 {
        self.special.as_ref().map_or(0, |s| s.failures)
    }

    /// `None` while the pod has not ended.
    pub fn end(&self) -> Option<&End> {
        self.special.as_ref()?.end.as_ref()
    }

    pub fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            namespace: Some(self.namespace.to_string()),
            name: Some(self.name.to_string()),
            uid: Some(self.uid.to_string()),
            resource_version: (self.version != 0).then(|| self.version.to_string()),
            ..ObjectReference::default()
        }
    }
}

impl Keep for CachedPod {
    type Object = Pod;

    fn keep(pod: Pod) -> Self {
        static TEXTS: LazyLock<Pool<str>> = LazyLock::new(Pool::default);
        static LABELS: LazyLock<Pool<BTreeMap<String, String>>> = LazyLock::new(Pool::default);
        static OWNERS: LazyLock<Pool<OwnerReference>> = LazyLock::new(Pool::default);
        static SPECS: LazyLock<Pool<PodSpec>> = LazyLock::new(Pool::default);
        let special = Special::of(&pod);
        let version = Keep::version(&pod);
        let owner = controller_of(&pod.metadata).cloned();
        let ObjectMeta { namespace, name, uid, generation, labels, creation_timestamp, deletion_timestamp, .. } =
            pod.metadata;
        let (spec, status) = (pod.spec.unwrap_or_default(), pod.status.unwrap_or_default());
        let condition = |kind: &str| status.conditions.iter().flatten().find(|c| c.type_ == kind);
        Self {
            namespace: TEXTS.share(namespace.unwrap_or_default()),
            name: name.unwrap_or_default().into(),
            uid: uid.unwrap_or_default().into(),
            version,
            generation,
            labels: LABELS.share(labels.unwrap_or_default()),
            owner: owner.map(|owner| OWNERS.share(owner)),
            created: creation_timestamp,
            deleted: deletion_timestamp,
            node: TEXTS.share(spec.node_name.clone().unwrap_or_default()),
            spec: SPECS.share(read_of(spec)),
            phase: phase(&status),
            ready: condition("Ready").map(|c| (c.status == "True", c.last_transition_time.clone())),
            scheduled: condition("PodScheduled").and_then(|c| c.last_transition_time.clone()),
            started: status.start_time.clone(),
            addresses: addresses(&status).into(),
            restarts: restarts(&status),
            special: (special != Special::default()).then(|| Box::new(special)),
        }
    }

    fn full_name(&self) -> (&str, &str) {
        (&self.namespace, &self.name)
    }

    fn version(&self) -> u64 {
        self.version
    }
}

impl Special {
    fn of(pod: &Pod) -> Self {
        let annotation = |key: &str| pod.metadata.annotations.as_ref()?.get(key)?.parse().ok();
        let named = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
        let spec = pod.spec.as_ref();
        let bound = spec.is_some_and(|s| s.node_name.as_ref().is_some_and(|node| !node.is_empty()));
        let ended = pod.status.as_ref().filter(|s| matches!(s.phase.as_deref(), Some("Succeeded" | "Failed")));
        Self {
            hostname: spec.and_then(|s| named(&s.hostname)),
            subdomain: spec.and_then(|s| named(&s.subdomain)),
            claims: claims_of(pod),
            target_node: target_node(pod).filter(|_| !bound).map(str::to_owned),
            deletion_cost: annotation(DELETION_COST).unwrap_or(0),
            tracked: pod.metadata.finalizers.iter().flatten().any(|f| f == job::FINALIZER),
            index: annotation(job::INDEX),
            failures: annotation(job::FAILURE_COUNT).unwrap_or(0),
            end: ended.map(End::of),
        }
    }
}

impl End {
    fn of(status: &PodStatus) -> Self {
        let ended = |c: &ContainerStatus| c.state.as_ref()?.terminated.clone();
        let exits = all_containers(status).filter_map(|c| Some((c.name.clone(), ended(c)?.exit_code)));
        let finished = status.container_statuses.iter().flatten().filter_map(|c| ended(c)?.finished_at).max();
        let conditions = status.conditions.iter().flatten();
        Self {
            exits: exits.collect(),
            finished,
            conditions: conditions.map(|c| (c.type_.clone(), c.status.clone())).collect(),
        }
    }
}

/// Of a specification what is the same for all pods of a template and read by a controller.
fn read_of(spec: PodSpec) -> PodSpec {
    let container = |c: Container| Container {
        name: c.name,
        ports: c.ports,
        resources: c.resources,
        restart_policy: c.restart_policy,
        ..Container::default()
    };
    let affinity = |a: Affinity| Affinity { node_affinity: None, ..a };
    PodSpec {
        containers: spec.containers.into_iter().map(container).collect(),
        init_containers: spec.init_containers.map(|all| all.into_iter().map(container).collect()),
        affinity: spec.affinity.map(affinity).filter(|a| *a != Affinity::default()),
        tolerations: spec.tolerations,
        resources: spec.resources,
        overhead: spec.overhead,
        priority_class_name: spec.priority_class_name,
        active_deadline_seconds: spec.active_deadline_seconds,
        ..PodSpec::default()
    }
}

fn phase(status: &PodStatus) -> &'static str {
    let phases = ["Pending", "Running", "Succeeded", "Failed", "Unknown"];
    phases.into_iter().find(|phase| status.phase.as_deref() == Some(phase)).unwrap_or("")
}

/// Separated by commas.
fn addresses(status: &PodStatus) -> String {
    let all: Vec<&str> = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str()).filter(|ip| !ip.is_empty()).collect();
    if all.is_empty() { status.pod_ip.clone().unwrap_or_default() } else { all.join(",") }
}

fn all_containers(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    status.container_statuses.iter().chain(&status.init_container_statuses).flatten()
}

fn restarts(status: &PodStatus) -> (i32, i32) {
    let most = status.container_statuses.iter().flatten().map(|c| c.restart_count).max();
    (all_containers(status).map(|c| c.restart_count).sum(), most.unwrap_or(0))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// What is kept of a pod that is given as JSON.
    pub fn cached(pod: Value) -> Arc<CachedPod> {
        Arc::new(CachedPod::keep(serde_json::from_value(pod).unwrap()))
    }

    #[test]
    fn pods_of_one_template_share_what_they_have_in_common() {
        let pod = |name: &str, node: &str| {
            cached(json!({
                "metadata": {"name": name, "namespace": "n", "uid": name, "resourceVersion": "7", "labels": {"app": "web"},
                    "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "u",
                        "controller": true}]},
                "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i", "env": [{"name": "E"}]}],
                    "volumes": [{"name": format!("token-{name}"), "projected": {}}]},
                "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}}))
        };
        let (a, b) = (pod("a", "node-1"), pod("b", ""));
        assert!(Arc::ptr_eq(&a.spec, &b.spec) && Arc::ptr_eq(&a.labels, &b.labels));
        assert!(Arc::ptr_eq(a.owner.as_ref().unwrap(), b.owner.as_ref().unwrap()));
        assert!(a.special.is_none() && b.special.is_none());
        assert_eq!(a.addresses().collect::<Vec<_>>(), ["10.0.0.1", "fd00::1"]);
        assert_eq!((a.target_node(), b.target_node()), (Some("node-1"), None));
        assert_eq!((a.full_name(), Keep::version(&*a), a.phase), (("n", "a"), 7, "Running"));
        assert_eq!(a.reference().resource_version.as_deref(), Some("7"));
        // An allocation of it is 400 bytes at most; names and addresses come on top.
        assert!(size_of::<CachedPod>() <= 400, "{}", size_of::<CachedPod>());
    }

    #[test]
    fn what_few_pods_have_is_kept_too() {
        let pod = cached(json!({
            "metadata": {"name": "p", "finalizers": ["batch.kubernetes.io/job-tracking"],
                "annotations": {"batch.kubernetes.io/job-completion-index": "3",
                    "batch.kubernetes.io/job-index-failure-count": "2",
                    "controller.kubernetes.io/pod-deletion-cost": "-5"}},
            "spec": {"hostname": "h", "subdomain": "s", "containers": [],
                "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}, {"name": "e", "ephemeral": {}}],
                "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                    {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-1"]}]}]}}}},
            "status": {"phase": "Failed", "conditions": [{"type": "DisruptionTarget", "status": "True"}],
                "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 4,
                    "state": {"terminated": {"exitCode": 9, "finishedAt": "2026-01-01T00:00:00Z"}}}]}}));
        assert!(pod.is_tracked());
        assert_eq!((pod.index(), pod.failures(), pod.deletion_cost()), (Some(3), 2, -5));
        assert_eq!((pod.hostname(), pod.subdomain(), pod.target_node()), (Some("h"), Some("s"), Some("node-1")));
        let claims: Vec<_> = pod.claims().iter().map(|c| (c.name.as_str(), c.ephemeral)).collect();
        assert_eq!(claims, [("c", false), ("p-e", true)]);
        let end = pod.end().unwrap();
        assert_eq!((end.exits.as_slice(), pod.restarts), ([("c".to_owned(), 9)].as_slice(), (4, 4)));
        assert!(end.finished.is_some() && end.conditions == [("DisruptionTarget".to_owned(), "True".to_owned())]);
    }
}
