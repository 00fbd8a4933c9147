//! Scopes: which objects a quota is about.

use serde_json::{Value, json};

use super::super::Attributes;
use crate::strategy::qos_class;

/// Whether the object is in every scope of the quota.
pub(super) fn matches(attributes: &Attributes, spec: &Value, object: &Value) -> bool {
    let plain = spec["scopes"].as_array().into_iter().flatten();
    let plain = plain.map(|scope| json!({"scopeName": scope, "operator": "Exists"}));
    let selected = spec["scopeSelector"]["matchExpressions"].as_array().into_iter().flatten().cloned();
    plain.chain(selected).all(|requirement| in_scope(attributes, &requirement, object))
}

fn in_scope(attributes: &Attributes, requirement: &Value, object: &Value) -> bool {
    let scope = requirement["scopeName"].as_str().unwrap_or_default();
    let spec = &object["spec"];
    if attributes.is("", "persistentvolumeclaims") && scope == "VolumeAttributesClass" {
        return selects(requirement, spec["volumeAttributesClassName"].as_str());
    }
    if !attributes.is("", "pods") {
        return false;
    }
    let terminating = spec["activeDeadlineSeconds"].as_i64().is_some_and(|s| s >= 0);
    match scope {
        "Terminating" => terminating,
        "NotTerminating" => !terminating,
        "BestEffort" => qos_class(object) == "BestEffort",
        "NotBestEffort" => qos_class(object) != "BestEffort",
        "PriorityClass" => selects(requirement, spec["priorityClassName"].as_str()),
        "CrossNamespacePodAffinity" => reaches_out(&spec["affinity"]),
        _ => false,
    }
}

fn selects(requirement: &Value, value: Option<&str>) -> bool {
    let value = value.filter(|v| !v.is_empty());
    let listed = || requirement["values"].as_array().into_iter().flatten().any(|v| v.as_str() == value);
    match requirement["operator"].as_str() {
        Some("In") => value.is_some() && listed(),
        Some("NotIn") => value.is_none() || !listed(),
        Some("Exists") => value.is_some(),
        Some("DoesNotExist") => value.is_none(),
        _ => false,
    }
}

/// Whether affinity terms look at pods of other namespaces.
fn reaches_out(affinity: &Value) -> bool {
    let out = |term: &Value| {
        term["namespaces"].as_array().is_some_and(|n| !n.is_empty()) || !term["namespaceSelector"].is_null()
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let required = affinity[*kind]["requiredDuringSchedulingIgnoredDuringExecution"].as_array();
        let preferred = affinity[*kind]["preferredDuringSchedulingIgnoredDuringExecution"].as_array();
        required.into_iter().flatten().any(out) || preferred.into_iter().flatten().any(|p| out(&p["podAffinityTerm"]))
    })
}
