//! What may change in a pod.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::container::trimmed_image;
use super::{is_mirror, whole_pod};
use crate::field::{FieldError, FieldPath};
use crate::quantity::Quantity;
use crate::validate::Errors;
use crate::validate::at::{At, same};
use crate::validate::difference::line_difference;

const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// What an update changes in the spec; all else about it was looked at before.
pub(super) fn pod(spec: &At, old: &At, errors: &mut Errors) {
    for list in ["containers", "initContainers"] {
        let (new_list, old_list) = (spec.get(list), old.get(list));
        if new_list.list().len() != old_list.list().len() {
            return new_list.forbidden(errors, "pod updates may not add or remove containers");
        }
        for container in new_list.items() {
            container.get("image").need(errors);
            trimmed_image(&container, errors);
        }
    }
    if !deadline(&spec.get("activeDeadlineSeconds"), &old.get("activeDeadlineSeconds"), errors) {
        return;
    }
    tolerations(&spec.get("tolerations"), &old.get("tolerations"), errors);
    let gated = !old.get("schedulingGates").is_empty();
    gates(&spec.get("schedulingGates"), &old.get("schedulingGates"), errors);
    if gated {
        node_selector(&spec.get("nodeSelector"), &old.get("nodeSelector"), errors);
        node_affinity(spec, old, errors);
    }
    let changed = changed_members(spec, old, gated);
    if !changed.is_empty() {
        let detail =
            format!("pod updates may not change fields other than {UPDATABLE}\n{}", difference(old, spec, &changed));
        spec.forbidden(errors, detail);
    }
}

