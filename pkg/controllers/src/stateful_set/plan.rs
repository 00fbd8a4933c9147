//! What to do next about a StatefulSet's pods.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};

use super::identity::ordinal;
use super::revision_of;
use crate::cached_pod::CachedPod;
use crate::deployment::replica_sets::resolve;
use crate::pod_control::BURST;
use crate::pods;

/// One step.
#[derive(Clone, Debug)]
pub enum Action {
    Create {
        ordinal: i32,
        /// With the new revision, not the one before it.
        updated: bool,
    },
    Delete(Arc<CachedPod>),
    /// Delete an ended pod, to be created anew.
    Restart(Arc<CachedPod>),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub replicas: i32,
    pub ready: i32,
    pub available: i32,
    pub current: i32,
    pub updated: i32,
}

/// The numbers of a set's pods, and the steps that may be taken now.
pub struct Plan {
    pub counts: Counts,
    pub actions: Vec<Action>,
    /// Pods beyond the set's size, highest ordinal first.
    pub condemned: Vec<Arc<CachedPod>>,
    pub wanted: i32,
    /// Whether pods are replaced by themselves when the template changes.
    pub rolls: bool,
}

struct Planner<'a> {
    spec: &'a StatefulSetSpec,
    pods: BTreeMap<i32, Arc<CachedPod>>,
    start: i32,
    end: i32,
    /// One after the other.
    ordered: bool,
    min_ready: i32,
    current: &'a str,
    update: &'a str,
    current_replicas: i32,
}

impl Plan {
    /// Plans for a set whose pods had the revision `current` before the last change and get `update` now.
    pub fn new(
        set: &StatefulSet,
        spec: &StatefulSetSpec,
        pods: &[Arc<CachedPod>],
        current: &str,
        update: &str,
    ) -> Self {
        let start = spec.ordinals.as_ref().and_then(|o| o.start).unwrap_or(0);
        let planner = Planner {
            spec,
            pods: pods.iter().filter_map(|p| Some((ordinal(set, p)?, Arc::clone(p)))).collect(),
            start,
            end: start.saturating_add(spec.replicas.unwrap_or(1)),
            ordered: spec.pod_management_policy.as_deref() != Some("Parallel"),
            min_ready: spec.min_ready_seconds.unwrap_or(0),
            current,
            update,
            current_replicas: set.status.as_ref().and_then(|s| s.current_replicas).unwrap_or(0),
        };
        let mut actions = Vec::new();
        let settled = planner.scale_up(&mut actions) && planner.scale_down(&mut actions);
        if settled && actions.is_empty() && planner.rolls() {
            planner.roll(&mut actions);
        }
        Self {
            counts: planner.counts(),
            actions,
            condemned: planner.condemned().cloned().collect(),
            wanted: planner.end - planner.start,
            rolls: planner.rolls(),
        }
    }
}

