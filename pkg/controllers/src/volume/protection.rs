//! Claims, volumes and attribute classes that are deleted stay until nobody uses them.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use kube::Resource;
use kube::api::ListParams;
use kube1_client::{Event, Informer, Keep, ObjectKey, Outcome, WorkQueue};
use kube1_supervisor::BoxError;

use crate::cached_pod::CachedPod;
use crate::controller::{Controller, SyncResult, cluster, namespaced, replace, unless_gone};
use crate::pods;

const CLAIM: &str = "kubernetes.io/pvc-protection";
const VOLUME: &str = "kubernetes.io/pv-protection";
const CLASS: &str = "kubernetes.io/vac-protection";

/// Runs the controller that lets unused claims go.
pub async fn run_claims(controller: Controller) -> Result<(), BoxError> {
    let (claims, pods) = (controller.informers.all::<PersistentVolumeClaim>(), controller.informers.all::<CachedPod>());
    if !controller.synced(&[&claims, &pods]).await {
        return Ok(());
    }
    let queue = WorkQueue::new();
    controller.watch_own(&claims, &queue);
    controller.watch(&pods, &queue, |event| {
        let pod = event.object();
        let freed = matches!(event, Event::Deleted(_)) || pods::is_finished(pod);
        let claims = if freed { pod.claims() } else { &[] };
        claims.iter().map(|claim| ObjectKey::new(&*pod.namespace, &*claim.name)).collect::<Vec<_>>()
    });
    let sync = |key: ObjectKey| {
        let (client, claims, pods) = (controller.client.clone(), claims.clone(), pods.clone());
        async move {
            let Some(claim) = claims.get(&key).filter(|c| is_held(&**c, CLAIM)) else { return Ok(Outcome::Done) };
            let names = |p: &CachedPod| p.claims().iter().any(|claim| claim.name == key.name);
            let uses = |p: &CachedPod| !pods::is_finished(p) && !p.node.is_empty() && names(p);
            if pods.list_namespace(&key.namespace).iter().any(|p| uses(p)) {
                return Ok(Outcome::Done);
            }
            // The cache may be late: a pod that was just scheduled would lose its volume.
            let live = namespaced::<Pod>(&client, &key.namespace).list(&ListParams::default()).await?;
            if !live.items.into_iter().any(|pod| uses(&CachedPod::keep(pod))) {
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

/// Runs the controller that lets unused attribute classes go.
pub async fn run_classes(controller: Controller) -> Result<(), BoxError> {
    let classes: Informer<VolumeAttributesClass> = controller.informers.all();
    let claims = controller.informers.all::<PersistentVolumeClaim>();
    let volumes = controller.informers.all::<PersistentVolume>();
    if !controller.synced(&[&claims, &volumes]).await {
        return Ok(());
    }
    let queue = WorkQueue::new();
    controller.watch_own(&classes, &queue);
    // Any change of a claim or volume may have been the last use of a class that waits.
    let waiting = |classes: &Informer<VolumeAttributesClass>| {
        let held = classes.list().into_iter().filter(|c| is_held(&**c, CLASS));
        held.map(|c| ObjectKey::of(&*c)).collect::<Vec<_>>()
    };
    let known = classes.clone();
    controller.watch(&claims, &queue, move |_| waiting(&known));
    let known = classes.clone();
    controller.watch(&volumes, &queue, move |_| waiting(&known));
    let sync = |key: ObjectKey| {
        let (client, classes) = (controller.client.clone(), classes.clone());
        let (claims, volumes) = (claims.clone(), volumes.clone());
        async move {
            let held = classes.get(&key).filter(|c| is_held(&**c, CLASS));
            let used = || {
                claims.list().iter().any(|claim| classes_of_claim(claim).any(|name| name == key.name))
                    || volumes.list().iter().any(|volume| class_of_volume(volume) == Some(&key.name))
            };
            if let Some(class) = held.filter(|_| !used()) {
                unless_gone(replace(&cluster(&client), without_finalizer(&*class, CLASS)).await)?;
            }
            SyncResult::Ok(Outcome::Done)
        }
    };
    controller.work(&queue, 1, sync).await;
    Ok(())
}

/// The attribute classes that a claim wants, has, or changes to.
fn classes_of_claim(claim: &PersistentVolumeClaim) -> impl Iterator<Item = &str> {
    let wanted = claim.spec.as_ref().and_then(|s| s.volume_attributes_class_name.as_deref());
    let status = claim.status.as_ref();
    let current = status.and_then(|s| s.current_volume_attributes_class_name.as_deref());
    let target = status.and_then(|s| s.modify_volume_status.as_ref()?.target_volume_attributes_class_name.as_deref());
    [wanted, current, target].into_iter().flatten()
}

fn class_of_volume(volume: &PersistentVolume) -> Option<&str> {
    volume.spec.as_ref()?.volume_attributes_class_name.as_deref()
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
