//! Cells that are more than a member of the object.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

use super::duration::{self, human_duration};
pub(super) use super::network::*;
pub(super) use super::pod::{pod_ip, pod_ready, pod_restarts, pod_status, readiness_gates};
pub(super) use super::policy::*;
use crate::quantity::Quantity;
use crate::selector::LabelSelector;

pub(super) const NONE: &str = "<none>";
pub(super) const UNSET: &str = "<unset>";
pub(super) const UNKNOWN: &str = "<unknown>";

/// The value at a dotted path; null when there is none.
pub(super) fn find<'a>(object: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(object, |at, member| &at[member])
}

/// The text at a dotted path, empty when there is none.
pub(super) fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    find(object, path).as_str().unwrap_or_default()
}

/// A scalar as it is shown.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

pub(super) fn items<'a>(object: &'a Value, path: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    find(object, path).as_array().map(Vec::as_slice).unwrap_or_default().iter()
}

pub(super) fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    items(object, "status.conditions").find(|c| c["type"] == kind)
}

pub(super) fn is_true(object: &Value, kind: &str) -> bool {
    condition(object, kind).is_some_and(|c| c["status"] == "True")
}

pub(super) fn or(text: String, default: &str) -> String {
    if text.is_empty() { default.to_owned() } else { text }
}

pub(super) fn joined<T: AsRef<str>>(texts: impl IntoIterator<Item = T>, separator: &str) -> String {
    texts.into_iter().fold(String::new(), |mut all, text| {
        if !all.is_empty() {
            all.push_str(separator);
        }
        all.push_str(text.as_ref());
        all
    })
}

/// The first three, and how many more there are.
pub(super) fn first_three(all: &[String]) -> String {
    let shown = all.iter().take(3).cloned().collect::<Vec<_>>().join(",");
    if all.len() > 3 { format!("{shown} + {} more...", all.len() - 3) } else { shown }
}

pub(super) fn labels(map: &Value) -> String {
    let pairs = map.as_object().into_iter().flatten().map(|(key, value)| format!("{key}={}", shown(value)));
    or(joined(pairs, ","), NONE)
}

pub(super) fn selector(selector: &Value) -> String {
    match LabelSelector::from_value(selector) {
        Ok(selector) => or(selector.to_string(), NONE),
        Err(_) => "<error>".to_owned(),
    }
}

pub(super) fn deployment_selector(deployment: &Value) -> String {
    let selector = LabelSelector::from_value(&deployment["spec"]["selector"]);
    selector.map_or_else(|_| "<invalid>".to_owned(), |selector| selector.to_string())
}

pub(super) fn ready_of_desired(object: &Value) -> String {
    let number = |path| find(object, path).as_i64().unwrap_or(0);
    format!("{}/{}", number("status.readyReplicas"), number("spec.replicas"))
}

pub(super) fn controller(revision: &Value) -> String {
    let Some(owner) = items(revision, "metadata.ownerReferences").find(|o| o["controller"] == true) else {
        return NONE.to_owned();
    };
    let group = text(owner, "apiVersion").split_once('/').map_or("", |(group, _)| group);
    let dot = if group.is_empty() { "" } else { "." };
    format!("{}{dot}{group}/{}", text(owner, "kind").to_lowercase(), text(owner, "name"))
}

pub(super) fn job_status(job: &Value) -> String {
    let status = if is_true(job, "Complete") {
        "Complete"
    } else if is_true(job, "Failed") {
        "Failed"
    } else if !text(job, "metadata.deletionTimestamp").is_empty() {
        "Terminating"
    } else {
        let rest = ["Suspended", "FailureTarget", "SuccessCriteriaMet"];
        rest.into_iter().find(|kind| is_true(job, kind)).unwrap_or("Running")
    };
    status.to_owned()
}

