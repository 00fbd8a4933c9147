//! Persistent volumes: claims find their volumes, and neither goes while it is used.

pub mod binder;
pub mod ephemeral;
mod matching;
pub mod protection;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Volume};

use crate::cached_pod::Claim;

/// The name of the claim behind a pod's volume; also that of an ephemeral volume's own claim.
pub fn claim_name(pod: &Pod, volume: &Volume) -> Option<String> {
    let ephemeral = || format!("{}-{}", pod.metadata.name.as_deref().unwrap_or_default(), volume.name);
    match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(source), _) => Some(source.claim_name.clone()),
        (None, Some(_)) => Some(ephemeral()),
        (None, None) => None,
    }
}

/// All claims of a pod.
pub fn claims_of(pod: &Pod) -> Vec<Claim> {
    let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_deref()).unwrap_or(&[]);
    let claim = |volume: &Volume| Some(Claim { name: claim_name(pod, volume)?, ephemeral: volume.ephemeral.is_some() });
    volumes.iter().filter_map(claim).collect()
}

/// The volume that a claim names.
pub fn volume_name(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.spec.as_ref()?.volume_name.as_deref().filter(|n| !n.is_empty())
}
