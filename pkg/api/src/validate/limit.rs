//! Limits of namespaces: ranges and quotas.

use std::collections::HashSet;

use serde_json::Value;

use super::at::At;
use super::resource_name::{
    container_resource_name, is_standard_for_quota, may_overcommit, quantity, quota_resource_name, resource_name,
};
use super::{Errors, format};
use crate::quantity::Quantity;

pub(super) fn limit_range(object: &At, _old: Option<&At>, errors: &mut Errors) {
    let mut kinds: HashSet<&str> = HashSet::new();
    for limit in object.get("spec.limits").items() {
        let (kind, text) = (limit.get("type"), limit.str("type"));
        let problems = format::qualified_name(text);
        let known = text.contains('/') || matches!(text, "Pod" | "Container" | "PersistentVolumeClaim");
        if problems.is_empty() && !known {
            kind.invalid(errors, "must be a standard limit type or fully qualified");
        }
        problems.into_iter().for_each(|problem| kind.invalid_value(errors, text, problem));
        if !kinds.insert(text) {
            kind.duplicate(errors);
        }
        names(&limit, errors);
        amounts(&limit, errors);
    }
}

const LISTS: [&str; 5] = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];

fn names(limit: &At, errors: &mut Errors) {
    let kind = limit.str("type");
    for list in LISTS {
        let list_at = limit.get(list);
        if kind == "PersistentVolumeClaim" && list == "maxLimitRequestRatio" {
            let has = |list: &'static str| limit.get(list).key("storage").is_set();
            if !has("min") && !has("max") {
                let detail = "either minimum or maximum storage value is required, but neither was provided";
                limit.get("limits").required(errors, detail);
            }
        }
        if kind == "Pod" && list.starts_with("default") {
            if !list_at.is_empty() {
                list_at.forbidden(errors, "may not be specified when `type` is 'Pod'");
            }
            continue;
        }
        for (name, amount) in list_at.entries() {
            if matches!(kind, "Pod" | "Container") {
                container_resource_name(&amount, name, errors);
            } else {
                resource_name(&amount, name, errors);
            }
        }
    }
}

/// Pairs of which the first may not exceed the second, the one that is blamed, and the one that is shown.
const ORDER: [(&str, &str, &str, &str); 6] = [
    ("min", "max", "min", "min"),
    ("min", "defaultRequest", "defaultRequest", "defaultRequest"),
    ("defaultRequest", "max", "defaultRequest", "defaultRequest"),
    ("defaultRequest", "default", "defaultRequest", "defaultRequest"),
    ("min", "default", "default", "min"),
    ("default", "max", "default", "max"),
];

fn amounts(limit: &At, errors: &mut Errors) {
    let mut resources: Vec<&str> = LISTS
        .iter()
        .flat_map(|list| limit.value[*list].as_object())
        .flat_map(|m| m.keys())
        .map(String::as_str)
        .collect();
    resources.sort_unstable();
    resources.dedup();
    let of_pod = limit.str("type") == "Pod";
    for name in resources {
        let amount = |list: &str| match list {
            "default" | "defaultRequest" if of_pod => None,
            _ => limit.get(list).key(name).quantity(),
        };
        for (low, high, blamed, shown) in ORDER {
            let (Some(small), Some(large)) = (amount(low), amount(high)) else { continue };
            if small > large {
                let shown = amount(shown).unwrap_or(small).to_string();
                let (low, high) = (words(low, false), words(high, low == "defaultRequest"));
                let detail = format!("{low} value {small} is greater than {high} value {large}");
                limit.get(blamed).key(name).invalid_value(errors, shown, detail);
            }
        }
        ratio(limit, name, errors);
        if let (Some(one), Some(other)) = (amount("default"), amount("defaultRequest"))
            && one != other
            && !may_overcommit(name)
        {
            let detail = format!("default value {one} must equal to defaultRequest value {other} in {name}");
            limit.get("defaultRequest").key(name).invalid_value(errors, other.to_string(), detail);
        }
    }
}

fn words(list: &str, beside_request: bool) -> &str {
    match list {
        "defaultRequest" => "default request",
        "default" if beside_request => "default limit",
        other => other,
    }
}

fn ratio(limit: &At, name: &str, errors: &mut Errors) {
    let list = limit.get("maxLimitRequestRatio");
    let ratio = list.key(name);
    let Some(wanted) = ratio.quantity() else { return };
    if wanted < Quantity::from_units(1) {
        ratio.invalid_value(errors, wanted.to_string(), format!("ratio {wanted} is less than 1"));
    }
    let bounds = (limit.get("min").key(name).quantity(), limit.get("max").key(name).quantity());
    if let (Some(min), Some(max)) = bounds {
        let possible = max.approximately() / min.approximately();
        if wanted.approximately() > possible {
            let detail = format!("ratio {wanted} is greater than max/min = {possible:.6}");
            ratio.invalid_value(errors, wanted.to_string(), detail);
        }
    }
}

