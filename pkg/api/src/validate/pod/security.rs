//! Security contexts of pods and containers.

use std::collections::HashSet;

use super::Pod;
use crate::validate::at::At;
use crate::validate::{Errors, format};

const ID_RANGE: (i64, i64) = (0, i32::MAX as i64);

pub(super) fn container(context: &At, pod: &Pod, errors: &mut Errors) {
    if !context.is_set() {
        return;
    }
    ids(context, errors);
    profiles(context, errors);
    if context.get("allowPrivilegeEscalation").value == &serde_json::Value::Bool(false) {
        if context.get("privileged").is_true() {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            context.invalid(errors, detail);
        }
        let added = context.get("capabilities.add");
        if added.list().iter().any(|c| c == "CAP_SYS_ADMIN") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            context.invalid(errors, detail);
        }
    }
    let proc_mount = context.get("procMount");
    if proc_mount.text() == "Unmasked" && !pod.user_namespace {
        proc_mount.invalid(errors, "`hostUsers` must be false to use `Unmasked`");
    }
}

pub(super) fn pod(context: &At, spec: &At, errors: &mut Errors) {
    ids(context, errors);
    profiles(context, errors);
    for group in context.get("supplementalGroups").items() {
        group.in_range(errors, ID_RANGE.0, ID_RANGE.1);
    }
    let group = context.get("fsGroup");
    group.in_range(errors, ID_RANGE.0, ID_RANGE.1);
    let mut names: HashSet<&str> = HashSet::new();
    for sysctl in context.get("sysctls").items() {
        let name = sysctl.get("name");
        if name.need(errors) {
            if !is_sysctl(name.text()) {
                name.invalid(errors, SYSCTL);
            } else if names.contains(&name.text()) {
                name.duplicate(errors);
            }
        }
        names.insert(name.text());
    }
    let shared = spec.get("shareProcessNamespace");
    if shared.is_true() && spec.get("hostPID").is_true() {
        shared.invalid(errors, "ShareProcessNamespace and HostPID cannot both be enabled");
    }
    if spec.get("hostUsers").value == &serde_json::Value::Bool(false) {
        for field in ["hostPID", "hostIPC", "hostNetwork"] {
            if spec.get(field).is_true() {
                let at = spec.get(field);
                at.forbidden(errors, "when `hostUsers` is false".to_owned());
            }
        }
    }
}

const SYSCTL: &str = "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";

fn is_sysctl(name: &str) -> bool {
    name.len() <= 253
        && name.split(['.', '/']).all(|part| {
            let inner = part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
            inner && !part.is_empty() && !part.starts_with(['-', '_']) && !part.ends_with(['-', '_'])
        })
}

fn ids(context: &At, errors: &mut Errors) {
    for field in ["runAsUser", "runAsGroup"] {
        context.get(field).in_range(errors, ID_RANGE.0, ID_RANGE.1);
    }
}

fn profiles(context: &At, errors: &mut Errors) {
    for (field, what) in [("seccompProfile", "seccomp"), ("appArmorProfile", "AppArmor")] {
        let profile = context.get(field);
        if !profile.is_set() {
            continue;
        }
        let (kind, local) = (profile.get("type"), profile.get("localhostProfile"));
        kind.need(errors);
        match (kind.text(), local.is_empty()) {
            ("Localhost", true) => local.required(errors, &format!("must be set when {what} type is Localhost")),
            ("Localhost", false) => super::container::descending(&local, errors),
            (_, false) => local.invalid(errors, format!("can only be set when {what} type is Localhost")),
            _ => {}
        }
    }
    let windows = context.get("windowsOptions.gmsaCredentialSpecName");
    if !windows.is_empty() {
        windows.check(errors, format::dns_subdomain(windows.text()));
    }
}
