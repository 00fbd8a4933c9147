//! What a driver tells of its devices.

use serde_json::Value;

use super::{EFFECTS, binding_conditions, label_value, need_label, pool_name, qualified_name, unique_items};
use crate::quantity::Quantity;
use crate::validate::at::{At, same};
use crate::validate::selector::{label_name, node_selector};
use crate::validate::storage::driver_name;
use crate::validate::{Errors, format};

const MAX_DEVICES: usize = 128;
/// Of devices with taints, or that share counters.
const MAX_HEAVY_DEVICES: usize = 64;
const MAX_COUNTERS: usize = 32;

pub(in crate::validate) fn slice(object: &At, old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    driver_name(&spec.get("driver"), errors);
    let pool = spec.get("pool");
    pool_name(&pool.get("name"), errors);
    pool.get("resourceSliceCount").need_positive(errors, "must be greater than zero");
    if pool.number("generation") < 0 {
        pool.get("generation").invalid(errors, "must be greater than or equal to zero");
    }
    if let Some(old) = old {
        for field in ["spec.pool.name", "spec.driver", "spec.nodeName"] {
            object.get(field).immutable(&old.get(field), errors);
        }
    }
    nodes(&spec, errors);
    let (devices, counters) = (spec.get("devices"), spec.get("sharedCounters"));
    if devices.is_set() && counters.is_set() {
        spec.invalid_value(errors, "", "only one of `sharedCounters` or `devices` is allowed");
    }
    let filled = |device: &Value, list: &str| device[list].as_array().is_some_and(|l| !l.is_empty());
    let heavy = devices.list().iter().any(|d| filled(d, "taints") || filled(d, "consumesCounters"));
    if devices.at_most(errors, if heavy { MAX_HEAVY_DEVICES } else { MAX_DEVICES }) {
        let per_device = spec.get("perDeviceNodeSelection").is_true();
        let before = old.map(|old| old.get("spec.devices").list()).unwrap_or_default();
        for device in devices.items() {
            let before = before.iter().find(|before| before["name"] == device.value["name"]);
            self::device(&device, before, per_device, errors);
        }
        unique_items(&devices, |device| device["name"].clone(), errors);
    }
    counter_sets(&counters, "name", 8, errors);
}

/// Where all devices of a slice are to be had: told in one way.
fn nodes(spec: &At, errors: &mut Errors) {
    let mut ways = Vec::new();
    node_name(spec, "must be either unset or set to a non-empty string", &mut ways, errors);
    let selector = spec.get("nodeSelector");
    if selector.is_set() {
        ways.push("`nodeSelector`");
        node_selector(&selector, errors);
        if selector.get("nodeSelectorTerms").list().len() != 1 {
            selector.get("nodeSelectorTerms").invalid(errors, "must have exactly one node selector term");
        }
    }
    for (field, way) in [("allNodes", "`allNodes`"), ("perDeviceNodeSelection", "`perDeviceNodeSelection`")] {
        flag(&spec.get(field), way, &mut ways, errors);
    }
    const ONE: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match ways[..] {
        [] => spec.required(errors, ONE),
        [_] => {}
        _ => {
            let detail = format!("{ONE}, but multiple fields are set");
            spec.invalid_value(errors, format!("{{{}}}", ways.join(", ")), detail);
        }
    }
}

fn node_name(at: &At, empty: &str, ways: &mut Vec<&str>, errors: &mut Errors) {
    let name = at.get("nodeName");
    match name.text() {
        _ if !name.is_set() => {}
        "" => name.invalid(errors, empty),
        text => {
            ways.push("`nodeName`");
            name.check(errors, format::dns_subdomain(text));
        }
    }
}

fn flag(at: &At, way: &'static str, ways: &mut Vec<&str>, errors: &mut Errors) {
    match at.value {
        Value::Bool(true) => ways.push(way),
        Value::Bool(false) => at.invalid(errors, "must be either unset or set to true"),
        _ => {}
    }
}