pub(super) fn resource_quota(object: &At, old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    quota_list(&spec.get("hard"), errors);
    scopes(&spec, errors);
    let selector = spec.get("scopeSelector");
    if selector.is_set() {
        scope_selector(&spec, &selector, errors);
    }
    if let Some(old) = old {
        let sorted = |at: &At| {
            let mut names: Vec<String> = at.list().iter().map(Value::to_string).collect();
            names.sort();
            names.dedup();
            names
        };
        let scopes = spec.get("scopes");
        if sorted(&scopes) != sorted(&old.get("spec.scopes")) {
            scopes.invalid(errors, "field is immutable");
        }
    }
}

const SCOPES: [&str; 7] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

/// Whether a scope says anything about a resource.
fn fits(scope: &str, resource: &str) -> bool {
    let computed =
        matches!(resource, "cpu" | "memory" | "limits.cpu" | "limits.memory" | "requests.cpu" | "requests.memory");
    match scope {
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        _ if SCOPES.contains(&scope) => resource == "pods" || computed,
        _ => true,
    }
}

/// The limited resources, each once for every mistake.
fn unfit<'v>(spec: &At<'v, '_>, scope: &str) -> usize {
    let hard = spec.get("hard");
    hard.entries().filter(|(name, _)| is_standard_for_quota(name) && !fits(scope, name)).count()
}

fn scopes(spec: &At, errors: &mut Errors) {
    let scopes = spec.get("scopes");
    for scope in scopes.list().iter().filter_map(Value::as_str) {
        if !SCOPES.contains(&scope) {
            scopes.invalid(errors, "unsupported scope");
        }
        for _ in 0..unfit(spec, scope) {
            scopes.invalid(errors, "unsupported scope applied to resource");
        }
    }
    let named: Vec<&str> = scopes.list().iter().filter_map(Value::as_str).collect();
    conflicts(&scopes, &scopes, &named, errors);
}

fn conflicts(at: &At, scopes: &At, named: &[&str], errors: &mut Errors) {
    for pair in [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]] {
        if pair.iter().all(|scope| named.contains(scope)) {
            at.invalid_value(errors, scopes.value.clone(), "conflicting scopes");
        }
    }
}

fn scope_selector(spec: &At, selector: &At, errors: &mut Errors) {
    let at = selector.get("matchExpressions");
    let (name_at, operator_at, values_at) = (at.get("scopeName"), at.get("operator"), at.get("values"));
    let mut named = Vec::new();
    for expression in at.items() {
        let (scope, operator, values) =
            (expression.str("scopeName"), expression.str("operator"), expression.get("values"));
        if !SCOPES.contains(&scope) {
            name_at.invalid_value(errors, scope, "unsupported scope");
        }
        for _ in 0..unfit(spec, scope) {
            at.invalid_value(errors, internal_selector(&at), "unsupported scope applied to resource");
        }
        let plain = SCOPES.contains(&scope) && !matches!(scope, "PriorityClass" | "VolumeAttributesClass");
        if plain && operator != "Exists" {
            let detail = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
            operator_at.invalid_value(errors, operator, detail);
        }
        match operator {
            "In" | "NotIn" if values.is_empty() => {
                let detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                values_at.required(errors, detail);
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                values_at.invalid_value(errors, values.value.clone(), detail);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => operator_at.invalid_value(errors, operator, "not a valid selector operator"),
        }
        named.push(scope);
    }
    conflicts(&at, &spec.get("scopes"), &named, errors);
}

/// A selector as upstream shows it.
fn internal_selector(expressions: &At) -> Value {
    let list = expressions.items().map(|e| {
        serde_json::json!({"ScopeName": e.str("scopeName"), "Operator": e.str("operator"), "Values": e.value["values"]})
    });
    serde_json::json!({"MatchExpressions": list.collect::<Vec<_>>()})
}

pub(super) fn resource_quota_status(object: &At, _old: &At, errors: &mut Errors) {
    quota_list(&object.get("status.hard"), errors);
    quota_list(&object.get("status.used"), errors);
}

fn quota_list(list: &At, errors: &mut Errors) {
    for (name, amount) in list.entries() {
        quota_resource_name(&amount, name, errors);
        quantity(&amount, name, errors);
    }
}
