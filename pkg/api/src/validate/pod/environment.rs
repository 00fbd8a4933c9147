//! Environment variables and what they refer to.

use super::Pod;
use super::mount::no_backsteps;
use crate::validate::at::At;
use crate::validate::{Errors, format};

pub(super) fn environment(container: &At, errors: &mut Errors) {
    for variable in container.get("env").items() {
        let name = variable.get("name");
        if name.need(errors) {
            name.check(errors, format::env_var_name(name.text()));
        }
        let source = variable.get("valueFrom");
        if source.is_set() {
            value_from(&source, !variable.get("value").is_empty(), errors);
        }
    }
    let list = container.get("envFrom");
    for source in list.items() {
        let prefix = source.get("prefix");
        if !prefix.is_empty() {
            prefix.check(errors, format::env_var_name(prefix.text()));
        }
        let set = source.set_members(&["configMapRef", "secretRef"]);
        for reference in &set {
            let reference = source.get(reference);
            let name = reference.get("name");
            if name.need(errors) {
                // The last dash is forgiven, as if more were to come.
                let text = name.text().strip_suffix('-').map_or(name.text().to_owned(), |base| format!("{base}a"));
                name.check(errors, format::dns_subdomain(&text));
            }
        }
        match set.len() {
            0 => list.invalid_value(errors, "", "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => list.invalid_value(errors, "", "may not have more than one field specified at a time"),
        }
    }
}

const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

fn value_from(source: &At, has_value: bool, errors: &mut Errors) {
    const SOURCES: [&str; 5] = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
    let set = source.set_members(&SOURCES);
    for name in &set {
        let reference = source.get(name);
        match *name {
            "fieldRef" => field_ref(&reference, &ENV_FIELDS, errors),
            "resourceFieldRef" => resource_field_ref(&reference, false, errors),
            "fileKeyRef" => file_key_ref(&reference, errors),
            _ => {
                let (name, key) = (reference.get("name"), reference.get("key"));
                for problem in format::dns_subdomain(name.text()) {
                    name.invalid_value(errors, name.text(), problem);
                }
                if key.need(errors) {
                    key.check(errors, format::config_key(key.text()));
                }
            }
        }
    }
    match set.len() {
        0 => source.invalid_value(
            errors,
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        ),
        _ if has_value => source.invalid_value(errors, "", "may not be specified when `value` is not empty"),
        1 => {}
        _ => source.invalid_value(errors, "", "may not have more than one field specified at a time"),
    }
}

/// A reference to a variable in a file that another container leaves in a volume.
fn file_key_ref(reference: &At, errors: &mut Errors) {
    let (volume, path, key) = (reference.get("volumeName"), reference.get("path"), reference.get("key"));
    if key.need(errors) {
        key.check(errors, format::env_var_name(key.text()));
    }
    if volume.need(errors) {
        volume.check(errors, format::dns_label(volume.text()));
    }
    if path.need(errors) {
        no_backsteps(&path, path.text(), errors);
    }
}

/// Files with variables come from volumes that begin empty.
pub(super) fn file_volumes(spec: &At, errors: &mut Errors) {
    let volumes = spec.get("volumes");
    Pod::each_container(spec, |container| {
        for variable in container.get("env").items() {
            let name = variable.get("valueFrom.fileKeyRef.volumeName");
            if !variable.get("valueFrom.fileKeyRef").is_set() {
                continue;
            }
            match volumes.items().find(|v| v.str("name") == name.text()) {
                None => name.not_found(errors),
                Some(volume) if !volume.get("emptyDir").is_set() => {
                    name.invalid(errors, "referenced volume must be of type emptyDir");
                }
                Some(_) => {}
            }
        }
    });
}

/// A reference to a field of the pod itself; `fields` are those that need no key.
pub(super) fn field_ref(reference: &At, fields: &[&str], errors: &mut Errors) {
    let path = reference.get("fieldPath");
    if !reference.get("apiVersion").need(errors) || !path.need(errors) {
        return;
    }
    let key = path.text().split_once("['").and_then(|(base, key)| Some((base, key.strip_suffix("']")?)));
    if reference.str("apiVersion") != "v1" {
        let detail = format!("error converting fieldPath: unsupported pod version: {}", reference.str("apiVersion"));
        return path.invalid(errors, detail);
    }
    let report = |problems: Vec<String>, key: &str, errors: &mut Errors| {
        for problem in problems {
            reference.invalid_value(errors, key, problem);
        }
    };
    let refuse = |why: &str, errors: &mut Errors| {
        path.invalid(errors, format!("error converting fieldPath: field label {why}: {}", path.text()));
    };
    match key {
        Some(("metadata.annotations", key)) => {
            report(format::qualified_name(&key.to_lowercase()), &key.to_lowercase(), errors);
        }
        Some(("metadata.labels", key)) => report(format::qualified_name(key), key, errors),
        Some((base, _)) if !base.is_empty() => refuse("does not support subscript", errors),
        _ if path.text() == "spec.host" && fields.contains(&"spec.nodeName") => {}
        _ if !KNOWN_FIELDS.contains(&path.text()) => refuse("not supported", errors),
        _ => path.exactly_one_of(errors, fields),
    }
}

/// All fields that a pod may be asked for in one place or another; the last one by its old name.
const KNOWN_FIELDS: [&str; 15] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.phase",
    "status.podIP",
    "status.podIPs",
    "spec.host",
];

pub(super) fn resource_field_ref(reference: &At, volume: bool, errors: &mut Errors) {
    const SUPPORTED: [&str; 6] = [
        "limits.cpu",
        "limits.ephemeral-storage",
        "limits.memory",
        "requests.cpu",
        "requests.ephemeral-storage",
        "requests.memory",
    ];
    let (container, resource) = (reference.get("containerName"), reference.get("resource"));
    let huge = |name: &str| name.starts_with("requests.hugepages-") || name.starts_with("limits.hugepages-");
    if volume && container.is_empty() {
        container.required(errors, "");
    } else if resource.need(errors) && !huge(resource.text()) {
        resource.exactly_one_of(errors, &SUPPORTED);
    }
    divisor(&reference.get("divisor"), resource.text(), errors);
}

/// The unit in which an amount is told.
fn divisor(divisor: &At, resource: &str, errors: &mut Errors) {
    const SIZES: [&str; 13] = ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
    let what = match resource.split_once('.') {
        Some((_, "cpu")) => "cpu",
        Some((_, "memory")) => "memory",
        Some((_, "ephemeral-storage")) => "local ephemeral storage",
        Some((_, name)) if name.starts_with("hugepages-") => "hugepages",
        _ => return,
    };
    let Some(unit) = divisor.quantity().filter(|unit| !unit.is_zero()).map(|_| divisor.text()) else { return };
    if what == "cpu" {
        if !matches!(unit, "1m" | "1") {
            divisor.invalid_value(
                errors,
                resource,
                "only divisor's values 1m and 1 are supported with the cpu resource",
            );
        }
    } else if !SIZES.contains(&unit) {
        let detail = format!("only divisor's values {} are supported with the {what} resource", SIZES.join(", "));
        divisor.invalid_value(errors, resource, detail);
    }
}