fn device(device: &At, before: Option<&Value>, per_device: bool, errors: &mut Errors) {
    need_label(&device.get("name"), errors);
    let (attributes, capacity) = (device.get("attributes"), device.get("capacity"));
    let count = [attributes, capacity].iter().filter_map(At::members).map(serde_json::Map::len).sum::<usize>();
    if count > MAX_COUNTERS {
        let detail = format!("the total number of attributes and capacities must not exceed {MAX_COUNTERS}");
        device.invalid_value(errors, count, detail);
    }
    for (name, attribute) in attributes.entries() {
        qualified_name(&attribute.path(), name, errors);
        self::attribute(&attribute, errors);
    }
    let shared = device.get("allowMultipleAllocations").is_true();
    for (name, amount) in capacity.entries() {
        qualified_name(&amount.path(), name, errors);
        let policy = amount.get("requestPolicy");
        if policy.is_set() && !shared {
            policy.forbidden(errors, "allowMultipleAllocations must be true");
        } else if policy.is_set() {
            request_policy(&amount.get("value"), &policy, errors);
        }
    }
    let taints = device.get("taints");
    if before.is_none_or(|before| !same(&before["taints"], taints.value)) && taints.at_most(errors, 16) {
        for taint in taints.items() {
            let value = taint.get("value");
            label_name(&taint.get("key"), errors);
            if !value.is_empty() {
                label_value(&value, errors);
            }
            if !EFFECTS.contains(&taint.str("effect")) && taint.get("effect").is_empty() {
                taint.get("effect").required(errors, "");
            }
        }
    }
    counter_sets(&device.get("consumesCounters"), "counterSet", 2, errors);
    device_nodes(device, per_device, errors);
    binding_conditions(device, errors);
}

/// Where one device is to be had, if each tells for itself.
fn device_nodes(device: &At, per_device: bool, errors: &mut Errors) {
    if !per_device {
        if !device.set_members(&["nodeName", "nodeSelector", "allNodes"]).is_empty() {
            let words = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
            device.invalid_value(errors, Value::Null, words);
        }
        return;
    }
    let mut ways = Vec::new();
    node_name(device, "must not be empty", &mut ways, errors);
    let selector = device.get("nodeSelector");
    if selector.is_set() {
        ways.push("`nodeSelector`");
        node_selector(&selector, errors);
    }
    flag(&device.get("allNodes"), "`allNodes`", &mut ways, errors);
    const ONE: &str = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
    match ways[..] {
        [] => device.required(errors, ONE),
        [_] => {}
        _ => device.invalid_value(errors, format!("{{{}}}", ways.join(", ")), ONE),
    }
}

/// Counters that devices share, or what one of them takes.
fn counter_sets(sets: &At, key: &'static str, max: usize, errors: &mut Errors) {
    if !sets.at_most(errors, max) {
        return;
    }
    for set in sets.items() {
        let (name, counters) = (set.get(key), set.get("counters"));
        if name.need(errors) {
            need_label(&name, errors);
        }
        if counters.is_empty() {
            counters.required(errors, "");
        } else if counters.at_most(errors, MAX_COUNTERS) {
            for (name, counter) in counters.entries() {
                for problem in format::dns_label(name) {
                    counter.invalid_value(errors, name, problem);
                }
            }
        }
    }
    unique_items(sets, |set| set[key].clone(), errors);
}

fn attribute(attribute: &At, errors: &mut Errors) {
    const MAX_BYTES: usize = 64;
    let (text, version) = (attribute.get("string"), attribute.get("version"));
    text.no_longer(errors, MAX_BYTES);
    if version.is_set() && !is_version(version.text()) {
        version.invalid(errors, "must be a string compatible with semver.org spec 2.0.0");
    }
    version.no_longer(errors, MAX_BYTES);
    match attribute.set_members(&["bool", "int", "string", "version"])[..] {
        [_] => {}
        [] => attribute.invalid_value(errors, "", "exactly one value must be specified"),
        _ => attribute.invalid(errors, "exactly one value must be specified"),
    }
}

