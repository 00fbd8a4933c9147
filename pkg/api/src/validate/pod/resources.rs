//! Resource requests and limits.

use std::collections::BTreeSet;

use super::Pod;
use crate::field::FieldError;
use crate::quantity::Quantity;
use crate::validate::at::At;
use crate::validate::resource_name::{
    container_resource_name, is_huge_pages, may_overcommit, pod_resource_name, quantity,
};
use crate::validate::{Errors, format};

type NameRule = fn(&At, &str, &mut Errors);

/// `limits`, `requests` and `claims` of a container.
pub(super) fn of_container(resources: &At, pod: &Pod, errors: &mut Errors) {
    requirements(resources, container_resource_name, errors);
    claims(&resources.get("claims"), &pod.claims, errors);
}

/// What running a pod takes beside its containers: limits, under the name of overhead.
pub(super) fn overhead(overhead: &At, errors: &mut Errors) {
    let limits = serde_json::json!({"limits": overhead.value});
    let mut found = Errors::new();
    requirements(&At::root(&limits), container_resource_name, &mut found);
    for mut error in found {
        error.field = format!("{}.{}", overhead.path(), error.field);
        errors.push(error);
    }
}

/// Resources of a pod as a whole.
pub(super) fn of_pod(spec: &At, errors: &mut Errors) {
    let resources = spec.get("resources");
    if !resources.is_set() {
        return;
    }
    if spec.str("os.name") == "windows" {
        return resources.forbidden(errors, "may not be set for a windows pod");
    }
    if resources.get("claims").is_set() {
        resources.get("claims").forbidden(errors, "claims may not be set for Resources at pod-level");
    }
    requirements(&resources, pod_resource_name, errors);
    consistent(spec, &resources, errors);
}

/// Containers together ask for no more than their pod, and each has no higher limits.
fn consistent(spec: &At, resources: &At, errors: &mut Errors) {
    let (requests, limits) = (resources.get("requests"), resources.get("limits"));
    for (list, bound) in [("requests", requests), ("limits", limits)] {
        for (name, amount) in bound.entries().filter(|(name, _)| list == "requests" || is_huge_pages(name)) {
            let (Some(of_pod), sum) = (amount.quantity(), aggregate(spec, list, name)) else { continue };
            if sum > of_pod {
                let detail = format!("must be greater than or equal to aggregate container {list} of {sum}");
                amount.invalid(errors, detail);
            }
        }
    }
    let containers = resources.told_as("-", "containers");
    for (index, container) in spec.get("containers").items().enumerate() {
        for (name, limit) in container.get("resources.limits").entries() {
            if let (Some(one), Some(all)) = (limit.quantity(), limits.key(name).quantity())
                && one > all
            {
                let detail = format!("must be less than or equal to pod limits of {all}");
                let at = containers.index(index);
                let at = at.key(name);
                at.get("limits").invalid_value(errors, one.to_string(), detail);
            }
        }
    }
}

/// What the containers of a pod need at the same time: the main ones and sidecars, or a greedier init container with the
/// sidecars before it.
fn aggregate(spec: &At, list: &str, name: &str) -> Quantity {
    let amount = |c: &At| c.get("resources").get(list).key(name).quantity().unwrap_or(Quantity::from_units(0));
    let zero = Quantity::from_units(0);
    let (mut sidecars, mut greediest) = (zero, zero);
    for container in spec.get("initContainers").items() {
        let own = amount(&container);
        let at_once = sidecars.plus(own);
        if container.str("restartPolicy") == "Always" {
            sidecars = at_once;
        }
        if at_once > greediest {
            greediest = at_once;
        }
    }
    let main = spec.get("containers").items().fold(sidecars, |sum, c| sum.plus(amount(&c)));
    if main > greediest { main } else { greediest }
}

fn requirements(resources: &At, name_rule: NameRule, errors: &mut Errors) {
    let (limits, requests) = (resources.get("limits"), resources.get("requests"));
    for (name, limit) in limits.entries() {
        name_rule(&limit, name, errors);
        quantity(&limit, name, errors);
        huge_pages(&limit, name, errors);
    }
    for (name, request) in requests.entries() {
        name_rule(&request, name, errors);
        quantity(&request, name, errors);
        let limit = limits.key(name);
        match (request.quantity(), limit.quantity()) {
            (Some(asked), Some(max)) if asked != max && !may_overcommit(name) => {
                let detail = format!("must be equal to {name} limit of {max}");
                requests.invalid_value(errors, asked.to_string(), detail);
            }
            (Some(asked), Some(max)) if asked > max => {
                let detail = format!("must be less than or equal to {name} limit of {max}");
                requests.invalid_value(errors, asked.to_string(), detail);
            }
            (Some(_), None) if !may_overcommit(name) => {
                limits.required(errors, "Limit must be set for non overcommitable resources");
            }
            _ => {}
        }
        huge_pages(&request, name, errors);
    }
    let has = |test: fn(&str) -> bool| {
        [limits, requests].iter().any(|at| at.members().is_some_and(|m| m.keys().any(|k| test(k))))
    };
    if has(is_huge_pages) && !has(|name| matches!(name, "cpu" | "memory")) {
        resources.forbidden(errors, "HugePages require cpu or memory");
    }
}

/// Huge pages come in whole pages.
fn huge_pages(amount: &At, name: &str, errors: &mut Errors) {
    let Some(size) = name.strip_prefix("hugepages-") else { return };
    let whole = |q: Quantity| (q.millis() > 0 && q.millis() % 1000 == 0).then(|| q.units());
    let Some(asked) = amount.quantity() else { return };
    let divisible = Quantity::parse(size).ok().and_then(whole).is_some_and(|page| asked.units() % page == 0);
    if !divisible {
        amount.invalid(errors, format!("{asked} is not positive integer multiple of {name}"));
    }
}

/// Claims of a container, by the names that the pod gives them.
fn claims(claims: &At, of_pod: &BTreeSet<&str>, errors: &mut Errors) {
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for claim in claims.items() {
        let (name, request) = (claim.str("name"), claim.get("request"));
        if name.is_empty() {
            claim.required(errors, "");
            continue;
        }
        let key = if request.is_empty() { name.to_owned() } else { format!("{name}/{}", request.text()) };
        let again = |key: &str, errors: &mut Errors| errors.push(FieldError::duplicate(&claim.path(), key));
        if seen.contains(name) {
            again(name, errors);
        } else {
            if !request.is_empty() {
                request.check(errors, format::dns_label(request.text()));
            }
            let part = format!("{name}/");
            if seen.contains(&key) {
                again(&key, errors);
            } else if request.is_empty() {
                seen.iter().filter(|k| k.starts_with(&part)).for_each(|_| again(name, errors));
            }
            seen.insert(key);
        }
        if !of_pod.contains(name) {
            let mut error = FieldError::not_found(&claim.path(), name);
            let known: Vec<&str> = of_pod.iter().copied().collect();
            let known = if known.is_empty() { " which is empty".into() } else { format!(": {}", known.join(", ")) };
            error.detail = format!("must be one of the names in pod.spec.resourceClaims{known}");
            errors.push(error);
        }
    }
}