/// What changed, as text that a person can read.
fn difference(old: &At, new: &At, members: &[&str]) -> String {
    let part = |at: &At| members.iter().map(|m| ((*m).to_owned(), at.value[*m].clone())).collect::<Map<_, _>>();
    line_difference(&part(old).into(), &part(new).into())
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

/// Tells whether the rest is worth a look.
fn deadline(new: &At, old: &At, errors: &mut Errors) -> bool {
    let max = i64::from(i32::MAX);
    match (new.int(), old.int()) {
        (None, Some(_)) => new.invalid(errors, "must not update from a positive integer to nil value"),
        (Some(seconds), _) if !(0..=max).contains(&seconds) => {
            new.invalid(errors, format!("must be between 0 and {max}, inclusive"));
            return false;
        }
        (Some(new_seconds), Some(old_seconds)) if new_seconds > old_seconds => {
            new.invalid(errors, "must be less than or equal to previous value");
            return false;
        }
        _ => {}
    }
    true
}

/// Tolerations may be added; existing ones keep everything but their seconds.
fn tolerations(new: &At, old: &At, errors: &mut Errors) {
    let bare = |v: &Value| without(v, "tolerationSeconds").to_string();
    let now: HashSet<String> = new.list().iter().map(bare).collect();
    if !old.list().iter().all(|old| now.contains(&bare(old))) {
        return new.forbidden(errors, "existing toleration can not be modified except its tolerationSeconds");
    }
    super::tolerations(new, errors);
}

fn gates(new: &At, old: &At, errors: &mut Errors) {
    for gate in new.items() {
        if !old.list().iter().any(|g| g["name"] == gate.str("name")) {
            let detail = format!("only deletion is allowed, but found new scheduling gate '{}'", gate.str("name"));
            gate.get("name").forbidden(errors, detail);
        }
    }
}

fn node_selector(new: &At, old: &At, errors: &mut Errors) {
    if old.entries().any(|(key, value)| new.value.get(key) != Some(value.value)) {
        new.invalid(errors, "only additions to spec.nodeSelector are allowed (no mutations or deletions)");
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

/// A pod through its ephemeralcontainers endpoint: existing ones stay as they are.
pub(in crate::validate) fn ephemeral_containers(object: &At, old: &At, errors: &mut Errors) {
    if is_mirror(old) {
        errors.clear();
        return nowhere("static pods do not support ephemeral containers", errors);
    }
    whole_pod(object, errors);
    let (new, old_list) = (object.get("spec.ephemeralContainers"), old.get("spec.ephemeralContainers"));
    for container in old_list.items() {
        let name = container.str("name");
        match new.items().find(|c| c.str("name") == name) {
            None => new.forbidden(errors, format!("existing ephemeral containers {name:?} may not be removed\n")),
            Some(now) if !same(now.value, container.value) => {
                let change = line_difference(container.value, now.value);
                new.forbidden(errors, format!("existing ephemeral containers {name:?} may not be changed\n{change}"));
            }
            Some(_) => {}
        }
    }
}

/// An error about no field.
fn nowhere(detail: &str, errors: &mut Errors) {
    errors.push(FieldError::forbidden(&FieldPath::default(), detail));
}

/// A pod through its resize endpoint: cpu and memory of it and its containers, within the same quality of service.
pub(in crate::validate) fn resize(object: &At, old: &At, errors: &mut Errors) {
    let (spec, old_spec) = (object.get("spec"), old.get("spec"));
    if is_mirror(old) {
        errors.clear();
        return nowhere("static pods cannot be resized", errors);
    }
    if old_spec.str("os.name") == "windows" {
        errors.clear();
        return nowhere("windows pods cannot be resized", errors);
    }
    whole_pod(object, errors);
    if quality(spec.value) != quality(old_spec.value) {
        let detail = "Pod QOS Class may not change as a result of resizing";
        spec.invalid_value(errors, object.str("status.qosClass"), detail);
    }
    let statuses = old.get("status.containerStatuses");
    let running = statuses.items().find(|status| status.get("state.running").is_set());
    if running.is_some_and(|status| !status.get("resources").is_set()) {
        spec.forbidden(errors, "Pod running on node without support for resize");
    }
    resized_pod(&spec, &old_spec, errors);
    let mut same_containers = true;
    for list in ["containers", "initContainers"] {
        same_containers &= same_names(&spec.get(list), &old_spec.get(list), list, errors);
    }
    if !same_containers {
        return;
    }
    for list in ["initContainers", "containers"] {
        let (new_list, old_list) = (spec.get(list), old_spec.get(list));
        for (new, old) in new_list.items().zip(old_list.items()) {
            kept(&new.get("resources"), &old.get("resources"), "resource", errors);
        }
    }
    for list in ["containers", "initContainers"] {
        let (new_list, old_list) = (spec.get(list), old_spec.get(list));
        for (new, old) in new_list.items().zip(old_list.items()) {
            resized_container(&spec, &new, &old, list == "initContainers", errors);
        }
    }
}

/// Tells whether the containers are the ones that they were, in the same order.
fn same_names(new: &At, old: &At, list: &str, errors: &mut Errors) -> bool {
    if new.list().len() != old.list().len() {
        new.forbidden(errors, format!("{list} may not be added or removed on resize"));
        return false;
    }
    let mut fine = true;
    for (new, old) in new.items().zip(old.items()) {
        if new.str("name") != old.str("name") {
            new.get("name").forbidden(errors, format!("{list} may not be renamed or reordered on resize"));
            fine = false;
        }
    }
    fine
}

/// What was asked for may change, but not go.
fn kept(new: &At, old: &At, what: &str, errors: &mut Errors) {
    for kind in ["requests", "limits"] {
        let (now, before) = (new.get(kind), old.get(kind));
        if before.entries().any(|(name, _)| !now.key(name).is_set()) {
            now.forbidden(errors, format!("{what} {kind} cannot be removed"));
        }
    }
}

fn resized_pod(spec: &At, old: &At, errors: &mut Errors) {
    let (new, old) = (spec.get("resources"), old.get("resources"));
    if !old.is_empty() && !new.is_set() {
        return new.forbidden(errors, "pod-level resources cannot be removed");
    }
    kept(&new, &old, "pod-level resource", errors);
    if !same(&fixed_resources(&new), &fixed_resources(&old)) {
        spec.forbidden(errors, "only cpu and memory resources are mutable at pod-level");
    }
}

/// What a resize may not touch.
fn fixed_resources(resources: &At) -> Value {
    let mut fixed = resources.value.clone();
    for list in ["requests", "limits"] {
        if let Some(members) = fixed.get_mut(list).and_then(Value::as_object_mut) {
            members.retain(|name, _| !matches!(name.as_str(), "cpu" | "memory"));
        }
    }
    fixed
}

fn resized_container(spec: &At, new: &At, old: &At, init: bool, errors: &mut Errors) {
    if same(new.value, old.value) {
        return;
    }
    let fixed = |container: &At| {
        let mut fixed = container.value.clone();
        fixed["resources"] = fixed_resources(&container.get("resources"));
        fixed
    };
    if !same(&fixed(new), &fixed(old)) {
        match init {
            true => new.forbidden(errors, "only cpu and memory resources for init or sidecar containers are mutable"),
            false => spec.forbidden(errors, "only cpu and memory resources are mutable"),
        }
    }
    let restarts = new.get("resizePolicy").items().any(|policy| policy.str("restartPolicy") == "RestartContainer");
    if init && new.str("restartPolicy") != "Always" && restarts {
        let detail = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
        new.forbidden(errors, detail);
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
