//! Scaling a Deployment that is paused or in the middle of a rollout: in proportion, without advancing the rollout.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ReplicaSet;

use super::replica_sets::{available, desired, sum, wanted};
use super::revision::{MAX, revision};
use super::rollout::Rollout;
use super::{Bounds, Result};
use crate::controller::SyncResult;

impl Rollout<'_> {
    /// Scales only, and reports.
    pub async fn sync_scale(&mut self) -> SyncResult {
        self.ensure_new(false).await?;
        self.scale().await?;
        if self.deployment.spec.as_ref().is_some_and(|s| s.paused == Some(true)) {
            self.clean_history().await?;
        }
        self.sync_status().await
    }

    async fn scale(&mut self) -> Result<()> {
        let desired = desired(&self.deployment);
        if let Some(only) = self.active_or_latest() {
            self.scale_to(&only, desired).await?;
            return self.resize_annotation(&only).await;
        }
        if self.is_saturated() {
            for rs in self.old.clone().iter().filter(|rs| wanted(rs) > 0) {
                self.scale_to(rs, 0).await?;
            }
            return Ok(());
        }
        let Some(spec) = &self.deployment.spec else { return Ok(()) };
        if super::is_recreate(spec) {
            return Ok(());
        }
        let allowed = if desired > 0 { desired + Bounds::of(spec).surge } else { 0 };
        for (rs, replicas) in proportional(self.all(), allowed) {
            if !self.scale_to(&rs, replicas).await? {
                self.resize(&rs, replicas).await?;
            }
        }
        Ok(())
    }

    async fn resize_annotation(&mut self, rs: &Arc<ReplicaSet>) -> Result<()> {
        let current = self.all().into_iter().find(|r| r.metadata.uid == rs.metadata.uid);
        match current {
            Some(rs) => self.resize(&rs, wanted(&rs)).await,
            None => Ok(()),
        }
    }

    /// The only ReplicaSet with replicas or, if none has any, the newest.
    fn active_or_latest(&self) -> Option<Arc<ReplicaSet>> {
        let all = self.all();
        let mut active = all.iter().filter(|rs| wanted(rs) > 0);
        match (active.next(), active.next()) {
            (Some(only), None) => Some(Arc::clone(only)),
            (None, _) => self.new.clone().or_else(|| all.iter().max_by_key(|rs| revision(rs)).cloned()),
            _ => None,
        }
    }

    /// Whether the new ReplicaSet alone carries the Deployment.
    fn is_saturated(&self) -> bool {
        let desired = desired(&self.deployment);
        self.new.as_ref().is_some_and(|new| wanted(new) == desired && available(new) == desired)
    }
}

/// Distributes a total over the active ReplicaSets in proportion to their sizes.
fn proportional(all: Vec<Arc<ReplicaSet>>, allowed: i32) -> Vec<(Arc<ReplicaSet>, i32)> {
    let mut active: Vec<_> = all.into_iter().filter(|rs| wanted(rs) > 0).collect();
    let to_add = allowed - sum(&active, wanted);
    // The largest first; of equal ones the newest grows and the oldest shrinks first.
    active.sort_by_cached_key(|rs| {
        let age = revision(rs);
        (std::cmp::Reverse(wanted(rs)), if to_add > 0 { -age } else { age })
    });
    let mut sizes: Vec<i32> = active.iter().map(|rs| wanted(rs)).collect();
    let mut added = 0;
    for (rs, size) in active.iter().zip(&mut sizes).filter(|_| to_add != 0) {
        let share = share(rs, allowed);
        let left = to_add - added;
        let change = if to_add > 0 { share.clamp(0, left) } else { share.clamp(left, 0) };
        *size += change;
        added += change;
    }
    // What rounding left over goes to the first.
    if let Some(first) = sizes.first_mut() {
        *first = (*first + to_add - added).max(0);
    }
    active.into_iter().zip(sizes).collect()
}

/// By how much a ReplicaSet changes when the whole goes from its annotated maximum to `allowed`.
#[allow(clippy::cast_possible_truncation)]
fn share(rs: &ReplicaSet, allowed: i32) -> i32 {
    if allowed == 0 {
        return -wanted(rs);
    }
    let annotated = rs.metadata.annotations.as_ref().and_then(|a| a.get(MAX)?.parse::<i32>().ok());
    let whole = annotated.filter(|max| *max > 0).unwrap_or(allowed);
    let scaled = f64::from(wanted(rs)) * f64::from(allowed) / f64::from(whole);
    scaled.round() as i32 - wanted(rs)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rs(name: &str, replicas: i32, max: i32, revision: i32) -> Arc<ReplicaSet> {
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": name, "annotations": {MAX: max.to_string(),
                "deployment.kubernetes.io/revision": revision.to_string()}},
                "spec": {"replicas": replicas, "selector": {}}}))
            .unwrap(),
        )
    }

    #[test]
    fn a_paused_rollout_scales_in_proportion() {
        let sizes = |all, allowed| -> Vec<(String, i32)> {
            let result = proportional(all, allowed);
            result.into_iter().map(|(rs, n)| (rs.metadata.name.clone().unwrap(), n)).collect()
        };
        // 10 pods with a surge of 3, scaled to 15: 18 in all.
        let grown = sizes(vec![rs("old", 8, 13, 1), rs("new", 5, 13, 2)], 18);
        assert_eq!(grown, [("old".to_owned(), 11), ("new".to_owned(), 7)]);
        let shrunk = sizes(vec![rs("old", 8, 13, 1), rs("new", 5, 13, 2)], 6);
        assert_eq!(shrunk.iter().map(|(_, n)| n).sum::<i32>(), 6);
        assert_eq!(sizes(vec![rs("old", 8, 13, 1), rs("new", 5, 13, 2)], 0).iter().map(|(_, n)| n).sum::<i32>(), 0);
    }
}
