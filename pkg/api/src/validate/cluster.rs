//! Namespaces, nodes, and the limits they impose.

use serde_json::{Map, Value};

use super::at::{At, same};
use super::pod::quantity;
use super::selector::label_name;
use super::{Errors, format, metadata, pod};
use crate::field::FieldError;

pub(super) fn namespace(object: &At, _old: Option<&At>, errors: &mut Errors) {
    for finalizer in object.get("spec.finalizers").items() {
        metadata::finalizer(&finalizer, true, errors);
    }
}

pub(super) fn namespace_finalizers(object: &At, _old: &At, errors: &mut Errors) {
    namespace(object, None, errors);
}

pub(super) fn namespace_status(object: &At, _old: &At, errors: &mut Errors) {
    let phase = object.get("status.phase");
    match (object.get("metadata.deletionTimestamp").is_set(), phase.text()) {
        (false, text) if text != "Active" => {
            phase.invalid(errors, "may only be 'Active' if `deletionTimestamp` is empty");
        }
        (true, text) if text != "Terminating" => {
            phase.invalid(errors, "may only be 'Terminating' if `deletionTimestamp` is not empty");
        }
        _ => {}
    }
}

pub(super) fn node(object: &At, old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    taints(&spec.get("taints"), errors);
    for cidr in spec.get("podCIDRs").items() {
        cidr.check(errors, format::cidr(cidr.text()));
    }
    let Some(old) = old else { return };
    let old_spec = old.get("spec");
    for (field, name) in [("podCIDRs", "podCIDR"), ("providerID", "providerID")] {
        let (now, before) = (spec.get(field), old_spec.get(field));
        if !before.is_empty() && !same(now.value, before.value) {
            now.forbidden(errors, format!("node updates may not change {name} except from \"\" to valid"));
        }
    }
    let fixed = |at: &At| -> Value {
        const MUTABLE: [&str; 6] = ["taints", "unschedulable", "podCIDR", "podCIDRs", "providerID", "configSource"];
        let members = at.members().into_iter().flatten().filter(|(key, _)| !MUTABLE.contains(&key.as_str()));
        Value::Object(members.map(|(key, value)| (key.clone(), value.clone())).collect::<Map<_, _>>())
    };
    if !same(&fixed(&spec), &fixed(&old_spec)) {
        let detail = "node updates may only change labels, taints, or capacity (or configSource, if the DynamicKubeletConfig feature gate is enabled)";
        spec.forbidden(errors, detail);
    }
}

fn taints(taints: &At, errors: &mut Errors) {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for taint in taints.items() {
        label_name(&taint.get("key"), errors);
        let (value, effect) = (taint.get("value"), taint.get("effect"));
        value.check(errors, format::label_value(value.text()));
        effect.need(errors);
        let pair = (taint.str("key"), effect.text());
        if seen.contains(&pair) {
            taint.duplicate(errors);
        }
        seen.push(pair);
    }
}

pub(super) fn node_status(object: &At, _old: &At, errors: &mut Errors) {
    let addresses = object.get("status.addresses");
    for (index, address) in addresses.items().enumerate() {
        if addresses.list()[..index].contains(address.value) {
            address.duplicate(errors);
        }
    }
    for field in ["status.capacity", "status.allocatable"] {
        for (name, amount) in object.get(field).entries() {
            quantity(&amount, name, errors);
        }
    }
}

pub(super) fn limit_range(object: &At, _old: Option<&At>, errors: &mut Errors) {
    let limits = object.get("spec.limits");
    let mut kinds: Vec<&str> = Vec::new();
    for limit in limits.items() {
        let kind = limit.get("type");
        if kind.need(errors) {
            kind.check(errors, format::qualified_name(kind.text()));
        }
        if kinds.contains(&kind.text()) {
            kind.duplicate(errors);
        }
        kinds.push(kind.text());
        one_limit(&limit, errors);
    }
}

