//! Numbers of a Deployment and its ReplicaSets.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Replicas a ReplicaSet asks for.
pub fn wanted(rs: &ReplicaSet) -> i32 {
    rs.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

pub fn actual(rs: &ReplicaSet) -> i32 {
    rs.status.as_ref().map_or(0, |s| s.replicas)
}

pub fn ready(rs: &ReplicaSet) -> i32 {
    rs.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0)
}

pub fn available(rs: &ReplicaSet) -> i32 {
    rs.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0)
}

pub fn terminating(rs: &ReplicaSet) -> i32 {
    rs.status.as_ref().and_then(|s| s.terminating_replicas).unwrap_or(0)
}

pub fn sum<'a>(sets: impl IntoIterator<Item = &'a Arc<ReplicaSet>>, of: fn(&ReplicaSet) -> i32) -> i32 {
    sets.into_iter().map(|rs| of(rs)).sum()
}

pub fn name(rs: &ReplicaSet) -> &str {
    rs.metadata.name.as_deref().unwrap_or_default()
}

/// Sorts by age, oldest first; the name decides between equals.
pub fn sort_by_age(sets: &mut [Arc<ReplicaSet>]) {
    sets.sort_by_cached_key(|rs| (rs.metadata.creation_timestamp.clone(), rs.metadata.name.clone()));
}

/// Replicas a Deployment asks for.
pub fn desired(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

/// Pods that may exist above, and be missing below, the desired number during a rolling update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub surge: i32,
    pub unavailable: i32,
}

impl Bounds {
    pub fn of(spec: &DeploymentSpec) -> Self {
        if super::is_recreate(spec) {
            return Self { surge: 0, unavailable: 0 };
        }
        let desired = spec.replicas.unwrap_or(1);
        let rolling = spec.strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
        let value = |v: Option<&IntOrString>, round_up| v.map_or(0, |v| resolve(v, desired, round_up));
        let surge = value(rolling.and_then(|r| r.max_surge.as_ref()), true);
        let unavailable = value(rolling.and_then(|r| r.max_unavailable.as_ref()), false);
        // Without any room nothing could ever be replaced.
        let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable };
        Self { surge, unavailable: unavailable.min(desired) }
    }
}

/// A number, or a percentage of `total`. Unreadable ones count as nothing.
pub fn resolve(value: &IntOrString, total: i32, round_up: bool) -> i32 {
    match value {
        IntOrString::Int(n) => *n,
        IntOrString::String(text) => {
            let percent: i64 = text.strip_suffix('%').and_then(|p| p.parse().ok()).unwrap_or(0);
            let product = percent * i64::from(total);
            let rounded = if round_up { (product + 99).div_euclid(100) } else { product.div_euclid(100) };
            i32::try_from(rounded).unwrap_or(i32::MAX)
        }
    }
}

/// Replicas that the new ReplicaSet should have now: as many as the surge allows.
pub fn new_replicas(deployment: &Deployment, all: &[Arc<ReplicaSet>], current: i32) -> i32 {
    let (Some(spec), desired) = (&deployment.spec, desired(deployment)) else { return current };
    if super::is_recreate(spec) {
        return desired;
    }
    let allowed = desired + Bounds::of(spec).surge;
    let total = sum(all, wanted);
    if total >= allowed { current } else { current + (allowed - total).min(desired - current) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn surge_rounds_up_unavailable_down_and_not_both_to_nothing() {
        let cases = [
            (10, json!("25%"), json!("25%"), (3, 2)),
            (1, json!("25%"), json!("25%"), (1, 0)),
            (3, json!(0), json!("25%"), (0, 1)),
            (4, json!(2), json!(9), (2, 4)),
        ];
        for (replicas, surge, unavailable, want) in cases {
            let spec: DeploymentSpec = serde_json::from_value(json!({"replicas": replicas, "selector": {},
                "template": {}, "strategy": {"rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}}))
            .unwrap();
            let bounds = Bounds::of(&spec);
            assert_eq!((bounds.surge, bounds.unavailable), want, "{replicas}");
        }
    }
}
