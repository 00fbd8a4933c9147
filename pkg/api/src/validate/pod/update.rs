//! What may change in a pod.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::{Role, pod_spec};
use crate::quantity::Quantity;
use crate::validate::Errors;
use crate::validate::at::{At, same};

const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub(super) fn pod(spec: &At, old: &At, errors: &mut Errors) {
    pod_spec(spec, Role::Pod, errors);
    for list in ["containers", "initContainers"] {
        let (new_list, old_list) = (spec.get(list), old.get(list));
        if new_list.list().len() != old_list.list().len() {
            new_list.forbidden(errors, "pod updates may not add or remove containers");
            return;
        }
    }
    deadline(&spec.get("activeDeadlineSeconds"), &old.get("activeDeadlineSeconds"), errors);
    tolerations(&spec.get("tolerations"), &old.get("tolerations"), errors);
    let gated = !old.get("schedulingGates").is_empty();
    gates(&spec.get("schedulingGates"), &old.get("schedulingGates"), errors);
    if gated {
        node_selector(&spec.get("nodeSelector"), &old.get("nodeSelector"), errors);
        node_affinity(spec, old, errors);
        let node = spec.get("nodeName");
        if !spec.get("schedulingGates").is_empty() && !node.is_empty() && old.get("nodeName").is_empty() {
            node.forbidden(errors, "cannot be set until all schedulingGates have been cleared");
        }
    }
    let changed = changed_members(spec, old, gated);
    if !changed.is_empty() {
        let detail =
            format!("pod updates may not change fields other than {UPDATABLE}\nchanged: {}", changed.join(", "));
        spec.forbidden(errors, detail);
    }
}

/// Names of the members that changed but may not.
fn changed_members<'v>(spec: &At<'v, '_>, old: &At<'v, '_>, gated: bool) -> Vec<&'v str> {
    let (new_members, old_members) = (spec.members().unwrap_or(&NO_MEMBERS), old.members().unwrap_or(&NO_MEMBERS));
    let added = new_members.keys().filter(|key| !old_members.contains_key(*key));
    let mut changed: Vec<&str> = Vec::new();
    for key in old_members.keys().chain(added) {
        let (a, b) = (&spec.value[key], &old.value[key]);
        let fine = match key.as_str() {
            "activeDeadlineSeconds" | "tolerations" | "schedulingGates" => true,
            "nodeSelector" => gated || same(a, b),
            "affinity" if gated => same(&without(a, "nodeAffinity"), &without(b, "nodeAffinity")),
            "terminationGracePeriodSeconds" => {
                same(a, b) || (b.as_i64().is_some_and(|n| n < 0) && a.as_i64() == Some(1))
            }
            "containers" | "initContainers" => same_but_images(a, b),
            _ => same(a, b),
        };
        if !fine {
            changed.push(key);
        }
    }
    changed
}

static NO_MEMBERS: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);

fn without(value: &Value, member: &str) -> Value {
    let mut value = value.clone();
    if let Some(members) = value.as_object_mut() {
        members.remove(member);
    }
    value
}

fn same_but_images(new: &Value, old: &Value) -> bool {
    let lists = (new.as_array(), old.as_array());
    let (Some(new), Some(old)) = lists else { return same(new, old) };
    new.len() == old.len()
        && new.iter().zip(old).all(|(a, b)| same(a, b) || same(&without(a, "image"), &without(b, "image")))
}

fn deadline(new: &At, old: &At, errors: &mut Errors) {
    match (new.int(), old.int()) {
        (None, Some(_)) => new.invalid(errors, "must not update from a positive integer to nil value"),
        (Some(new_seconds), Some(old_seconds)) if new_seconds > old_seconds => {
            new.invalid(errors, "must be less than or equal to previous value");
        }
        _ => {}
    }
}

/// Tolerations may be added; existing ones keep everything but their seconds.
fn tolerations(new: &At, old: &At, errors: &mut Errors) {
    let bare = |v: &Value| without(v, "tolerationSeconds").to_string();
    let now: HashSet<String> = new.list().iter().map(bare).collect();
    if !old.list().iter().all(|old| now.contains(&bare(old))) {
        new.forbidden(errors, "existing toleration can not be modified except its tolerationSeconds");
    }
}

