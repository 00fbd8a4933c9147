//! The taints that a node's conditions call for.

use k8s_openapi::api::core::v1::{Node, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Condition, its status, and the taint that keeps pods from being scheduled there.
const BY_CONDITION: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
];

pub fn status_of<'a>(node: &'a Node, condition: &str) -> Option<&'a str> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|c| c.type_ == condition).map(|c| c.status.as_str())
}

pub fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or(&[])
}

/// The taints the node should have: those that conditions decide are set anew, all others stay. None when all is
/// as it should be. `evict` says whether pods may be driven off nodes that are not ready.
pub fn wanted(node: &Node, evict: bool, now: &Time) -> Option<Vec<Taint>> {
    let mut ours: Vec<(&str, &str)> = Vec::new();
    for (condition, status, key) in BY_CONDITION {
        if status_of(node, condition) == Some(status) {
            ours.push((key, "NoSchedule"));
            if evict && condition == "Ready" {
                ours.push((key, "NoExecute"));
            }
        }
    }
    if node.spec.as_ref().is_some_and(|s| s.unschedulable == Some(true)) {
        ours.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let current = taints(node);
    let mut next: Vec<Taint> = current.iter().filter(|t| !is_managed(t) || ours.contains(&id(t))).cloned().collect();
    for (key, effect) in ours {
        if !next.iter().any(|t| id(t) == (key, effect)) {
            let time_added = (effect == "NoExecute" || key == UNSCHEDULABLE).then(|| now.clone());
            next.push(Taint { key: key.into(), effect: effect.into(), time_added, ..Taint::default() });
        }
    }
    (next != current).then_some(next)
}

fn id(taint: &Taint) -> (&str, &str) {
    (&taint.key, &taint.effect)
}

fn is_managed(taint: &Taint) -> bool {
    let known = BY_CONDITION.iter().any(|(_, _, key)| *key == taint.key) || taint.key == UNSCHEDULABLE;
    let evicts = matches!(taint.key.as_str(), NOT_READY | UNREACHABLE);
    known && (taint.effect == "NoSchedule" || taint.effect == "NoExecute" && evicts)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::clock;

    fn node(ready: &str, spec: Value) -> Node {
        serde_json::from_value(json!({"metadata": {"name": "n"}, "spec": spec,
            "status": {"conditions": [{"type": "Ready", "status": ready}]}}))
        .unwrap()
    }

    fn ids(taints: Option<Vec<Taint>>) -> Option<Vec<String>> {
        taints.map(|list| list.iter().map(|t| format!("{}:{}", t.key, t.effect)).collect())
    }

    #[test]
    fn conditions_decide_their_taints_and_no_others() {
        let own = json!({"taints": [{"key": "dedicated", "effect": "NoSchedule"},
            {"key": NOT_READY, "effect": "NoSchedule"}]});
        let now = clock::now();
        let get = |ready: &str, evict| ids(wanted(&node(ready, own.clone()), evict, &now));
        assert_eq!(get("True", true), Some(vec!["dedicated:NoSchedule".into()]));
        assert_eq!(get("False", false), None);
        let added = format!("{NOT_READY}:NoExecute");
        assert_eq!(get("False", true).unwrap().last(), Some(&added));
        let unknown = get("Unknown", true).unwrap();
        assert_eq!(unknown[1..], [format!("{UNREACHABLE}:NoSchedule"), format!("{UNREACHABLE}:NoExecute")]);
        let cordoned = wanted(&node("True", json!({"unschedulable": true})), true, &now).unwrap();
        assert_eq!((cordoned[0].key.as_str(), cordoned[0].time_added.is_some()), (UNSCHEDULABLE, true));
    }
}
