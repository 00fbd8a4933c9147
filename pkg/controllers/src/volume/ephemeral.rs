//! Generic ephemeral volumes: a claim for each, which lives as long as its pod.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube1_client::{Event, EventType, Keep, ObjectKey, Outcome, WorkQueue};
use kube1_supervisor::BoxError;

use super::claim_name;
use crate::cached_pod::{CachedPod, Claim};
use crate::controller::{Controller, SyncError, SyncResult, is_namespace_terminating, namespaced, unless_exists};
use crate::owner::{controller_of, reference, uid};
use crate::pod_control::reason;
use crate::pods;

/// Runs the controller of ephemeral volumes.
pub async fn run(controller: Controller) -> Result<(), BoxError> {
    let (pods, claims) = (controller.informers.all::<CachedPod>(), controller.informers.all::<PersistentVolumeClaim>());
    if !controller.synced(&[&pods, &claims]).await {
        return Ok(());
    }
    let queue = WorkQueue::new();
    controller.watch(&pods, &queue, |event| match event {
        Event::Added(pod) if pod.claims().iter().any(|c| c.ephemeral) => Some(pod.key()),
        _ => None,
    });
    controller.watch(&claims, &queue, |event| {
        let Event::Deleted(claim) = event else { return None };
        let owner = claim.metadata.owner_references.as_ref()?.iter().find(|o| o.kind == "Pod")?;
        Some(ObjectKey::new(claim.metadata.namespace.clone()?, owner.name.clone()))
    });
    let sync = |key: ObjectKey| {
        let (controller, pods, claims) = (controller.clone(), pods.clone(), claims.clone());
        async move {
            let Some(pod) = pods.get(&key).filter(|p| pods::is_active(p)) else { return Ok(Outcome::Done) };
            let mut missing = Vec::new();
            for Claim { name, .. } in pod.claims().iter().filter(|c| c.ephemeral) {
                match claims.get(&ObjectKey::new(key.namespace.clone(), name.clone())) {
                    Some(claim) if is_for(&claim, &pod) => {}
                    Some(_) => {
                        let message =
                            format!("PVC {}/{name} was not created for pod {key} (pod is not owner)", key.namespace);
                        return Err(SyncError::Invalid(message));
                    }
                    None => missing.push(name),
                }
            }
            if !missing.is_empty() {
                create(&controller, &pod, &missing).await?;
            }
            SyncResult::Ok(Outcome::Done)
        }
    };
    controller.work(&queue, 4, sync).await;
    Ok(())
}

fn is_for(claim: &PersistentVolumeClaim, pod: &CachedPod) -> bool {
    controller_of(&claim.metadata).is_some_and(|owner| owner.uid == *pod.uid)
}

/// Makes missing claims of a pod from their templates, which the cache does not keep.
async fn create(controller: &Controller, cached: &CachedPod, names: &[&String]) -> Result<(), SyncError> {
    let live = namespaced::<Pod>(&controller.client, &cached.namespace).get_opt(&cached.name).await?;
    let Some(pod) = live.filter(|pod| uid(&pod.metadata) == &*cached.uid) else { return Ok(()) };
    for volume in pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()) {
        match claim_name(&pod, volume) {
            Some(name) if names.contains(&&name) => create_one(controller, &pod, volume, name).await?,
            _ => {}
        }
    }
    Ok(())
}

async fn create_one(controller: &Controller, pod: &Pod, volume: &Volume, name: String) -> Result<(), SyncError> {
    let Some(template) = volume.ephemeral.as_ref().and_then(|e| e.volume_claim_template.as_ref()) else {
        return Ok(());
    };
    let meta = template.metadata.as_ref();
    let claim = PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(name),
            labels: meta.and_then(|m| m.labels.clone()),
            annotations: meta.and_then(|m| m.annotations.clone()),
            owner_references: Some(vec![reference(pod)]),
            ..ObjectMeta::default()
        },
        spec: Some(template.spec.clone()),
        status: None,
    };
    let api =
        namespaced::<PersistentVolumeClaim>(&controller.client, pod.metadata.namespace.as_deref().unwrap_or_default());
    match unless_exists(api.create(&PostParams::default(), &claim).await) {
        Err(error) if is_namespace_terminating(&error) => Ok(()),
        Err(error) => {
            let message = format!("ephemeral volume {}: create PVC: {}", volume.name, reason(&error));
            controller.recorder.event(pod, EventType::Warning, "EphemeralVolumeCreateFailed", message);
            Err(error.into())
        }
        Ok(()) => Ok(()),
    }
}
