//! Classes of storage, and the drivers behind them.

use std::collections::HashSet;

use serde_json::Value;

use super::at::{At, same};
use super::selector::{label_name, label_selector};
use super::storage::driver_name;
use super::{Errors, format};
use crate::field::{FieldError, FieldPath};

const MAX_PARAMETER_BYTES: usize = 256 * 1024;

pub(super) fn storage_class(object: &At, old: Option<&At>, errors: &mut Errors) {
    let mode = object.get("volumeBindingMode");
    provisioner(&object.get("provisioner"), errors);
    check_parameters(&object.get("parameters"), errors);
    object.get("reclaimPolicy").listed(errors, &["Delete", "Retain"]);
    if !mode.is_set() {
        mode.required(errors, "");
    }
    topologies(&object.get("allowedTopologies"), errors);
    if let Some(old) = old {
        for field in ["parameters", "provisioner", "reclaimPolicy"] {
            unchangeable(object, old, field, errors);
        }
        mode.immutable(&old.get("volumeBindingMode"), errors);
    }
}

fn provisioner(name: &At, errors: &mut Errors) {
    if name.need(errors) {
        let lower = name.text().to_lowercase();
        for problem in format::qualified_name(&lower) {
            name.invalid_value(errors, lower.as_str(), problem);
        }
    }
}

fn check_parameters(parameters: &At, errors: &mut Errors) {
    let mut size = 0;
    if parameters.members().is_some_and(|m| m.len() > 512) {
        parameters.too_long(errors, 512);
        return;
    }
    for (key, value) in parameters.entries() {
        if key.is_empty() {
            parameters.invalid_value(errors, key, "field can not be empty.");
        }
        size += key.len() + value.text().len();
    }
    if size > MAX_PARAMETER_BYTES {
        parameters.too_long(errors, MAX_PARAMETER_BYTES);
    }
}

/// Where volumes may be made: terms with different requirements, each of one key.
fn topologies(terms: &At, errors: &mut Errors) {
    let list = terms.list();
    for (index, term) in terms.items().enumerate() {
        let mut keys: HashSet<&str> = HashSet::new();
        for requirement in term.get("matchLabelExpressions").items() {
            let (key, values) = (requirement.get("key"), requirement.get("values"));
            let mut seen: HashSet<&str> = HashSet::new();
            if values.is_empty() {
                values.required(errors, "");
            }
            for value in values.items() {
                value.unique(&mut seen, errors);
            }
            label_name(&key, errors);
            key.unique(&mut keys, errors);
        }
        let nothing = term.get("matchLabelExpressions").is_empty();
        if nothing || list[..index].contains(term.value) {
            errors.push(FieldError::duplicate(&term.get("matchLabelExpressions").path(), ""));
        }
    }
}

fn unchangeable(object: &At, old: &At, field: &str, errors: &mut Errors) {
    if !same(object.get(field).value, old.get(field).value) {
        object.get(field).forbidden(errors, format!("updates to {field} are forbidden."));
    }
}

pub(super) fn attributes_class(object: &At, old: Option<&At>, errors: &mut Errors) {
    for field in ["driverName", "parameters"] {
        if let Some(old) = old {
            unchangeable(object, old, field, errors);
        }
    }
    provisioner(&object.get("driverName"), errors);
    let parameters = object.get("parameters");
    check_parameters(&parameters, errors);
    if parameters.is_empty() {
        parameters.required(errors, "must contain at least one key/value pair");
    }
}

pub(super) fn csi_driver(object: &At, old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    // Upstream's name of the first field.
    let attached = FieldPath::new("spec").child("attachedRequired");
    if !spec.get("attachRequired").is_set() {
        errors.push(FieldError::required(&attached, ""));
    }
    for field in ["podInfoOnMount", "storageCapacity"] {
        if !spec.get(field).is_set() {
            spec.get(field).required(errors, "");
        }
    }
    let groups = spec.get("fsGroupPolicy");
    const POLICIES: [&str; 3] = ["File", "None", "ReadWriteOnceWithFSType"];
    if groups.is_set() && !POLICIES.contains(&groups.text()) {
        groups.not_supported(errors, &POLICIES);
    }
    token_requests(&spec, errors);
    let modes = spec.get("volumeLifecycleModes");
    for mode in modes.items().filter(|mode| !["Persistent", "Ephemeral"].contains(&mode.text())) {
        let error = FieldError::not_supported(&modes.path(), mode.text(), &["Persistent", "Ephemeral"]);
        errors.push(error);
    }
    if !spec.get("seLinuxMount").is_set() {
        spec.get("seLinuxMount").required(errors, "");
    }
    let period = spec.get("nodeAllocatableUpdatePeriodSeconds");
    if period.int().is_some_and(|s| s < 10) {
        period.invalid(errors, "must be greater than or equal to 10 seconds");
    }
    let Some(old) = old else { return };
    let required = spec.get("attachRequired");
    if !same(required.value, old.get("spec.attachRequired").value) {
        errors.push(FieldError::invalid(&attached, required.value.clone(), "field is immutable"));
    }
    modes.immutable(&old.get("spec.volumeLifecycleModes"), errors);
}

