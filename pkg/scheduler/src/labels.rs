//! Label selectors and node selectors.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::core::Selector;

pub type Labels = BTreeMap<String, String>;

static NO_LABELS: Labels = BTreeMap::new();

/// The labels of an object, none when absent.
pub fn of(meta: &ObjectMeta) -> &Labels {
    meta.labels.as_ref().unwrap_or(&NO_LABELS)
}

pub fn none() -> &'static Labels {
    &NO_LABELS
}

/// Parses an API selector. None selects nothing, as does one that cannot be read; an empty one selects everything.
pub fn selector(selector: Option<&LabelSelector>) -> Option<Selector> {
    selector.cloned()?.try_into().ok()
}

/// Whether a node fits any of the selector's terms.
pub fn node_selector_matches(selector: &NodeSelector, labels: &Labels, name: &str) -> bool {
    selector.node_selector_terms.iter().any(|term| node_term_matches(term, labels, name))
}

/// Whether a node fits all requirements of a term; an empty term fits no node.
pub fn node_term_matches(term: &NodeSelectorTerm, labels: &Labels, name: &str) -> bool {
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
        let labels = Labels::from([("zone".to_owned(), "a".to_owned()), ("cores".to_owned(), "8".to_owned())]);
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
}
