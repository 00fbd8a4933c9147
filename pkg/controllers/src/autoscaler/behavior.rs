//! How fast an autoscaler may act: stabilization windows and rate policies.

use std::time::Duration;

use k8s_openapi::api::autoscaling::v2::{HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscalerSpec};
use tokio::time::Instant;

const DOWN_WINDOW: Duration = Duration::from_secs(300);
/// Histories are kept for the longest window and period that the API allows.
const KEEP: Duration = Duration::from_secs(3600);

/// What an autoscaler found and did lately.
#[derive(Default)]
pub struct History {
    recommendations: Vec<(Instant, i32)>,
    /// Changes of the size.
    changes: Vec<(Instant, i32)>,
}

/// A size within all bounds, and which bound was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounded {
    pub replicas: i32,
    pub limited: Option<(&'static str, &'static str)>,
    pub stabilized: Option<&'static str>,
}

impl History {
    /// Of an autoscaler that is seen for the first time: as far as is known the size was right until now, so that what a
    /// controller that starts anew has forgotten does not shrink the target at once.
    pub fn starting(current: i32, now: Instant) -> Self {
        Self { recommendations: vec![(now, current)], changes: Vec::new() }
    }

    /// Remembers that the size was changed.
    pub fn changed(&mut self, by: i32, now: Instant) {
        self.changes.push((now, by));
    }

    /// Bounds a recommendation by windows, rates and limits.
    pub fn bound(&mut self, spec: &HorizontalPodAutoscalerSpec, current: i32, wanted: i32, now: Instant) -> Bounded {
        self.recommendations.retain(|(at, _)| now.duration_since(*at) < KEEP);
        self.changes.retain(|(at, _)| now.duration_since(*at) < KEEP);
        self.recommendations.push((now, wanted));
        let behavior = spec.behavior.as_ref();
        let (up, down) = (behavior.and_then(|b| b.scale_up.as_ref()), behavior.and_then(|b| b.scale_down.as_ref()));
        let (replicas, stabilized) = self.stabilize(up, down, current, now);
        let min = spec.min_replicas.unwrap_or(1);
        let rate = if replicas > current { self.most(up, current, now) } else { self.least(down, current, now) };
        let (mut replicas, mut limited) = if replicas > current && replicas > rate {
            let message = "the desired replica count is increasing faster than the maximum scale rate";
            (rate, Some(("ScaleUpLimit", message)))
        } else if replicas < current && replicas < rate {
            let message = "the desired replica count is decreasing faster than the maximum scale rate";
            (rate, Some(("ScaleDownLimit", message)))
        } else {
            (replicas, None)
        };
        if replicas > spec.max_replicas {
            let message = "the desired replica count is more than the maximum replica count";
            (replicas, limited) = (spec.max_replicas, Some(("TooManyReplicas", message)));
        } else if replicas < min {
            let message = "the desired replica count is less than the minimum replica count";
            (replicas, limited) = (min, Some(("TooFewReplicas", message)));
        }
        Bounded { replicas, limited, stabilized }
    }

    /// The lowest recommendation of the window when growing, the highest when shrinking.
    fn stabilize(
        &self,
        up: Option<&HPAScalingRules>,
        down: Option<&HPAScalingRules>,
        current: i32,
        now: Instant,
    ) -> (i32, Option<&'static str>) {
        let window = |rules: Option<&HPAScalingRules>, default: Duration| {
            let seconds = rules.and_then(|r| r.stabilization_window_seconds).and_then(|s| u64::try_from(s).ok());
            seconds.map_or(default, Duration::from_secs)
        };
        let (up, down) = (window(up, Duration::ZERO), window(down, DOWN_WINDOW));
        let wanted = self.recommendations.last().map_or(current, |(_, n)| *n);
        let within = |window: Duration| {
            self.recommendations.iter().filter(move |(at, _)| now.duration_since(*at) <= window).map(|(_, n)| *n)
        };
        let lowest = within(up).min().unwrap_or(wanted);
        let highest = within(down).max().unwrap_or(wanted);
        let stable = if current < lowest {
            lowest
        } else if current > highest {
            highest
        } else {
            current
        };
        let held = match stable.cmp(&wanted) {
            std::cmp::Ordering::Greater => {
                Some("recent recommendations were higher than current one, applying the highest recent recommendation")
            }
            std::cmp::Ordering::Less => {
                Some("recent recommendations were lower than current one, applying the lowest recent recommendation")
            }
            std::cmp::Ordering::Equal => None,
        };
        (stable, held)
    }