/// `1.2.3-before.1+build.5`
fn is_version(text: &str) -> bool {
    let (rest, build) = text.split_once('+').map_or((text, None), |(rest, build)| (rest, Some(build)));
    let (core, before) = rest.split_once('-').map_or((rest, None), |(core, before)| (core, Some(before)));
    let number = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) && (part == "0" || !part.starts_with('0'))
    };
    let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let mixed = |part: &str| word(part) && (number(part) || !part.bytes().all(|b| b.is_ascii_digit()));
    core.split('.').count() == 3
        && core.split('.').all(number)
        && before.is_none_or(|list| list.split('.').all(mixed))
        && build.is_none_or(|list| list.split('.').all(word))
}

/// What may be asked of a capacity that several share: listed amounts, or a range.
fn request_policy(max: &At, policy: &At, errors: &mut Errors) {
    let (values, range, default) = (policy.get("validValues"), policy.get("validRange"), policy.get("default"));
    match (!values.is_empty(), range.is_set()) {
        (true, true) => policy.forbidden(
            errors,
            "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time",
        ),
        (true, false) if !default.is_set() => default.required(errors, "required when validValues is defined"),
        (false, true) if !default.is_set() => default.required(errors, "required when validRange is defined"),
        (true, false) => valid_values(&values, &default, max, errors),
        (false, true) => valid_range(&range, &default, max, errors),
        (false, false) => {}
    }
}

fn valid_values(values: &At, default: &At, max: &At, errors: &mut Errors) {
    let amounts: Vec<Option<Quantity>> = values.items().map(|value| value.quantity()).collect();
    for (index, pair) in amounts.windows(2).enumerate() {
        if pair[0] > pair[1] {
            values.index(index + 1).invalid(errors, "values must be sorted in ascending order");
        }
    }
    if values.at_most(errors, 10) {
        for value in values.items().filter(|value| value.quantity() > max.quantity()) {
            value.invalid(errors, format!("option is larger than capacity value: {}", max.text()));
        }
    }
    if !amounts.contains(&default.quantity()) {
        values.invalid_value(errors, default.text(), "default value is not valid according to the requestPolicy");
    }
}

fn valid_range(range: &At, default: &At, max: &At, errors: &mut Errors) {
    let (low, high, step) = (range.get("min"), range.get("max"), range.get("step"));
    let Some(least) = low.quantity() else {
        return low.required(errors, "required when validRange is defined");
    };
    let (all, usual) = (max.quantity().unwrap_or_else(|| Quantity::from_units(0)), default.quantity());
    if least > all {
        low.invalid(errors, format!("min is larger than capacity value: {}", max.text()));
    }
    if usual.is_some_and(|usual| usual < least) {
        low.invalid_value(errors, default.text(), format!("default is less than min: {}", low.text()));
    }
    if let Some(most) = high.quantity() {
        if least > most {
            high.invalid_value(errors, low.text(), format!("min is larger than max: {}", high.text()));
        }
        if most > all {
            high.invalid(errors, format!("max is larger than capacity value: {}", max.text()));
        }
        if usual.is_some_and(|usual| usual > most) {
            high.invalid_value(errors, default.text(), format!("default is more than max: {}", high.text()));
        }
    }
    let Some(by) = step.quantity().filter(|by| by.units() != 0) else { return };
    if least.plus(by) > all {
        let words = format!("one step {} is larger than capacity value: {}", least.plus(by), max.text());
        step.invalid(errors, words);
    }
    for end in [default, &high] {
        if end.quantity().is_some_and(|end| (end.units() - least.units()) % by.units() != 0) {
            let words = format!("value is not a multiple of a given step ({}) from ({})", step.text(), low.text());
            step.invalid_value(errors, end.text(), words);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_semantic() {
        for good in ["1.2.3", "0.0.0", "1.2.3-a.1", "1.2.3+01", "1.2.3-0a+b-c.d"] {
            assert!(is_version(good), "{good}");
        }
        for bad in ["1.2", "01.2.3", "1.2.3-01", "1.2.3+", "v1.2.3", "1.2.3-a..b"] {
            assert!(!is_version(bad), "{bad}");
        }
    }
}
