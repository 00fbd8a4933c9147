//! Revisions: the new ReplicaSet, its number in the history, and how long the history is.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube1_client::EventType;

use super::condition::{self, PROGRESSING};
use super::replica_sets::{actual, desired, name, new_replicas, sort_by_age, wanted};
use super::rollout::Rollout;
use super::{Bounds, Result};
use crate::controller::{SyncError, is_already_exists, is_namespace_terminating, replace, replace_status, unless_gone};
use crate::owner::{controller_of, reference, uid};
use crate::pod_control::reason;
use crate::template::{HASH_LABEL, equal_but_hash, hash};

pub const REVISION: &str = "deployment.kubernetes.io/revision";
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub const MAX: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations of a Deployment that its ReplicaSets do not take over.
const OWN: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];
const HISTORY_MAX: usize = 2000;

type Annotations = BTreeMap<String, String>;

pub fn revision(rs: &ReplicaSet) -> i64 {
    rs.metadata.annotations.as_ref().and_then(|a| a.get(REVISION)?.parse().ok()).unwrap_or(0)
}

/// The ReplicaSet with the Deployment's template; the oldest if there are several.
pub fn find_new(deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> Option<Arc<ReplicaSet>> {
    let template = &deployment.spec.as_ref()?.template;
    let mut sets = sets.to_vec();
    sort_by_age(&mut sets);
    let same = |rs: &Arc<ReplicaSet>| {
        rs.spec.as_ref().and_then(|s| s.template.as_ref()).is_some_and(|t| equal_but_hash(t, template))
    };
    sets.into_iter().find(same)
}

/// Sets the annotations that tell the size of the Deployment, for proportional scaling. True if one changed.
pub fn annotate_size(annotations: &mut Annotations, spec: &DeploymentSpec) -> bool {
    let desired = spec.replicas.unwrap_or(1);
    let mut set = |key: &str, value: i32| {
        let value = value.to_string();
        annotations.insert(key.to_owned(), value.clone()) != Some(value)
    };
    let changed = set(DESIRED, desired);
    set(MAX, desired + Bounds::of(spec).surge) || changed
}

/// Brings the annotations of the new ReplicaSet up to date. True if one changed.
fn annotate_new(annotations: &mut Annotations, deployment: &Deployment, number: i64, exists: bool) -> bool {
    let mut changed = false;
    for (key, value) in deployment.metadata.annotations.iter().flatten().filter(|(k, _)| !OWN.contains(&k.as_str())) {
        changed |= annotations.insert(key.clone(), value.clone()).as_ref() != Some(value);
    }
    let old = annotations.get(REVISION).and_then(|r| r.parse::<i64>().ok());
    if old.unwrap_or(0) < number {
        annotations.insert(REVISION.into(), number.to_string());
        if let Some(old) = old.filter(|_| exists) {
            let mut history: Vec<String> =
                annotations.get(HISTORY).into_iter().flat_map(|h| h.split(',')).map(str::to_owned).collect();
            history.push(old.to_string());
            while history.len() > 1 && history.iter().map(|r| r.len() + 1).sum::<usize>() > HISTORY_MAX {
                history.remove(0);
            }
            annotations.insert(HISTORY.into(), history.join(","));
        }
        changed = true;
    }
    let sized = deployment.spec.as_ref().is_some_and(|spec| annotate_size(annotations, spec));
    changed || (!exists && sized)
}

impl Rollout<'_> {
    /// Finds the new ReplicaSet or, if `create`, makes it; gives it its revision.
    pub async fn ensure_new(&mut self, create: bool) -> Result<()> {
        let number = self.old.iter().map(|rs| revision(rs)).max().unwrap_or(0) + 1;
        match self.new.clone() {
            Some(new) => self.update_new(new, number).await,
            None if create => self.create_new(number).await,
            None => Ok(()),
        }
    }

    async fn update_new(&mut self, new: Arc<ReplicaSet>, number: i64) -> Result<()> {
        let Some(spec) = self.deployment.spec.clone() else { return Ok(()) };
        let mut changed = ReplicaSet::clone(&new);
        let annotated =
            annotate_new(changed.metadata.annotations.get_or_insert_default(), &self.deployment, number, true);
        let min_ready = spec.min_ready_seconds.unwrap_or(0);
        let own = changed.spec.get_or_insert_default();
        let delayed = own.min_ready_seconds.unwrap_or(0) != min_ready;
        own.min_ready_seconds = spec.min_ready_seconds;
        if annotated || delayed {
            let updated = replace(&self.replica_set_api(), changed).await?;
            self.new = Some(Arc::new(updated));
        }
        let number = self.new.as_ref().map_or(0, |rs| revision(rs));
        self.set_revision(number).await?;
        let status = self.deployment.status.clone().unwrap_or_default();
        if has_deadline(&spec) && condition::get(&status, PROGRESSING).is_none() {
            let message = format!("Found new replica set \"{}\"", name(&new));
            let mut status = status;
            condition::set(&mut status, PROGRESSING, "True", "FoundNewReplicaSet", message);
            self.write_status(status).await?;
        }
        Ok(())
    }

    async fn create_new(&mut self, number: i64) -> Result<()> {
        let made = self.build(number)?;
        let replicas = wanted(&made);
        let api = self.replica_set_api();
        let mut status = self.deployment.status.clone().unwrap_or_default();
        let deadline = self.deployment.spec.as_ref().is_some_and(has_deadline);
        let (new, existed) = match api.create(&PostParams::default(), &made).await {
            Ok(created) => (created, false),
            Err(error) if is_already_exists(&error) => (self.existing(&made).await?, true),
            Err(error) if is_namespace_terminating(&error) => return Ok(()),
            Err(error) => {
                let message = format!("Failed to create new replica set \"{}\": {}", name(&made), reason(&error));
                self.event(EventType::Warning, "ReplicaSetCreateError", message.clone());
                if deadline {
                    condition::set(&mut status, PROGRESSING, "False", "ReplicaSetCreateError", message);
                    self.write_status(status).await?;
                }
                return Err(error.into());
            }
        };
        if !existed && replicas > 0 {
            let message = format!("Scaled up replica set {} from 0 to {replicas}", name(&new));
            self.event(EventType::Normal, "ScalingReplicaSet", message);
        }
        self.set_revision(revision(&new)).await?;
        if !existed && deadline {
            let message = format!("Created new replica set \"{}\"", name(&new));
            condition::set(&mut status, PROGRESSING, "True", "NewReplicaSetCreated", message);
            self.write_status(status).await?;
        }
        self.new = Some(Arc::new(new));
        Ok(())
    }

    fn build(&self, number: i64) -> Result<ReplicaSet> {
        let deployment = &self.deployment;
        let spec = deployment.spec.as_ref().ok_or_else(|| SyncError::Invalid("the Deployment has no spec".into()))?;
        let collisions = deployment.status.as_ref().and_then(|s| s.collision_count);
        let hash = hash(&spec.template, collisions);
        let mut template = spec.template.clone();
        let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
        labels.insert(HASH_LABEL.into(), hash.clone());
        let labels = labels.clone();
        let mut selector = spec.selector.clone();
        selector.match_labels.get_or_insert_default().insert(HASH_LABEL.into(), hash.clone());
        let mut annotations = Annotations::new();
        annotate_new(&mut annotations, deployment, number, false);
        Ok(ReplicaSet {
            metadata: ObjectMeta {
                name: Some(format!("{}-{hash}", deployment.metadata.name.as_deref().unwrap_or_default())),
                namespace: deployment.metadata.namespace.clone(),
                labels: Some(labels),
                annotations: Some(annotations),
                owner_references: Some(vec![reference(deployment)]),
                ..ObjectMeta::default()
            },
            spec: Some(ReplicaSetSpec {
                replicas: Some(new_replicas(deployment, &self.old, 0)),
                min_ready_seconds: spec.min_ready_seconds,
                selector,
                template: Some(template),
            }),
            status: None,
        })
    }

    /// The ReplicaSet that has the name already: ours if the cache was late, else the hash collides.
    async fn existing(&mut self, made: &ReplicaSet) -> Result<ReplicaSet> {
        let existing = self.replica_set_api().get(name(made)).await?;
        let ours = controller_of(&existing.metadata).is_some_and(|o| o.uid == uid(&self.deployment.metadata));
        let template = |rs: &ReplicaSet| rs.spec.as_ref().and_then(|s| s.template.clone()).unwrap_or_default();
        if ours && equal_but_hash(&template(&existing), &template(made)) {
            return Ok(existing);
        }
        let mut status = self.deployment.status.clone().unwrap_or_default();
        status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
        self.write_status(status).await?;
        Err(SyncError::Invalid(format!("the name {} is taken by another template; another hash follows", name(made))))
    }

    /// Deletes the oldest ReplicaSets beyond the history's limit.
    pub async fn clean_history(&self) -> Result<()> {
        let limit = self.deployment.spec.as_ref().and_then(|s| s.revision_history_limit).unwrap_or(10);
        let mut old: Vec<_> = self.old.iter().filter(|rs| rs.metadata.deletion_timestamp.is_none()).collect();
        let surplus = old.len().saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
        old.sort_by_key(|rs| revision(rs));
        for rs in old.into_iter().take(surplus) {
            let observed = rs.status.as_ref().and_then(|s| s.observed_generation);
            if wanted(rs) != 0 || actual(rs) != 0 || rs.metadata.generation > observed {
                continue;
            }
            let same = Preconditions { uid: rs.metadata.uid.clone(), resource_version: None };
            let params = DeleteParams::background().preconditions(same);
            unless_gone(self.replica_set_api().delete(name(rs), &params).await)?;
        }
        Ok(())
    }

    async fn set_revision(&mut self, number: i64) -> Result<()> {
        let number = number.to_string();
        let current = self.deployment.metadata.annotations.as_ref().and_then(|a| a.get(REVISION));
        if current == Some(&number) {
            return Ok(());
        }
        let mut changed = self.deployment.clone();
        changed.metadata.annotations.get_or_insert_default().insert(REVISION.into(), number);
        // Through the status, which does not count as a change of the Deployment.
        self.deployment = replace_status(&self.deployment_api(), changed).await?;
        Ok(())
    }
}

/// Whether the Deployment reports when it makes no progress.
pub fn has_deadline(spec: &DeploymentSpec) -> bool {
    spec.progress_deadline_seconds.is_some_and(|seconds| seconds != i32::MAX)
}

/// Whether the Deployment's size changed since its ReplicaSets were last told of it.
pub fn size_differs(deployment: &Deployment, rs: &ReplicaSet) -> bool {
    let told = rs.metadata.annotations.as_ref().and_then(|a| a.get(DESIRED)?.parse::<i32>().ok());
    told.is_some_and(|told| told != desired(deployment))
}