fn one_limit(limit: &At, errors: &mut Errors) {
    let kind = limit.str("type");
    for field in ["default", "defaultRequest"] {
        let field = limit.get(field);
        if kind == "Pod" && !field.is_empty() {
            field.forbidden(errors, "may not be specified when `type` is 'Pod'");
        }
    }
    if kind == "PersistentVolumeClaim"
        && !limit.get("min").key("storage").is_set()
        && !limit.get("max").key("storage").is_set()
    {
        limit.required(errors, "either minimum or maximum storage value is required, but neither was provided");
    }
    // Each of the first may not exceed the second.
    const ORDER: [(&str, &str, &str, &str); 5] = [
        ("min", "max", "min", "max"),
        ("min", "defaultRequest", "min", "default request"),
        ("defaultRequest", "max", "default request", "max"),
        ("defaultRequest", "default", "default request", "default limit"),
        ("default", "max", "default", "max"),
    ];
    for (low, high, low_name, high_name) in ORDER {
        let (low, high) = (limit.get(low), limit.get(high));
        for (resource, amount) in low.entries() {
            quantity(&amount, resource, errors);
            let bound = high.key(resource);
            if let (Some(small), Some(large)) = (amount.quantity(), bound.quantity())
                && small > large
            {
                let detail = format!("{low_name} value {small} is greater than {high_name} value {large}");
                amount.invalid(errors, detail);
            }
        }
    }
    let ratio = limit.get("maxLimitRequestRatio");
    for (_, amount) in ratio.entries() {
        if amount.quantity().is_some_and(|q| q.millis() < 1000) {
            amount.invalid(errors, "ratio is less than 1");
        }
    }
}

pub(super) fn resource_quota(object: &At, old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    quota_list(&spec.get("hard"), errors);
    let scopes = spec.get("scopes");
    let has = |name: &str| scopes.list().iter().any(|s| s == name);
    for (one, other) in [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")] {
        if has(one) && has(other) {
            scopes.invalid(errors, "conflicting scopes");
        }
    }
    if let Some(old) = old {
        let sorted = |at: &At| {
            let mut names: Vec<String> = at.list().iter().map(Value::to_string).collect();
            names.sort();
            names
        };
        if sorted(&scopes) != sorted(&old.get("spec.scopes")) {
            scopes.invalid(errors, "field is immutable");
        }
    }
}

pub(super) fn resource_quota_status(object: &At, _old: &At, errors: &mut Errors) {
    quota_list(&object.get("status.hard"), errors);
    quota_list(&object.get("status.used"), errors);
}

fn quota_list(list: &At, errors: &mut Errors) {
    for (name, amount) in list.entries() {
        for problem in format::qualified_name(name) {
            amount.invalid_value(errors, name, problem);
        }
        if !name.contains('/') && !is_standard_quota(name) {
            amount.invalid_value(errors, name, "must be a standard resource for quota");
        }
        quantity(&amount, name, errors);
    }
}

fn is_standard_quota(name: &str) -> bool {
    const NAMES: [&str; 21] = [
        "cpu",
        "memory",
        "ephemeral-storage",
        "requests.cpu",
        "requests.memory",
        "requests.storage",
        "requests.ephemeral-storage",
        "limits.cpu",
        "limits.memory",
        "limits.ephemeral-storage",
        "pods",
        "services",
        "replicationcontrollers",
        "resourcequotas",
        "secrets",
        "configmaps",
        "persistentvolumeclaims",
        "services.nodeports",
        "services.loadbalancers",
        "storage",
        "endpoints",
    ];
    NAMES.contains(&name)
        || name.starts_with("hugepages-")
        || name.starts_with("requests.hugepages-")
        || name.starts_with("count/")
        || name.contains(".storageclass.storage.k8s.io")
        || name.contains(".deviceclass.resource.k8s.io")
}