fn gates(new: &At, old: &At, errors: &mut Errors) {
    for gate in new.items() {
        if !old.list().iter().any(|g| g["name"] == gate.str("name")) {
            let detail = format!("only deletion is allowed, but found new scheduling gate '{}'", gate.str("name"));
            new.forbidden(errors, detail);
        }
    }
}

fn node_selector(new: &At, old: &At, errors: &mut Errors) {
    if old.entries().any(|(key, value)| new.value.get(key) != Some(value.value)) {
        new.invalid(errors, "only additions are allowed");
    }
}

/// A gated pod's required node affinity may only become narrower.
fn node_affinity(spec: &At, old: &At, errors: &mut Errors) {
    let path = "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
    let (new, old) = (spec.get(path), old.get(path));
    if old.is_empty() {
        return;
    }
    if new.list().len() != old.list().len() {
        new.invalid(errors, "no additions/deletions to non-empty NodeSelectorTerms list are allowed");
        return;
    }
    for (term, old_term) in new.items().zip(old.list()) {
        for list in ["matchExpressions", "matchFields"] {
            let items = term.get(list);
            let before = old_term[list].as_array().map_or(&[][..], Vec::as_slice);
            let was_empty = old_term["matchExpressions"].is_null() && old_term["matchFields"].is_null();
            if !items.list().starts_with(before) || (was_empty && !items.is_empty()) {
                term.invalid(errors, "only additions are allowed (no mutations or deletions)");
            }
        }
    }
}

/// A pod through its status endpoint.
pub(in crate::validate) fn status(object: &At, old: &At, errors: &mut Errors) {
    let (class, old_class) = (object.get("status.qosClass"), old.get("status.qosClass"));
    if !old_class.is_empty() {
        class.immutable(&old_class, errors);
    }
    let (node, old_node) = (object.get("status.nominatedNodeName"), old.get("status.nominatedNodeName"));
    if !node.is_empty() && node.text() != old_node.text() {
        node.check(errors, crate::validate::format::dns_subdomain(node.text()));
    }
    for list in ["status.containerStatuses", "status.initContainerStatuses"] {
        let spec_list = if list.contains("init") { "initContainers" } else { "containers" };
        restarts(&object.get(list), &old.get(list), &old.get("spec"), spec_list, errors);
    }
    let ips = object.get("status.podIPs");
    for ip in ips.items() {
        let ip = ip.get("ip");
        ip.check(errors, crate::validate::format::ip(ip.text()));
    }
}

/// Containers that ended may run again only where the pod restarts them.
fn restarts(new: &At, old: &At, spec: &At, spec_list: &str, errors: &mut Errors) {
    let policy = spec.str("restartPolicy");
    if policy == "Always" {
        return;
    }
    for status in old.items() {
        let ended = status.get("state.terminated");
        let exit = ended.get("exitCode").int().unwrap_or(0);
        if !ended.is_set() || (exit != 0 && policy == "OnFailure") {
            continue;
        }
        let containers = spec.get(spec_list);
        let container = containers.list().iter().find(|c| c["name"] == status.str("name"));
        if container.is_none_or(|c| c.get("restartPolicy").is_some() || c.get("restartPolicyRules").is_some()) {
            continue;
        }
        // An init container may have to run again when the pod's sandbox is made anew.
        if spec_list == "initContainers" && policy != "Never" {
            continue;
        }
        if let Some(now) = new.items().find(|s| s.str("name") == status.str("name"))
            && !now.get("state.terminated").is_set()
        {
            now.get("state").forbidden(errors, "may not be transitioned to non-terminated state");
        }
    }
}

