//! Containers of all three kinds.

use std::collections::HashSet;

use super::Pod;
use super::environment::environment;
use super::{handler, resources, security};
use crate::validate::at::At;
use crate::validate::{Errors, format};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Main,
    Init,
    Ephemeral,
}

/// All containers of a pod; names are unique over all roles.
pub(super) fn containers(spec: &At, pod: &Pod, errors: &mut Errors) {
    let main = spec.get("containers");
    main.need(errors);
    let mut names: HashSet<&str> = HashSet::new();
    for (list, role) in [
        (main, Role::Main),
        (spec.get("initContainers"), Role::Init),
        (spec.get("ephemeralContainers"), Role::Ephemeral),
    ] {
        for container in list.items() {
            one(&container, role, pod, errors);
            let name = container.get("name");
            if !name.is_empty() && names.contains(&name.text()) {
                name.duplicate(errors);
            }
            names.insert(name.text());
        }
    }
    for container in spec.get("ephemeralContainers").items() {
        let target = container.get("targetContainerName");
        let known = |list: &'static str| spec.get(list).list().iter().any(|c| c["name"] == target.text());
        if !target.is_empty() && !known("containers") && !known("initContainers") {
            target.not_found(errors);
        }
    }
    host_ports(spec, errors);
}

fn one(container: &At, role: Role, pod: &Pod, errors: &mut Errors) {
    let name = container.get("name");
    if name.need(errors) {
        name.check(errors, format::dns_label(name.text()));
    }
    let image = container.get("image");
    if image.need(errors) && !pod.template && image.text() != image.text().trim() {
        image.invalid(errors, "must not have leading or trailing whitespace");
    }
    container.get("terminationMessagePolicy").need(errors);
    container.get("imagePullPolicy").need(errors);
    environment(container, pod, errors);
    mounts(container, role, pod, errors);
    security::container(&container.get("securityContext"), pod, errors);
    restart_policy(container, role, errors);
    resize_policy(&container.get("resizePolicy"), errors);
    let sidecar = role == Role::Init && container.str("restartPolicy") == "Always";
    match role {
        Role::Ephemeral => {
            for field in ["ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "resources"] {
                let field = container.get(field);
                if !field.is_empty() {
                    field.forbidden(errors, "cannot be set for an Ephemeral Container");
                }
            }
        }
        Role::Init if !sidecar => {
            for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
                let field = container.get(field);
                if field.is_set() {
                    field.forbidden(errors, "may not be set for init containers without restartPolicy=Always");
                }
            }
        }
        _ => {
            handler::lifecycle(&container.get("lifecycle"), errors);
            for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
                handler::probe(&container.get(probe), probe, errors);
            }
        }
    }
    ports(&container.get("ports"), pod, errors);
    let wanted = container.get("resources");
    resources::requirements(&wanted, errors);
    for claim in wanted.get("claims").items() {
        let name = claim.get("name");
        if name.need(errors) && !pod.claims.contains(&name.text()) {
            name.not_found(errors);
        }
    }
}

fn restart_policy(container: &At, role: Role, errors: &mut Errors) {
    let policy = container.get("restartPolicy");
    if role == Role::Ephemeral {
        if policy.is_set() {
            policy.forbidden(errors, "may not be set for ephemeral containers");
        }
        return;
    }
    policy.one_of(errors, &["Always", "Never", "OnFailure"]);
    let rules = container.get("restartPolicyRules");
    if !rules.is_empty() && policy.is_empty() {
        policy.required(errors, "must specify restartPolicy when restart rules are used");
    }
    for rule in rules.items() {
        rule.get("action").need_one_of(errors, &["Restart", "RestartAllContainers"]);
        rule.get("exitCodes.operator").need_one_of(errors, &["In", "NotIn"]);
    }
}

fn resize_policy(policy: &At, errors: &mut Errors) {
    let mut seen: HashSet<&str> = HashSet::new();
    for item in policy.items() {
        let name = item.get("resourceName");
        name.need_one_of(errors, &["cpu", "memory"]);
        item.get("restartPolicy").need_one_of(errors, &["NotRequired", "RestartContainer"]);
        if seen.contains(&name.text()) {
            item.duplicate(errors);
        }
        seen.insert(name.text());
    }
}