    /// The largest size that the rate of growth allows.
    fn most(&self, rules: Option<&HPAScalingRules>, current: i32, now: Instant) -> i32 {
        let default = [policy("Pods", 4), policy("Percent", 100)];
        let allowed = |p: &HPAScalingPolicy| {
            let start = current - self.sum(p, now, |by| by > 0);
            match p.type_.as_str() {
                "Pods" => start.saturating_add(p.value),
                _ => ceil_percent(start, 100 + p.value),
            }
        };
        match select(rules) {
            Select::Disabled => current,
            Select::Min => policies(rules, &default).iter().map(allowed).min().unwrap_or(i32::MAX),
            Select::Max => policies(rules, &default).iter().map(allowed).max().unwrap_or(i32::MAX),
        }
    }

    /// The smallest size that the rate of shrinking allows.
    fn least(&self, rules: Option<&HPAScalingRules>, current: i32, now: Instant) -> i32 {
        let default = [policy("Percent", 100)];
        let allowed = |p: &HPAScalingPolicy| {
            let start = current - self.sum(p, now, |by| by < 0);
            match p.type_.as_str() {
                "Pods" => (start - p.value).max(0),
                _ => start * (100 - p.value).max(0) / 100,
            }
        };
        match select(rules) {
            Select::Disabled => current,
            Select::Min => policies(rules, &default).iter().map(allowed).max().unwrap_or(0),
            Select::Max => policies(rules, &default).iter().map(allowed).min().unwrap_or(0),
        }
    }

    fn sum(&self, policy: &HPAScalingPolicy, now: Instant, counted: fn(i32) -> bool) -> i32 {
        let period = Duration::from_secs(u64::try_from(policy.period_seconds).unwrap_or(0));
        let recent = self.changes.iter().filter(|(at, by)| now.duration_since(*at) <= period && counted(*by));
        recent.map(|(_, by)| by).sum()
    }
}

enum Select {
    Min,
    Max,
    Disabled,
}

fn select(rules: Option<&HPAScalingRules>) -> Select {
    match rules.and_then(|r| r.select_policy.as_deref()) {
        Some("Disabled") => Select::Disabled,
        Some("Min") => Select::Min,
        _ => Select::Max,
    }
}

fn policy(kind: &str, value: i32) -> HPAScalingPolicy {
    HPAScalingPolicy { type_: kind.into(), value, period_seconds: 15 }
}

fn policies<'a>(rules: Option<&'a HPAScalingRules>, default: &'a [HPAScalingPolicy]) -> &'a [HPAScalingPolicy] {
    rules.and_then(|r| r.policies.as_deref()).filter(|p| !p.is_empty()).unwrap_or(default)
}

fn ceil_percent(of: i32, percent: i32) -> i32 {
    let product = i64::from(of) * i64::from(percent);
    i32::try_from((product + 99).div_euclid(100)).unwrap_or(i32::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn growth_is_bounded_by_rate_and_shrinking_waits() {
        let spec: HorizontalPodAutoscalerSpec =
            serde_json::from_value(json!({"maxReplicas": 50, "scaleTargetRef": {"kind": "x", "name": "x"}})).unwrap();
        let mut history = History::default();
        let start = Instant::now();
        assert_eq!(history.bound(&spec, 1, 20, start).replicas, 5, "four at a time");
        assert_eq!(history.bound(&spec, 10, 40, start).replicas, 20, "or twice as many");
        history.changed(10, start);
        assert_eq!(history.bound(&spec, 20, 40, start).replicas, 20, "the rate is used up");
        let later = start + Duration::from_secs(16);
        assert_eq!(history.bound(&spec, 40, 90, later).limited.unwrap().0, "TooManyReplicas");
        let low = history.bound(&spec, 40, 3, later + Duration::from_secs(200));
        assert_eq!((low.replicas, low.stabilized.is_some()), (40, true), "a higher one is recent");
        assert_eq!(history.bound(&spec, 40, 3, later + Duration::from_secs(400)).replicas, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_starts_anew_shrinks_nothing_at_once() {
        let spec: HorizontalPodAutoscalerSpec =
            serde_json::from_value(json!({"maxReplicas": 50, "scaleTargetRef": {"kind": "x", "name": "x"}})).unwrap();
        let start = Instant::now();
        let mut history = History::starting(8, start);
        assert_eq!(history.bound(&spec, 8, 2, start).replicas, 8);
        assert_eq!(history.bound(&spec, 8, 2, start + Duration::from_secs(301)).replicas, 2);
    }
}