pub(super) fn priority_class(object: &At, old: Option<&At>, errors: &mut Errors) {
    const BUILT_IN: [(&str, i64); 2] =
        [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];
    const MAX: i64 = 1_000_000_000;
    let (name, value) = (object.get("metadata.name"), object.get("value"));
    if name.text().starts_with("system-") {
        if !BUILT_IN.contains(&(name.text(), value.int().unwrap_or(0))) {
            let detail = "priority class names with 'system-' prefix are reserved for system use only";
            name.forbidden(errors, detail);
        }
    } else if value.int().is_some_and(|v| v > MAX) {
        value.forbidden(errors, format!("maximum allowed value of a user defined priority is {MAX}"));
    }
    for field in ["value", "preemptionPolicy"] {
        if old.is_some_and(|old| !same(object.get(field).value, old.get(field).value)) {
            object.get(field).forbidden(errors, "may not be changed in an update.");
        }
    }
}

pub(super) fn runtime_class(object: &At, old: Option<&At>, errors: &mut Errors) {
    let handler = object.get("handler");
    handler.check(errors, format::dns_label(handler.text()));
    for (name, amount) in object.get("overhead.podFixed").entries() {
        quantity(&amount, name, errors);
    }
    let scheduling = object.get("scheduling");
    metadata::labels(&scheduling.get("nodeSelector"), errors);
    pod::tolerations(&scheduling.get("tolerations"), errors);
    if let Some(old) = old {
        handler.immutable(&old.get("handler"), errors);
    }
}

pub(super) fn lease(object: &At, _old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    let (holder, duration) = (spec.get("holderIdentity"), spec.get("leaseDurationSeconds"));
    if holder.is_set() && holder.is_empty() {
        holder.invalid(errors, "must not be empty");
    }
    if duration.int().is_some_and(|d| d <= 0) {
        duration.invalid(errors, "must be greater than 0");
    }
    spec.get("leaseTransitions").not_negative(errors);
}

pub(super) fn controller_revision(object: &At, old: Option<&At>, errors: &mut Errors) {
    object.get("revision").not_negative(errors);
    let data = object.get("data");
    if !data.is_set() {
        data.required(errors, "data is mandatory");
    }
    if let Some(old) = old {
        data.immutable(&old.get("data"), errors);
    }
}

/// An event through core/v1 or events.k8s.io/v1; only the new kind has a time of its own.
pub(super) fn event(object: &At, old: Option<&At>, errors: &mut Errors) {
    let about = if object.get("regarding").is_set() { "regarding" } else { "involvedObject" };
    let about = object.get(about);
    let (namespace, home) = (about.get("namespace"), object.str("metadata.namespace"));
    let fits = namespace.text() == home || (namespace.is_empty() && matches!(home, "default" | "kube-system"));
    if !fits {
        namespace.invalid_value(errors, namespace.text(), "does not match event.namespace");
    }
    let new_form = object.get("regarding").is_set();
    if let Some(old) = old.filter(|_| new_form) {
        for name in object.members().into_iter().chain(old.members()).flat_map(Map::keys) {
            if !matches!(name.as_str(), "metadata" | "series") {
                object.get(name).immutable(&old.get(name), errors);
            }
        }
    }
    if !object.get("eventTime").is_set() || old.is_some() {
        return;
    }
    let (controller, instance) = if new_form {
        ("reportingController", "reportingInstance")
    } else {
        ("reportingComponent", "reportingInstance")
    };
    let controller = object.get(controller);
    if controller.need(errors) {
        controller.check(errors, format::qualified_name(controller.text()));
    }
    for field in [instance, "action", "reason"] {
        let field = object.get(field);
        if field.need(errors) && field.text().len() > 128 {
            field.invalid_value(errors, "", "can have at most 128 characters");
        }
    }
    let message = object.get(if new_form { "note" } else { "message" });
    if message.text().len() > 1024 {
        message.invalid_value(errors, "", "can have at most 1024 characters");
    }
    if new_form {
        object.get("type").need_one_of(errors, &["Normal", "Warning"]);
        for field in ["deprecatedFirstTimestamp", "deprecatedLastTimestamp", "deprecatedCount", "deprecatedSource"] {
            let field = object.get(field);
            if !field.is_empty() {
                field.invalid(errors, "needs to be unset");
            }
        }
    }
}

