//! Dynamic resources: claims, classes and slices of devices.

use std::collections::HashSet;

use super::at::At;
use super::extension::expression;
use super::selector::node_selector;
use super::storage::driver_name;
use super::{Errors, format, metadata};
use crate::field::FieldError;

const MAX_REQUESTS: usize = 32;
const MAX_DEVICES: usize = 128;

pub(super) fn claim(object: &At, old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    match old {
        None => claim_spec(&spec, errors),
        Some(old) => spec.immutable(&old.get("spec"), errors),
    }
}

pub(super) fn claim_template(object: &At, old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    match old {
        None => {
            metadata::labels(&spec.get("metadata.labels"), errors);
            metadata::annotations(&spec.get("metadata.annotations"), errors);
            claim_spec(&spec.get("spec"), errors);
        }
        Some(old) => spec.immutable(&old.get("spec"), errors),
    }
}

fn claim_spec(spec: &At, errors: &mut Errors) {
    let requests = spec.get("devices.requests");
    at_most(&requests, MAX_REQUESTS, errors);
    let mut names: HashSet<&str> = HashSet::new();
    for request in requests.items() {
        unique_label(&request.get("name"), &names, errors);
        names.insert(request.str("name"));
        let (exactly, first) = (request.get("exactly"), request.get("firstAvailable"));
        match (exactly.is_set(), first.is_empty()) {
            (true, false) => request.invalid(
                errors,
                "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set",
            ),
            (false, true) => request.required(errors, "exactly one of `exactly` or `firstAvailable` is required"),
            (true, true) => device_request(&exactly, errors),
            (false, false) => {
                at_most(&first, 8, errors);
                let mut inner: HashSet<&str> = HashSet::new();
                for sub in first.items() {
                    unique_label(&sub.get("name"), &inner, errors);
                    inner.insert(sub.str("name"));
                    device_request(&sub, errors);
                }
            }
        }
    }
    let known = |name: &str| names.contains(&name.split('/').next().unwrap_or_default());
    for list in ["devices.constraints", "devices.config"] {
        let list = spec.get(list);
        at_most(&list, MAX_REQUESTS, errors);
        for item in list.items() {
            for name in item.get("requests").items() {
                if !known(name.text()) {
                    name.invalid(errors, "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'");
                }
            }
        }
    }
}

fn device_request(request: &At, errors: &mut Errors) {
    let (class, mode, count) = (request.get("deviceClassName"), request.get("allocationMode"), request.get("count"));
    if class.need(errors) {
        class.check(errors, format::dns_subdomain(class.text()));
    }
    match mode.text() {
        "All" if !count.is_empty() => {
            count.invalid(errors, "must not be specified when allocationMode is 'All'");
        }
        "ExactCount" if count.int().unwrap_or(0) <= 0 => {
            count.invalid_value(errors, count.int().unwrap_or(0), "must be greater than zero");
        }
        _ => {}
    }
    selectors(&request.get("selectors"), errors);
}

fn selectors(selectors: &At, errors: &mut Errors) {
    at_most(selectors, MAX_REQUESTS, errors);
    for selector in selectors.items() {
        if !selector.get("cel").is_set() {
            selector.get("cel").required(errors, "");
        } else {
            expression(&selector.get("cel.expression"), &crate::cel::Env::device(), &[], errors);
        }
    }
}

pub(super) fn class(object: &At, _old: Option<&At>, errors: &mut Errors) {
    selectors(&object.get("spec.selectors"), errors);
    for config in object.get("spec.config").items() {
        let opaque = config.get("opaque");
        if opaque.need(errors) {
            driver_name(&opaque.get("driver"), errors);
        }
    }
}

pub(super) fn slice(object: &At, old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    driver_name(&spec.get("driver"), errors);
    let pool = spec.get("pool.name");
    if pool.need(errors) {
        for part in pool.text().split('/') {
            pool.check(errors, format::dns_subdomain(part));
        }
    }
    let count = spec.get("pool.resourceSliceCount");
    if count.int().unwrap_or(0) <= 0 {
        count.invalid_value(errors, count.int().unwrap_or(0), "must be greater than zero");
    }
    const WHERE: [&str; 4] = ["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"];
    let set = WHERE.iter().filter(|name| !spec.get(name).is_empty()).count();
    if set != 1 {
        let detail = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
        spec.required(errors, detail);
    }
    if spec.get("nodeSelector").is_set() {
        node_selector(&spec.get("nodeSelector"), errors);
    }
    let devices = spec.get("devices");
    at_most(&devices, MAX_DEVICES, errors);
    let mut names: HashSet<&str> = HashSet::new();
    for device in devices.items() {
        unique_label(&device.get("name"), &names, errors);
        names.insert(device.str("name"));
        for (key, attribute) in device.get("attributes").entries() {
            if attribute.set_members(&["bool", "int", "string", "version"]).len() != 1 {
                attribute.invalid_value(errors, key, "exactly one value must be specified");
            }
        }
    }
    if let Some(old) = old {
        for field in ["spec.nodeName", "spec.driver", "spec.pool.name"] {
            object.get(field).immutable(&old.get(field), errors);
        }
    }
}

fn unique_label(name: &At, seen: &HashSet<&str>, errors: &mut Errors) {
    if name.need(errors) {
        name.check(errors, format::dns_label(name.text()));
    }
    if seen.contains(&name.text()) {
        name.duplicate(errors);
    }
}

fn at_most(list: &At, max: usize, errors: &mut Errors) {
    if list.list().len() > max {
        errors.push(FieldError::too_many(&list.path(), list.list().len(), max));
    }
}

/// Status of a claim: a fixed allocation stays until it is cleared.
pub(super) fn claim_status(object: &At, old: &At, errors: &mut Errors) {
    let (status, before) = (object.get("status"), old.get("status"));
    let (allocation, old_allocation) = (status.get("allocation"), before.get("allocation"));
    if allocation.is_set() && old_allocation.is_set() {
        allocation.immutable(&old_allocation, errors);
    }
    let (reserved, old_reserved) = (status.get("reservedFor"), before.get("reservedFor"));
    if !reserved.is_empty() && !allocation.is_set() {
        reserved.forbidden(errors, "may not be specified when `allocated` is not set");
    }
    at_most(&reserved, 256, errors);
    if object.get("metadata.deletionTimestamp").is_set() {
        if allocation.is_set() && !old_allocation.is_set() {
            allocation.forbidden(errors, "new allocations may not be added when the claim is meant to be deallocated");
        }
        if reserved.list().iter().any(|user| !old_reserved.list().contains(user)) {
            reserved.forbidden(errors, "new entries may not be added while `deletionTimestamp` is set");
        }
    }
}
