//! A node with the pods on it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use k8s_openapi::api::core::v1::{Node, Taint};

use crate::labels::Labels;
use crate::pod_info::{HostPort, PodInfo};
use crate::resources::Resources;

/// A node as the scheduler sees it: what it offers and what its pods, assumed ones included, take.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    pub name: Arc<str>,
    /// Another one after each change; no two states of any nodes share one.
    pub generation: u64,
    /// Absent while pods are known on a node that itself is not.
    pub node: Option<Arc<Node>>,
    pub allocatable: Resources,
    /// Sizes of the images on the node by each of their names.
    pub images: Arc<HashMap<String, i64>>,
    /// By UID.
    pub pods: BTreeMap<Arc<str>, Arc<PodInfo>>,
    pub requested: Resources,
    pub scoring_requested: (i64, i64),
    pub used_ports: BTreeSet<HostPort>,
    /// How many of the pods have any affinity or anti-affinity.
    pub with_affinity: usize,
}

static GENERATION: AtomicU64 = AtomicU64::new(1);

impl NodeInfo {
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    pub fn set_node(&mut self, node: Option<Arc<Node>>) {
        let status = node.as_ref().and_then(|n| n.status.as_ref());
        self.allocatable = Resources::from_quantities(status.and_then(|s| s.allocatable.as_ref()));
        let mut images = HashMap::new();
        for image in status.and_then(|s| s.images.as_ref()).into_iter().flatten() {
            for name in image.names.iter().flatten() {
                images.insert(name.clone(), image.size_bytes.unwrap_or(0));
            }
        }
        self.images = Arc::new(images);
        self.node = node;
        self.changed();
    }

    fn changed(&mut self) {
        self.generation = GENERATION.fetch_add(1, Ordering::Relaxed);
    }

    pub fn labels(&self) -> &Labels {
        self.node.as_ref().map_or_else(|| crate::labels::none(), |n| crate::labels::of(&n.metadata))
    }

    pub fn taints(&self) -> &[Taint] {
        let spec = self.node.as_ref().and_then(|n| n.spec.as_ref());
        spec.and_then(|s| s.taints.as_deref()).unwrap_or(&[])
    }

    pub fn is_unschedulable(&self) -> bool {
        self.node.as_ref().and_then(|n| n.spec.as_ref()).is_some_and(|s| s.unschedulable == Some(true))
    }

    /// Replaces the pod of the same UID, if there is one.
    pub fn add_pod(&mut self, pod: Arc<PodInfo>) {
        self.remove_pod(&pod.uid);
        self.requested.add(&pod.requests);
        self.requested.pods += 1;
        self.scoring_requested.0 += pod.scoring_requests.0;
        self.scoring_requested.1 += pod.scoring_requests.1;
        self.used_ports.extend(pod.host_ports.iter().cloned());
        self.with_affinity += usize::from(pod.has_affinity());
        self.pods.insert(Arc::clone(&pod.uid), pod);
        self.changed();
    }

    pub fn remove_pod(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let pod = self.pods.remove(uid)?;
        self.requested.subtract(&pod.requests);
        self.requested.pods -= 1;
        self.scoring_requested.0 -= pod.scoring_requests.0;
        self.scoring_requested.1 -= pod.scoring_requests.1;
        if !pod.host_ports.is_empty() {
            self.used_ports = self.pods.values().flat_map(|p| p.host_ports.iter().cloned()).collect();
        }
        self.with_affinity -= usize::from(pod.has_affinity());
        self.changed();
        Some(pod)
    }
}
