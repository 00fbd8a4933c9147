//! Environment variables and what they refer to.

use super::Pod;
use super::container::descending;
use crate::validate::at::At;
use crate::validate::{Errors, format};

pub(super) fn environment(container: &At, pod: &Pod, errors: &mut Errors) {
    for variable in container.get("env").items() {
        let name = variable.get("name");
        if name.need(errors) {
            name.check(errors, format::env_var_name(name.text()));
        }
        let source = variable.get("valueFrom");
        if source.is_set() {
            value_from(&source, pod, !variable.get("value").is_empty(), errors);
        }
    }
    for source in container.get("envFrom").items() {
        let prefix = source.get("prefix");
        prefix.check(errors, format::env_var_name(prefix.text()));
        let set = source.set_members(&["configMapRef", "secretRef"]);
        match set[..] {
            [] => source.invalid_value(errors, "", "must specify one of: `configMapRef` or `secretRef`"),
            [one] => {
                source.get(one).get("name").need(errors);
            }
            _ => source.invalid_value(errors, "", "may not have more than one field specified at a time"),
        }
    }
}

const ENV_FIELDS: [&str; 11] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
    "metadata.annotations",
    "metadata.labels",
];

fn value_from(source: &At, pod: &Pod, has_value: bool, errors: &mut Errors) {
    const SOURCES: [&str; 5] = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
    let set = source.set_members(&SOURCES);
    for name in &set {
        let reference = source.get(name);
        match *name {
            "fieldRef" => field_ref(&reference, &ENV_FIELDS[..9], errors),
            "resourceFieldRef" => resource_field_ref(&reference, false, errors),
            "fileKeyRef" => file_key_ref(&reference, pod, errors),
            _ => {
                let (name, key) = (reference.get("name"), reference.get("key"));
                name.need(errors);
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
fn file_key_ref(reference: &At, pod: &Pod, errors: &mut Errors) {
    const KEY_MAX: usize = 128;
    let (volume, path, key) = (reference.get("volumeName"), reference.get("path"), reference.get("key"));
    if volume.need(errors) {
        if !pod.volumes.contains(volume.text()) {
            volume.not_found(errors);
        } else if !pod.empty_dirs.contains(volume.text()) {
            volume.invalid(errors, "referenced volume must be of type emptyDir");
        }
    }
    if path.need(errors) {
        descending(&path, errors);
    }
    if key.need(errors) {
        key.check(errors, format::env_var_name(key.text()));
        if key.text().len() > KEY_MAX {
            key.invalid(errors, "must be no more than 128 characters");
        }
    }
}

/// A reference to a field of the pod itself; `fields` are those that need no key.
pub(super) fn field_ref(reference: &At, fields: &[&str], errors: &mut Errors) {
    let path = reference.get("fieldPath");
    reference.get("apiVersion").need(errors);
    if !path.need(errors) {
        return;
    }
    if let Some((base, key)) = path.text().split_once('[') {
        let key = key.strip_suffix(']').and_then(|k| k.strip_prefix('\'')).and_then(|k| k.strip_suffix('\''));
        match (base, key) {
            ("metadata.annotations", Some(key)) => path.check(errors, format::qualified_name(&key.to_lowercase())),
            ("metadata.labels", Some(key)) => path.check(errors, format::qualified_name(key)),
            (_, None) => path.invalid(errors, "invalid fieldPath"),
            _ => path.invalid(errors, "does not support subscript"),
        }
    } else {
        path.one_of(errors, fields);
    }
}

pub(super) fn resource_field_ref(reference: &At, volume: bool, errors: &mut Errors) {
    if volume {
        reference.get("containerName").need(errors);
    }
    let resource = reference.get("resource");
    if resource.need(errors) {
        let name = resource.text().strip_prefix("limits.").or_else(|| resource.text().strip_prefix("requests."));
        let known =
            name.is_some_and(|n| matches!(n, "cpu" | "memory" | "ephemeral-storage") || n.starts_with("hugepages-"));
        if !known {
            let supported = ["limits.cpu", "limits.ephemeral-storage", "limits.memory"];
            let requests = ["requests.cpu", "requests.ephemeral-storage", "requests.memory"];
            resource.not_supported(errors, &[supported, requests].concat());
        }
    }
}
