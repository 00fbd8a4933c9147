//! Binds claims to volumes, and says what became of both.

mod volume;

use k8s_openapi::api::core::v1::{
    ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimStatus,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube1_client::{Event, EventRecorder, EventType, Informer, ObjectKey, Outcome, WorkQueue};
use kube1_supervisor::BoxError;

use super::matching::{find, is_bound_to, is_kept_for, satisfies};
use super::volume_name;
use crate::controller::{
    Controller, Reconcile, SyncError, SyncResult, cluster, namespaced, replace, replace_status, unless_gone,
};

const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const BOUND_BY_US: &str = "pv.kubernetes.io/bound-by-controller";
const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
const PROVISIONER_BETA: &str = "volume.beta.kubernetes.io/storage-provisioner";
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// What there is to look at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Work {
    Claim(ObjectKey),
    Volume(String),
}

/// Runs the controller that binds volumes.
pub async fn run(controller: Controller) -> Result<(), BoxError> {
    let (claims, volumes) =
        (controller.informers.all::<PersistentVolumeClaim>(), controller.informers.all::<PersistentVolume>());
    let classes = controller.informers.all::<StorageClass>();
    if !controller.synced(&[&claims, &volumes, &classes]).await {
        return Ok(());
    }
    let queue = WorkQueue::new();
    let waiting = claims.clone();
    controller.watch(&volumes, &queue, move |event| {
        let volume = event.object();
        let mut work = vec![Work::Volume(volume.metadata.name.clone().unwrap_or_default())];
        let kept = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
        match kept {
            Some(claim) => work.push(Work::Claim(ObjectKey::new(
                claim.namespace.clone().unwrap_or_default(),
                claim.name.clone().unwrap_or_default(),
            ))),
            // A free volume may be what a claim waits for.
            None => {
                work.extend(waiting.list().iter().filter(|c| !is_bound(c)).map(|c| Work::Claim(ObjectKey::of(&**c))))
            }
        }
        work
    });
    controller.watch(&claims, &queue, |event| {
        let claim = event.object();
        let volume = volume_name(claim).map(|v| Work::Volume(v.to_owned()));
        volume.into_iter().chain([Work::Claim(ObjectKey::of(&**claim))]).collect::<Vec<_>>()
    });
    let waiting = claims.clone();
    controller.watch(&classes, &queue, move |event| {
        let pending = if matches!(event, Event::Deleted(_)) { Vec::new() } else { waiting.list() };
        pending.iter().filter(|c| !is_bound(c)).map(|c| Work::Claim(ObjectKey::of(&**c))).collect::<Vec<_>>()
    });
    let binder =
        Binder { client: controller.client.clone(), recorder: controller.recorder.clone(), claims, volumes, classes };
    // One after the other: two claims must not take one volume.
    controller.keep(&queue, 1, binder).await;
    Ok(())
}

fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a String> {
    meta.annotations.as_ref()?.get(key)
}

fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    annotation(&claim.metadata, BIND_COMPLETED).is_some()
}

struct Binder {
    client: kube::Client,
    recorder: EventRecorder,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    classes: Informer<StorageClass>,
}

impl Reconcile<Work> for Binder {
    async fn sync(&self, work: Work) -> SyncResult {
        match work {
            Work::Claim(key) => self.sync_claim(key).await,
            Work::Volume(name) => self.sync_volume(name).await,
        }
    }
}

impl Binder {
    async fn sync_claim(&self, key: ObjectKey) -> SyncResult {
        let Some(claim) = self.claims.get(&key).filter(|c| c.metadata.deletion_timestamp.is_none()) else {
            return Ok(Outcome::Done);
        };
        if is_bound(&claim) {
            self.check_bound(&claim).await?;
        } else if let Some(name) = volume_name(&claim) {
            self.bind_named(&claim, name).await?;
        } else {
            self.bind_any(&claim).await?;
        }
        Ok(Outcome::Done)
    }

