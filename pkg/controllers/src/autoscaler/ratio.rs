//! How many pods the ratio between a metric and its target calls for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerBehavior};
use kube1_api::quantity::Quantity;

use crate::cached_pod::CachedPod;
use crate::clock;
use crate::pods;

/// A pod's CPU says nothing yet while it starts.
const CPU_START: Duration = Duration::from_secs(300);
const READY_DELAY: Duration = Duration::from_secs(30);

/// Differences smaller than this change nothing (KEP-4951).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    up: f64,
    down: f64,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self { up: 0.1, down: 0.1 }
    }
}

impl Tolerance {
    /// What the autoscaler says itself, or a tenth.
    pub fn of(behavior: Option<&HorizontalPodAutoscalerBehavior>) -> Self {
        let own = |rules: Option<&HPAScalingRules>, default: f64| {
            let own = rules.and_then(|r| r.tolerance.as_ref()).and_then(|q| Quantity::parse(&q.0).ok());
            own.map_or(default, Quantity::approximately)
        };
        let default = Self::default();
        Self {
            up: own(behavior.and_then(|b| b.scale_up.as_ref()), default.up),
            down: own(behavior.and_then(|b| b.scale_down.as_ref()), default.down),
        }
    }

    fn covers(self, ratio: f64) -> bool {
        (1.0 - self.down..=1.0 + self.up).contains(&ratio)
    }
}

/// The size of what is scaled.
#[derive(Clone, Copy)]
pub struct Size {
    /// Replicas that are wanted at the moment.
    pub wanted: i32,
    /// Replicas that there are.
    pub present: i32,
    pub tolerance: Tolerance,
}

/// The pods of a target by what is known of them.
pub struct Groups {
    /// Those whose value counts.
    pub counted: Vec<(Arc<CachedPod>, i64)>,
    starting: usize,
    missing: usize,
}

impl Groups {
    /// `is_cpu`: pods that start say nothing yet of what they need.
    pub fn of(pods: &[Arc<CachedPod>], values: &BTreeMap<String, i64>, is_cpu: bool) -> Self {
        let mut groups = Self { counted: Vec::new(), starting: 0, missing: 0 };
        for pod in pods.iter().filter(|p| pods::is_active(p)) {
            match values.get(&*pod.name) {
                _ if pod.phase == "Pending" => groups.starting += 1,
                None => groups.missing += 1,
                Some(_) if is_cpu && is_starting(pod) => groups.starting += 1,
                Some(value) => groups.counted.push((Arc::clone(pod), *value)),
            }
        }
        groups
    }

    /// The replicas that the ratio of the counted pods calls for. What is not known is taken to speak against the change:
    /// unused when growing; when shrinking, pods are taken to be at `full` times the target.
    pub fn replicas(&self, ratio: f64, full: f64, size: Size) -> i32 {
        let ready = float(self.counted.len());
        let starting = if ratio > 1.0 { self.starting } else { 0 };
        if starting + self.missing == 0 {
            return if size.tolerance.covers(ratio) { size.wanted } else { ceil(ratio * ready) };
        }
        let (unknown, share) = if ratio > 1.0 {
            (float(starting + self.missing), 0.0)
        } else if ratio < 1.0 {
            (float(self.missing), full)
        } else {
            (0.0, 0.0)
        };
        let total = ready + unknown;
        let with_all = (ratio * ready + share * unknown) / total;
        let turned = (ratio < 1.0 && with_all > 1.0) || (ratio > 1.0 && with_all < 1.0);
        if size.tolerance.covers(with_all) || turned {
            return size.wanted;
        }
        let replicas = ceil(with_all * total);
        let against = if with_all < 1.0 { replicas > size.wanted } else { replicas < size.wanted };
        if against { size.wanted } else { replicas }
    }
}

/// The replicas for the ratio of one value that stands for all pods.
pub fn of_whole(ratio: f64, pods: &[Arc<CachedPod>], size: Size) -> i32 {
    if size.wanted == 0 {
        return ceil(ratio);
    }
    if size.tolerance.covers(ratio) {
        return size.wanted;
    }
    let is_ready = |p: &&Arc<CachedPod>| p.phase == "Running" && p.ready.as_ref().is_some_and(|(ready, _)| *ready);
    ceil(ratio * float(pods.iter().filter(is_ready).count()))
}

/// The replicas for a value of which each pod is to have `target`, and what each has now.
#[allow(clippy::cast_possible_truncation)]
pub fn of_shares(value: f64, target: f64, size: Size) -> (i32, i64) {
    let present = f64::from(size.present);
    let ratio = value / (target * present);
    let replicas = if size.tolerance.covers(ratio) { size.present } else { ceil(value / target) };
    (replicas, (value / present.max(1.0)).ceil() as i64)
}

