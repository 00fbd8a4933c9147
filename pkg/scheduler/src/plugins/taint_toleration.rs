//! TaintToleration.

use k8s_openapi::api::core::v1::{Taint, Toleration};

use std::sync::Arc;

use crate::cache::Snapshot;
use crate::framework::{Filter, Plugin, Rejection, Score, normalize_to_max};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::queue::Events;

/// Whether any of the tolerations covers the taint.
pub fn tolerates(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|t| toleration_covers(t, taint))
}

fn toleration_covers(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |t: &'_ Option<String>| t.as_deref().unwrap_or("").to_owned();
    let (effect, key) = (text(&toleration.effect), text(&toleration.key));
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    let value = taint.value.as_deref().unwrap_or("");
    let own = toleration.value.as_deref().unwrap_or("");
    let numbers = || Some((value.parse::<i64>().ok()?, own.parse::<i64>().ok()?));
    match toleration.operator.as_deref().unwrap_or("") {
        "Exists" => true,
        "" | "Equal" => own == value,
        "Lt" => numbers().is_some_and(|(taint, own)| taint < own),
        "Gt" => numbers().is_some_and(|(taint, own)| taint > own),
        _ => false,
    }
}

/// Keeps pods off nodes with taints they do not tolerate, and prefers nodes with fewer discouraging ones.
pub struct TaintToleration;

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn events(&self) -> Events {
        Events::NODE_ADDED | Events::NODE_TAINTS
    }

    fn filter(&self, pod: &Arc<PodInfo>, _snapshot: &Snapshot) -> Result<Option<Box<dyn Filter>>, Rejection> {
        Ok(Some(Box::new(Tolerated(tolerations(pod)))))
    }

    fn score(&self, pod: &Arc<PodInfo>, _snapshot: &Snapshot, nodes: &[&NodeInfo]) -> Option<(Box<dyn Score>, i64)> {
        let discouraging = nodes.iter().any(|n| n.taints().iter().any(|t| t.effect == "PreferNoSchedule"));
        discouraging.then(|| {
            let mut tolerations = tolerations(pod);
            tolerations.retain(|t| matches!(t.effect.as_deref(), None | Some("" | "PreferNoSchedule")));
            (Box::new(Tolerated(tolerations)) as Box<dyn Score>, 3)
        })
    }
}

fn tolerations(pod: &PodInfo) -> Vec<Toleration> {
    pod.spec().and_then(|s| s.tolerations.clone()).unwrap_or_default()
}

#[derive(Clone)]
struct Tolerated(Vec<Toleration>);

impl Filter for Tolerated {
    fn check(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let repels = |t: &&Taint| t.effect != "PreferNoSchedule" && !tolerates(&self.0, t);
        if node.taints().iter().any(|t| repels(&t)) {
            return Err(Rejection::unresolvable("node(s) had untolerated taint(s)"));
        }
        Ok(())
    }

    fn boxed_clone(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
}

impl Score for Tolerated {
    fn score(&self, node: &NodeInfo) -> i64 {
        let untolerated = |t: &&Taint| t.effect == "PreferNoSchedule" && !tolerates(&self.0, t);
        i64::try_from(node.taints().iter().filter(untolerated).count()).unwrap_or(i64::MAX)
    }

    fn normalize(&self, scores: &mut [i64]) {
        normalize_to_max(scores, true);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tolerations_cover_by_key_value_and_effect() {
        let taint =
            Taint { key: "dedicated".into(), value: Some("5".into()), effect: "NoSchedule".into(), ..Taint::default() };
        let cases = [
            (json!({"operator": "Exists"}), true),
            (json!({"key": "dedicated", "operator": "Exists", "effect": "NoExecute"}), false),
            (json!({"key": "dedicated", "value": "5"}), true),
            (json!({"key": "dedicated", "operator": "Equal", "value": "6"}), false),
            (json!({"key": "other", "operator": "Exists"}), false),
            (json!({"key": "dedicated", "operator": "Lt", "value": "6"}), true),
            (json!({"key": "dedicated", "operator": "Gt", "value": "6"}), false),
        ];
        for (toleration, want) in cases {
            let parsed: Toleration = serde_json::from_value(toleration.clone()).unwrap();
            assert_eq!(tolerates(&[parsed], &taint), want, "{toleration}");
        }
    }
}
