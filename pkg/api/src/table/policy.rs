//! Cells of policies, quotas, autoscalers and cluster configuration.

use std::collections::BTreeSet;

use serde_json::Value;

use super::cells::{NONE, UNKNOWN, UNSET, condition, find, items, joined, or, selector, shown, text};
use super::duration::human_duration;

fn quota(quota: &Value, wanted: impl Fn(&str) -> bool) -> String {
    let hard = find(quota, "status.hard").as_object().into_iter().flatten();
    let parts = hard.filter(|(name, _)| wanted(name)).map(|(name, hard)| {
        let used = or(shown(&quota["status"]["used"][name]), "0");
        format!("{name}: {used}/{}", shown(hard))
    });
    joined(parts, ", ")
}

pub(super) fn quota_requests(object: &Value) -> String {
    quota(object, |name| !name.starts_with("limits."))
}

pub(super) fn quota_limits(object: &Value) -> String {
    quota(object, |name| name.starts_with("limits."))
}

fn kind_and_name(reference: &Value) -> String {
    format!("{}/{}", text(reference, "kind"), text(reference, "name"))
}

pub(super) fn role(binding: &Value) -> String {
    kind_and_name(&binding["roleRef"])
}

fn subjects(binding: &Value, kind: &str, show: impl Fn(&Value) -> String) -> String {
    joined(items(binding, "subjects").filter(|s| s["kind"] == kind).map(show), ", ")
}

pub(super) fn users(binding: &Value) -> String {
    subjects(binding, "User", |s| text(s, "name").to_owned())
}

pub(super) fn groups(binding: &Value) -> String {
    subjects(binding, "Group", |s| text(s, "name").to_owned())
}

pub(super) fn service_accounts(binding: &Value) -> String {
    subjects(binding, "ServiceAccount", |s| format!("{}/{}", text(s, "namespace"), text(s, "name")))
}

pub(super) fn requested_duration(request: &Value) -> String {
    find(request, "spec.expirationSeconds").as_i64().map_or_else(|| NONE.to_owned(), human_duration)
}

pub(super) fn request_condition(request: &Value) -> String {
    let has = |kind| condition(request, kind).is_some();
    let mut parts = vec![if has("Denied") {
        "Denied"
    } else if has("Approved") {
        "Approved"
    } else {
        "Pending"
    }];
    if has("Failed") {
        parts.push("Failed");
    }
    if !text(request, "status.certificate").is_empty() {
        parts.push("Issued");
    }
    parts.join(",")
}

/// The name, marked when an annotation makes it the default.
fn name_or_default(object: &Value, annotations: &[&str]) -> String {
    let name = text(object, "metadata.name");
    let default = annotations.iter().any(|a| object["metadata"]["annotations"][*a] == "true");
    if default { format!("{name} (default)") } else { name.to_owned() }
}

pub(super) fn ingress_class_name(class: &Value) -> String {
    name_or_default(class, &["ingressclass.kubernetes.io/is-default-class"])
}

pub(super) fn storage_class_name(class: &Value) -> String {
    let beta = "storageclass.beta.kubernetes.io/is-default-class";
    name_or_default(class, &["storageclass.kubernetes.io/is-default-class", beta])
}

pub(super) fn token_requests(driver: &Value) -> String {
    or(joined(items(driver, "spec.tokenRequests").map(|t| text(t, "audience")), ","), UNSET)
}

pub(super) fn param_kind(policy: &Value) -> String {
    match find(policy, "spec.paramKind") {
        Value::Null => UNSET.to_owned(),
        kind => format!("{}/{}", text(kind, "apiVersion"), text(kind, "kind")),
    }
}

pub(super) fn param_ref(binding: &Value) -> String {
    match find(binding, "spec.paramRef") {
        Value::Null => UNSET.to_owned(),
        reference if !text(reference, "name").is_empty() => {
            format!("{}/{}", or(text(reference, "namespace").to_owned(), "*"), text(reference, "name"))
        }
        reference => selector(&reference["selector"]),
    }
}

pub(super) fn missing_level(schema: &Value) -> String {
    condition(schema, "Dangling").map_or_else(|| "?".to_owned(), |c| text(c, "status").to_owned())
}

pub(super) fn resource_claim_state(claim: &Value) -> String {
    let deleted = !text(claim, "metadata.deletionTimestamp").is_empty();
    let allocated = find(claim, "status.allocation").is_object();
    let reserved = items(claim, "status.reservedFor").next().is_some();
    let states = [
        ("deleted", deleted),
        ("pending", !allocated && !deleted),
        ("allocated", allocated),
        ("reserved", allocated && reserved),
    ];
    joined(states.into_iter().filter(|(_, holds)| *holds).map(|(state, _)| state), ",")
}

