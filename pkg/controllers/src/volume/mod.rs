//! Persistent volumes: claims find their volumes, and neither goes while it is used.

pub mod binder;
pub mod ephemeral;
mod matching;
pub mod protection;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Volume};

/// The name of the claim behind a pod's volume; also that of an ephemeral volume's own claim.
pub fn claim_name(pod: &Pod, volume: &Volume) -> Option<String> {
    let ephemeral = || format!("{}-{}", pod.metadata.name.as_deref().unwrap_or_default(), volume.name);
    match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(source), _) => Some(source.claim_name.clone()),
        (None, Some(_)) => Some(ephemeral()),
        (None, None) => None,
    }
}

/// The names of all claims of a pod.
pub fn claims_of(pod: &Pod) -> Vec<String> {
    let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_deref()).unwrap_or(&[]);
    volumes.iter().filter_map(|v| claim_name(pod, v)).collect()
}

/// The volume that a claim names.
pub fn volume_name(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.spec.as_ref()?.volume_name.as_deref().filter(|n| !n.is_empty())
}
