//! What an object counts for in quotas.

use std::collections::BTreeMap;

use kube1_api::amounts::Amounts;
use kube1_api::quantity::Quantity;
use kube1_api::quota;
use serde_json::Value;

use super::super::{Attributes, Operation};

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

pub(super) fn subtract(usage: &mut Amounts, old: &Amounts) {
    for (name, amount) in old {
        let left = usage.get(name).copied().unwrap_or(Quantity::from_units(0)).minus(*amount);
        usage.insert(name.clone(), left);
    }
}

/// Compute resources that a quota counts and a container of the pod leaves open.
pub(super) fn missing(attributes: &Attributes, pod: &Value, hard: &Amounts) -> Option<String> {
    if !attributes.is("", "pods") || attributes.operation != Operation::Create {
        return None;
    }
    let mut missing: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for key in hard.keys() {
        let (kind, name) = match key.split_once('.') {
            Some(("limits", name)) => ("limits", name),
            Some(("requests", name)) => ("requests", name),
            _ => ("requests", key.as_str()),
        };
        let at_pod_level = !pod["spec"]["resources"][kind][name].is_null();
        if !matches!(name, "cpu" | "memory") || at_pod_level {
            continue;
        }
        for list in ["containers", "initContainers"] {
            for container in pod["spec"][list].as_array().into_iter().flatten() {
                if container["resources"][kind][name].is_null() {
                    missing.entry(key).or_default().push(container["name"].as_str().unwrap_or_default());
                }
            }
        }
    }
    let texts: Vec<String> = missing.iter().map(|(key, names)| format!("{key} for: {}", names.join(","))).collect();
    (!texts.is_empty()).then(|| texts.join("; "))
}
