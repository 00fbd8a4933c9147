//! Pods through their status endpoint.

use super::annotation;
use crate::validate::at::At;
use crate::validate::{Errors, format};

const LISTS: [(&str, &str); 3] = [
    ("containerStatuses", "containers"),
    ("initContainerStatuses", "initContainers"),
    ("ephemeralContainerStatuses", ""),
];

pub(in crate::validate) fn status(object: &At, old: &At, errors: &mut Errors) {
    let (status, before, spec) = (object.get("status"), old.get("status"), old.get("spec"));
    let annotations = object.get("metadata.annotations");
    annotation::change(&annotations, &old.get("metadata.annotations"), errors);
    annotation::annotations(&annotations, &spec, errors);
    for condition in status.get("conditions").items() {
        generation(&condition.get("observedGeneration"), errors);
        let kind = condition.get("Type");
        if !matches!(condition.str("type"), "PodScheduled" | "Ready" | "Initialized") {
            for problem in format::qualified_name(condition.str("type")) {
                kind.invalid_value(errors, condition.str("type"), problem);
            }
        }
    }
    nominated(&status, &before, &spec, errors);
    generation(&status.get("observedGeneration"), errors);
    status.get("qosClass").immutable(&before.get("qosClass"), errors);
    for (list, containers) in LISTS {
        restarts(&status.get(list), &before.get(list), &spec, containers, errors);
    }
    claims(&status, &spec, errors);
    addresses(&status, &before, "podIPs", errors);
    if let Some(first) = status.get("hostIPs").items().next() {
        let ip = first.get("ip");
        if ip.text() != status.str("hostIP") {
            ip.invalid_value(errors, ip.text(), "must be equal to `hostIP`");
        }
        addresses(&status, &before, "hostIPs", errors);
    }
    for (list, containers) in LISTS {
        for container in status.get(list).items() {
            user(&container.get("user.linux"), &spec, errors);
            allocated(&container, &spec, containers, errors);
        }
    }
}

fn generation(generation: &At, errors: &mut Errors) {
    if generation.int().is_some_and(|n| n < 0) {
        generation.invalid(errors, "must be a non-negative integer");
    }
}

/// The node that preemption makes room on, for pods without one.
fn nominated(status: &At, before: &At, spec: &At, errors: &mut Errors) {
    let node = status.get("nominatedNodeName");
    if node.is_empty() || node.text() == before.str("nominatedNodeName") {
        return;
    }
    node.check(errors, format::dns_subdomain(node.text()));
    if !spec.get("nodeName").is_empty() {
        node.forbidden(errors, "may not be set on pods that are already bound to a node");
    }
}

/// Containers that ended may run again only where the pod restarts them.
fn restarts(new: &At, old: &At, spec: &At, containers: &str, errors: &mut Errors) {
    let starts_all = |list: &'static str| {
        let containers = spec.get(list);
        containers
            .items()
            .any(|c| c.get("restartPolicyRules").items().any(|rule| rule.str("action") == "RestartAllContainers"))
    };
    if !containers.is_empty() && (starts_all("containers") || starts_all("initContainers")) {
        return;
    }
    for (index, status) in old.items().enumerate() {
        let ended = status.get("state.terminated");
        let now = new.items().find(|s| s.str("name") == status.str("name"));
        if !ended.is_set() || now.is_none_or(|now| now.get("state.terminated").is_set()) {
            continue;
        }
        let list = spec.get(containers);
        let container = list.items().find(|c| c.str("name") == status.str("name"));
        if !container.is_some_and(|c| restarts_after(&c, spec, ended.number("exitCode"))) {
            let at = new.index(index);
            at.get("state").forbidden(errors, "may not be transitioned to non-terminated state");
        }
    }
}

