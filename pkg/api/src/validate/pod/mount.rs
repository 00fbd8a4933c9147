//! Where containers see volumes.

use std::collections::HashSet;

use super::{Pod, Volume};
use crate::validate::Errors;
use crate::validate::at::At;

pub(super) fn mounts(container: &At, pod: &Pod, errors: &mut Errors) {
    let (list, devices) = (container.get("volumeMounts"), container.get("volumeDevices"));
    let is_device = |field: &str, text: &str| devices.list().iter().any(|d| d[field].as_str() == Some(text));
    let mut paths: HashSet<&str> = HashSet::new();
    for mount in list.items() {
        let (name, path) = (mount.get("name"), mount.get("mountPath"));
        name.need(errors);
        if !pod.volumes.contains_key(name.text()) {
            errors.push(crate::field::FieldError::not_found(&name.path(), name.text()));
        }
        path.need(errors);
        if !paths.insert(path.text()) {
            path.invalid_value(errors, path.text(), "must be unique");
        }
        if is_device("name", name.text()) {
            name.invalid(errors, "must not already exist in volumeDevices");
        }
        if is_device("devicePath", path.text()) {
            path.invalid(errors, "must not already exist as a path in volumeDevices");
        }
        // Upstream's paths do not say which mount it is.
        let (sub, expression) = (mount.get("subPath"), mount.get("subPathExpr"));
        descending(&list.get("subPath"), sub.text(), errors);
        if !expression.is_empty() && !sub.is_empty() {
            expression.invalid(errors, "subPathExpr and subPath are mutually exclusive");
        }
        descending(&list.get("subPathExpr"), expression.text(), errors);
        propagation(&mount, &list, container, errors);
        recursive(&mount, &list.get("recursiveReadOnly"), errors);
    }
}

fn propagation(mount: &At, list: &At, container: &At, errors: &mut Errors) {
    let (kind, at) = (mount.get("mountPropagation"), list.get("mountPropagation"));
    if kind.is_set() {
        at.check_supported(kind.text(), &["Bidirectional", "HostToContainer", "None"], errors);
    }
    if kind.text() == "Bidirectional" && !container.get("securityContext.privileged").is_true() {
        at.forbidden(errors, "Bidirectional mount propagation is available only to privileged containers");
    }
}

fn recursive(mount: &At, at: &At, errors: &mut Errors) {
    match mount.str("recursiveReadOnly") {
        "Disabled" => {}
        "Enabled" | "IfPossible" => {
            if !mount.get("readOnly").is_true() {
                at.forbidden(errors, "may only be specified when readOnly is true");
            }
            if !matches!(mount.str("mountPropagation"), "" | "None") {
                at.forbidden(errors, "may only be specified when mountPropagation is None or not specified");
            }
        }
        _ if !mount.get("recursiveReadOnly").is_set() => {}
        other => at.check_supported(other, &["Disabled", "Enabled", "IfPossible"], errors),
    }
}

pub(super) fn devices(container: &At, pod: &Pod, errors: &mut Errors) {
    let (list, mounts) = (container.get("volumeDevices"), container.get("volumeMounts"));
    let is_mounted = |field: &str, text: &str| mounts.list().iter().any(|m| m[field].as_str() == Some(text));
    let (mut names, mut paths) = (HashSet::new(), HashSet::new());
    for device in list.items() {
        let (name, path) = (device.get("name"), device.get("devicePath"));
        name.need(errors);
        if names.contains(name.text()) {
            name.invalid(errors, "must be unique");
        }
        match pod.volumes.get(name.text()) {
            None => errors.push(crate::field::FieldError::not_found(&name.path(), name.text())),
            Some(Volume::Claim) => {}
            Some(Volume::Other) => {
                let detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                name.invalid(errors, detail);
            }
        }
        path.need(errors);
        if paths.contains(path.text()) {
            path.invalid(errors, "must be unique");
        }
        if has_backsteps(path.text()) {
            path.invalid(errors, "can not contain backsteps ('..')");
        } else {
            paths.insert(path.text());
        }
        if is_mounted("name", name.text()) {
            name.invalid(errors, "must not already exist in volumeMounts");
        }
        if is_mounted("mountPath", path.text()) {
            path.invalid(errors, "must not already exist as a path in volumeMounts");
        }
        if !name.is_empty() {
            names.insert(name.text());
        }
    }
}

fn has_backsteps(path: &str) -> bool {
    path.split('/').any(|part| part == "..")
}

/// Reports, at the place given, a path that leads upwards.
pub(in crate::validate) fn no_backsteps(at: &At, path: &str, errors: &mut Errors) {
    if has_backsteps(path) {
        at.invalid_value(errors, path, "must not contain '..'");
    }
}

/// A path that may not leave its place.
pub(in crate::validate) fn descending(at: &At, path: &str, errors: &mut Errors) {
    if path.starts_with('/') {
        at.invalid_value(errors, path, "must be a relative path");
    }
    no_backsteps(at, path, errors);
}

/// A path that may not leave its place, nor look like what the kubelet puts there itself.
pub(in crate::validate) fn local_path(at: &At, path: &str, errors: &mut Errors) {
    descending(at, path, errors);
    if path.starts_with("..") && !path.starts_with("../") {
        at.invalid_value(errors, path, "must not start with '..'");
    }
}
