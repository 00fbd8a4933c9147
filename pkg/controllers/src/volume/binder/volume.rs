//! What becomes of a volume whose claim binds or goes.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, PersistentVolumeStatus};
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube1_client::{EventType, ObjectKey, Outcome};

use super::{Binder, annotation};
use crate::clock;
use crate::controller::{SyncError, SyncResult, cluster, namespaced, unless_gone};
use crate::owner::uid;

impl Binder {
    pub(super) async fn sync_volume(&self, name: String) -> SyncResult {
        let Some(volume) = self.volumes.get(&ObjectKey::new("", name)) else { return Ok(Outcome::Done) };
        let Some(kept) = volume.spec.as_ref().and_then(|s| s.claim_ref.clone()) else {
            self.set_volume_phase(&volume, "Available", None).await?;
            return Ok(Outcome::Done);
        };
        let claimed_uid = kept.uid.clone().filter(|u| !u.is_empty());
        if claimed_uid.is_none() {
            // Kept for a claim that has not been bound yet.
            self.set_volume_phase(&volume, "Available", None).await?;
            return Ok(Outcome::Done);
        }
        let key = ObjectKey::new(kept.namespace.unwrap_or_default(), kept.name.unwrap_or_default());
        let same = |c: &PersistentVolumeClaim| Some(uid(&c.metadata)) == claimed_uid.as_deref();
        if self.claims.get(&key).is_some_and(|c| same(&c)) {
            return Ok(Outcome::Done);
        }
        // The cache may be late: a volume is given up only if the server has no such claim.
        let live = namespaced::<PersistentVolumeClaim>(&self.client, &key.namespace).get_opt(&key.name).await?;
        if !live.is_some_and(|c| same(&c)) {
            self.release(&volume).await?;
        }
        Ok(Outcome::Done)
    }

    /// The claim is gone: the volume is kept for people to look at, or goes as its policy says.
    async fn release(&self, volume: &PersistentVolume) -> Result<(), SyncError> {
        let phase = volume.status.as_ref().and_then(|s| s.phase.as_deref());
        if phase != Some("Failed") {
            self.set_volume_phase(volume, "Released", None).await?;
        }
        let policy = volume.spec.as_ref().and_then(|s| s.persistent_volume_reclaim_policy.as_deref());
        let external = annotation(&volume.metadata, "pv.kubernetes.io/provisioned-by").is_some()
            || volume.spec.as_ref().is_some_and(|s| s.csi.is_some());
        match policy {
            // Its provisioner deletes it.
            Some("Delete") if external => Ok(()),
            Some("Delete") if volume.spec.as_ref().is_some_and(|s| s.host_path.is_some() || s.local.is_some()) => {
                let message = "no provisioner deletes volumes of this kind";
                self.set_volume_phase(volume, "Failed", Some(message)).await?;
                self.recorder.event(volume, EventType::Warning, "VolumeFailedDelete", message);
                Ok(())
            }
            Some("Delete") => {
                let same = Preconditions { uid: volume.metadata.uid.clone(), resource_version: None };
                let name = volume.metadata.name.as_deref().unwrap_or_default();
                let api = cluster::<PersistentVolume>(&self.client);
                Ok(unless_gone(api.delete(name, &DeleteParams::default().preconditions(same)).await)?)
            }
            _ => Ok(()),
        }
    }

    pub(super) async fn set_volume_phase(
        &self,
        volume: &PersistentVolume,
        phase: &str,
        message: Option<&str>,
    ) -> Result<(), SyncError> {
        let old = volume.status.clone().unwrap_or_default();
        if old.phase.as_deref() == Some(phase) {
            return Ok(());
        }
        let status = PersistentVolumeStatus {
            phase: Some(phase.to_owned()),
            message: message.map(str::to_owned),
            last_phase_transition_time: Some(clock::now()),
            ..PersistentVolumeStatus::default()
        };
        let mut changed = PersistentVolume { status: Some(status), ..volume.clone() };
        changed.metadata.managed_fields = None;
        let name = volume.metadata.name.clone().unwrap_or_default();
        let api = cluster::<PersistentVolume>(&self.client);
        Ok(unless_gone(api.replace_status(&name, &PostParams::default(), &changed).await)?)
    }
}
