//! Taint eviction: pods leave nodes whose NoExecute taints they do not tolerate, or no longer.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube1_client::node_match::toleration_covers;
use kube1_client::{Event, EventRecorder, EventType, Informer, Keep, ObjectKey, Outcome, WorkQueue};
use kube1_supervisor::BoxError;
use serde_json::json;

use super::lifecycle::{BY_NODE, index};
use super::taint::taints;
use crate::cached_pod::CachedPod;
use crate::clock;
use crate::controller::{Controller, Reconcile, SyncError, SyncResult, namespaced, unless_gone};
use crate::pods;

/// Runs the controller that evicts pods by taints.
pub async fn run(controller: Controller) -> Result<(), BoxError> {
    let (nodes, pods) = (controller.informers.all::<Node>(), controller.informers.all::<CachedPod>());
    index(&pods);
    if !controller.synced(&[&nodes, &pods]).await {
        return Ok(());
    }
    let queue = WorkQueue::new();
    let known = pods.clone();
    controller.watch(&nodes, &queue, move |event| {
        let changed = match event {
            Event::Updated { old, new } => taints(old) != taints(new),
            Event::Added(node) => !taints(node).is_empty(),
            Event::Deleted(_) => false,
        };
        let name = event.object().metadata.name.as_deref().filter(|_| changed);
        let on_node = name.map(|n| known.by_index(BY_NODE, n)).unwrap_or_default();
        on_node.iter().map(|p| p.key()).collect::<Vec<_>>()
    });
    controller.watch(&pods, &queue, |event| {
        let pod = event.object();
        let changed = match event {
            Event::Updated { old, new } => old.node != new.node || old.spec.tolerations != new.spec.tolerations,
            Event::Added(_) => true,
            Event::Deleted(_) => false,
        };
        (changed && !pod.node.is_empty()).then(|| pod.key())
    });
    let (client, recorder) = (controller.client.clone(), controller.recorder.clone());
    let evictor = Evictor { client, recorder, nodes, pods };
    controller.keep(&queue, 8, evictor).await;
    Ok(())
}

struct Evictor {
    client: Client,
    recorder: EventRecorder,
    nodes: Informer<Node>,
    pods: Informer<CachedPod>,
}

/// What a node's taints mean for a pod.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Stays,
    LeavesIn(Duration),
}

impl Reconcile<ObjectKey> for Evictor {
    async fn sync(&self, key: ObjectKey) -> SyncResult {
        let Some(pod) = self.pods.get(&key).filter(|p| !pods::is_terminating(p)) else { return Ok(Outcome::Done) };
        let Some(node) = self.nodes.get(&ObjectKey::new("", &*pod.node)) else { return Ok(Outcome::Done) };
        let tolerations = pod.spec.tolerations.as_deref().unwrap_or(&[]);
        match judge(tolerations, taints(&node)) {
            Verdict::Stays => Ok(Outcome::Done),
            Verdict::LeavesIn(left) if left.is_zero() => {
                self.evict(&pod).await?;
                Ok(Outcome::Done)
            }
            Verdict::LeavesIn(left) => Ok(Outcome::RequeueAfter(left)),
        }
    }
}

impl Evictor {
    async fn evict(&self, pod: &CachedPod) -> Result<(), SyncError> {
        let key = pod.key();
        let api = namespaced::<Pod>(&self.client, &key.namespace);
        let message = format!("Marking for deletion Pod {key}");
        self.recorder.event_for(pod.reference(), EventType::Normal, "TaintManagerEviction", message);
        let patch = json!({"metadata": {"uid": pod.uid}, "status": {"conditions": [{
            "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint", "lastTransitionTime": clock::now(),
            "observedGeneration": pod.generation}]}});
        unless_gone(api.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(patch)).await)?;
        let same = Preconditions { uid: Some(pod.uid.to_string()), resource_version: None };
        unless_gone(api.delete(&key.name, &DeleteParams::default().preconditions(same)).await)?;
        Ok(())
    }
}

fn judge(tolerations: &[Toleration], taints: &[Taint]) -> Verdict {
    let mut left: Option<Duration> = None;
    for taint in taints.iter().filter(|t| t.effect == "NoExecute") {
        let covering: Vec<&Toleration> = tolerations.iter().filter(|t| toleration_covers(t, taint)).collect();
        if covering.is_empty() {
            return Verdict::LeavesIn(Duration::ZERO);
        }
        // The shortest patience of several tolerations counts.
        let Some(seconds) = covering.iter().filter_map(|t| t.toleration_seconds).min() else { continue };
        let since = taint.time_added.clone().unwrap_or_else(|| Time(Timestamp::now()));
        let until = clock::until(&since, seconds).unwrap_or_default();
        left = Some(left.map_or(until, |l| l.min(until)));
    }
    left.map_or(Verdict::Stays, Verdict::LeavesIn)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn pods_leave_when_their_patience_ends() {
        let ago = |seconds: i64| Some(Time(Timestamp::from_second(Timestamp::now().as_second() - seconds).unwrap()));
        let taint = |key: &str, effect: &str, time_added| Taint {
            key: key.into(),
            effect: effect.into(),
            time_added,
            ..Taint::default()
        };
        let patient = |seconds| Toleration {
            key: Some("a".into()),
            operator: Some("Exists".into()),
            toleration_seconds: seconds,
            ..Toleration::default()
        };
        assert_eq!(judge(&[], &[taint("a", "NoSchedule", None)]), Verdict::Stays);
        assert_eq!(judge(&[], &[taint("a", "NoExecute", ago(0))]), Verdict::LeavesIn(Duration::ZERO));
        assert_eq!(judge(&[patient(None)], &[taint("a", "NoExecute", ago(9))]), Verdict::Stays);
        assert_eq!(judge(&[patient(Some(5))], &[taint("a", "NoExecute", ago(9))]), Verdict::LeavesIn(Duration::ZERO));
        let Verdict::LeavesIn(left) = judge(&[patient(Some(300))], &[taint("a", "NoExecute", ago(100))]) else {
            panic!("stays")
        };
        assert!((190..=200).contains(&left.as_secs()), "{left:?}");
        assert_eq!(
            judge(&[patient(None)], &[taint("a", "NoExecute", ago(0)), taint("b", "NoExecute", ago(0))]),
            Verdict::LeavesIn(Duration::ZERO)
        );
    }
}
