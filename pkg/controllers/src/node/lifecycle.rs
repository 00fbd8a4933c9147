//! The health of nodes: those that are silent become Unknown, and conditions become taints.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Taint};
use kube::Client;
use kube::api::{Patch, PatchParams};
use kube1_client::{Event, EventRecorder, EventType, Informer, Keep, ObjectKey, Outcome, Selection, WorkQueue};
use kube1_supervisor::BoxError;
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;

use super::taint::{self, status_of, wanted};
use crate::cached_pod::CachedPod;
use crate::clock;
use crate::controller::{Controller, Reconcile, SyncError, SyncResult, cluster, namespaced, unless_gone};
use crate::metrics;
use crate::pods;

/// A node that is silent for longer is not trusted any more.
const GRACE: Duration = Duration::from_secs(50);
/// A node that has never said anything gets longer to start.
const STARTUP_GRACE: Duration = Duration::from_secs(60);
const LEASES: &str = "kube-node-lease";
/// Conditions that a silent node's kubelet would have reported.
const REPORTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
/// Index of pods by node.
pub const BY_NODE: &str = "node";

/// Runs the controller of node health.
pub async fn run(controller: Controller) -> Result<(), BoxError> {
    let (nodes, pods) = (controller.informers.all::<Node>(), controller.informers.all::<CachedPod>());
    let leases = controller.informers.select_in::<Lease>(LEASES, Selection::default());
    index(&pods);
    if !controller.synced(&[&nodes, &pods, &leases]).await {
        return Ok(());
    }
    let queue: WorkQueue<String> = WorkQueue::new();
    let heard: Arc<Mutex<HashMap<String, Heard>>> = Arc::default();
    let (all, seen) = (nodes.clone(), Arc::clone(&heard));
    controller.watch(&nodes, &queue, move |event| {
        let name = event.object().metadata.name.clone().unwrap_or_default();
        if matches!(event, Event::Deleted(_)) {
            seen.lock().remove(&name);
        }
        // Whether any node is ready matters to all of them.
        let flipped = match event {
            Event::Updated { old, new } => is_ready(old) != is_ready(new),
            _ => true,
        };
        let others = flipped.then(|| all.list()).into_iter().flatten();
        others.filter_map(|n| n.metadata.name.clone()).chain([name]).collect::<Vec<_>>()
    });
    controller.watch(&leases, &queue, |event| event.object().metadata.name.clone());
    let watcher = Watcher {
        client: controller.client.clone(),
        recorder: controller.recorder.clone(),
        nodes,
        pods,
        leases,
        heard,
    };
    controller.keep(&queue, 8, watcher).await;
    Ok(())
}

/// Keeps an index of pods by node.
pub fn index(pods: &Informer<CachedPod>) {
    pods.add_index(BY_NODE, |pod: &CachedPod| {
        Some(pod.node.to_string()).filter(|n| !n.is_empty()).into_iter().collect()
    });
}

/// Region and zone of a node, as upstream writes both in one label.
fn zone(node: &Node) -> String {
    let label =
        |name: &str| node.metadata.labels.as_ref().and_then(|labels| labels.get(name)).map_or("", String::as_str);
    match (label("topology.kubernetes.io/region"), label("topology.kubernetes.io/zone")) {
        ("", "") => String::new(),
        (region, zone) => format!("{region}:\0:{zone}"),
    }
}

fn is_ready(node: &Node) -> bool {
    status_of(node, "Ready") == Some("True")
}

/// The last sign of life of a node, on this machine's clock: those of nodes may differ.
#[derive(Clone)]
struct Heard {
    at: Instant,
    /// Lease renewal and the newest heartbeat of a condition.
    sign: (String, String),
}

struct Watcher {
    client: Client,
    recorder: EventRecorder,
    nodes: Informer<Node>,
    pods: Informer<CachedPod>,
    leases: Informer<Lease>,
    heard: Arc<Mutex<HashMap<String, Heard>>>,
}