    /// A claim keeps its volume, or has lost it.
    async fn check_bound(&self, claim: &PersistentVolumeClaim) -> Result<(), SyncError> {
        let name = volume_name(claim).unwrap_or_default();
        match self.volumes.get(&ObjectKey::new("", name)) {
            Some(volume) if is_kept_for(&volume, claim) => self.bind(claim, &volume).await,
            found => {
                let (reason, message) = match found {
                    None => ("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!"),
                    Some(_) => {
                        ("ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly")
                    }
                };
                self.set_phase(claim, "Lost", Some((reason, message))).await
            }
        }
    }

    /// A claim that asks for one volume gets that one or waits for it.
    async fn bind_named(&self, claim: &PersistentVolumeClaim, name: &str) -> Result<(), SyncError> {
        let Some(volume) = self.volumes.get(&ObjectKey::new("", name)) else {
            return self.set_phase(claim, "Pending", None).await;
        };
        let free = volume.spec.as_ref().is_some_and(|s| s.claim_ref.is_none());
        if !free && !is_kept_for(&volume, claim) {
            let message = format!("volume {name:?} already bound to a different claim.");
            self.recorder.event(claim, EventType::Warning, "FailedBinding", message);
            return self.set_phase(claim, "Pending", None).await;
        }
        if free && !satisfies(&volume, claim) {
            let message = format!("Cannot bind to requested volume {name:?}: it is not what the claim asks for");
            self.recorder.event(claim, EventType::Warning, "VolumeMismatch", message);
            return self.set_phase(claim, "Pending", None).await;
        }
        self.bind(claim, &volume).await
    }

