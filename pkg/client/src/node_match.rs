//! Whether a pod and a node go together: tolerations, node selectors and node affinity, as the API defines them.
//!
//! The scheduler, the DaemonSet controller, taint eviction and the kubelet must agree on these.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration};

/// Whether any of the tolerations covers the taint.
pub fn tolerates(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|t| toleration_covers(t, taint))
}

/// Whether a toleration covers a taint.
pub fn toleration_covers(toleration: &Toleration, taint: &Taint) -> bool {
    let (effect, key) = (toleration.effect.as_deref().unwrap_or(""), toleration.key.as_deref().unwrap_or(""));
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    let (value, own) = (taint.value.as_deref().unwrap_or(""), toleration.value.as_deref().unwrap_or(""));
    let numbers = || Some((value.parse::<i64>().ok()?, own.parse::<i64>().ok()?));
    match toleration.operator.as_deref().unwrap_or("") {
        "Exists" => true,
        "" | "Equal" => own == value,
        "Lt" => numbers().is_some_and(|(taint, own)| taint < own),
        "Gt" => numbers().is_some_and(|(taint, own)| taint > own),
        _ => false,
    }
}

/// Whether a node has what the pod's node selector and required node affinity ask for.
pub fn pod_selects_node(spec: &PodSpec, labels: &BTreeMap<String, String>, name: &str) -> bool {
    let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    spec.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value))
        && required.is_none_or(|selector| node_selector_matches(selector, labels, name))
}

/// Whether a node fits any of the selector's terms.
pub fn node_selector_matches(selector: &NodeSelector, labels: &BTreeMap<String, String>, name: &str) -> bool {
    selector.node_selector_terms.iter().any(|term| node_term_matches(term, labels, name))
}

/// Whether a node fits all requirements of a term; an empty term fits no node.
pub fn node_term_matches(term: &NodeSelectorTerm, labels: &BTreeMap<String, String>, name: &str) -> bool {
    let (expressions, fields) =
        (term.match_expressions.as_deref().unwrap_or(&[]), term.match_fields.as_deref().unwrap_or(&[]));
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    expressions.iter().all(|r| requirement_matches(r, labels.get(&r.key).map(String::as_str)))
        && fields.iter().all(|r| r.key == "metadata.name" && requirement_matches(r, Some(name)))
}

fn requirement_matches(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or(&[]);
    let listed = |v: &str| values.iter().any(|x| x == v);
    let compare = |order| {
        let number = |text: &str| text.parse::<i64>().ok();
        let (have, want) = (value.and_then(number), values.first().and_then(|v| number(v)));
        matches!((have, want), (Some(have), Some(want)) if have.cmp(&want) == order)
    };
    match requirement.operator.as_str() {
        "In" => value.is_some_and(listed),
        "NotIn" => !value.is_some_and(listed),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(std::cmp::Ordering::Greater),
        "Lt" => compare(std::cmp::Ordering::Less),
        _ => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn node_selector_operators() {
        let labels = BTreeMap::from([("zone".to_owned(), "a".to_owned()), ("cores".to_owned(), "8".to_owned())]);
        let cases = [
            (json!({"key": "zone", "operator": "In", "values": ["a", "b"]}), true),
            (json!({"key": "zone", "operator": "NotIn", "values": ["a"]}), false),
            (json!({"key": "gpu", "operator": "NotIn", "values": ["a"]}), true),
            (json!({"key": "zone", "operator": "Exists"}), true),
            (json!({"key": "gpu", "operator": "DoesNotExist"}), true),
            (json!({"key": "cores", "operator": "Gt", "values": ["7"]}), true),
            (json!({"key": "cores", "operator": "Lt", "values": ["8"]}), false),
            (json!({"key": "gpu", "operator": "Gt", "values": ["0"]}), false),
        ];
        for (requirement, want) in cases {
            let term: NodeSelectorTerm = serde_json::from_value(json!({"matchExpressions": [requirement]})).unwrap();
            assert_eq!(node_term_matches(&term, &labels, "n"), want, "{requirement}");
        }
        let term: NodeSelectorTerm = serde_json::from_value(
            json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}),
        )
        .unwrap();
        assert!(node_term_matches(&term, &labels, "n") && !node_term_matches(&term, &labels, "m"));
        assert!(!node_term_matches(&NodeSelectorTerm::default(), &labels, "n"));
    }

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
