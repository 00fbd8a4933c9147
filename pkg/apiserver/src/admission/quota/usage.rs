//! What an object counts for in quotas.

use std::collections::{BTreeMap, BTreeSet};

use kube1_api::amounts::Amounts;
use kube1_api::quantity::Quantity;
use kube1_api::quota;
use serde_json::Value;

use super::super::Attributes;

/// Whether an update can change what the object counts for.
pub(super) fn counts_updates(attributes: &Attributes) -> bool {
    let main = attributes.subresource.is_empty();
    (main && (attributes.is("", "services") || attributes.is("", "persistentvolumeclaims")))
        || (attributes.is("", "pods") && attributes.subresource == "resize")
}

/// Everything the object counts for.
pub(super) fn of(attributes: &Attributes, object: &Value) -> Amounts {
    quota::usage(&attributes.resource.group, &attributes.resource.plural, object)
}

/// Whether the object is in every scope of the quota.
pub(super) fn in_scopes(attributes: &Attributes, spec: &Value, object: &Value) -> bool {
    quota::in_scopes(&attributes.resource.group, &attributes.resource.plural, spec, object)
}

/// Whether a quota's limit of this name is about the object, which counts for `usage`.
pub(super) fn concerns(attributes: &Attributes, usage: &Amounts, name: &str) -> bool {
    if attributes.is("", "pods") { quota::is_of_pods(name) } else { usage.contains_key(name) }
}

pub(super) fn subtract(usage: &mut Amounts, old: &Amounts) {
    for (name, amount) in old {
        let left = usage.get(name).copied().unwrap_or(Quantity::from_units(0)).minus(*amount);
        usage.insert(name.clone(), left);
    }
}

/// Compute resources among those that a quota limits that a container of the pod leaves open.
pub(super) fn missing(attributes: &Attributes, pod: &Value, restricted: &[&String]) -> Option<String> {
    if !attributes.is("", "pods") || at_pod_level(&pod["spec"]["resources"]) {
        return None;
    }
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for key in restricted {
        let (kind, name) = match key.split_once('.') {
            Some(("limits", name)) => ("limits", name),
            Some(("requests", name)) => ("requests", name),
            _ => ("requests", key.as_str()),
        };
        if !matches!(name, "cpu" | "memory") {
            continue;
        }
        for list in ["containers", "initContainers"] {
            for container in pod["spec"][list].as_array().into_iter().flatten() {
                if container["resources"][kind][name].is_null() {
                    missing.entry(key).or_default().insert(container["name"].as_str().unwrap_or_default());
                }
            }
        }
    }
    let names = |names: &BTreeSet<&str>| names.iter().copied().collect::<Vec<_>>().join(",");
    let texts: Vec<String> = missing.iter().map(|(key, of)| format!("{key} for: {}", names(of))).collect();
    (!texts.is_empty()).then(|| texts.join("; "))
}

/// Whether the pod says for all its containers together what it needs.
fn at_pod_level(resources: &Value) -> bool {
    let supported = |name: &String| matches!(name.as_str(), "cpu" | "memory") || name.starts_with("hugepages-");
    ["requests", "limits"].iter().any(|kind| resources[*kind].as_object().is_some_and(|r| r.keys().any(supported)))
}
