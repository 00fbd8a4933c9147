//! Status of a claim: what it got, and who uses it.

use serde_json::{Value, json};

use super::claim::Requests;
use super::{MAX_ITEMS, binding_conditions, configuration, need_label, parameters, pool_name, unique_items};
use crate::validate::at::At;
use crate::validate::selector::node_selector;
use crate::validate::storage::driver_name;
use crate::validate::{Errors, format, records};

/// A fixed allocation stays until it is cleared.
pub(in crate::validate) fn claim_status(object: &At, old: &At, errors: &mut Errors) {
    let (status, before) = (object.get("status"), old.get("status"));
    let (allocation, reserved, devices) = (status.get("allocation"), status.get("reservedFor"), status.get("devices"));
    if reserved.at_most(errors, 256) {
        for user in reserved.items() {
            for field in ["resource", "name", "uid"] {
                user.get(field).need(errors);
            }
        }
        unique_items(&reserved, |user| user["uid"].clone(), errors);
    }
    let results = allocation.get("devices.results");
    let allocated: Vec<Value> = results.list().iter().map(device_id).collect();
    for device in devices.items() {
        device_status(&device, &allocated, errors);
    }
    unique_items(&devices, device_id, errors);
    if !reserved.is_empty() && !allocation.is_set() {
        reserved.forbidden(errors, "may not be specified when `allocated` is not set");
    } else if object.get("metadata.deletionTimestamp").is_set() {
        let known = before.get("reservedFor").list();
        if reserved.list().iter().any(|user| !known.contains(user)) {
            let words = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
            reserved.forbidden(errors, words);
        }
    }
    let old_allocation = before.get("allocation");
    if allocation.is_set() && old_allocation.is_set() {
        allocation.immutable(&old_allocation, errors);
    } else if allocation.is_set() {
        new_allocation(&allocation, &Requests(object.get("spec.devices.requests").list()), errors);
    }
}

/// Upstream tells of devices so.
fn device_id(device: &Value) -> Value {
    let text = |field: &str| device[field].as_str().unwrap_or_default().to_owned();
    let mut id = json!({"Driver": text("driver"), "Pool": text("pool"), "Device": text("device")});
    if let Some(share) = device["shareID"].as_str() {
        id["ShareID"] = share.into();
    }
    id
}

fn new_allocation(allocation: &At, requests: &Requests, errors: &mut Errors) {
    let devices = allocation.get("devices");
    let (results, configs) = (devices.get("results"), devices.get("config"));
    if results.at_most(errors, MAX_ITEMS) {
        for result in results.items() {
            requests.check(&result.get("request"), errors);
            driver_name(&result.get("driver"), errors);
            pool_name(&result.get("pool"), errors);
            need_label(&result.get("device"), errors);
            binding_conditions(&result, errors);
            share_id(&result.get("shareID"), errors);
        }
    }
    if configs.at_most(errors, 2 * MAX_ITEMS) {
        for config in configs.items() {
            config.get("source").need_one_of(errors, &["FromClaim", "FromClass"]);
            requests.check_list(&config.get("requests"), errors);
            configuration(&config, errors);
        }
    }
    let selector = allocation.get("nodeSelector");
    if selector.is_set() {
        node_selector(&selector, errors);
    }
}

fn share_id(id: &At, errors: &mut Errors) {
    let text = id.text();
    let hex = |part: &str| part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    if id.is_set() && !(lengths == [8, 4, 4, 4, 12] && text.split('-').all(hex)) {
        id.invalid(errors, "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters");
    }
}

fn device_status(device: &At, allocated: &[Value], errors: &mut Errors) {
    driver_name(&device.get("driver"), errors);
    pool_name(&device.get("pool"), errors);
    need_label(&device.get("device"), errors);
    share_id(&device.get("shareID"), errors);
    let id = device_id(device.value);
    if !allocated.contains(&id) {
        device.invalid_value(errors, id, "must be an allocated device in the claim");
    }
    let conditions = device.get("conditions");
    conditions.at_most(errors, 8);
    records::conditions(&conditions, errors);
    if device.get("data").is_set() {
        parameters(&device.get("data"), errors);
    }
    let network = device.get("networkData");
    network.get("interfaceName").no_longer(errors, 256);
    network.get("hardwareAddress").no_longer(errors, 128);
    let addresses = network.get("ips");
    if addresses.at_most(errors, 16) {
        for address in addresses.items() {
            address.check(errors, format::interface(address.text()));
        }
        unique_items(&addresses, Value::clone, errors);
    }
}