fn ports(ports: &At, pod: &Pod, errors: &mut Errors) {
    let mut names: HashSet<&str> = HashSet::new();
    for port in ports.items() {
        let name = port.get("name");
        if !name.is_empty() {
            let problems = format::port_name(name.text());
            if problems.is_empty() && names.contains(&name.text()) {
                name.duplicate(errors);
            }
            name.check(errors, problems);
            names.insert(name.text());
        }
        let number = port.get("containerPort");
        if number.need(errors) {
            number.in_range(errors, 1, 65535);
        }
        let host = port.get("hostPort");
        if !host.is_empty() {
            host.in_range(errors, 1, 65535);
            if pod.host_network && host.int() != number.int() {
                number.invalid(errors, "must match `hostPort` when `hostNetwork` is true");
            }
        }
        port.get("protocol").need(errors);
        let ip = port.get("hostIP");
        if !ip.is_empty() {
            ip.check(errors, format::ip(ip.text()));
        }
    }
}

/// No two containers that run together may take the same port of the host.
fn host_ports(spec: &At, errors: &mut Errors) {
    let mut taken: HashSet<String> = HashSet::new();
    let (main, init) = (spec.get("containers"), spec.get("initContainers"));
    for container in main.items().chain(init.items().filter(|c| c.str("restartPolicy") == "Always")) {
        for port in container.get("ports").items() {
            let host = port.get("hostPort");
            if host.is_empty() {
                continue;
            }
            let key = format!("{}/{}/{}", port.str("protocol"), port.str("hostIP"), host.value);
            if taken.contains(&key) {
                let error = crate::field::FieldError::duplicate(&host.path(), key.as_str());
                errors.push(error);
            }
            taken.insert(key);
        }
    }
}

fn mounts(container: &At, role: Role, pod: &Pod, errors: &mut Errors) {
    let mut paths: HashSet<&str> = HashSet::new();
    for mount in container.get("volumeMounts").items() {
        let (name, path) = (mount.get("name"), mount.get("mountPath"));
        if name.need(errors) && !pod.volumes.contains(&name.text()) {
            name.not_found(errors);
        }
        path.need(errors);
        if paths.contains(&path.text()) {
            path.invalid(errors, "must be unique");
        }
        paths.insert(path.text());
        let (sub, expression) = (mount.get("subPath"), mount.get("subPathExpr"));
        for sub in [sub, expression] {
            if role == Role::Ephemeral && !sub.is_empty() {
                sub.forbidden(errors, "cannot be set for an Ephemeral Container");
            }
            descending(&sub, errors);
        }
        if !sub.is_empty() && !expression.is_empty() {
            expression.invalid(errors, "subPathExpr and subPath are mutually exclusive");
        }
        let propagation = mount.get("mountPropagation");
        if propagation.text() == "Bidirectional" && !container.get("securityContext.privileged").is_true() {
            propagation.forbidden(errors, "Bidirectional mount propagation is available only to privileged containers");
        }
        let recursive = mount.get("recursiveReadOnly");
        if matches!(recursive.text(), "Enabled" | "IfPossible") && !mount.get("readOnly").is_true() {
            recursive.forbidden(errors, "may only be specified when readOnly is true");
        }
    }
    for device in container.get("volumeDevices").items() {
        let (name, path) = (device.get("name"), device.get("devicePath"));
        if name.need(errors) && !pod.volumes.contains(&name.text()) {
            name.not_found(errors);
        }
        if path.need(errors) && paths.contains(&path.text()) {
            path.invalid(errors, "must not already exist as a path in volumeMounts");
        }
        if path.text().split('/').any(|part| part == "..") {
            path.invalid(errors, "can not contain backsteps ('..')");
        }
    }
}

/// A path that may not leave its place.
pub(super) fn descending(path: &At, errors: &mut Errors) {
    if path.text().starts_with('/') {
        path.invalid(errors, "must be a relative path");
    }
    if path.text().split('/').any(|part| part == "..") {
        path.invalid(errors, "must not contain '..'");
    }
}
