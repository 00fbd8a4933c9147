//! Claims and volumes that are deleted stay until nobody uses them.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::Resource;
use kube::api::ListParams;
use kube1_client::{Event, Informer, ObjectKey, Outcome, WorkQueue};
use kube1_supervisor::BoxError;

use super::claims_of;
use crate::controller::{Controller, SyncResult, cluster, namespaced, replace, unless_gone};
use crate::pods;

const CLAIM: &str = "kubernetes.io/pvc-protection";
const VOLUME: &str = "kubernetes.io/pv-protection";

/// Runs the controller that lets unused claims go.
pub async fn run_claims(controller: Controller) -> Result<(), BoxError> {
    let (claims, pods) = (controller.informers.all::<PersistentVolumeClaim>(), controller.informers.all::<Pod>());
    if !(controller.synced(&claims).await && controller.synced(&pods).await) {
        return Ok(());
    }
    let queue = WorkQueue::new();
    controller.watch_own(&claims, &queue);
    controller.watch(&pods, &queue, |event| {
        let pod = event.object();
        let freed = matches!(event, Event::Deleted(_)) || pods::is_finished(pod);
        let names = if freed { claims_of(pod) } else { Vec::new() };
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        names.into_iter().map(move |name| ObjectKey::new(namespace.clone(), name))
    });
    let sync = |key: ObjectKey| {
        let (client, claims, pods) = (controller.client.clone(), claims.clone(), pods.clone());
        async move {
            let Some(claim) = claims.get(&key).filter(|c| is_held(&**c, CLAIM)) else { return Ok(Outcome::Done) };
            let uses =
                |p: &Pod| !pods::is_finished(p) && !pods::node_name(p).is_empty() && claims_of(p).contains(&key.name);
            if pods.list_namespace(&key.namespace).iter().any(|p| uses(p)) {
                return Ok(Outcome::Done);
            }
            // The cache may be late: a pod that was just scheduled would lose its volume.
            let live = namespaced::<Pod>(&client, &key.namespace).list(&ListParams::default()).await?;
            if !live.items.iter().any(uses) {
                let changed = without_finalizer(&*claim, CLAIM);
                unless_gone(replace(&namespaced(&client, &key.namespace), changed).await)?;
            }
            SyncResult::Ok(Outcome::Done)
        }
    };
    controller.work(&queue, 2, sync).await;
    Ok(())
}

/// Runs the controller that lets unbound volumes go.
pub async fn run_volumes(controller: Controller) -> Result<(), BoxError> {
    let volumes: Informer<PersistentVolume> = controller.informers.all();
    let queue = WorkQueue::new();
    controller.watch_own(&volumes, &queue);
    let sync = |key: ObjectKey| {
        let (client, volumes) = (controller.client.clone(), volumes.clone());
        async move {
            let held = volumes.get(&key).filter(|v| is_held(&**v, VOLUME));
            let is_bound =
                |v: &Arc<PersistentVolume>| v.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
            if let Some(volume) = held.filter(|v| !is_bound(v)) {
                unless_gone(replace(&cluster(&client), without_finalizer(&*volume, VOLUME)).await)?;
            }
            SyncResult::Ok(Outcome::Done)
        }
    };
    controller.work(&queue, 2, sync).await;
    Ok(())
}

/// Whether a deleted object is only kept by this finalizer's owner.
fn is_held<K: Resource>(object: &K, finalizer: &str) -> bool {
    object.meta().deletion_timestamp.is_some() && object.meta().finalizers.iter().flatten().any(|f| f == finalizer)
}

fn without_finalizer<K: Resource + Clone>(object: &K, finalizer: &str) -> K {
    let mut changed = object.clone();
    if let Some(finalizers) = &mut changed.meta_mut().finalizers {
        finalizers.retain(|f| f != finalizer);
    }
    changed
}