    async fn bind_any(&self, claim: &PersistentVolumeClaim) -> Result<(), SyncError> {
        let Some(claim) = self.with_default_class(claim).await? else { return Ok(()) };
        let class_name = claim.spec.as_ref().and_then(|s| s.storage_class_name.clone()).unwrap_or_default();
        let class = self.classes.get(&ObjectKey::new("", class_name.clone()));
        let waits = class.as_ref().is_some_and(|c| c.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"));
        let volumes = self.volumes.list();
        // A volume that the scheduler chose is kept for the claim already.
        let kept = volumes.iter().any(|v| is_kept_for(v, &claim));
        let selected = annotation(&claim.metadata, SELECTED_NODE).is_some();
        if waits && !selected && !kept {
            self.tell_once(&claim, "WaitForFirstConsumer", "waiting for first consumer to be created before binding");
            return self.set_phase(&claim, "Pending", None).await;
        }
        if let Some(volume) = find(&volumes, &claim) {
            return self.bind(&claim, &volume).await;
        }
        match class {
            Some(class) if class.provisioner != "kubernetes.io/no-provisioner" => {
                self.ask_provisioner(&claim, &class.provisioner).await?;
            }
            Some(_) => {}
            None if class_name.is_empty() => {
                let message = "no persistent volumes available for this claim and no storage class is set";
                self.tell_once(&claim, "FailedBinding", message);
            }
            None => {
                let message = format!("storageclass.storage.k8s.io {class_name:?} not found");
                self.recorder.event(&claim, EventType::Warning, "ProvisioningFailed", message);
            }
        }
        self.set_phase(&claim, "Pending", None).await
    }

    /// Gives a claim that leaves its class open the default one; None when that was written and comes back.
    async fn with_default_class(
        &self,
        claim: &PersistentVolumeClaim,
    ) -> Result<Option<PersistentVolumeClaim>, SyncError> {
        if claim.spec.as_ref().is_some_and(|s| s.storage_class_name.is_some()) {
            return Ok(Some(claim.clone()));
        }
        let mut defaults = self.classes.list();
        defaults.retain(|c| annotation(&c.metadata, DEFAULT_CLASS).is_some_and(|v| v == "true"));
        defaults.sort_by_key(|c| (c.metadata.creation_timestamp.clone(), c.metadata.name.clone()));
        let Some(class) = defaults.pop() else { return Ok(Some(claim.clone())) };
        let mut changed = claim.clone();
        changed.spec.get_or_insert_default().storage_class_name = class.metadata.name.clone();
        replace(&self.claim_api(claim), changed).await?;
        Ok(None)
    }

    async fn ask_provisioner(&self, claim: &PersistentVolumeClaim, provisioner: &str) -> Result<(), SyncError> {
        let message = format!(
            "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the \
             system administrator. If volume creation is delayed, please verify that the provisioner is running and \
             correctly registered."
        );
        self.tell_once(claim, "ExternalProvisioning", &message);
        if annotation(&claim.metadata, PROVISIONER).is_some_and(|p| p == provisioner) {
            return Ok(());
        }
        let mut changed = claim.clone();
        let annotations = changed.metadata.annotations.get_or_insert_default();
        annotations.insert(PROVISIONER.into(), provisioner.to_owned());
        annotations.insert(PROVISIONER_BETA.into(), provisioner.to_owned());
        replace(&self.claim_api(claim), changed).await?;
        Ok(())
    }

    /// Events of a state are told when the claim comes to it, not with every look.
    fn tell_once(&self, claim: &PersistentVolumeClaim, reason: &str, message: &str) {
        self.recorder.event(claim, EventType::Normal, reason, message);
    }

    fn claim_api(&self, claim: &PersistentVolumeClaim) -> kube::Api<PersistentVolumeClaim> {
        namespaced(&self.client, claim.metadata.namespace.as_deref().unwrap_or_default())
    }

    /// Binds in four steps, each of which is done only if it is not done yet: volume, its phase, claim, its phase.
    async fn bind(&self, claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Result<(), SyncError> {
        let mut volume = volume.clone();
        if !is_bound_to(&volume, claim) {
            let ours = volume.spec.as_ref().is_some_and(|s| s.claim_ref.is_none());
            volume.spec.get_or_insert_default().claim_ref = Some(claim_ref(claim));
            if ours {
                volume.metadata.annotations.get_or_insert_default().insert(BOUND_BY_US.into(), "yes".into());
            }
            volume = replace(&cluster(&self.client), volume).await?;
        }
        self.set_volume_phase(&volume, "Bound", None).await?;
        let mut claim = claim.clone();
        if !is_bound(&claim) || volume_name(&claim) != volume.metadata.name.as_deref() {
            let ours = volume_name(&claim).is_none();
            claim.spec.get_or_insert_default().volume_name = volume.metadata.name.clone();
            let annotations = claim.metadata.annotations.get_or_insert_default();
            annotations.insert(BIND_COMPLETED.into(), "yes".into());
            if ours {
                annotations.insert(BOUND_BY_US.into(), "yes".into());
            }
            claim = replace(&self.claim_api(&claim), claim).await?;
        }
        let old = claim.status.clone().unwrap_or_default();
        let capacity = match old.phase.as_deref() {
            // Later growth is the resizer's to report.
            Some("Bound") if old.capacity.is_some() => old.capacity.clone(),
            _ => volume.spec.as_ref().and_then(|s| s.capacity.clone()),
        };
        let status = PersistentVolumeClaimStatus {
            phase: Some("Bound".into()),
            access_modes: volume.spec.as_ref().and_then(|s| s.access_modes.clone()),
            capacity,
            ..old.clone()
        };
        self.write_status(claim, old, status).await
    }

    async fn set_phase(
        &self,
        claim: &PersistentVolumeClaim,
        phase: &str,
        event: Option<(&str, &str)>,
    ) -> Result<(), SyncError> {
        let old = claim.status.clone().unwrap_or_default();
        if old.phase.as_deref() == Some(phase) {
            return Ok(());
        }
        if let Some((reason, message)) = event {
            self.recorder.event(claim, EventType::Warning, reason, message);
        }
        let status = PersistentVolumeClaimStatus { phase: Some(phase.to_owned()), ..old.clone() };
        self.write_status(claim.clone(), old, status).await
    }

    async fn write_status(
        &self,
        mut claim: PersistentVolumeClaim,
        old: PersistentVolumeClaimStatus,
        status: PersistentVolumeClaimStatus,
    ) -> Result<(), SyncError> {
        if old == status {
            return Ok(());
        }
        claim.status = Some(status);
        Ok(unless_gone(replace_status(&self.claim_api(&claim), claim).await)?)
    }
}

fn claim_ref(claim: &PersistentVolumeClaim) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("PersistentVolumeClaim".into()),
        namespace: claim.metadata.namespace.clone(),
        name: claim.metadata.name.clone(),
        uid: claim.metadata.uid.clone(),
        resource_version: claim.metadata.resource_version.clone(),
        ..ObjectReference::default()
    }
}
