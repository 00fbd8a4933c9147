//! Containers of all three kinds.

use std::collections::HashSet;

use super::environment::environment;
use super::{Pod, handler, mount, resources, security};
use crate::field::FieldError;
use crate::validate::at::At;
use crate::validate::{Errors, format};

/// All containers of a pod; names are unique over all roles.
pub(super) fn containers(spec: &At, pod: &Pod, errors: &mut Errors) {
    let main = spec.get("containers");
    let mut names: HashSet<&str> = HashSet::new();
    if main.is_empty() {
        main.required(errors, "");
    }
    for container in main.items() {
        any(&container, pod, errors);
        unique(&container, &mut names, errors);
        handlers(&container, pod, errors);
        restart_policy(&container, errors);
    }
    host_ports(&main, None, errors);
    let init = spec.get("initContainers");
    for (index, container) in init.items().enumerate() {
        any(&container, pod, errors);
        if container.get("restartPolicy").is_set() || !container.get("restartPolicyRules").is_empty() {
            restart_policy(&container, errors);
        }
        unique(&container, &mut names, errors);
        // They run one by one; upstream's paths count each as the first.
        host_ports(&init, Some(index), errors);
        init_container(&container, pod, errors);
    }
    ephemeral_containers(spec, &mut names, pod, errors);
}

fn unique<'v>(container: &At<'v, '_>, names: &mut HashSet<&'v str>, errors: &mut Errors) {
    let name = container.get("name");
    if !names.insert(name.text()) {
        errors.push(FieldError::duplicate(&name.path(), name.text()));
    }
    // A missing name of an init container is told of once.
    names.retain(|known| !known.is_empty());
}

fn handlers(container: &At, pod: &Pod, errors: &mut Errors) {
    handler::lifecycle(&container.get("lifecycle"), pod, errors);
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        handler::probe(&container.get(probe), probe, pod, errors);
    }
}

fn init_container(container: &At, pod: &Pod, errors: &mut Errors) {
    if container.str("restartPolicy") == "Always" {
        return handlers(container, pod, errors);
    }
    for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
        let field = container.get(field);
        if field.is_set() {
            field.forbidden(errors, "may not be set for init containers without restartPolicy=Always");
        }
    }
    for policy in container.get("resizePolicy").items() {
        let restart = policy.get("restartPolicy");
        if restart.text() == "RestartContainer" {
            restart.invalid(errors, "must not be set to 'RestartContainer' for non-sidecar initContainers");
        }
    }
}

fn ephemeral_containers<'v>(spec: &At<'v, '_>, names: &mut HashSet<&'v str>, pod: &Pod, errors: &mut Errors) {
    const ALLOWED: [&str; 17] = [
        "name",
        "image",
        "command",
        "args",
        "workingDir",
        "envFrom",
        "env",
        "volumeMounts",
        "volumeDevices",
        "terminationMessagePath",
        "terminationMessagePolicy",
        "imagePullPolicy",
        "securityContext",
        "stdin",
        "stdinOnce",
        "tty",
        "targetContainerName",
    ];
    let others = names.clone();
    for container in spec.get("ephemeralContainers").items() {
        any(&container, pod, errors);
        trimmed_image(&container, errors);
        unique(&container, names, errors);
        let target = container.get("targetContainerName");
        if !target.is_empty() && !others.contains(target.text()) {
            target.not_found(errors);
        }
        let extra = container.members().into_iter().flatten().map(|(name, _)| name.as_str());
        for name in extra.filter(|name| !ALLOWED.contains(name)) {
            let field = container.get(name);
            if !crate::validate::at::is_empty(field.value) {
                field.forbidden(errors, "cannot be set for an Ephemeral Container");
            }
        }
        for mount in container.get("volumeMounts").items() {
            for sub in ["subPath", "subPathExpr"].map(|sub| mount.get(sub)).iter().filter(|s| !s.is_empty()) {
                sub.forbidden(errors, "cannot be set for an Ephemeral Container");
            }
        }
    }
}

/// What containers of all roles have in common.
fn any(container: &At, pod: &Pod, errors: &mut Errors) {
    let name = container.get("name");
    if name.need(errors) {
        name.check(errors, format::dns_label(name.text()));
    }
    container.get("image").need(errors);
    container.get("terminationMessagePolicy").need_one_of(errors, &["File", "FallbackToLogsOnError"]);
    ports(&container.get("ports"), errors);
    environment(container, errors);
    mount::mounts(container, pod, errors);
    mount::devices(container, pod, errors);
    pull_policy(&container.get("imagePullPolicy"), errors);
    resources::of_container(&container.get("resources"), pod, errors);
    resize_policy(&container.get("resizePolicy"), pod, errors);
    security::container(&container.get("securityContext"), pod, errors);
}