/// A pod through its ephemeralcontainers endpoint: existing ones stay as they are.
pub(in crate::validate) fn ephemeral_containers(object: &At, old: &At, errors: &mut Errors) {
    let spec = object.get("spec");
    pod_spec(&spec, Role::Pod, errors);
    let (new, old_list) = (spec.get("ephemeralContainers"), old.get("spec.ephemeralContainers"));
    if !object.get("metadata.annotations").key("kubernetes.io/config.mirror").is_empty() {
        object.get("metadata.annotations").forbidden(errors, "static pods do not support ephemeral containers");
    }
    for container in old_list.items() {
        match new.items().find(|c| c.str("name") == container.str("name")) {
            None => {
                let detail =
                    format!("existing ephemeral containers \"{}\" may not be removed\n", container.str("name"));
                new.forbidden(errors, detail);
            }
            Some(now) if !same(now.value, container.value) => {
                let detail =
                    format!("existing ephemeral containers \"{}\" may not be changed\n", container.str("name"));
                new.forbidden(errors, detail);
            }
            Some(_) => {}
        }
    }
}

/// A pod through its resize endpoint: cpu and memory of its containers, within the same quality of service.
pub(in crate::validate) fn resize(object: &At, old: &At, errors: &mut Errors) {
    let (spec, old_spec) = (object.get("spec"), old.get("spec"));
    pod_spec(&spec, Role::Pod, errors);
    if !object.get("metadata.annotations").key("kubernetes.io/config.mirror").is_empty() {
        object.forbidden(errors, "static pods cannot be resized");
    }
    if old.str("spec.os.name") == "windows" {
        object.forbidden(errors, "windows pods cannot be resized");
    }
    for list in ["containers", "initContainers"] {
        let (new_list, old_list) = (spec.get(list), old_spec.get(list));
        let same_names = new_list.list().len() == old_list.list().len()
            && new_list.list().iter().zip(old_list.list()).all(|(a, b)| a["name"] == b["name"]);
        if !same_names {
            new_list.forbidden(errors, "containers may not be added, removed, renamed or reordered on resize");
            continue;
        }
        for (new, old) in new_list.items().zip(old_list.items()) {
            resized_container(&new, &old, list == "initContainers", errors);
        }
    }
    if quality(spec.value) != quality(old_spec.value) {
        let detail = "Pod QOS Class may not change as a result of resizing";
        spec.invalid_value(errors, quality(spec.value), detail);
    }
}

fn resized_container(new: &At, old: &At, init: bool, errors: &mut Errors) {
    let (resources, old_resources) = (new.get("resources"), old.get("resources"));
    if same(resources.value, old_resources.value) {
        return;
    }
    if init && new.str("restartPolicy") != "Always" {
        resources.forbidden(errors, "resources for non-sidecar init containers are immutable");
        return;
    }
    for kind in ["requests", "limits"] {
        let (now, before) = (resources.get(kind), old_resources.get(kind));
        let names = now.entries().chain(before.entries()).map(|(name, _)| name);
        let mut names: Vec<&str> = names.filter(|n| now.value.get(*n) != before.value.get(*n)).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            if !matches!(name, "cpu" | "memory") {
                resources.forbidden(errors, "only cpu and memory resources are mutable");
            } else if now.value.get(name).is_none() {
                now.forbidden(errors, format!("resource {kind} cannot be removed"));
            }
        }
    }
}

/// The quality-of-service class that a pod's resources give it.
fn quality(spec: &Value) -> &'static str {
    let amount = |v: &Value| v.as_str().and_then(|t| Quantity::parse(t).ok()).filter(|q| !q.is_zero());
    let containers = ["containers", "initContainers"].into_iter().filter_map(|list| spec[list].as_array()).flatten();
    let (mut any, mut guaranteed) = (false, true);
    for container in containers {
        for name in ["cpu", "memory"] {
            let request = amount(&container["resources"]["requests"][name]);
            let limit = amount(&container["resources"]["limits"][name]);
            any |= request.is_some() || limit.is_some();
            let equal = match (request, limit) {
                (Some(request), Some(limit)) => request.minus(limit).is_zero(),
                (None, Some(_)) => true,
                _ => false,
            };
            guaranteed &= equal;
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
