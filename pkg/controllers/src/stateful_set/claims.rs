//! The volume claims of a StatefulSet's pods.

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::PostParams;
use kube1_client::{EventType, ObjectKey};

use super::Keeper;
use super::identity::{claim_name, ordinal, set_name};
use super::plan::Plan;
use crate::cached_pod::CachedPod;
use crate::controller::{SyncError, namespaced, replace, unless_exists};
use crate::owner::reference;
use crate::pod_control::reason;

impl Keeper {
    /// Makes the claims of a pod that are missing.
    pub(super) async fn ensure_claims(
        &self,
        set: &StatefulSet,
        spec: &StatefulSetSpec,
        ordinal: i32,
    ) -> Result<(), SyncError> {
        let namespace = set.metadata.namespace.clone().unwrap_or_default();
        for template in spec.volume_claim_templates.iter().flatten() {
            let name = claim_name(template, set, ordinal);
            if self.claims.get(&ObjectKey::new(namespace.clone(), name.clone())).is_some() {
                continue;
            }
            let mut claim = template.clone();
            claim.status = None;
            claim.metadata.name = Some(name.clone());
            claim.metadata.namespace = Some(namespace.clone());
            let labels = claim.metadata.labels.get_or_insert_default();
            labels.extend(spec.selector.match_labels.clone().unwrap_or_default());
            if policy(spec).0 {
                claim.metadata.owner_references = Some(vec![plain_reference(set)]);
            }
            let api = namespaced::<PersistentVolumeClaim>(&self.control.client, &namespace);
            let created = unless_exists(api.create(&PostParams::default(), &claim).await);
            let (pod, set_name) = (format!("{}-{ordinal}", set_name(set)), set_name(set));
            match &created {
                Ok(()) => {
                    let message = format!("create Claim {name} Pod {pod} in StatefulSet {set_name} success");
                    self.control.recorder.event(set, EventType::Normal, "SuccessfulCreate", message);
                }
                Err(error) => {
                    let why = reason(error);
                    let message =
                        format!("create Claim {name} for Pod {pod} in StatefulSet {set_name} failed error: {why}");
                    self.control.recorder.event(set, EventType::Warning, "FailedCreate", message);
                }
            }
            created?;
        }
        Ok(())
    }

    /// Gives claims to whom they should go with: the set, a pod that is scaled away, or nobody.
    pub(super) async fn own_claims(
        &self,
        set: &StatefulSet,
        spec: &StatefulSetSpec,
        plan: &Plan,
    ) -> Result<(), SyncError> {
        let (with_set, with_pod) = policy(spec);
        if spec.volume_claim_templates.as_ref().is_none_or(Vec::is_empty) {
            return Ok(());
        }
        for pod in &plan.condemned {
            let owner = with_pod.then(|| reference_to_pod(pod));
            self.own_claims_of(set, spec, pod, owner.or_else(|| with_set.then(|| plain_reference(set)))).await?;
        }
        let condemned = |pod: &CachedPod| plan.condemned.iter().any(|c| c.uid == pod.uid);
        let own = self.pods.by_index(crate::owner::BY_CONTROLLER, crate::owner::uid(&set.metadata));
        for pod in own.iter().filter(|p| !condemned(p)) {
            self.own_claims_of(set, spec, pod, with_set.then(|| plain_reference(set))).await?;
        }
        Ok(())
    }

    async fn own_claims_of(
        &self,
        set: &StatefulSet,
        spec: &StatefulSetSpec,
        pod: &CachedPod,
        owner: Option<OwnerReference>,
    ) -> Result<(), SyncError> {
        let Some(ordinal) = ordinal(set, pod) else { return Ok(()) };
        let namespace = set.metadata.namespace.clone().unwrap_or_default();
        for template in spec.volume_claim_templates.iter().flatten() {
            let key = ObjectKey::new(namespace.clone(), claim_name(template, set, ordinal));
            let Some(claim) = self.claims.get(&key).filter(|c| c.metadata.deletion_timestamp.is_none()) else {
                continue;
            };
            let mut owners = claim.metadata.owner_references.clone().unwrap_or_default();
            owners.retain(|o| !is_ours(o, set));
            owners.extend(owner.clone());
            if owners != claim.metadata.owner_references.clone().unwrap_or_default() {
                let mut changed = PersistentVolumeClaim::clone(&claim);
                changed.metadata.owner_references = Some(owners);
                replace(&namespaced(&self.control.client, &namespace), changed).await?;
            }
        }
        Ok(())
    }
}

/// Whether claims are deleted with the set, and with pods that are scaled away.
fn policy(spec: &StatefulSetSpec) -> (bool, bool) {
    let policy = spec.persistent_volume_claim_retention_policy.as_ref();
    let deletes = |when: Option<&String>| when.is_some_and(|w| w == "Delete");
    (deletes(policy.and_then(|p| p.when_deleted.as_ref())), deletes(policy.and_then(|p| p.when_scaled.as_ref())))
}

/// A reference that lets the object go with its owner and nothing more.
fn plain_reference(owner: &StatefulSet) -> OwnerReference {
    OwnerReference { controller: None, block_owner_deletion: None, ..reference(owner) }
}

fn reference_to_pod(pod: &CachedPod) -> OwnerReference {
    OwnerReference {
        api_version: "v1".into(),
        kind: "Pod".into(),
        name: pod.name.to_string(),
        uid: pod.uid.to_string(),
        ..OwnerReference::default()
    }
}

fn is_ours(owner: &OwnerReference, set: &StatefulSet) -> bool {
    owner.uid == crate::owner::uid(&set.metadata)
        || (owner.kind == "Pod" && owner.name.strip_prefix(set_name(set)).is_some_and(|rest| rest.starts_with('-')))
}