#[allow(clippy::cast_possible_truncation)]
fn ceil(replicas: f64) -> i32 {
    replicas.ceil() as i32
}

#[allow(clippy::cast_precision_loss)]
fn float(count: usize) -> f64 {
    count as f64
}

/// Whether a pod's use of the processor cannot be taken for its normal one yet.
fn is_starting(pod: &CachedPod) -> bool {
    let Some(((ready, since), started)) = pod.ready.as_ref().zip(pod.started.as_ref()) else { return true };
    let since = since.as_ref();
    if clock::since(started) < CPU_START {
        return !ready || since.is_some_and(|t| clock::between(started, t) < Duration::ZERO);
    }
    // Never ready since its start.
    !ready && since.is_some_and(|t| clock::between(started, t) < READY_DELAY)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cached_pod::tests::cached;

    pub(crate) fn pod(name: &str, phase: &str) -> Arc<CachedPod> {
        let long_ago = "2020-01-01T00:00:00Z";
        cached(json!({"metadata": {"name": name},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]},
            "status": {"phase": phase, "startTime": long_ago,
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": long_ago}]}}))
    }

    fn size(wanted: i32) -> Size {
        Size { wanted, present: wanted, tolerance: Tolerance::default() }
    }

    #[test]
    fn replicas_follow_the_ratio_beyond_the_tolerance() {
        let two = || vec![pod("a", "Running"), pod("b", "Running")];
        let one_pending = || vec![pod("a", "Running"), pod("b", "Pending")];
        // Pods, their values, the target of each, what a missing one is taken to have, the size before and after.
        let cases = [
            ("doubled", two(), vec![("a", 100), ("b", 100)], 50, 1.0, 2, 4),
            ("within tolerance", two(), vec![("a", 54), ("b", 50)], 50, 1.0, 2, 2),
            ("halved", two(), vec![("a", 10), ("b", 10)], 50, 1.0, 2, 1),
            ("a missing one may be at the target", two(), vec![("a", 10)], 50, 1.0, 2, 2),
            ("or use all that it asked for", two(), vec![("a", 10)], 50, 2.0, 2, 2),
            ("or be one of many", two(), vec![("a", 10)], 50, 1.0, 5, 2),
            ("a new one will help", one_pending(), vec![("a", 100)], 50, 1.0, 2, 2),
            ("a new one is not waited for", one_pending(), vec![("a", 10)], 50, 1.0, 2, 1),
            ("growth from what is ready", two(), vec![("a", 100), ("b", 100)], 50, 1.0, 5, 4),
        ];
        for (what, pods, values, target, full, wanted, expected) in cases {
            let values = values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            let groups = Groups::of(&pods, &values, false);
            let sum: i64 = groups.counted.iter().map(|(_, value)| value).sum();
            let ratio = f64::from(i32::try_from(sum).unwrap()) / (f64::from(target) * float(groups.counted.len()));
            assert_eq!(groups.replicas(ratio, full, size(wanted)), expected, "{what}");
        }
    }

    #[test]
    fn one_value_may_stand_for_all_pods() {
        let pods = [pod("a", "Running"), pod("b", "Running"), pod("c", "Pending")];
        for (ratio, wanted, expected) in [(2.0, 3, 4), (1.05, 3, 3), (0.4, 3, 1), (2.5, 0, 3), (0.0, 0, 0)] {
            assert_eq!(of_whole(ratio, &pods, size(wanted)), expected, "{ratio} of {wanted}");
        }
        // The value, the target of each, the size before and after, and what each has.
        for (value, target, wanted, expected, each) in
            [(1000.0, 100.0, 4, 10, 250), (420.0, 100.0, 4, 4, 105), (100.0, 100.0, 4, 1, 25), (50.0, 100.0, 0, 1, 50)]
        {
            assert_eq!(of_shares(value, target, size(wanted)), (expected, each), "{value} among {wanted}");
        }
    }

    #[test]
    fn an_autoscaler_may_say_what_it_tolerates() {
        let behavior = json!({"scaleUp": {"tolerance": "50m"}, "scaleDown": {"tolerance": "0"}});
        let own = Tolerance::of(Some(&serde_json::from_value(behavior).unwrap()));
        let covered = |tolerance: Tolerance| [0.9, 0.95, 1.0, 1.04, 1.1].map(|ratio| tolerance.covers(ratio));
        assert_eq!(covered(own), [false, false, true, true, false]);
        assert_eq!(covered(Tolerance::of(None)), [true; 5]);
    }
}
