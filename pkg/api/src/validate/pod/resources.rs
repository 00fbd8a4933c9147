//! Resource requests and limits.

use crate::validate::at::At;
use crate::validate::{Errors, format};

fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.")
}

fn is_huge_pages(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Resources that are handed out in whole units and never promised twice.
fn is_whole(name: &str) -> bool {
    is_extended(name) || is_huge_pages(name)
}

pub(in crate::validate) fn quantity(at: &At, name: &str, errors: &mut Errors) {
    let Some(amount) = at.quantity() else { return };
    if amount.is_negative() {
        at.invalid(errors, "must be greater than or equal to 0");
    }
    if is_whole(name) && amount.millis() % 1000 != 0 {
        at.invalid(errors, "must be an integer");
    }
}

/// A name under which a container may ask for something.
pub(in crate::validate) fn container_resource_name(at: &At, name: &str, errors: &mut Errors) {
    for problem in format::qualified_name(name) {
        at.invalid_value(errors, name, problem);
    }
    if !name.contains('/') {
        if !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !is_huge_pages(name) {
            at.invalid_value(errors, name, "must be a standard resource for containers");
        }
    } else if !name.contains("kubernetes.io/")
        && (name.starts_with("requests.") || format!("requests.{name}").len() > 316)
    {
        at.invalid_value(errors, name, "doesn't follow extended resource name standard");
    }
}

/// `limits` and `requests` of a container or pod.
pub(super) fn requirements(resources: &At, errors: &mut Errors) {
    let (limits, requests) = (resources.get("limits"), resources.get("requests"));
    for (name, limit) in limits.entries() {
        container_resource_name(&limit, name, errors);
        quantity(&limit, name, errors);
        if is_huge_pages(name) && !requests.value.get(name).is_none_or(|r| r == limit.value) {
            requests.invalid_value(errors, requests.value[name].clone(), must_equal(name, limit.text()));
        }
    }
    for (name, request) in requests.entries() {
        container_resource_name(&request, name, errors);
        quantity(&request, name, errors);
        let limit = limits.key(name);
        match (request.quantity(), limit.quantity()) {
            (Some(asked), Some(max)) => {
                if is_extended(name) && !asked.minus(max).is_zero() {
                    requests.invalid_value(errors, request.text(), must_equal(name, limit.text()));
                } else if asked > max {
                    let detail = format!("must be less than or equal to {name} limit of {}", limit.text());
                    requests.invalid_value(errors, request.text(), detail);
                }
            }
            (Some(_), None) if is_whole(name) => {
                limits.required(errors, "Limit must be set for non overcommitable resources");
            }
            _ => {}
        }
    }
    let has = |test: fn(&str) -> bool| {
        [limits, requests].iter().any(|at| at.members().is_some_and(|m| m.keys().any(|k| test(k))))
    };
    if has(is_huge_pages) && !has(|name| matches!(name, "cpu" | "memory")) {
        resources.forbidden(errors, "HugePages require cpu or memory");
    }
}

fn must_equal(name: &str, limit: &str) -> String {
    format!("must be equal to {name} limit of {limit}")
}
