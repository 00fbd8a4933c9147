//! Claims for devices, their templates, and classes of devices.

use serde_json::Value;

use super::{MAX_ITEMS, configuration, full_name, need_label, selectors, unique_items};
use crate::validate::at::At;
use crate::validate::selector::label_name;
use crate::validate::{Errors, format, metadata};

pub(in crate::validate) fn claim(object: &At, old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    match old {
        None => claim_spec(&spec, errors),
        Some(old) => spec.immutable(&old.get("spec"), errors),
    }
}

pub(in crate::validate) fn claim_template(object: &At, old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    match old {
        None => {
            metadata::annotations(&spec.get("metadata.annotations"), errors);
            metadata::labels(&spec.get("metadata.labels"), errors);
            claim_spec(&spec.get("spec"), errors);
        }
        Some(old) => spec.immutable(&old.get("spec"), errors),
    }
}

fn claim_spec(spec: &At, errors: &mut Errors) {
    let requests = spec.get("devices.requests");
    if requests.at_most(errors, MAX_ITEMS) {
        for request in requests.items() {
            device_request(&request, errors);
        }
        unique_items(&requests, |request| request["name"].clone(), errors);
    }
    let names = Requests(requests.list());
    let (constraints, configs) = (spec.get("devices.constraints"), spec.get("devices.config"));
    if constraints.at_most(errors, MAX_ITEMS) {
        for constraint in constraints.items() {
            names.check_list(&constraint.get("requests"), errors);
            match constraint.set_members(&["matchAttribute", "distinctAttribute"])[..] {
                [attribute, ..] => full_name(&constraint.get(attribute), errors),
                [] => constraint.required(
                    errors,
                    "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set",
                ),
            }
        }
    }
    if configs.at_most(errors, MAX_ITEMS) {
        for config in configs.items() {
            names.check_list(&config.get("requests"), errors);
            configuration(&config, errors);
        }
    }
}

/// The requests that names in a claim can mean.
pub(super) struct Requests<'a>(pub &'a [Value]);

impl Requests<'_> {
    fn has(&self, name: &str) -> bool {
        let (main, sub) = name.split_once('/').map_or((name, None), |(main, sub)| (main, Some(sub)));
        let Some(request) = self.0.iter().find(|r| r["name"] == main) else { return false };
        let alternatives = request["firstAvailable"].as_array();
        sub.is_none_or(|sub| alternatives.is_some_and(|list| list.iter().any(|a| a["name"] == sub)))
    }

    pub fn check(&self, name: &At, errors: &mut Errors) {
        const WORDS: &str =
            "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
        let parts: Vec<&str> = name.text().split('/').collect();
        if parts.len() > 2 {
            return name.invalid(errors, WORDS);
        }
        for (part, problem) in parts.into_iter().flat_map(|p| format::dns_label(p).into_iter().map(move |e| (p, e))) {
            name.invalid_value(errors, part, problem);
        }
        if !self.has(name.text()) {
            name.invalid_value(errors, name.text(), WORDS);
        }
    }

    pub fn check_list(&self, list: &At, errors: &mut Errors) {
        if list.at_most(errors, MAX_ITEMS) {
            for name in list.items() {
                self.check(&name, errors);
            }
            unique_items(list, Value::clone, errors);
        }
    }
}

fn device_request(request: &At, errors: &mut Errors) {
    need_label(&request.get("name"), errors);
    let (exactly, first) = (request.get("exactly"), request.get("firstAvailable"));
    match (exactly.is_set(), !first.is_empty()) {
        (true, true) => request.invalid_value(
            errors,
            Value::Null,
            "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set",
        ),
        (false, false) => request.required(errors, "exactly one of `exactly` or `firstAvailable` is required"),
        (true, false) => devices(&exactly, errors),
        (false, true) => {
            if first.at_most(errors, 8) {
                for alternative in first.items() {
                    need_label(&alternative.get("name"), errors);
                    devices(&alternative, errors);
                }
                unique_items(&first, |alternative| alternative["name"].clone(), errors);
            }
        }
    }
}

fn devices(request: &At, errors: &mut Errors) {
    let (class, mode, count) = (request.get("deviceClassName"), request.get("allocationMode"), request.get("count"));
    if class.need(errors) {
        class.check(errors, format::dns_subdomain(class.text()));
    }
    selectors(&request.get("selectors"), errors);
    match mode.text() {
        "All" if !count.is_empty() => count.invalid(errors, "must not be specified when allocationMode is 'All'"),
        "All" => {}
        "ExactCount" => count.need_positive(errors, "must be greater than zero"),
        _ => mode.not_supported(errors, &["All", "ExactCount"]),
    }
    for toleration in request.get("tolerations").items() {
        self::toleration(&toleration, errors);
    }
}

fn toleration(toleration: &At, errors: &mut Errors) {
    let (key, operator, value) = (toleration.get("key"), toleration.get("operator"), toleration.get("value"));
    if !key.is_empty() {
        label_name(&key, errors);
    }
    match operator.text() {
        "Exists" if !value.is_empty() => value.invalid(errors, "must be empty for operator `Exists`"),
        "Equal" => super::label_value(&value, errors),
        "" => operator.required(errors, ""),
        // What is not in the list is told of by the field table.
        _ => {}
    }
}

pub(in crate::validate) fn class(object: &At, _old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    selectors(&spec.get("selectors"), errors);
    let configs = spec.get("config");
    if configs.at_most(errors, MAX_ITEMS) {
        for config in configs.items() {
            configuration(&config, errors);
        }
    }
    let extended = spec.get("extendedResourceName");
    if extended.is_set() && !is_extended(extended.text()) {
        extended.invalid(errors, "must be a valid extended resource name");
    }
}

fn is_extended(name: &str) -> bool {
    let own = name.contains("kubernetes.io/") || !name.contains('/');
    !own && !name.starts_with("requests.") && format::qualified_name(&format!("requests.{name}")).is_empty()
}