/// Whether a container that ended with this code is started again: by its own rules and policy, or else by its pod's.
fn restarts_after(container: &At, spec: &At, code: i64) -> bool {
    let by_policy = |policy: &str| policy == "Always" || (policy == "OnFailure" && code != 0);
    let own = container.str("restartPolicy");
    if own.is_empty() {
        return by_policy(spec.str("restartPolicy"));
    }
    let matches = |rule: &At| {
        let named = rule.get("exitCodes.values").list().iter().any(|value| value.as_i64() == Some(code));
        match rule.str("exitCodes.operator") {
            "In" => named,
            "NotIn" => !named,
            _ => false,
        }
    };
    code != 0 && container.get("restartPolicyRules").items().any(|rule| matches(&rule)) || by_policy(own)
}

/// Claims that were made for the pod belong to entries of its spec.
fn claims(status: &At, spec: &At, errors: &mut Errors) {
    let wanted = spec.get("resourceClaims");
    let mut seen = std::collections::HashSet::new();
    for claim in status.get("resourceClaimStatuses").items() {
        let (name, made) = (claim.get("name"), claim.get("resourceClaimName"));
        if !wanted.items().any(|entry| entry.str("name") == name.text()) {
            name.invalid_value(errors, name.text(), "must match the name of an entry in `spec.resourceClaims`");
        }
        name.unique(&mut seen, errors);
        if made.is_set() {
            made.check(errors, format::dns_subdomain(made.text()));
        }
    }
}

/// One address, or one of each family. Old ones may stay as they are.
fn addresses(status: &At, before: &At, list: &str, errors: &mut Errors) {
    let (new, old) = (status.get(list), before.get(list));
    for address in new.items() {
        let text = address.str("ip");
        if !old.items().any(|known| known.str("ip") == text) {
            for problem in format::ip(text) {
                address.invalid_value(errors, text, problem);
            }
        }
    }
    let families: Vec<bool> = new.items().map(|address| format::is_ipv4(address.str("ip"))).collect();
    if families.len() > 1 && (families.len() > 2 || families[0] == families[1]) {
        new.invalid(errors, "may specify no more than one IP for each IP family");
    }
}

fn user(user: &At, spec: &At, errors: &mut Errors) {
    if !user.is_set() {
        return;
    }
    if spec.str("os.name") == "windows" {
        return user.forbidden(errors, "cannot be set for a windows pod");
    }
    let id = |id: &At, errors: &mut Errors| id.in_range(errors, 0, i64::from(i32::MAX));
    id(&user.get("uid"), errors);
    id(&user.get("gid"), errors);
    user.get("supplementalGroups").items().for_each(|group| id(&group, errors));
}

/// Health of the devices that a container has.
fn allocated(status: &At, spec: &At, containers: &str, errors: &mut Errors) {
    let list = status.get("allocatedResourcesStatus");
    if containers.is_empty() {
        if !list.is_empty() {
            list.forbidden(errors, "must not be specified in container status");
        }
        return;
    }
    let containers = spec.get(containers);
    let container = containers.items().find(|c| c.str("name") == status.str("name"));
    for resource in list.items() {
        let name = resource.get("name");
        if let Some(container) = &container {
            claimed(&name, container, errors);
        }
        let mut ids = std::collections::HashSet::new();
        for part in resource.get("resources").items() {
            part.get("health").exactly_one_of(errors, &["Healthy", "Unhealthy", "Unknown"]);
            part.get("resourceID").unique(&mut ids, errors);
        }
    }
}

fn claimed(name: &At, container: &At, errors: &mut Errors) {
    let text = name.text();
    let Some(claim) = text.strip_prefix("claim:") else {
        if !container.get("resources.requests").key(text).is_set() {
            name.invalid(errors, "must match one of the container's resource requests");
        }
        return;
    };
    let (claim, request) = claim.split_once('/').unwrap_or((claim, ""));
    let known = container.get("resources.claims");
    if !known.items().any(|c| c.str("name") == claim && c.str("request") == request) {
        let detail = "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or 'claim:<claimName>' if request is empty";
        name.invalid(errors, detail);
    }
}
