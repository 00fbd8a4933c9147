//! Namespaces, nodes, and the limits they impose.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::at::{At, same};
use super::pod::quantity;
use super::selector::label_name;
use super::{Errors, format, metadata};

pub(super) fn namespace(object: &At, _old: Option<&At>, errors: &mut Errors) {
    for finalizer in object.get("spec.finalizers").items() {
        metadata::finalizer(&finalizer, errors);
    }
}

pub(super) fn namespace_finalizers(object: &At, _old: &At, errors: &mut Errors) {
    namespace(object, None, errors);
}

pub(super) fn namespace_status(object: &At, _old: &At, errors: &mut Errors) {
    let phase = object.get("status.phase");
    match (object.get("metadata.deletionTimestamp").is_set(), phase.text()) {
        (false, text) if text != "Active" => {
            phase.invalid(errors, "may only be 'Active' if `deletionTimestamp` is empty");
        }
        (true, text) if text != "Terminating" => {
            phase.invalid(errors, "may only be 'Terminating' if `deletionTimestamp` is not empty");
        }
        _ => {}
    }
}

pub(super) fn node(object: &At, old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    taints(&spec.get("taints"), errors);
    for cidr in spec.get("podCIDRs").items() {
        cidr.check(errors, format::cidr(cidr.text()));
    }
    let Some(old) = old else { return };
    let old_spec = old.get("spec");
    for (field, name) in [("podCIDRs", "podCIDR"), ("providerID", "providerID")] {
        let (now, before) = (spec.get(field), old_spec.get(field));
        if !before.is_empty() && !same(now.value, before.value) {
            now.forbidden(errors, format!("node updates may not change {name} except from \"\" to valid"));
        }
    }
    let fixed = |at: &At| -> Value {
        const MUTABLE: [&str; 6] = ["taints", "unschedulable", "podCIDR", "podCIDRs", "providerID", "configSource"];
        let members = at.members().into_iter().flatten().filter(|(key, _)| !MUTABLE.contains(&key.as_str()));
        Value::Object(members.map(|(key, value)| (key.clone(), value.clone())).collect::<Map<_, _>>())
    };
    if !same(&fixed(&spec), &fixed(&old_spec)) {
        let detail = "node updates may only change labels, taints, or capacity (or configSource, if the DynamicKubeletConfig feature gate is enabled)";
        spec.forbidden(errors, detail);
    }
}

fn taints(taints: &At, errors: &mut Errors) {
    let mut seen: HashSet<(&str, &str)> = HashSet::new();
    for taint in taints.items() {
        label_name(&taint.get("key"), errors);
        let (value, effect) = (taint.get("value"), taint.get("effect"));
        value.check(errors, format::label_value(value.text()));
        effect.need(errors);
        let pair = (taint.str("key"), effect.text());
        if seen.contains(&pair) {
            taint.duplicate(errors);
        }
        seen.insert(pair);
    }
}

pub(super) fn node_status(object: &At, _old: &At, errors: &mut Errors) {
    let addresses = object.get("status.addresses");
    for (index, address) in addresses.items().enumerate() {
        if addresses.list()[..index].contains(address.value) {
            address.duplicate(errors);
        }
    }
    for field in ["status.capacity", "status.allocatable"] {
        for (name, amount) in object.get(field).entries() {
            quantity(&amount, name, errors);
        }
    }
}

pub(super) fn limit_range(object: &At, _old: Option<&At>, errors: &mut Errors) {
    let limits = object.get("spec.limits");
    let mut kinds: HashSet<&str> = HashSet::new();
    for limit in limits.items() {
        let kind = limit.get("type");
        if kind.need(errors) {
            kind.check(errors, format::qualified_name(kind.text()));
        }
        if kinds.contains(&kind.text()) {
            kind.duplicate(errors);
        }
        kinds.insert(kind.text());
        one_limit(&limit, errors);
    }
}

fn one_limit(limit: &At, errors: &mut Errors) {
    let kind = limit.str("type");
    for field in ["default", "defaultRequest"] {
        let field = limit.get(field);
        if kind == "Pod" && !field.is_empty() {
            field.forbidden(errors, "may not be specified when `type` is 'Pod'");
        }
    }
    if kind == "PersistentVolumeClaim"
        && !limit.get("min").key("storage").is_set()
        && !limit.get("max").key("storage").is_set()
    {
        limit.required(errors, "either minimum or maximum storage value is required, but neither was provided");
    }
    // Each of the first may not exceed the second.
    const ORDER: [(&str, &str, &str, &str); 5] = [
        ("min", "max", "min", "max"),
        ("min", "defaultRequest", "min", "default request"),
        ("defaultRequest", "max", "default request", "max"),
        ("defaultRequest", "default", "default request", "default limit"),
        ("default", "max", "default", "max"),
    ];
    for (low, high, low_name, high_name) in ORDER {
        let (low, high) = (limit.get(low), limit.get(high));
        for (resource, amount) in low.entries() {
            quantity(&amount, resource, errors);
            let bound = high.key(resource);
            if let (Some(small), Some(large)) = (amount.quantity(), bound.quantity())
                && small > large
            {
                let detail = format!("{low_name} value {small} is greater than {high_name} value {large}");
                amount.invalid(errors, detail);
            }
        }
    }
    let ratio = limit.get("maxLimitRequestRatio");
    for (_, amount) in ratio.entries() {
        if amount.quantity().is_some_and(|q| q.millis() < 1000) {
            amount.invalid(errors, "ratio is less than 1");
        }
    }
}

pub(super) fn resource_quota(object: &At, old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    quota_list(&spec.get("hard"), errors);
    let scopes = spec.get("scopes");
    let has = |name: &str| scopes.list().iter().any(|s| s == name);
    for (one, other) in [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")] {
        if has(one) && has(other) {
            scopes.invalid(errors, "conflicting scopes");
        }
    }
    if let Some(old) = old {
        let sorted = |at: &At| {
            let mut names: Vec<String> = at.list().iter().map(Value::to_string).collect();
            names.sort();
            names
        };
        if sorted(&scopes) != sorted(&old.get("spec.scopes")) {
            scopes.invalid(errors, "field is immutable");
        }
    }
}

pub(super) fn resource_quota_status(object: &At, _old: &At, errors: &mut Errors) {
    quota_list(&object.get("status.hard"), errors);
    quota_list(&object.get("status.used"), errors);
}

fn quota_list(list: &At, errors: &mut Errors) {
    for (name, amount) in list.entries() {
        for problem in format::qualified_name(name) {
            amount.invalid_value(errors, name, problem);
        }
        if !name.contains('/') && !is_standard_quota(name) {
            amount.invalid_value(errors, name, "must be a standard resource for quota");
        }
        quantity(&amount, name, errors);
    }
}

fn is_standard_quota(name: &str) -> bool {
    const NAMES: [&str; 21] = [
        "cpu",
        "memory",
        "ephemeral-storage",
        "requests.cpu",
        "requests.memory",
        "requests.storage",
        "requests.ephemeral-storage",
        "limits.cpu",
        "limits.memory",
        "limits.ephemeral-storage",
        "pods",
        "services",
        "replicationcontrollers",
        "resourcequotas",
        "secrets",
        "configmaps",
        "persistentvolumeclaims",
        "services.nodeports",
        "services.loadbalancers",
        "storage",
        "endpoints",
    ];
    NAMES.contains(&name)
        || name.starts_with("hugepages-")
        || name.starts_with("requests.hugepages-")
        || name.starts_with("count/")
        || name.contains(".storageclass.storage.k8s.io")
        || name.contains(".deviceclass.resource.k8s.io")
}