impl Planner<'_> {
    fn rolls(&self) -> bool {
        self.spec.update_strategy.as_ref().and_then(|s| s.type_.as_deref()) != Some("OnDelete")
    }

    fn condemned(&self) -> impl Iterator<Item = &Arc<CachedPod>> {
        self.pods.iter().rev().filter(|(n, _)| **n < self.start || **n >= self.end).map(|(_, pod)| pod)
    }

    fn is_healthy(&self, pod: &CachedPod) -> bool {
        pod.phase == "Running" && pods::is_ready(pod) && !pods::is_terminating(pod)
    }

    fn is_available(&self, pod: &CachedPod) -> bool {
        self.is_healthy(pod) && pods::is_available(pod, self.min_ready)
    }

    /// Fills the ordinals from the lowest, some at a time; false if a pod must be waited for.
    fn scale_up(&self, actions: &mut Vec<Action>) -> bool {
        for n in self.start..self.end {
            if actions.len() >= BURST {
                return false;
            }
            let waits = match self.pods.get(&n) {
                None => {
                    actions.push(Action::Create { ordinal: n, updated: !self.keeps_current(n) });
                    true
                }
                Some(pod) if pods::is_finished(pod) && !pods::is_terminating(pod) => {
                    actions.push(Action::Restart(Arc::clone(pod)));
                    true
                }
                Some(pod) => !self.is_available(pod),
            };
            if waits && self.ordered {
                return false;
            }
        }
        true
    }

    /// Whether a new pod of this ordinal still gets the revision before the last change.
    fn keeps_current(&self, n: i32) -> bool {
        if !self.rolls() {
            return false;
        }
        let rolling = self.spec.update_strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
        match rolling.and_then(|r| r.partition) {
            Some(partition) => n < self.start.saturating_add(partition),
            None => n < self.start.saturating_add(self.current_replicas),
        }
    }

    /// Removes pods beyond the size, from the highest; false if one must be waited for.
    fn scale_down(&self, actions: &mut Vec<Action>) -> bool {
        let all = || self.pods.values();
        let first_unhealthy = all().find(|p| !self.is_healthy(p)).map(|p| &p.uid);
        for pod in self.condemned() {
            if pods::is_terminating(pod) {
                if self.ordered {
                    return false;
                }
                continue;
            }
            // A broken pod does not keep others from being removed if it is the one to be removed first itself.
            if self.ordered && !self.is_available(pod) && Some(&pod.uid) != first_unhealthy {
                return false;
            }
            actions.push(Action::Delete(Arc::clone(pod)));
            if self.ordered {
                return false;
            }
        }
        true
    }

    /// Replaces pods of older revisions from the highest ordinal down to the partition.
    fn roll(&self, actions: &mut Vec<Action>) {
        let rolling = self.spec.update_strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
        let partition = rolling.and_then(|r| r.partition).unwrap_or(0);
        let size = self.end - self.start;
        let max = rolling.and_then(|r| r.max_unavailable.as_ref()).map_or(1, |v| resolve(v, size, true).max(1));
        let mut unavailable = 0;
        for n in (self.start.saturating_add(partition)..self.end).rev() {
            let Some(pod) = self.pods.get(&n) else { continue };
            if unavailable >= max {
                return;
            }
            if revision_of(pod) != self.update && !pods::is_terminating(pod) {
                actions.push(Action::Delete(Arc::clone(pod)));
                unavailable += 1;
            } else if !self.is_available(pod) {
                unavailable += 1;
            }
        }
    }

    fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for (n, pod) in &self.pods {
            counts.replicas += 1;
            if pod.phase == "Running" && pods::is_ready(pod) {
                counts.ready += 1;
                counts.available += i32::from(self.is_available(pod));
            }
            let condemned = *n < self.start || *n >= self.end;
            if !pods::is_terminating(pod) && !condemned {
                counts.current += i32::from(revision_of(pod) == self.current);
                counts.updated += i32::from(revision_of(pod) == self.update);
            }
        }
        counts
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cached_pod::tests::cached;

    fn set(extra: Value) -> StatefulSet {
        let mut spec = json!({"replicas": 3, "selector": {}, "template": {}, "updateStrategy": {"type": "RollingUpdate",
            "rollingUpdate": {"partition": 0}}});
        spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        serde_json::from_value(json!({"metadata": {"name": "db"}, "spec": spec})).unwrap()
    }

    fn pod(n: i32, revision: &str, ready: bool) -> Arc<CachedPod> {
        let status = if ready { "True" } else { "False" };
        cached(json!({"metadata": {"name": format!("db-{n}"), "uid": n.to_string(),
            "labels": {"controller-revision-hash": revision}},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": status}]}}))
    }

    fn steps(set: &StatefulSet, pods: &[Arc<CachedPod>]) -> Vec<String> {
        let plan = Plan::new(set, set.spec.as_ref().unwrap(), pods, "old", "new");
        let text = |a: &Action| match a {
            Action::Create { ordinal, updated } => format!("+{ordinal}{}", if *updated { "" } else { "old" }),
            Action::Delete(p) | Action::Restart(p) => format!("-{}", p.name),
        };
        plan.actions.iter().map(text).collect()
    }

    #[test]
    fn pods_come_in_order_and_go_in_reverse() {
        let ordered = set(json!({}));
        assert_eq!(steps(&ordered, &[]), ["+0"]);
        assert!(steps(&ordered, &[pod(0, "new", false)]).is_empty(), "waits for the first");
        assert_eq!(steps(&ordered, &[pod(0, "new", true)]), ["+1"]);
        assert_eq!(steps(&set(json!({"podManagementPolicy": "Parallel"})), &[]), ["+0", "+1", "+2"]);
        let huge = json!({"podManagementPolicy": "Parallel", "replicas": i32::MAX, "ordinals": {"start": 5}});
        assert_eq!(steps(&set(huge), &[]).len(), BURST);
        let full: Vec<_> = (0..5).map(|n| pod(n, "new", true)).collect();
        assert_eq!(steps(&ordered, &full), ["-db-4"]);
        assert_eq!(steps(&set(json!({"ordinals": {"start": 1}})), &full[1..]), ["-db-4"]);
    }

    #[test]
    fn updates_roll_from_the_top_to_the_partition() {
        let all = |revisions: [&str; 3], ready: [bool; 3]| -> Vec<Arc<CachedPod>> {
            (0..3).map(|n| pod(n as i32, revisions[n], ready[n])).collect()
        };
        let rolling = set(json!({}));
        assert_eq!(steps(&rolling, &all(["old"; 3], [true; 3])), ["-db-2"]);
        assert!(steps(&rolling, &all(["old", "old", "new"], [true, true, false])).is_empty());
        assert_eq!(steps(&rolling, &all(["old", "old", "new"], [true; 3])), ["-db-1"]);
        let staged = set(json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}}));
        assert!(steps(&staged, &all(["old", "old", "new"], [true; 3])).is_empty());
        assert_eq!(steps(&staged, &all(["old", "old", "new"], [true; 3])[1..]), ["+0old"]);
        let manual = set(json!({"updateStrategy": {"type": "OnDelete"}}));
        assert!(steps(&manual, &all(["old"; 3], [true; 3])).is_empty());
    }
}