pub(super) fn job_completions(job: &Value) -> String {
    let succeeded = find(job, "status.succeeded").as_i64().unwrap_or(0);
    let parallelism = find(job, "spec.parallelism").as_i64().unwrap_or(0);
    match find(job, "spec.completions").as_i64() {
        Some(completions) => format!("{succeeded}/{completions}"),
        None if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        None => format!("{succeeded}/1"),
    }
}

pub(super) fn job_duration(job: &Value, now: Timestamp) -> String {
    let time = |path| duration::parse(find(job, path));
    time("status.startTime").map_or_else(String::new, |start| {
        human_duration(time("status.completionTime").unwrap_or(now).as_second() - start.as_second())
    })
}

pub(super) fn suspended(job: &Value) -> String {
    match find(job, "spec.suspend").as_bool() {
        Some(true) => "True".to_owned(),
        Some(false) => "False".to_owned(),
        None => UNSET.to_owned(),
    }
}

pub(super) fn last_schedule(job: &Value, now: Timestamp) -> String {
    let time = find(job, "status.lastScheduleTime");
    if time.is_null() { NONE.to_owned() } else { duration::age(time, now) }
}

pub(super) fn node_status(node: &Value) -> String {
    let status = match condition(node, "Ready") {
        Some(ready) if ready["status"] == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    let cordoned = if find(node, "spec.unschedulable") == true { ",SchedulingDisabled" } else { "" };
    format!("{status}{cordoned}")
}

pub(super) fn node_roles(node: &Value) -> String {
    let mut roles = BTreeSet::new();
    for (key, value) in find(node, "metadata.labels").as_object().into_iter().flatten() {
        match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) if !role.is_empty() => roles.insert(role.to_owned()),
            None if key == "kubernetes.io/role" && value != "" => roles.insert(shown(value)),
            _ => false,
        };
    }
    or(joined(roles, ","), NONE)
}

fn node_address(node: &Value, kind: &str) -> String {
    let address = items(node, "status.addresses").find(|a| a["type"] == kind);
    or(address.map(|a| text(a, "address").to_owned()).unwrap_or_default(), NONE)
}

pub(super) fn node_internal_ip(node: &Value) -> String {
    node_address(node, "InternalIP")
}

pub(super) fn node_external_ip(node: &Value) -> String {
    node_address(node, "ExternalIP")
}

pub(super) fn node_kernel(node: &Value) -> String {
    let kernel = or(text(node, "status.nodeInfo.kernelVersion").to_owned(), UNKNOWN);
    match text(node, "status.nodeInfo.architecture") {
        "" => kernel,
        architecture => format!("{kernel} ({architecture})"),
    }
}

/// Of either version of the API: the first of two paths that holds a text.
fn either<'a>(event: &'a Value, one: &str, other: &str) -> &'a str {
    let first = text(event, one);
    if first.is_empty() { text(event, other) } else { first }
}

/// Of either version of the API: the first of two paths that is there.
fn present<'a>(event: &'a Value, one: &str, other: &str) -> &'a Value {
    let first = find(event, one);
    if first.is_null() { find(event, other) } else { first }
}

pub(super) fn event_last_seen(event: &Value, now: Timestamp) -> String {
    let last = match find(event, "series.lastObservedTime") {
        Value::Null => present(event, "lastTimestamp", "deprecatedLastTimestamp"),
        time => time,
    };
    if last.is_null() { event_first_seen(event, now) } else { duration::age(last, now) }
}

pub(super) fn event_first_seen(event: &Value, now: Timestamp) -> String {
    let first = present(event, "firstTimestamp", "deprecatedFirstTimestamp");
    duration::age(if first.is_null() { find(event, "eventTime") } else { first }, now)
}

