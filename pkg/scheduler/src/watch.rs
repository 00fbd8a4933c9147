//! Takes the changes of the cluster into the cache and the queue.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node};
use kube1_client::{Event, Informer};
use parking_lot::Mutex;

use crate::cache::Cache;
use crate::plugins::declared;
use crate::pod_info::PodInfo;
use crate::queue::{Events, Queue};

/// What is known of the cluster and what is to be scheduled.
#[derive(Default)]
pub struct State {
    pub cache: Mutex<Cache>,
    pub queue: Queue,
}

/// Keeps `state` current.
pub fn follow(
    state: &Arc<State>,
    scheduler_name: &'static str,
    nodes: &Informer<Node>,
    pods: &Informer<PodInfo>,
    namespaces: &Informer<Namespace>,
) {
    let own = Arc::clone(state);
    nodes.add_handler(move |event| own.node_changed(event));
    let own = Arc::clone(state);
    pods.add_handler(move |event| own.pod_changed(event, scheduler_name));
    let own = Arc::clone(state);
    namespaces.add_handler(move |event| own.namespace_changed(event));
}

impl State {
    fn node_changed(&self, event: &Event<Node>) {
        let node = event.object();
        if matches!(event, Event::Deleted(_)) {
            return self.cache.lock().remove_node(node.metadata.name.as_deref().unwrap_or_default());
        }
        self.cache.lock().set_node(Arc::clone(node));
        let happened = match event {
            Event::Updated { old, new } => node_events(old, new),
            _ => Events::NODE_ADDED,
        };
        if happened != Events::NONE {
            self.queue.happened(happened);
        }
    }

    fn pod_changed(&self, event: &Event<PodInfo>, scheduler_name: &str) {
        let pod = Arc::clone(event.object());
        if matches!(event, Event::Deleted(_)) {
            self.queue.remove(&pod.uid);
            if self.cache.lock().remove_pod(&pod.uid) {
                self.queue.happened(Events::POD_GONE);
            }
            return;
        }
        if let Some(node) = pod.node_name().map(str::to_owned) {
            self.queue.remove(&pod.uid);
            let happened = placed_events(event, &pod);
            self.cache.lock().set_pod(pod, &node);
            if happened != Events::NONE {
                self.queue.happened(happened);
            }
            return;
        }
        let ours = pod.spec.scheduler_name.as_deref().unwrap_or("default-scheduler");
        if ours != scheduler_name {
            return;
        }
        if pod.is_terminating() {
            self.queue.remove(&pod.uid);
            self.cache.lock().nominate(&pod, None);
            return;
        }
        let mut cache = self.cache.lock();
        if cache.is_placed(&pod.uid) {
            // Assumed: an older state that comes while the binding is on its way.
            return;
        }
        let lost_nomination = match event {
            Event::Updated { old, .. } => old.nominated_node().is_some() && pod.nominated_node().is_none(),
            _ => false,
        };
        if pod.nominated_node().is_some() || lost_nomination {
            cache.nominate(&pod, pod.nominated_node());
        }
        drop(cache);
        self.queue.set(pod);
    }

    fn namespace_changed(&self, event: &Event<Namespace>) {
        let namespace = event.object();
        let labels = match event {
            Event::Deleted(_) => None,
            _ => Some(crate::labels::of(&namespace.metadata).clone()),
        };
        self.cache.lock().set_namespace(namespace.metadata.name.as_deref().unwrap_or_default(), labels);
        self.queue.happened(Events::NAMESPACES);
    }
}

fn node_events(old: &Node, new: &Node) -> Events {
    let mut events = Events::NONE;
    let (old_spec, new_spec) = (old.spec.as_ref(), new.spec.as_ref());
    if old.metadata.labels != new.metadata.labels {
        events = events | Events::NODE_LABELS;
    }
    let taints = |s: Option<&k8s_openapi::api::core::v1::NodeSpec>| {
        s.map(|s| (s.taints.clone().unwrap_or_default(), s.unschedulable.unwrap_or(false)))
    };
    if taints(old_spec) != taints(new_spec) {
        events = events | Events::NODE_TAINTS;
    }
    let allocatable = |n: &Node| n.status.as_ref().and_then(|s| s.allocatable.clone());
    if allocatable(old) != allocatable(new) {
        events = events | Events::NODE_ALLOCATABLE;
    }
    if declared(old) != declared(new) {
        events = events | Events::NODE_FEATURES;
    }
    events
}

/// What the change of a pod on a node means for pods that wait.
fn placed_events(event: &Event<PodInfo>, pod: &PodInfo) -> Events {
    let Event::Updated { old, .. } = event else { return Events::POD_PLACED };
    let was_placed = old.node_name().is_some();
    let mut events = Events::NONE;
    if !was_placed || old.labels() != pod.labels() {
        events = events | Events::POD_PLACED;
    }
    if was_placed && old.requests != pod.requests {
        events = events | Events::POD_GONE;
    }
    events
}