impl Reconcile<String> for Watcher {
    async fn sync(&self, name: String) -> SyncResult {
        let Some(node) = self.nodes.get(&ObjectKey::new("", name.clone())) else { return Ok(Outcome::Done) };
        let silent = self.listen(&name, &node).elapsed();
        let grace = if status_of(&node, "Ready").is_some() { GRACE } else { STARTUP_GRACE };
        if silent >= grace && status_of(&node, "Ready") != Some("Unknown") {
            self.distrust(&node).await?;
            // The changed conditions come back as an event and bring the taints.
            return Ok(Outcome::Done);
        }
        // While no node at all is ready the fault is more likely here than there: nobody is driven out.
        let evict = self.nodes.list().iter().any(|n| is_ready(n));
        if let Some(taints) = wanted(&node, evict, &clock::now()) {
            let patch = json!({"metadata": {"uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version},
                "spec": {"taints": taints}});
            let patched =
                cluster::<Node>(&self.client).patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
            let driven_out = |taint: &Taint| taint.effect == "NoExecute" && !taint::taints(&node).contains(taint);
            if patched.is_ok() && taints.iter().any(driven_out) {
                metrics::node_evicted(&zone(&node));
            }
            unless_gone(patched)?;
        }
        if !is_ready(&node) {
            self.mark_pods(&node).await?;
        }
        Ok(if silent < grace { Outcome::RequeueAfter(grace - silent) } else { Outcome::Done })
    }
}

impl Watcher {
    /// When the node last gave a sign of life.
    fn listen(&self, name: &str, node: &Node) -> Instant {
        let lease = self.leases.get(&ObjectKey::new(LEASES, name));
        let renewed = lease.and_then(|l| l.spec.as_ref()?.renew_time.as_ref().map(|t| t.0.to_string()));
        let conditions = node.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or(&[]);
        let beat =
            conditions.iter().filter(|c| c.status != "Unknown").filter_map(|c| c.last_heartbeat_time.as_ref()).max();
        let sign = (renewed.unwrap_or_default(), beat.map(|t| t.0.to_string()).unwrap_or_default());
        let mut heard = self.heard.lock();
        let entry = heard.entry(name.to_owned()).or_insert_with(|| Heard { at: Instant::now(), sign: sign.clone() });
        if entry.sign != sign {
            *entry = Heard { at: Instant::now(), sign };
        }
        entry.at
    }

    async fn distrust(&self, node: &Node) -> Result<(), SyncError> {
        let conditions = node.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or(&[]);
        let unknown: Vec<NodeCondition> =
            REPORTED.iter().map(|kind| silenced(kind, conditions.iter().find(|c| c.type_ == *kind), node)).collect();
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let patch = json!({"metadata": {"uid": node.metadata.uid}, "status": {"conditions": unknown}});
        let api = cluster::<Node>(&self.client);
        unless_gone(api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await)?;
        let message = format!("Node {name} status is now: NodeNotReady");
        self.recorder.event(node, EventType::Normal, "NodeNotReady", message);
        Ok(())
    }

    /// Takes the pods of a node that is not ready out of service.
    async fn mark_pods(&self, node: &Node) -> Result<(), SyncError> {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        for pod in self.pods.by_index(BY_NODE, name).iter().filter(|p| pods::is_ready(p)) {
            let key = pod.key();
            let patch = json!({"metadata": {"uid": pod.uid}, "status": {"conditions": [
                {"type": "Ready", "status": "False", "lastTransitionTime": clock::now()}]}});
            let api = namespaced::<Pod>(&self.client, &key.namespace);
            unless_gone(api.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(patch)).await)?;
            self.recorder.event_for(pod.reference(), EventType::Warning, "NodeNotReady", "Node is not ready");
        }
        Ok(())
    }
}

fn silenced(kind: &str, old: Option<&NodeCondition>, node: &Node) -> NodeCondition {
    let (reason, message) = match old {
        Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
        None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
    };
    let since = old.filter(|c| c.status == "Unknown").and_then(|c| c.last_transition_time.clone());
    NodeCondition {
        type_: kind.to_owned(),
        status: "Unknown".into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_heartbeat_time: old
            .map_or_else(|| node.metadata.creation_timestamp.clone(), |c| c.last_heartbeat_time.clone()),
        last_transition_time: since.or_else(|| Some(clock::now())),
    }
}