pub(super) fn migrated_resource(migration: &Value) -> String {
    let (resource, group) = (text(migration, "spec.resource.resource"), text(migration, "spec.resource.group"));
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

pub(super) fn migration_status(migration: &Value) -> String {
    let known = ["Running", "Failed", "Succeeded"];
    let last = items(migration, "status.conditions")
        .filter(|c| c["status"] == "True")
        .filter_map(|c| known.into_iter().find(|kind| c["type"] == *kind))
        .last();
    last.unwrap_or("Unknown").to_owned()
}

pub(super) fn api_service(service: &Value) -> String {
    match find(service, "spec.service") {
        Value::Null => "Local".to_owned(),
        target => format!("{}/{}", text(target, "namespace"), text(target, "name")),
    }
}

pub(super) fn api_service_available(service: &Value) -> String {
    let Some(available) = condition(service, "Available") else { return "Unknown".to_owned() };
    let (status, reason) = (text(available, "status"), text(available, "reason"));
    if status == "True" || reason.is_empty() { status.to_owned() } else { format!("{status} ({reason})") }
}

pub(super) fn scale_target(autoscaler: &Value) -> String {
    kind_and_name(find(autoscaler, "spec.scaleTargetRef"))
}

pub(super) fn autoscaler_targets(autoscaler: &Value) -> String {
    if autoscaler["apiVersion"] == "autoscaling/v1" {
        return targets_v1(autoscaler);
    }
    let current: Vec<&Value> = items(autoscaler, "status.currentMetrics").collect();
    let specs: Vec<&Value> = items(autoscaler, "spec.metrics").collect();
    if specs.is_empty() {
        return NONE.to_owned();
    }
    let shown = specs.iter().take(2).enumerate();
    let text = joined(shown.map(|(i, spec)| metric(spec, current.get(i).copied().unwrap_or(&Value::Null))), ", ");
    if specs.len() > 2 { format!("{text} + {} more...", specs.len() - 2) } else { text }
}

fn targets_v1(autoscaler: &Value) -> String {
    let percent = |path: &str| find(autoscaler, path).as_i64().map(|n| format!("{n}%"));
    let current = percent("status.currentCPUUtilizationPercentage").unwrap_or_else(|| UNKNOWN.to_owned());
    let target = percent("spec.targetCPUUtilizationPercentage").unwrap_or_else(|| "<auto>".to_owned());
    format!("cpu: {current}/{target}")
}

fn metric(spec: &Value, status: &Value) -> String {
    let (member, named) = match text(spec, "type") {
        "External" => ("external", false),
        "Object" => ("object", false),
        "Pods" => ("pods", false),
        "Resource" => ("resource", true),
        "ContainerResource" => ("containerResource", true),
        _ => return "<unknown type>".to_owned(),
    };
    let (target, current) = (&spec[member]["target"], &status[member]["current"]);
    let prefix = if named { format!("{}: ", text(&spec[member], "name")) } else { String::new() };
    let known = |value: &Value| or(shown(value), UNKNOWN);
    if !target["averageValue"].is_null() {
        let average = if named || member == "pods" { "" } else { " (avg)" };
        return format!("{prefix}{}/{}{average}", known(&current["averageValue"]), shown(&target["averageValue"]));
    }
    if named {
        let percent = |value: &Value, default: &str| value.as_i64().map_or(default.to_owned(), |n| format!("{n}%"));
        let current = percent(&current["averageUtilization"], UNKNOWN);
        return format!("{prefix}{current}/{}", percent(&target["averageUtilization"], "<auto>"));
    }
    format!("{prefix}{}/{}", known(&current["value"]), shown(&target["value"]))
}

pub(super) fn ingress_hosts(ingress: &Value) -> String {
    let rules: Vec<&str> = items(ingress, "spec.rules").map(|r| text(r, "host")).collect();
    let hosts: Vec<&str> = rules.iter().copied().filter(|host| !host.is_empty()).collect();
    if hosts.is_empty() {
        return "*".to_owned();
    }
    let shown = joined(hosts.iter().take(3), ",");
    if hosts.len() > 3 { format!("{shown} + {} more...", rules.len() - 3) } else { shown }
}

pub(super) fn ingress_address(ingress: &Value) -> String {
    joined(load_balancer_addresses(ingress), ",")
}

/// The sorted addresses a load balancer gave.
pub(super) fn load_balancer_addresses(object: &Value) -> BTreeSet<String> {
    items(object, "status.loadBalancer.ingress")
        .map(|ingress| or(text(ingress, "ip").to_owned(), text(ingress, "hostname")))
        .filter(|address| !address.is_empty())
        .collect()
}

pub(super) fn ingress_ports(ingress: &Value) -> String {
    let tls = items(ingress, "spec.tls").next().is_some();
    if tls { "80, 443" } else { "80" }.to_owned()
}

pub(super) fn ingress_class_parameters(class: &Value) -> String {
    let parameters = find(class, "spec.parameters");
    if parameters.is_null() {
        return NONE.to_owned();
    }
    let group = text(parameters, "apiGroup");
    let dot = if group.is_empty() { "" } else { "." };
    format!("{}{dot}{group}/{}", text(parameters, "kind"), text(parameters, "name"))
}
