//! One step of a rollout.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use kube::Api;
use kube1_client::{EventType, Outcome};

use super::replica_sets::{actual, available, desired, name, new_replicas, sort_by_age, sum, wanted};
use super::revision::{annotate_size, find_new, size_differs};
use super::{Bounds, Deployer, Result};
use crate::controller::{SyncResult, namespaced, replace};
use crate::owner::{BY_CONTROLLER, uid};
use crate::pods;

/// A Deployment with its ReplicaSets.
pub struct Rollout<'a> {
    pub deployer: &'a Deployer,
    pub deployment: Deployment,
    /// The one with the Deployment's template.
    pub new: Option<Arc<ReplicaSet>>,
    /// All others, oldest first.
    pub old: Vec<Arc<ReplicaSet>>,
}

impl<'a> Rollout<'a> {
    pub fn new(deployer: &'a Deployer, deployment: Deployment, sets: Vec<Arc<ReplicaSet>>) -> Self {
        let new = find_new(&deployment, &sets);
        let is_new = |rs: &Arc<ReplicaSet>| new.as_ref().is_some_and(|n| n.metadata.uid == rs.metadata.uid);
        let mut old: Vec<_> = sets.into_iter().filter(|rs| !is_new(rs)).collect();
        sort_by_age(&mut old);
        Self { deployer, deployment, new, old }
    }

    pub fn all(&self) -> Vec<Arc<ReplicaSet>> {
        self.old.iter().chain(&self.new).cloned().collect()
    }

    pub fn namespace(&self) -> &str {
        self.deployment.metadata.namespace.as_deref().unwrap_or_default()
    }

    pub fn replica_set_api(&self) -> Api<ReplicaSet> {
        namespaced(&self.deployer.controller.client, self.namespace())
    }

    pub fn deployment_api(&self) -> Api<Deployment> {
        namespaced(&self.deployer.controller.client, self.namespace())
    }

    pub fn event(&self, kind: EventType, reason: &str, message: String) {
        self.deployer.controller.recorder.event(&self.deployment, kind, reason, message);
    }

    /// Whether the Deployment was scaled since its last sync.
    pub fn is_scaling_event(&self) -> bool {
        self.all().iter().any(|rs| wanted(rs) > 0 && size_differs(&self.deployment, rs))
    }

    /// A step of a rolling update: the new ReplicaSet up, else the old ones down.
    pub async fn roll(&mut self) -> SyncResult {
        self.ensure_new(true).await?;
        if !self.grow_new().await? && !self.shrink_old().await? && self.is_complete() {
            self.clean_history().await?;
        }
        self.sync_rollout_status().await
    }

    /// A step of a recreation: all old pods go before the first new one comes.
    pub async fn recreate(&mut self) -> SyncResult {
        self.ensure_new(false).await?;
        let active: Vec<_> = self.old.iter().filter(|rs| wanted(rs) > 0).cloned().collect();
        for rs in &active {
            self.scale_to(rs, 0).await?;
        }
        if !active.is_empty() || self.old_pods_run() {
            return self.sync_rollout_status().await;
        }
        self.ensure_new(true).await?;
        if let Some(new) = self.new.clone() {
            self.scale_to(&new, desired(&self.deployment)).await?;
        }
        if self.is_complete() {
            self.clean_history().await?;
        }
        self.sync_rollout_status().await
    }

    fn old_pods_run(&self) -> bool {
        if self.old.iter().any(|rs| actual(rs) > 0) {
            return true;
        }
        let pods_of = |rs: &Arc<ReplicaSet>| self.deployer.pods.by_index(BY_CONTROLLER, uid(&rs.metadata));
        self.old.iter().flat_map(pods_of).any(|pod| !pods::is_finished(&pod))
    }

    async fn grow_new(&mut self) -> Result<bool> {
        let Some(new) = self.new.clone() else { return Ok(false) };
        let (current, desired) = (wanted(&new), desired(&self.deployment));
        let target = if current > desired { desired } else { new_replicas(&self.deployment, &self.all(), current) };
        self.scale_to(&new, target).await
    }

    async fn shrink_old(&mut self) -> Result<bool> {
        let (Some(spec), Some(new)) = (self.deployment.spec.clone(), self.new.clone()) else { return Ok(false) };
        if sum(&self.old, wanted) == 0 {
            return Ok(false);
        }
        let min_available = desired(&self.deployment) - Bounds::of(&spec).unavailable;
        let new_unavailable = wanted(&new) - available(&new);
        let allowed = sum(&self.all(), wanted) - min_available - new_unavailable;
        if allowed <= 0 {
            return Ok(false);
        }
        let unhealthy = self.drop_unhealthy(allowed).await?;
        let mut left = sum(&self.all(), available) - min_available;
        let mut scaled = 0;
        for rs in self.old.clone().iter().filter(|rs| wanted(rs) > 0) {
            if left <= 0 {
                break;
            }
            let by = wanted(rs).min(left);
            self.scale_to(rs, wanted(rs) - by).await?;
            (left, scaled) = (left - by, scaled + by);
        }
        Ok(unhealthy + scaled > 0)
    }

    /// Takes pods that are not available from the old ReplicaSets first: that costs nothing.
    async fn drop_unhealthy(&mut self, allowed: i32) -> Result<i32> {
        let mut total = 0;
        for rs in self.old.clone() {
            let by = (wanted(&rs) - available(&rs)).min(allowed - total);
            if wanted(&rs) > 0 && by > 0 {
                self.scale_to(&rs, wanted(&rs) - by).await?;
                total += by;
            }
        }
        Ok(total)
    }

    /// Scales a ReplicaSet and takes its new state; false if it has the size already.
    pub async fn scale_to(&mut self, rs: &Arc<ReplicaSet>, replicas: i32) -> Result<bool> {
        let before = wanted(rs);
        if before == replicas {
            return Ok(false);
        }
        let (up, name) = (if before < replicas { "up" } else { "down" }, name(rs).to_owned());
        self.resize(rs, replicas).await?;
        let message = format!("Scaled {up} replica set {name} from {before} to {replicas}");
        self.event(EventType::Normal, "ScalingReplicaSet", message);
        Ok(true)
    }

    /// Writes size and size annotations where they differ.
    pub async fn resize(&mut self, rs: &Arc<ReplicaSet>, replicas: i32) -> Result<()> {
        let Some(spec) = &self.deployment.spec else { return Ok(()) };
        let mut changed = ReplicaSet::clone(rs);
        let annotated = annotate_size(changed.metadata.annotations.get_or_insert_default(), spec);
        if !annotated && wanted(rs) == replicas {
            return Ok(());
        }
        changed.spec.get_or_insert_default().replicas = Some(replicas);
        let updated = Arc::new(replace(&self.replica_set_api(), changed).await?);
        let known = self.old.iter_mut().chain(&mut self.new);
        if let Some(slot) = known.into_iter().find(|slot| slot.metadata.uid == updated.metadata.uid) {
            *slot = updated;
        }
        Ok(())
    }

    pub fn done() -> SyncResult {
        Ok(Outcome::Done)
    }
}
