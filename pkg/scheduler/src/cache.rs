//! The scheduler's view of nodes and pods, ahead of the API by the pods it just placed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;

use crate::labels::{self, Labels};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;

/// Nodes, the pods on them, and the labels of namespaces.
#[derive(Default)]
pub struct Cache {
    nodes: BTreeMap<String, Arc<NodeInfo>>,
    /// By pod UID.
    placed: HashMap<Arc<str>, Placement>,
    namespaces: Arc<HashMap<String, Labels>>,
    /// Pods that evictions of others make room for, by UID, with the node.
    nominated: HashMap<Arc<str>, (String, Arc<PodInfo>)>,
}

struct Placement {
    node: Arc<str>,
    /// Placed here, not yet seen bound through the API.
    assumed: bool,
}

/// All nodes at one moment; cheap to take.
#[derive(Clone, Default)]
pub struct Snapshot {
    pub nodes: Vec<Arc<NodeInfo>>,
    pub namespaces: Arc<HashMap<String, Labels>>,
    /// By node.
    pub nominated: HashMap<String, Vec<Arc<PodInfo>>>,
}

impl Snapshot {
    pub fn namespace_labels(&self, namespace: &str) -> &Labels {
        self.namespaces.get(namespace).unwrap_or_else(|| labels::none())
    }
}

impl Cache {
    pub fn snapshot(&self) -> Snapshot {
        let mut nominated: HashMap<String, Vec<Arc<PodInfo>>> = HashMap::new();
        for (node, pod) in self.nominated.values() {
            nominated.entry(node.clone()).or_default().push(Arc::clone(pod));
        }
        Snapshot {
            nodes: self.nodes.values().filter(|n| n.node.is_some()).cloned().collect(),
            namespaces: Arc::clone(&self.namespaces),
            nominated,
        }
    }

    pub fn set_node(&mut self, node: Arc<Node>) {
        let name = node.metadata.name.clone().unwrap_or_default();
        self.entry(&name).set_node(Some(node));
    }

    pub fn remove_node(&mut self, name: &str) {
        self.entry(name).set_node(None);
        self.drop_if_empty(name);
    }

    /// Puts a pod on the node it is bound to, wherever it was assumed before.
    pub fn set_pod(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.place(pod, node, false);
    }

    /// Puts a pod on a node before the API knows of it.
    pub fn assume(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.place(pod, node, true);
    }

    fn place(&mut self, pod: Arc<PodInfo>, node: &str, assumed: bool) {
        let uid = Arc::clone(&pod.uid);
        self.nominated.remove(&uid);
        if self.placed.get(&uid).is_some_and(|p| *p.node != *node) {
            self.remove_pod(&uid);
        }
        let info = self.entry(node);
        info.add_pod(pod);
        let node = Arc::clone(&info.name);
        self.placed.insert(uid, Placement { node, assumed });
    }

    /// Takes back an assumption that did not come true. Leaves a pod that the API shows bound.
    pub fn forget(&mut self, uid: &str) {
        if self.placed.get(uid).is_some_and(|p| p.assumed) {
            self.remove_pod(uid);
        }
    }

    /// Returns whether the pod was placed.
    pub fn remove_pod(&mut self, uid: &str) -> bool {
        self.nominated.remove(uid);
        let Some(placement) = self.placed.remove(uid) else { return false };
        self.entry(&placement.node).remove_pod(uid);
        self.drop_if_empty(&placement.node);
        true
    }

    pub fn is_placed(&self, uid: &str) -> bool {
        self.placed.contains_key(uid)
    }

    /// Reserves room for a pod that waits for others to leave; None takes the reservation back.
    pub fn nominate(&mut self, pod: &Arc<PodInfo>, node: Option<&str>) {
        match node {
            Some(node) => self.nominated.insert(Arc::clone(&pod.uid), (node.to_owned(), Arc::clone(pod))),
            None => self.nominated.remove(&pod.uid),
        };
    }

    pub fn set_namespace(&mut self, name: &str, labels: Option<Labels>) {
        let namespaces = Arc::make_mut(&mut self.namespaces);
        match labels {
            Some(labels) => namespaces.insert(name.to_owned(), labels),
            None => namespaces.remove(name),
        };
    }

    fn entry(&mut self, name: &str) -> &mut NodeInfo {
        let entry = self.nodes.entry(name.to_owned()).or_insert_with(|| Arc::new(NodeInfo::new(name)));
        Arc::make_mut(entry)
    }

    fn drop_if_empty(&mut self, name: &str) {
        if self.nodes.get(name).is_some_and(|n| n.node.is_none() && n.pods.is_empty()) {
            self.nodes.remove(name);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::testing::{node, pod};

    #[test]
    fn an_assumed_pod_counts_until_it_is_bound_elsewhere_or_forgotten() {
        let mut cache = Cache::default();
        cache.set_node(node("a", "4"));
        cache.set_node(node("b", "4"));
        let p = pod("p", "1");
        let cpu = |cache: &Cache, i: usize| cache.snapshot().nodes[i].requested.cpu;
        cache.assume(Arc::clone(&p), "a");
        assert_eq!(cpu(&cache, 0), 1000);
        cache.set_pod(Arc::clone(&p), "b");
        assert_eq!((cpu(&cache, 0), cpu(&cache, 1)), (0, 1000));
        cache.forget(&p.uid);
        assert_eq!(cpu(&cache, 1), 1000, "bound pods are not forgotten");
        cache.remove_pod(&p.uid);
        cache.assume(Arc::clone(&p), "a");
        cache.forget(&p.uid);
        assert_eq!((cpu(&cache, 0), cpu(&cache, 1)), (0, 0));
    }
}