pub(super) fn signing_request(object: &At, _old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    let request = spec.get("request");
    if !is_certificate_request(request.text()) {
        request.invalid(errors, "PEM block type must be CERTIFICATE REQUEST");
    }
    spec.get("usages").need(errors);
    let signer = spec.get("signerName");
    if signer.need(errors) {
        match signer.text().split_once('/') {
            Some((domain, path)) if !path.is_empty() => {
                signer.check(errors, format::dns_subdomain(domain));
                if !domain.contains('.') {
                    signer.invalid(errors, "should be a domain with at least two segments separated by dots");
                }
            }
            _ => signer
                .invalid(errors, "must be a fully qualified domain and path of the form 'example.com/signer-name'"),
        }
    }
    let seconds = spec.get("expirationSeconds");
    if seconds.int().is_some_and(|s| s < 600) {
        seconds.invalid(errors, "may not specify a duration less than 600 seconds (10 minutes)");
    }
    for (index, usage) in spec.get("usages").items().enumerate() {
        if spec.get("usages").list()[..index].contains(usage.value) {
            usage.duplicate(errors);
        }
    }
}

fn is_certificate_request(encoded: &str) -> bool {
    use base64::Engine;
    let bytes = base64::engine::general_purpose::STANDARD.decode(encoded).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    text.contains("-----BEGIN CERTIFICATE REQUEST-----") && text.contains("-----END CERTIFICATE REQUEST-----")
}

/// Decisions about a request, once made, stay; `approval` is the endpoint where they are made.
fn decisions(object: &At, old: &At, approval: bool, errors: &mut Errors) {
    let (conditions, before) = (object.get("status.conditions"), old.get("status.conditions"));
    let mut kinds: Vec<&str> = Vec::new();
    for condition in conditions.items() {
        let (kind, status) = (condition.get("type"), condition.get("status"));
        kind.need(errors);
        if matches!(kind.text(), "Approved" | "Denied" | "Failed") {
            if status.text() != "True" {
                status.not_supported(errors, &["True"]);
            }
        } else {
            status.need_one_of(errors, &["False", "True", "Unknown"]);
        }
        let known = before.list().iter().any(|c| c["type"] == kind.text());
        if !approval && !known && matches!(kind.text(), "Approved" | "Denied") {
            conditions.forbidden(errors, format!("updates may not add a condition of type \"{}\"", kind.text()));
        }
        if kinds.contains(&kind.text()) {
            errors.push(FieldError::duplicate(&kind.path(), kind.text()));
        }
        kinds.push(kind.text());
    }
    if kinds.contains(&"Approved") && kinds.contains(&"Denied") {
        conditions.invalid_value(errors, "Approved", "Approved and Denied conditions are mutually exclusive");
    }
    for condition in before.items() {
        let kind = condition.str("type");
        if matches!(kind, "Approved" | "Denied" | "Failed") && !kinds.contains(&kind) {
            conditions.forbidden(errors, format!("updates may not remove a condition of type \"{kind}\""));
        }
    }
}

pub(super) fn approval(object: &At, old: &At, errors: &mut Errors) {
    decisions(object, old, true, errors);
}

pub(super) fn signing_request_status(object: &At, old: &At, errors: &mut Errors) {
    decisions(object, old, false, errors);
    let (certificate, before) = (object.get("status.certificate"), old.get("status.certificate"));
    if !before.is_empty() && certificate.value != before.value {
        certificate
            .forbidden(errors, "updates may not set certificate content if existing certificate content is not empty");
    }
}
