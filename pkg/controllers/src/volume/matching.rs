//! Which volume a claim can have.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as QuantityText;
use kube1_api::quantity::Quantity;

use crate::owner::{selector, selects, uid};

pub fn storage(amounts: Option<&BTreeMap<String, QuantityText>>) -> Quantity {
    let text = amounts.and_then(|a| a.get("storage")).map(|q| q.0.as_str());
    text.and_then(|t| Quantity::parse(t).ok()).unwrap_or(Quantity::ZERO)
}

pub fn capacity(volume: &PersistentVolume) -> Quantity {
    storage(volume.spec.as_ref().and_then(|s| s.capacity.as_ref()))
}

/// Whether the volume is kept for exactly this claim.
pub fn is_kept_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let Some(kept) = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref()) else { return false };
    kept.name == claim.metadata.name
        && kept.namespace == claim.metadata.namespace
        && kept.uid.as_deref().is_none_or(|u| u.is_empty() || u == uid(&claim.metadata))
}

/// Whether the volume is bound to exactly this claim.
pub fn is_bound_to(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let kept = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
    is_kept_for(volume, claim) && kept.is_some_and(|k| k.uid.as_deref() == claim.metadata.uid.as_deref())
}

/// Whether the volume has what the claim asks for, whoever it is kept for.
pub fn satisfies(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let (Some(have), Some(want)) = (&volume.spec, &claim.spec) else { return false };
    let mode = |mode: &Option<String>| mode.clone().unwrap_or_else(|| "Filesystem".to_owned());
    let modes = have.access_modes.as_deref().unwrap_or(&[]);
    let requested = storage(want.resources.as_ref().and_then(|r| r.requests.as_ref()));
    let labels = || selector(want.selector.as_ref()).is_some_and(|s| selects(&s, volume));
    have.storage_class_name.as_deref().unwrap_or("") == want.storage_class_name.as_deref().unwrap_or("")
        && have.volume_attributes_class_name.as_deref().unwrap_or("")
            == want.volume_attributes_class_name.as_deref().unwrap_or("")
        && mode(&have.volume_mode) == mode(&want.volume_mode)
        && want.access_modes.iter().flatten().all(|m| modes.contains(m))
        && capacity(volume) >= requested
        && (want.selector.is_none() || labels())
}

/// The volume to bind to a claim: one kept for it, else the smallest free one that satisfies it.
pub fn find(volumes: &[Arc<PersistentVolume>], claim: &PersistentVolumeClaim) -> Option<Arc<PersistentVolume>> {
    let there = || volumes.iter().filter(|v| v.metadata.deletion_timestamp.is_none());
    if let Some(kept) = there().find(|v| is_kept_for(v, claim) && satisfies(v, claim)) {
        return Some(Arc::clone(kept));
    }
    let is_free = |v: &&Arc<PersistentVolume>| {
        let phase = v.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Available");
        v.spec.as_ref().is_some_and(|s| s.claim_ref.is_none()) && matches!(phase, "Available" | "Pending" | "")
    };
    let mut free: Vec<_> = there().filter(is_free).filter(|v| satisfies(v, claim)).cloned().collect();
    free.sort_by(|a, b| {
        let by_size = capacity(a).partial_cmp(&capacity(b)).unwrap_or(std::cmp::Ordering::Equal);
        by_size.then_with(|| a.metadata.name.cmp(&b.metadata.name))
    });
    free.into_iter().next()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn volume(name: &str, size: &str, kept_for: Option<&str>) -> Arc<PersistentVolume> {
        let claim_ref = kept_for.map(|name| json!({"namespace": "n", "name": name}));
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"capacity": {"storage": size},
                "accessModes": ["ReadWriteOnce", "ReadOnlyMany"], "storageClassName": "s", "claimRef": claim_ref}}))
            .unwrap(),
        )
    }

    #[test]
    fn the_smallest_sufficient_volume_is_taken_and_kept_ones_are_not() {
        let claim: PersistentVolumeClaim = serde_json::from_value(json!({"metadata": {"name": "c", "namespace": "n"},
            "spec": {"storageClassName": "s", "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "2Gi"}}}}))
        .unwrap();
        let found = |volumes: &[Arc<PersistentVolume>]| find(volumes, &claim).and_then(|v| v.metadata.name.clone());
        let mut volumes = vec![volume("tiny", "1Gi", None), volume("huge", "9Gi", None), volume("fits", "2Gi", None)];
        assert_eq!(found(&volumes).as_deref(), Some("fits"));
        volumes.push(volume("other's", "2Gi", Some("x")));
        volumes.push(volume("mine", "5Gi", Some("c")));
        assert_eq!(found(&volumes).as_deref(), Some("mine"));
        assert_eq!(found(&volumes[..1]), None);
    }
}
