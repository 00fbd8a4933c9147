//! Servers behind this one.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::at::At;
use super::{Errors, format};

pub(super) fn api_service(object: &At, _old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    let (group, version, service) = (spec.str("group"), spec.get("version"), spec.get("service"));
    let name = object.get("metadata.name");
    let expected = format!("{}.{group}", version.text());
    let problems = format::path_segment(name.text());
    if problems.is_empty() && name.text() != expected && !name.is_empty() {
        name.invalid(errors, format!("must be `spec.version+\".\"+spec.group`: \"{expected}\""));
    }
    if group.is_empty() && version.text() != "v1" {
        spec.get("group").required(errors, "only v1 may have an empty group and it better be legacy kube");
    }
    if !group.is_empty() {
        spec.get("group").check(errors, format::dns_subdomain(group));
    }
    for problem in format::dns1035_label(version.text()) {
        version.invalid_value(errors, version.text(), problem);
    }
    for (field, max) in [("groupPriorityMinimum", 20000), ("versionPriority", 1000)] {
        let priority = spec.number(field);
        if !(1..=max).contains(&priority) {
            let detail = format!("must be positive and less than {max}");
            spec.get(field).invalid_value(errors, priority, detail);
        }
    }
    let (bundle, insecure) = (spec.get("caBundle"), spec.get("insecureSkipTLSVerify"));
    if !service.is_set() {
        if !bundle.is_empty() {
            let bytes = STANDARD.decode(bundle.text()).map_or(0, |bytes| bytes.len());
            bundle.invalid_value(errors, format!("{bytes} bytes"), "local APIServices may not have a caBundle");
        }
        if insecure.is_true() {
            insecure.invalid(errors, "local APIServices may not have insecureSkipTLSVerify");
        }
        return;
    }
    for field in ["namespace", "name"] {
        service.get(field).need(errors);
    }
    let port = service.get("port");
    if port.int().is_some_and(|port| !(1..=65535).contains(&port)) {
        port.invalid(errors, "port is not valid: must be between 1 and 65535, inclusive");
    }
    if insecure.is_true() && !bundle.is_empty() {
        insecure.invalid(errors, "may not be true if caBundle is present");
    }
}

pub(super) fn api_service_status(object: &At, _old: &At, errors: &mut Errors) {
    for condition in object.get("status.conditions").items() {
        let status = condition.get("status");
        if !["True", "False", "Unknown"].contains(&status.text()) {
            status.not_supported(errors, &["True", "False", "Unknown"]);
        }
    }
}
