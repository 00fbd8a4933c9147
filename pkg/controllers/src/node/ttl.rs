//! Tells kubelets for how long they may cache what pods mount: longer in larger clusters.

use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube1_client::{Event, ObjectKey, Outcome, WorkQueue};
use kube1_supervisor::BoxError;
use serde_json::json;

use crate::controller::{Controller, SyncResult, cluster, unless_gone};

const TTL: &str = "node.alpha.kubernetes.io/ttl";
/// Up to so many nodes, and the seconds.
const STEPS: [(usize, u32); 5] = [(100, 0), (500, 15), (1000, 30), (2000, 60), (usize::MAX, 300)];

/// Runs the controller of that annotation.
pub async fn run(controller: Controller) -> Result<(), BoxError> {
    let nodes = controller.informers.all::<Node>();
    if !controller.synced(&[&nodes]).await {
        return Ok(());
    }
    let queue = WorkQueue::new();
    let known = nodes.clone();
    controller.watch(&nodes, &queue, move |event| {
        let own = event.object().metadata.name.clone();
        // The number of nodes changes for all at a step only.
        let counted = !matches!(event, Event::Updated { .. });
        let at_step = counted && STEPS.iter().any(|(n, _)| known.len().abs_diff(*n) <= 1);
        let others = if at_step { known.list() } else { Vec::new() };
        others.iter().filter_map(|n| n.metadata.name.clone()).chain(own).collect::<Vec<_>>()
    });
    let sync = |name: String| {
        let (client, nodes) = (controller.client.clone(), nodes.clone());
        async move {
            let Some(node) = nodes.get(&ObjectKey::new("", name.clone())) else { return Ok(Outcome::Done) };
            let wanted = seconds(nodes.len()).to_string();
            if node.metadata.annotations.as_ref().and_then(|a| a.get(TTL)) != Some(&wanted) {
                let patch = json!({"metadata": {"uid": node.metadata.uid, "annotations": {TTL: wanted}}});
                let api = cluster::<Node>(&client);
                unless_gone(api.patch(&name, &PatchParams::default(), &Patch::Strategic(patch)).await)?;
            }
            SyncResult::Ok(Outcome::Done)
        }
    };
    controller.work(&queue, 2, sync).await;
    Ok(())
}

fn seconds(nodes: usize) -> u32 {
    STEPS.iter().find(|(up_to, _)| nodes <= *up_to).map_or(0, |(_, seconds)| *seconds)
}
