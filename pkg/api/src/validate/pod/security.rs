//! Security contexts of pods and containers.

use std::collections::HashSet;

use serde_json::Value;

use super::mount::descending;
use super::{Pod, windows};
use crate::validate::Errors;
use crate::validate::at::At;

pub(super) fn container(context: &At, pod: &Pod, errors: &mut Errors) {
    if !context.is_set() {
        return;
    }
    id(&context.get("runAsUser"), errors);
    id(&context.get("runAsGroup"), errors);
    let proc_mount = context.get("procMount");
    if proc_mount.is_set() {
        proc_mount.exactly_one_of(errors, &["Default", "Unmasked"]);
        if proc_mount.text() == "Unmasked" && !pod.user_namespace {
            proc_mount.invalid(errors, "`hostUsers` must be false to use `Unmasked`");
        }
    }
    seccomp(&context.get("seccompProfile"), errors);
    if context.get("allowPrivilegeEscalation").value == &Value::Bool(false) {
        if context.get("privileged").is_true() {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            context.invalid(errors, detail);
        }
        let added = context.get("capabilities.add");
        for _ in added.list().iter().filter(|c| *c == "CAP_SYS_ADMIN") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            context.invalid(errors, detail);
        }
    }
    windows::options(&context.get("windowsOptions"), errors);
    app_armor(&context.get("appArmorProfile"), errors);
}

pub(super) fn pod(spec: &At, errors: &mut Errors) {
    let context = spec.get("securityContext");
    for field in ["fsGroup", "runAsUser", "runAsGroup"] {
        id(&context.get(field), errors);
    }
    for group in context.get("supplementalGroups").items() {
        id(&group, errors);
    }
    let shared = context.told_as("-", "shareProcessNamespace");
    if spec.get("shareProcessNamespace").is_true() && spec.get("hostPID").is_true() {
        shared.invalid_value(errors, true, "ShareProcessNamespace and HostPID cannot both be enabled");
    }
    sysctls(&context.get("sysctls"), spec, errors);
    let one_of = |name: &'static str, values: &[&str], errors: &mut Errors| {
        let field = context.get(name);
        if field.is_set() {
            field.exactly_one_of(errors, values);
        }
    };
    one_of("fsGroupChangePolicy", &["Always", "OnRootMismatch"], errors);
    seccomp(&context.get("seccompProfile"), errors);
    windows::options(&context.get("windowsOptions"), errors);
    app_armor(&context.get("appArmorProfile"), errors);
    one_of("supplementalGroupsPolicy", &["Merge", "Strict"], errors);
    one_of("seLinuxChangePolicy", &["MountOption", "Recursive"], errors);
}

fn sysctls(list: &At, spec: &At, errors: &mut Errors) {
    let mut names: HashSet<&str> = HashSet::new();
    for sysctl in list.items() {
        let name = sysctl.get("name");
        if name.need(errors) {
            if !is_sysctl(name.text()) {
                name.invalid(errors, SYSCTL);
            } else if names.contains(name.text()) {
                name.duplicate(errors);
            }
        }
        for (of_host, matches) in [("hostNetwork", is_of_network as fn(&str) -> bool), ("hostIPC", is_of_ipc)] {
            if spec.get(of_host).is_true() && matches(name.text()) {
                name.invalid(errors, format!("may not be specified when '{of_host}' is true"));
                break;
            }
        }
        names.insert(name.text());
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

fn is_of_network(name: &str) -> bool {
    name.replace('/', ".").starts_with("net.")
}

fn is_of_ipc(name: &str) -> bool {
    let name = name.replace('/', ".");
    name == "kernel.sem" || ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|prefix| name.starts_with(prefix))
}

fn id(id: &At, errors: &mut Errors) {
    id.in_range(errors, 0, i64::from(i32::MAX));
}

fn seccomp(profile: &At, errors: &mut Errors) {
    if !profile.is_set() {
        return;
    }
    let (kind, local) = (profile.get("type"), profile.get("localhostProfile"));
    if kind.is_empty() {
        kind.required(errors, "type is required when seccompProfile is set");
    } else {
        kind.one_of(errors, &["Localhost", "RuntimeDefault", "Unconfined"]);
    }
    match (kind.text(), local.is_set()) {
        ("Localhost", false) => local.required(errors, "must be set when seccomp type is Localhost"),
        ("Localhost", true) => descending(&local, local.text(), errors),
        (_, true) => {
            local.invalid_value(errors, profile.value.clone(), "can only be set when seccomp type is Localhost");
        }
        _ => {}
    }
}

fn app_armor(profile: &At, errors: &mut Errors) {
    const PATH_MAX: usize = 4095;
    if !profile.is_set() {
        return;
    }
    let (kind, local) = (profile.get("type"), profile.get("localhostProfile"));
    match kind.text() {
        "Localhost" => {
            let text = local.text();
            if text.is_empty() {
                local.required(errors, "must be set when AppArmor type is Localhost");
            } else if text.trim() != text {
                local.invalid(errors, "must not be padded with whitespace");
            }
            local.no_longer(errors, PATH_MAX);
        }
        "RuntimeDefault" | "Unconfined" if local.is_set() => {
            local.invalid(errors, "can only be set when AppArmor type is Localhost");
        }
        "RuntimeDefault" | "Unconfined" => {}
        "" => kind.required(errors, "type is required when appArmorProfile is set"),
        _ => kind.not_supported(errors, &["Localhost", "RuntimeDefault", "Unconfined"]),
    }
}

/// A pod with user ids of its own shares little with the host.
pub(super) fn host_users(spec: &At, pod: &Pod, errors: &mut Errors) {
    if !pod.user_namespace {
        return;
    }
    for (field, shown) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if spec.get(field).is_true() {
            spec.told_as(field, shown).forbidden(errors, "when `hostUsers` is false");
        }
    }
    Pod::each_container(spec, |container| {
        let devices = container.get("volumeDevices");
        if !devices.is_empty() {
            devices.forbidden(errors, "when `hostUsers` is false");
        }
    });
}