pub(super) fn pull_policy(policy: &At, errors: &mut Errors) {
    policy.need_one_of(errors, &["Always", "IfNotPresent", "Never"]);
}

/// In a template spaces may have a meaning to somebody, in a pod they have none.
pub(super) fn trimmed_image(container: &At, errors: &mut Errors) {
    let image = container.get("image");
    if image.text() != image.text().trim() {
        image.invalid(errors, "must not have leading or trailing whitespace");
    }
}

fn restart_policy(container: &At, errors: &mut Errors) {
    let (policy, rules) = (container.get("restartPolicy"), container.get("restartPolicyRules"));
    if policy.is_set() {
        policy.exactly_one_of(errors, &["Always", "Never", "OnFailure"]);
    } else if !rules.is_empty() {
        policy.required(errors, "must specify restartPolicy when restart rules are used");
    } else {
        return;
    }
    rules.at_most(errors, 20);
    for rule in rules.items() {
        rule.get("action").exactly_one_of(errors, &["Restart", "RestartAllContainers"]);
        let codes = rule.get("exitCodes");
        if codes.is_set() {
            codes.get("operator").exactly_one_of(errors, &["In", "NotIn"]);
            codes.get("values").at_most(errors, 255);
        } else {
            codes.required(errors, "must be specified");
        }
    }
}

fn resize_policy(policy: &At, pod: &Pod, errors: &mut Errors) {
    let mut seen: HashSet<&str> = HashSet::new();
    for item in policy.items() {
        let (name, restart) = (item.str("resourceName"), item.str("restartPolicy"));
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(&item.path(), name));
        }
        for (text, known) in [(name, ["cpu", "memory"]), (restart, ["NotRequired", "RestartContainer"])] {
            if text.is_empty() {
                policy.required(errors, "");
            } else {
                policy.check_supported(text, &known, errors);
            }
        }
        if pod.never_restarts && restart != "NotRequired" {
            policy.invalid_value(errors, restart, "must be 'NotRequired' when pod `restartPolicy` is 'Never'");
        }
    }
}

fn ports(ports: &At, errors: &mut Errors) {
    let mut names: HashSet<&str> = HashSet::new();
    for port in ports.items() {
        let name = port.get("name");
        if !name.is_empty() {
            let problems = format::port_name(name.text());
            if problems.is_empty() {
                name.unique(&mut names, errors);
            }
            name.check(errors, problems);
        }
        let number = port.get("containerPort");
        if number.need(errors) {
            number.in_range(errors, 1, 65535);
        }
        let host = port.get("hostPort");
        if !host.is_empty() {
            host.in_range(errors, 1, 65535);
        }
        port.get("protocol").need_one_of(errors, &["SCTP", "TCP", "UDP"]);
    }
}

/// No two containers that run together may take the same port of the host. With `only`, that container alone.
fn host_ports(list: &At, only: Option<usize>, errors: &mut Errors) {
    let mut taken: HashSet<String> = HashSet::new();
    for (index, container) in list.items().enumerate().filter(|(index, _)| only.is_none_or(|o| o == *index)) {
        for (port_index, port) in container.get("ports").items().enumerate() {
            let host = port.number("hostPort");
            let key = format!("{}/{}/{host}", port.str("protocol"), port.str("hostIP"));
            if host != 0 && taken.contains(&key) {
                let shown = if only.is_some() { 0 } else { index };
                let path = list.path().index(shown).child("ports").index(port_index).child("hostPort");
                errors.push(FieldError::duplicate(&path, key.as_str()));
            }
            taken.insert(key);
        }
    }
}

/// Pods in the host's network have its ports.
pub(super) fn network_of_host(spec: &At, pod: &Pod, errors: &mut Errors) {
    if !pod.host_network {
        return;
    }
    for container in spec.get("containers").items() {
        for port in container.get("ports").items() {
            let (host, own) = (port.number("hostPort"), port.number("containerPort"));
            if (!pod.template || host != 0) && host != own {
                let at = port.get("hostPort");
                at.invalid_value(errors, host, "must match `containerPort` when `hostNetwork` is true");
            }
        }
    }
}
