//! Classes of storage, and the drivers behind them.

use std::collections::HashSet;

use serde_json::Value;

use super::at::{At, same};
use super::selector::label_selector;
use super::storage::driver_name;
use super::{Errors, format};

pub(super) fn storage_class(object: &At, old: Option<&At>, errors: &mut Errors) {
    let (provisioner, parameters) = (object.get("provisioner"), object.get("parameters"));
    if provisioner.need(errors) {
        provisioner.check(errors, format::qualified_name(&provisioner.text().to_lowercase()));
    }
    check_parameters(&parameters, errors);
    object.get("volumeBindingMode").need(errors);
    if let Some(old) = old {
        for field in ["parameters", "provisioner", "reclaimPolicy"] {
            unchangeable(object, old, field, errors);
        }
        object.get("volumeBindingMode").immutable(&old.get("volumeBindingMode"), errors);
    }
}

fn check_parameters(parameters: &At, errors: &mut Errors) {
    let mut size = 0;
    if parameters.members().is_some_and(|m| m.len() > 512) {
        parameters.too_long(errors, 512);
    }
    for (key, value) in parameters.entries() {
        if key.is_empty() {
            parameters.invalid_value(errors, key, "field can not be empty.");
        }
        size += key.len() + value.text().len();
    }
    if size > 256 * 1024 {
        parameters.too_long(errors, 256 * 1024);
    }
}

fn unchangeable(object: &At, old: &At, field: &str, errors: &mut Errors) {
    if !same(object.get(field).value, old.get(field).value) {
        object.get(field).forbidden(errors, format!("updates to {field} are forbidden."));
    }
}

pub(super) fn attributes_class(object: &At, old: Option<&At>, errors: &mut Errors) {
    driver_name(&object.get("driverName"), errors);
    object.get("parameters").need(errors);
    check_parameters(&object.get("parameters"), errors);
    if let Some(old) = old {
        for field in ["driverName", "parameters"] {
            unchangeable(object, old, field, errors);
        }
    }
}

pub(super) fn csi_driver(object: &At, old: Option<&At>, errors: &mut Errors) {
    let name = object.get("metadata.name");
    if name.text().len() > 63 {
        name.too_long(errors, 63);
    }
    let spec = object.get("spec");
    for field in ["attachRequired", "podInfoOnMount"] {
        if !spec.get(field).is_set() {
            spec.get(field).required(errors, "");
        }
    }
    for mode in spec.get("volumeLifecycleModes").items() {
        mode.one_of(errors, &["Ephemeral", "Persistent"]);
    }
    spec.get("fsGroupPolicy").one_of(errors, &["File", "None", "ReadWriteOnceWithFSType"]);
    if let Some(old) = old {
        for field in ["spec.attachRequired", "spec.volumeLifecycleModes"] {
            object.get(field).immutable(&old.get(field), errors);
        }
    }
}

pub(super) fn csi_node(object: &At, old: Option<&At>, errors: &mut Errors) {
    let drivers = object.get("spec.drivers");
    let mut names: HashSet<&str> = HashSet::new();
    for driver in drivers.items() {
        driver_name(&driver.get("name"), errors);
        if names.contains(&driver.str("name")) {
            driver.get("name").duplicate(errors);
        }
        names.insert(driver.str("name"));
        let id = driver.get("nodeID");
        if id.need(errors) && id.text().len() > 192 {
            id.invalid(errors, "must be 192 characters or less");
        }
        driver.get("allocatable.count").not_negative(errors);
        let before = old
            .and_then(|old| old.value["spec"]["drivers"].as_array()?.iter().find(|d| d["name"] == driver.str("name")));
        let fixed = |value: &Value| (value["nodeID"].clone(), value["topologyKeys"].clone());
        if before.is_some_and(|before| fixed(before) != fixed(driver.value)) {
            driver.invalid(errors, "field is immutable");
        }
    }
}

pub(super) fn volume_attachment(object: &At, old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    driver_name(&spec.get("attacher"), errors);
    let node = spec.get("nodeName");
    if node.need(errors) {
        node.check(errors, format::dns_subdomain(node.text()));
    }
    let source = spec.get("source");
    match source.set_members(&["inlineVolumeSpec", "persistentVolumeName"])[..] {
        [] => source.required(errors, "must specify exactly one of inlineVolumeSpec and persistentVolumeName"),
        [_, _] => source.forbidden(errors, "must specify exactly one of inlineVolumeSpec and persistentVolumeName"),
        _ => {}
    }
    if let Some(old) = old {
        spec.immutable(&old.get("spec"), errors);
    }
}

pub(super) fn storage_capacity(object: &At, old: Option<&At>, errors: &mut Errors) {
    let class = object.get("storageClassName");
    for problem in format::dns_subdomain(class.text()) {
        class.invalid_value(errors, class.text(), problem);
    }
    label_selector(&object.get("nodeTopology"), errors);
    for field in ["capacity", "maximumVolumeSize"] {
        let amount = object.get(field);
        if amount.quantity().is_some_and(|q| q.is_negative()) {
            amount.invalid(errors, "must be greater than or equal to 0");
        }
    }
    if let Some(old) = old {
        for field in ["nodeTopology", "storageClassName"] {
            object.get(field).immutable(&old.get(field), errors);
        }
    }
}
