//! Namespaces and nodes.

use std::collections::HashSet;

use serde_json::Value;

use super::at::{At, same};
use super::pod::taint_effect;
use super::resource_name::quantity;
use super::selector::label_name;
use super::{Errors, format, metadata};
use crate::field::FieldError;

pub(super) fn namespace(object: &At, old: Option<&At>, errors: &mut Errors) {
    // Only the finalize endpoint changes them.
    if old.is_none() {
        let spec = object.get("spec");
        for finalizer in spec.get("finalizers").items() {
            // Upstream's path does not say which one it is.
            metadata::finalizer(&finalizer.below(&spec).renamed("finalizers"), errors);
        }
    }
}

pub(super) fn namespace_finalizers(object: &At, _old: &At, errors: &mut Errors) {
    for finalizer in object.get("spec.finalizers").items() {
        metadata::finalizer(&finalizer, errors);
    }
}

pub(super) fn namespace_status(object: &At, _old: &At, errors: &mut Errors) {
    let (phase, text) = (object.get("status.Phase"), object.str("status.phase"));
    match object.get("metadata.deletionTimestamp").is_set() {
        false if text != "Active" => {
            phase.invalid_value(errors, text, "may only be 'Active' if `deletionTimestamp` is empty");
        }
        true if text != "Terminating" => {
            phase.invalid_value(errors, text, "may only be 'Terminating' if `deletionTimestamp` is not empty");
        }
        _ => {}
    }
}

pub(super) fn node(object: &At, old: Option<&At>, errors: &mut Errors) {
    let (spec, metadata) = (object.get("spec"), object.get("metadata"));
    taints(&spec.get("taints").below(&metadata), errors);
    resources(object, errors);
    declared_features(&object.get("status.declaredFeatures"), errors);
    let ranges = spec.get("podCIDRs");
    let known = old.is_some_and(|old| same(old.get("spec.podCIDRs").value, ranges.value));
    if !known {
        pod_ranges(&ranges, errors);
    }
    if let Some(old) = old {
        node_change(object, old, errors);
    }
}

/// One network, or one of each family.
fn pod_ranges(ranges: &At, errors: &mut Errors) {
    let before = errors.len();
    for cidr in ranges.items() {
        cidr.check(errors, format::cidr(cidr.text()));
    }
    let families: Vec<bool> = ranges.items().map(|cidr| cidr.text().contains(':')).collect();
    if families.len() > 1 && errors.len() == before && (families.len() > 2 || families[0] == families[1]) {
        ranges.invalid(errors, "may specify no more than one CIDR for each IP family");
    }
}

fn node_change(object: &At, old: &At, errors: &mut Errors) {
    let (spec, old_spec) = (object.get("spec"), old.get("spec"));
    addresses(&object.get("status.addresses"), errors);
    for (field, name) in [("podCIDRs", "podCIDR"), ("providerID", "providerID")] {
        let (now, before) = (spec.get(field), old_spec.get(field));
        if !before.is_empty() && !same(now.value, before.value) {
            now.forbidden(errors, format!("node updates may not change {name} except from \"\" to valid"));
        }
    }
    config_source(&spec.get("configSource"), errors);
    if !same(spec.get("externalID").value, old_spec.get("externalID").value) {
        spec.get("externalID").forbidden(errors, "may not be updated");
    }
}

/// Where kubelets once read their configuration; no one looks at it any more.
fn config_source(source: &At, errors: &mut Errors) {
    if !source.is_set() {
        return;
    }
    let map = source.get("configMap");
    if !map.is_set() {
        return source.invalid(errors, "exactly one reference subfield must be non-nil");
    }
    for field in ["uid", "resourceVersion"] {
        if !map.get(field).is_empty() {
            map.get(field).forbidden(errors, format!("{field} must not be set in spec"));
        }
    }
    type Check = fn(&str) -> Vec<String>;
    const FIELDS: [(&str, Check); 3] =
        [("namespace", format::dns_label), ("name", format::dns_subdomain), ("kubeletConfigKey", format::config_key)];
    for (field, check) in FIELDS {
        let field = map.get(field);
        if field.need(errors) {
            field.check(errors, check(field.text()));
        }
    }
}

fn taints(taints: &At, errors: &mut Errors) {
    let mut seen: HashSet<(&str, &str)> = HashSet::new();
    for taint in taints.items() {
        label_name(&taint.get("key"), errors);
        let (value, effect) = (taint.get("value"), taint.get("effect"));
        let problems = format::label_value(value.text());
        if !problems.is_empty() {
            value.invalid(errors, problems.join(";"));
        }
        if effect.need(errors) {
            taint_effect(&effect, errors);
        }
        if !seen.insert((taint.str("key"), effect.text())) {
            let mut error = FieldError::duplicate(&taint.path(), internal_taint(&taint));
            error.detail = "taints must be unique by key and effect pair".into();
            errors.push(error);
        }
    }
}

/// A taint as upstream shows it.
fn internal_taint(taint: &At) -> Value {
    serde_json::json!({"Key": taint.str("key"), "Value": taint.str("value"), "Effect": taint.str("effect"),
        "TimeAdded": taint.value["timeAdded"]})
}

pub(super) fn node_status(object: &At, _old: &At, errors: &mut Errors) {
    resources(object, errors);
    declared_features(&object.get("status.declaredFeatures"), errors);
    addresses(&object.get("status.addresses"), errors);
}

fn resources(object: &At, errors: &mut Errors) {
    for field in ["status.capacity", "status.allocatable"] {
        for (name, amount) in object.get(field).entries() {
            let list = object.get(field);
            quantity(&amount.below(&list).renamed(name), name, errors);
        }
    }
    let swap = object.get("status.nodeInfo.swap.capacity");
    if swap.int().is_some_and(|bytes| bytes <= 0) {
        let metadata = object.get("metadata.nodeSwapStatus");
        swap.below(&metadata).renamed("capacity").invalid(errors, "must be greater than zero");
    }
}

fn addresses(addresses: &At, errors: &mut Errors) {
    for (index, address) in addresses.items().enumerate() {
        if addresses.list()[..index].contains(address.value) {
            let shown = serde_json::json!({"Type": address.str("type"), "Address": address.str("address")});
            errors.push(FieldError::duplicate(&address.path(), shown));
        }
    }
}

/// Features by which nodes differ: sorted names such as `Feature/subFeature`.
fn declared_features(features: &At, errors: &mut Errors) {
    let segment = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric());
    let mut last: Option<&str> = None;
    for feature in features.items() {
        let name = feature.text();
        if name.len() > 253 {
            feature.invalid(errors, format!("invalid feature name {name:?}: must be no more than 253 characters"));
        } else if !name.starts_with(|c: char| c.is_ascii_uppercase()) || !name.split('/').all(segment) {
            let form = "must start with an UpperCamelCase segment, with subsequent segments separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes";
            feature.invalid(errors, format!("invalid feature name {name:?}: {form}"));
        }
        match last {
            Some(before) if before == name => feature.duplicate(errors),
            Some(before) if before > name => feature.invalid(errors, "list must be sorted alphabetically"),
            _ => {}
        }
        last = Some(name);
    }
}
