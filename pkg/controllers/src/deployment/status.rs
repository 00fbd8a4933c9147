//! What a Deployment reports.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus};
use kube1_client::Outcome;

use super::condition::{self, AVAILABLE, FAILURE, PROGRESSING};
use super::replica_sets::{actual, available, desired, name, ready, sum, terminating, wanted};
use super::revision::has_deadline;
use super::rollout::Rollout;
use super::{Bounds, Result};
use crate::clock;
use crate::controller::{SyncResult, replace_status};

const COMPLETE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";

impl Rollout<'_> {
    /// Reports the numbers, without judging progress.
    pub async fn sync_status(&mut self) -> SyncResult {
        let status = self.counted();
        self.write_status(status).await?;
        Self::done()
    }

    /// Reports numbers and progress; comes back when the deadline for progress is due.
    pub async fn sync_rollout_status(&mut self) -> SyncResult {
        let mut status = self.counted();
        let Some(spec) = self.deployment.spec.clone() else { return Self::done() };
        if has_deadline(&spec) {
            self.judge(&mut status);
        } else {
            condition::remove(&mut status, PROGRESSING);
        }
        self.report_failure(&mut status);
        self.write_status(status.clone()).await?;
        Ok(until_deadline(&self.deployment, &status).map_or(Outcome::Done, Outcome::RequeueAfter))
    }

    /// Says in the Progressing condition that the rollout is paused, or no more.
    pub async fn mark_paused(&mut self) -> Result<()> {
        let Some(spec) = &self.deployment.spec else { return Ok(()) };
        let mut status = self.deployment.status.clone().unwrap_or_default();
        if !has_deadline(spec) || condition::has_reason(&status, PROGRESSING, TIMED_OUT) {
            return Ok(());
        }
        let marked = condition::has_reason(&status, PROGRESSING, "DeploymentPaused");
        match (spec.paused == Some(true), marked) {
            (true, false) => {
                condition::set(&mut status, PROGRESSING, "Unknown", "DeploymentPaused", "Deployment is paused");
            }
            (false, true) => {
                condition::set(&mut status, PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed");
            }
            _ => return Ok(()),
        }
        self.write_status(status).await
    }

    /// Whether everything asked for is there and available.
    pub fn is_complete(&self) -> bool {
        self.deployment.status.as_ref().is_some_and(|status| is_complete(&self.deployment, status))
    }

    /// Writes the status if it changed.
    pub async fn write_status(&mut self, status: DeploymentStatus) -> Result<()> {
        if self.deployment.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let changed = Deployment { status: Some(status), ..self.deployment.clone() };
        self.deployment = replace_status(&self.deployment_api(), changed).await?;
        Ok(())
    }

    fn counted(&self) -> DeploymentStatus {
        let (deployment, all) = (&self.deployment, self.all());
        let old = deployment.status.clone().unwrap_or_default();
        let ready_now = sum(&all, available);
        let number = |n: i32| (n != 0).then_some(n);
        let mut status = DeploymentStatus {
            observed_generation: deployment.metadata.generation,
            replicas: number(sum(&all, actual)),
            updated_replicas: number(self.new.as_ref().map_or(0, |rs| actual(rs))),
            ready_replicas: number(sum(&all, ready)),
            available_replicas: number(ready_now),
            unavailable_replicas: number((sum(&all, wanted) - ready_now).max(0)),
            terminating_replicas: Some(sum(&all, terminating)),
            collision_count: old.collision_count,
            conditions: old.conditions,
        };
        let unavailable = deployment.spec.as_ref().map_or(0, |s| Bounds::of(s).unavailable);
        if ready_now >= desired(deployment) - unavailable {
            let message = "Deployment has minimum availability.";
            condition::set(&mut status, AVAILABLE, "True", "MinimumReplicasAvailable", message);
        } else {
            let message = "Deployment does not have minimum availability.";
            condition::set(&mut status, AVAILABLE, "False", "MinimumReplicasUnavailable", message);
        }
        status
    }

    fn judge(&self, status: &mut DeploymentStatus) {
        let old = self.deployment.status.clone().unwrap_or_default();
        if status.replicas == status.updated_replicas && condition::has_reason(&old, PROGRESSING, COMPLETE) {
            return;
        }
        let who = match &self.new {
            Some(new) => format!("ReplicaSet \"{}\"", name(new)),
            None => format!("Deployment \"{}\"", self.deployment.metadata.name.as_deref().unwrap_or_default()),
        };
        if is_complete(&self.deployment, status) {
            condition::set(status, PROGRESSING, "True", COMPLETE, format!("{who} has successfully progressed."));
        } else if is_progressing(&old, status) {
            let message = format!("{who} is progressing.");
            condition::refresh(status, PROGRESSING, "True", "ReplicaSetUpdated", message);
        } else if is_timed_out(&self.deployment, status) {
            condition::set(status, PROGRESSING, "False", TIMED_OUT, format!("{who} has timed out progressing."));
        }
    }

    /// Takes over the failure of the new ReplicaSet, or of any old one.
    fn report_failure(&self, status: &mut DeploymentStatus) {
        let sets = self.new.iter().chain(&self.old);
        let failure =
            sets.filter_map(|rs| rs.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == FAILURE));
        match failure.clone().next() {
            Some(failure) => {
                let (reason, message) = (failure.reason.clone(), failure.message.clone());
                let value = failure.status.clone();
                condition::set(status, FAILURE, &value, &reason.unwrap_or_default(), message.unwrap_or_default());
            }
            None => condition::remove(status, FAILURE),
        }
    }
}

fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let desired = desired(deployment);
    status.updated_replicas.unwrap_or(0) == desired
        && status.replicas.unwrap_or(0) == desired
        && status.available_replicas.unwrap_or(0) == desired
        && status.observed_generation >= deployment.metadata.generation
}

fn is_progressing(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let n = |v: Option<i32>| v.unwrap_or(0);
    let stale = |s: &DeploymentStatus| n(s.replicas) - n(s.updated_replicas);
    n(new.updated_replicas) > n(old.updated_replicas)
        || stale(new) < stale(old)
        || n(new.ready_replicas) > n(old.ready_replicas)
        || n(new.available_replicas) > n(old.available_replicas)
}

fn is_timed_out(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let Some(progressing) = condition::get(status, PROGRESSING) else { return false };
    let deadline = deployment.spec.as_ref().and_then(|s| s.progress_deadline_seconds).unwrap_or(600);
    match progressing.reason.as_deref() {
        Some(COMPLETE) => false,
        Some(TIMED_OUT) => true,
        _ => progressing.last_update_time.as_ref().is_some_and(|t| clock::until(t, deadline.into()).is_none()),
    }
}

/// When to look whether the rollout made progress in time.
fn until_deadline(deployment: &Deployment, status: &DeploymentStatus) -> Option<Duration> {
    let spec = deployment.spec.as_ref().filter(|s| has_deadline(s))?;
    let progressing = condition::get(status, PROGRESSING)?;
    if matches!(progressing.reason.as_deref(), Some(COMPLETE | TIMED_OUT)) {
        return None;
    }
    let deadline = spec.progress_deadline_seconds.unwrap_or(600);
    let left = clock::until(progressing.last_update_time.as_ref()?, deadline.into());
    Some(left.unwrap_or_default() + Duration::from_secs(1))
}