/// Tokens that the driver is given, each for another audience.
fn token_requests(spec: &At, errors: &mut Errors) {
    let requests = spec.get("tokenRequests");
    let mut audiences: HashSet<&str> = HashSet::new();
    for request in requests.items() {
        let (audience, seconds) = (request.get("audience"), request.get("expirationSeconds"));
        if !audiences.insert(audience.text()) {
            errors.push(FieldError::duplicate(&audience.path(), audience.text()));
            continue;
        }
        if seconds.int().is_some_and(|s| s < 600) {
            seconds.invalid(errors, "may not specify a duration less than 10 minutes");
        }
        if seconds.int().is_some_and(|s| s > 1 << 32) {
            seconds.invalid(errors, "may not specify a duration larger than 2^32 seconds");
        }
    }
    let secrets = spec.get("serviceAccountTokenInSecrets");
    if secrets.is_set() && requests.is_empty() {
        secrets.invalid(errors, "serviceAccountTokenInSecrets is set but no tokenRequests are specified");
    }
}

const MAX_NODE_ID: usize = 256;

pub(super) fn csi_node(object: &At, old: Option<&At>, errors: &mut Errors) {
    let drivers = object.get("spec.drivers");
    let mut names: HashSet<&str> = HashSet::new();
    for driver in drivers.items() {
        driver_name(&driver.get("name"), errors);
        let id = driver.get("nodeID");
        id.need(errors);
        if id.text().len() > MAX_NODE_ID {
            id.invalid(errors, format!("must be {MAX_NODE_ID} characters or less"));
        }
        driver.get("allocatable.count").not_negative(errors);
        driver.get("name").unique(&mut names, errors);
        let mut keys: HashSet<&str> = HashSet::new();
        for key in driver.get("topologyKeys").list().iter().filter_map(Value::as_str) {
            if key.is_empty() {
                driver.required(errors, "");
            }
            if !keys.insert(key) {
                errors.push(FieldError::duplicate(&driver.path(), key));
            }
            for problem in format::qualified_name(key) {
                driver.invalid_value(errors, key, problem);
            }
        }
    }
    let fixed = |driver: &Value| {
        let mut fixed = driver.clone();
        fixed.as_object_mut().and_then(|members| members.remove("allocatable"));
        fixed
    };
    let before = old.map(|old| old.get("spec.drivers").list()).unwrap_or_default();
    for old in before {
        for new in drivers.list().iter().filter(|new| new["name"] == old["name"]) {
            if !same(&fixed(new), &fixed(old)) {
                drivers.invalid_value(errors, fixed(new), "field is immutable");
            }
        }
    }
}

pub(super) fn volume_attachment(object: &At, old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    let (attacher, source, node) = (spec.get("attacher"), spec.get("source"), spec.get("nodeName"));
    attacher.need(errors);
    let volume = source.get("persistentVolumeName");
    match source.set_members(&["inlineVolumeSpec", "persistentVolumeName"])[..] {
        [] => source.required(errors, "must specify exactly one of inlineVolumeSpec and persistentVolumeName"),
        [_, _] => source.forbidden(errors, "must specify exactly one of inlineVolumeSpec and persistentVolumeName"),
        _ if volume.is_set() && volume.is_empty() => {
            volume.required(errors, "must specify non empty persistentVolumeName");
        }
        ["inlineVolumeSpec"] => super::storage::inline_volume(&source.get("inlineVolumeSpec"), errors),
        _ => {}
    }
    for problem in format::dns_subdomain(node.text()) {
        node.invalid_value(errors, node.text(), problem);
    }
    attachment(&object.get("status"), errors);
    match old {
        Some(old) => spec.immutable(&old.get("spec"), errors),
        None => {
            driver_name(&attacher, errors);
            if volume.is_set() {
                volume.check(errors, format::dns_subdomain(volume.text()));
            }
        }
    }
}

pub(super) fn attachment_status(object: &At, _old: &At, errors: &mut Errors) {
    attachment(&object.get("status"), errors);
}

fn attachment(status: &At, errors: &mut Errors) {
    let metadata = status.get("attachmentMetadata");
    let size: usize = metadata.entries().map(|(key, value)| key.len() + value.text().len()).sum();
    if size > MAX_PARAMETER_BYTES {
        metadata.too_long(errors, MAX_PARAMETER_BYTES);
    }
    for error in ["attachError", "detachError"] {
        let error = status.get(error);
        if error.str("message").len() > 1024 {
            // Upstream names the limit of the metadata.
            error.get("message").too_long(errors, MAX_PARAMETER_BYTES);
        }
        let code = error.get("errorCode");
        if code.int().is_some_and(|code| code < 0) {
            code.invalid(errors, format!("must be between 0 and {}, inclusive", i32::MAX));
        }
    }
}

pub(super) fn storage_capacity(object: &At, old: Option<&At>, errors: &mut Errors) {
    let class = object.get("storageClassName");
    label_selector(&object.get("nodeTopology"), errors);
    for problem in format::dns_subdomain(class.text()) {
        class.invalid_value(errors, class.text(), problem);
    }
    let amount = object.get("capacity");
    if amount.quantity().is_some_and(|q| q.is_negative()) {
        amount.invalid(errors, "must be greater than or equal to 0");
    }
    if let Some(old) = old {
        for field in ["nodeTopology", "storageClassName"] {
            object.get(field).immutable(&old.get(field), errors);
        }
    }
}
