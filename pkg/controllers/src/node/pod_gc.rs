//! Pods that nobody else removes: on nodes that are gone, deleted before they had a node, ended long ago.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Client;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube1_client::{Event, Informer, Keep, ObjectKey, Outcome, WorkQueue};
use kube1_supervisor::BoxError;
use serde_json::json;

use super::lifecycle::{BY_NODE, index};
use super::taint::{status_of, taints};
use crate::cached_pod::CachedPod;
use crate::clock;
use crate::controller::{Controller, Reconcile, SyncError, SyncResult, cluster, namespaced, unless_gone};
use crate::pods;

/// A node must be gone for this long: it may only be registering again.
const QUARANTINE: Duration = Duration::from_secs(40);
/// Most ended pods that are kept.
const ENDED_MAX: usize = 12_500;
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// Runs the pod garbage collector.
pub async fn run(controller: Controller) -> Result<(), BoxError> {
    let (nodes, pods) = (controller.informers.all::<Node>(), controller.informers.all::<CachedPod>());
    index(&pods);
    if !controller.synced(&[&nodes, &pods]).await {
        return Ok(());
    }
    let queue = WorkQueue::new();
    let (on_nodes, delayed) = (pods.clone(), queue.clone());
    nodes.add_handler_until(controller.stop.clone(), move |event| {
        let node = event.object();
        let out = taints(node).iter().any(|t| t.key == OUT_OF_SERVICE);
        let delay = match event {
            Event::Deleted(_) => QUARANTINE,
            _ if out => Duration::ZERO,
            _ => return,
        };
        for pod in on_nodes.by_index(BY_NODE, node.metadata.name.as_deref().unwrap_or_default()) {
            delayed.add_after(pod.key(), delay);
        }
    });
    let known = pods.clone();
    controller.watch(&pods, &queue, move |event| {
        let pod = event.object();
        let crowded = pods::is_finished(pod) && known.len() > ENDED_MAX;
        let relevant = match event {
            Event::Added(_) => true,
            Event::Updated { old, new } => {
                pods::is_terminating(new) != pods::is_terminating(old) || new.node != old.node
            }
            Event::Deleted(_) => false,
        };
        (relevant || crowded).then(|| pod.key())
    });
    let collector = Collector { client: controller.client.clone(), nodes, pods };
    controller.keep(&queue, 4, collector).await;
    Ok(())
}

struct Collector {
    client: Client,
    nodes: Informer<Node>,
    pods: Informer<CachedPod>,
}

impl Reconcile<ObjectKey> for Collector {
    async fn sync(&self, key: ObjectKey) -> SyncResult {
        let Some(pod) = self.pods.get(&key) else { return Ok(Outcome::Done) };
        if pod.node.is_empty() {
            if pods::is_terminating(&pod) {
                self.delete(&pod, None).await?;
            }
        } else if let Some(node) = self.nodes.get(&ObjectKey::new("", &*pod.node)) {
            let out = taints(&node).iter().any(|t| t.key == OUT_OF_SERVICE);
            if out && pods::is_terminating(&pod) && status_of(&node, "Ready") != Some("True") {
                self.delete(&pod, Some("PodGC: node is out of service")).await?;
            }
        } else {
            return self.orphan(&pod).await;
        }
        if pods::is_finished(&pod) && self.pods.len() > ENDED_MAX {
            self.thin_out().await?;
        }
        Ok(Outcome::Done)
    }
}

impl Collector {
    /// A pod on a node that the cache does not have.
    async fn orphan(&self, pod: &CachedPod) -> SyncResult {
        let age = pod.scheduled.as_ref().or(pod.created.as_ref()).map(clock::since).unwrap_or(QUARANTINE);
        if let Some(left) = QUARANTINE.checked_sub(age).filter(|l| !l.is_zero()) {
            return Ok(Outcome::RequeueAfter(left));
        }
        if cluster::<Node>(&self.client).get_metadata_opt(&pod.node).await?.is_none() {
            self.delete(pod, Some("PodGC: node no longer exists")).await?;
        }
        Ok(Outcome::Done)
    }

    /// Deletes the oldest ended pods beyond the limit.
    async fn thin_out(&self) -> Result<(), SyncError> {
        let mut ended: Vec<Arc<CachedPod>> =
            self.pods.list().into_iter().filter(|p| pods::is_finished(p) && !pods::is_terminating(p)).collect();
        let surplus = ended.len().saturating_sub(ENDED_MAX);
        ended.sort_by(|a, b| a.created.cmp(&b.created));
        for pod in ended.iter().take(surplus) {
            self.delete(pod, None).await?;
        }
        Ok(())
    }

    /// Deletes a pod without grace: nobody is there to use it. One that is cut off is marked as failed before.
    async fn delete(&self, pod: &CachedPod, disruption: Option<&str>) -> Result<(), SyncError> {
        let key = pod.key();
        let api = namespaced::<Pod>(&self.client, &key.namespace);
        if !pods::is_finished(pod) && disruption.is_some() {
            let patch = json!({"metadata": {"uid": pod.uid}, "status": {"phase": "Failed", "conditions": [{
                "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC", "message": disruption,
                "lastTransitionTime": clock::now(), "observedGeneration": pod.generation}]}});
            unless_gone(api.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(patch)).await)?;
        }
        let same = Preconditions { uid: Some(pod.uid.to_string()), resource_version: None };
        unless_gone(api.delete(&key.name, &DeleteParams::default().grace_period(0).preconditions(same)).await)?;
        Ok(())
    }
}