pub(super) fn event_object(event: &Value) -> String {
    let kind = either(event, "involvedObject.kind", "regarding.kind").to_lowercase();
    match either(event, "involvedObject.name", "regarding.name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    }
}

pub(super) fn event_subobject(event: &Value) -> String {
    either(event, "involvedObject.fieldPath", "regarding.fieldPath").to_owned()
}

pub(super) fn event_source(event: &Value) -> String {
    let component = match either(event, "source.component", "deprecatedSource.component") {
        "" => either(event, "reportingComponent", "reportingController"),
        component => component,
    };
    let host = match either(event, "source.host", "deprecatedSource.host") {
        "" => text(event, "reportingInstance"),
        host => host,
    };
    if host.is_empty() { component.to_owned() } else { format!("{component}, {host}") }
}

pub(super) fn event_message(event: &Value) -> String {
    either(event, "message", "note").trim().to_owned()
}

pub(super) fn event_count(event: &Value) -> Value {
    let count = match find(event, "series.count") {
        Value::Null => present(event, "count", "deprecatedCount"),
        count => count,
    };
    count.as_i64().unwrap_or(0).max(1).into()
}

fn access_modes(modes: &Value) -> String {
    const SHORT: [(&str, &str); 4] =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let modes = modes.as_array().map(Vec::as_slice).unwrap_or_default();
    joined(SHORT.iter().filter(|(long, _)| modes.iter().any(|m| m == long)).map(|(_, short)| *short), ",")
}

pub(super) fn volume_access(volume: &Value) -> String {
    access_modes(find(volume, "spec.accessModes"))
}

pub(super) fn volume_claim(volume: &Value) -> String {
    match find(volume, "spec.claimRef") {
        Value::Null => String::new(),
        claim => format!("{}/{}", text(claim, "namespace"), text(claim, "name")),
    }
}

pub(super) fn phase(object: &Value) -> String {
    let deleted = !text(object, "metadata.deletionTimestamp").is_empty();
    if deleted { "Terminating".to_owned() } else { text(object, "status.phase").to_owned() }
}

pub(super) fn storage_class(object: &Value) -> String {
    match &object["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"] {
        Value::String(class) => class.clone(),
        _ => text(object, "spec.storageClassName").to_owned(),
    }
}

fn once_bound(claim: &Value, show: impl Fn(&Value) -> String) -> String {
    if text(claim, "spec.volumeName").is_empty() { String::new() } else { show(&claim["status"]) }
}

pub(super) fn claim_capacity(claim: &Value) -> String {
    once_bound(claim, |status| shown(find(status, "capacity.storage")))
}

pub(super) fn claim_access(claim: &Value) -> String {
    once_bound(claim, |status| access_modes(&status["accessModes"]))
}

/// ComponentStatus has its conditions at the top.
fn health(component: &Value) -> Option<&Value> {
    items(component, "conditions").find(|c| c["type"] == "Healthy")
}

pub(super) fn component_status(component: &Value) -> String {
    match health(component).map(|c| text(c, "status")) {
        Some("True") => "Healthy".to_owned(),
        Some(_) => "Unhealthy".to_owned(),
        None => "Unknown".to_owned(),
    }
}

pub(super) fn component_message(component: &Value) -> String {
    health(component).map(|c| text(c, "message").to_owned()).unwrap_or_default()
}

pub(super) fn component_error(component: &Value) -> String {
    health(component).map(|c| text(c, "error").to_owned()).unwrap_or_default()
}

pub(super) fn config_keys(map: &Value) -> Value {
    let count = |member: &str| map[member].as_object().map_or(0, serde_json::Map::len);
    (count("data") + count("binaryData")).into()
}

/// What the containers of a pod use together.
fn pod_usage(metrics: &Value, resource: &str) -> String {
    let amounts = items(metrics, "containers").filter_map(|c| Quantity::parse(text(&c["usage"], resource)).ok());
    amounts.fold(Quantity::ZERO, Quantity::plus).to_string()
}

pub(super) fn pod_cpu(metrics: &Value) -> String {
    pod_usage(metrics, "cpu")
}

pub(super) fn pod_memory(metrics: &Value) -> String {
    pod_usage(metrics, "memory")
}
