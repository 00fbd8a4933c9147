//! Dynamic resources: claims, classes and slices of devices.

mod claim;
mod slice;
mod status;

use std::collections::HashSet;

use serde_json::Value;

use super::at::At;
use super::extension::expression;
use super::selector::label_name;
use super::storage::driver_name;
use super::{Errors, format};
use crate::cel::{Env, Type};
use crate::field::{FieldError, FieldPath};

pub(super) use claim::{claim, claim_template, class};
pub(super) use slice::slice;
pub(super) use status::claim_status;

/// Requests, constraints, configurations and selectors that one list may hold.
const MAX_ITEMS: usize = 32;
const MAX_PARAMETER_BYTES: usize = 10 * 1024;
const MAX_EXPRESSION_BYTES: usize = 10 * 1024;

/// Reports labels that come twice in a list, each at the place of its item.
fn unique_items<'v>(list: &At<'v, '_>, key: impl Fn(&'v Value) -> Value, errors: &mut Errors) {
    let mut seen: HashSet<String> = HashSet::new();
    for item in list.items() {
        let key = key(item.value);
        if !seen.insert(key.to_string()) {
            errors.push(FieldError::duplicate(&item.path(), key));
        }
    }
}

fn need_label(name: &At, errors: &mut Errors) {
    for problem in format::dns_label(name.text()) {
        name.invalid_value(errors, name.text(), problem);
    }
}

fn pool_name(name: &At, errors: &mut Errors) {
    if !name.need(errors) {
        return;
    }
    name.no_longer(errors, 253);
    for part in name.text().split('/') {
        for problem in format::dns_subdomain(part) {
            name.invalid_value(errors, part, problem);
        }
    }
}

/// The name of an attribute or capacity: a C identifier, maybe of a domain. `shown` is the text to tell of.
fn qualified_name(path: &FieldPath, name: &str, errors: &mut Errors) {
    let identifier = |part: &str, errors: &mut Errors| {
        if part.len() > 32 {
            errors.push(FieldError::too_long(path, 32));
        }
        errors.extend(format::c_identifier(part).into_iter().map(|p| FieldError::invalid(path, part, p)));
    };
    match name.split('/').collect::<Vec<_>>()[..] {
        [only] => identifier(only, errors),
        [domain, part] => {
            if domain.is_empty() {
                errors.push(FieldError::invalid(path, "", "the domain must not be empty"));
            } else {
                if domain.len() > 63 {
                    errors.push(FieldError::too_long(path, 63));
                }
                let problems = format::dns_subdomain(&domain.to_lowercase());
                errors.extend(problems.into_iter().map(|p| FieldError::invalid(path, domain, p)));
            }
            if part.is_empty() {
                errors.push(FieldError::invalid(path, "", "the name must not be empty"));
            } else {
                identifier(part, errors);
            }
        }
        _ => {}
    }
}

fn full_name(name: &At, errors: &mut Errors) {
    qualified_name(&name.path(), name.text(), errors);
    if !name.text().contains('/') {
        name.invalid(errors, "a fully qualified name must be a domain and a name separated by a slash");
    }
}

/// An object of its driver's own making.
fn parameters(raw: &At, errors: &mut Errors) {
    match raw.value {
        Value::Null => raw.required(errors, ""),
        value if value.to_string().len() > MAX_PARAMETER_BYTES => raw.too_long(errors, MAX_PARAMETER_BYTES),
        Value::Object(_) => {}
        _ => raw.invalid_value(errors, "<value omitted>", "must be a valid JSON object"),
    }
}

fn configuration(config: &At, errors: &mut Errors) {
    let opaque = config.get("opaque");
    if !opaque.is_set() {
        return opaque.required(errors, "");
    }
    driver_name(&opaque.get("driver"), errors);
    parameters(&opaque.get("parameters"), errors);
}

fn selectors(selectors: &At, errors: &mut Errors) {
    if !selectors.at_most(errors, MAX_ITEMS) {
        return;
    }
    for selector in selectors.items() {
        let text = selector.get("cel.expression");
        if !selector.get("cel").is_set() {
            selector.get("cel").required(errors, "");
        } else if text.no_longer(errors, MAX_EXPRESSION_BYTES) {
            expression(&text, &Env::device(), &[Type::Bool], errors);
        }
    }
}

fn label_value(value: &At, errors: &mut Errors) {
    value.check(errors, format::label_value(value.text()));
}

const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "None"];

/// Conditions under which a device is bound to its node, and those under which that fails.
fn binding_conditions(device: &At, errors: &mut Errors) {
    let (good, bad) = (device.get("bindingConditions"), device.get("bindingFailureConditions"));
    for list in [good, bad] {
        if list.at_most(errors, 4) {
            for condition in list.items() {
                label_name(&condition, errors);
            }
        }
    }
    unique_items(&good, Value::clone, errors);
    unique_items(&bad, Value::clone, errors);
    for condition in bad.items().filter(|condition| good.list().contains(condition.value)) {
        condition.invalid(errors, "bindingFailureConditions must not overlap with bindingConditions");
    }
    if good.is_empty() && !bad.is_empty() {
        good.invalid(errors, "bindingConditions are required to use bindingFailureConditions");
    }
    if bad.is_empty() && !good.is_empty() {
        bad.invalid(errors, "bindingFailureConditions are required to use bindingConditions");
    }
}
