//! Pods and pod templates.

use std::collections::HashSet;

mod affinity;
mod container;
mod environment;
mod handler;
mod resources;
mod security;
mod update;
mod volume;

use serde_json::Value;

use super::at::At;
use super::selector::label_name;
use super::{Errors, format, metadata};

pub(super) use affinity::tolerations;
pub(super) use handler::port as port_reference;
use resources::requirements;
pub(super) use resources::{container_resource_name, quantity};
pub(super) use update::{ephemeral_containers, resize, status};

/// What rules about parts of a pod need to know of the whole.
struct Pod<'a> {
    template: bool,
    host_network: bool,
    /// The pod has user ids of its own.
    user_namespace: bool,
    volumes: HashSet<&'a str>,
    /// Those of its volumes that begin empty.
    empty_dirs: HashSet<&'a str>,
    /// Names of its claims for devices.
    claims: HashSet<&'a str>,
}

pub(super) fn pod(object: &At, old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    match old {
        None => {
            pod_spec(&spec, Role::Pod, errors);
            let ephemeral = spec.get("ephemeralContainers");
            if !ephemeral.is_empty() {
                ephemeral.forbidden(errors, "cannot be set on create");
            }
            let node = spec.get("nodeName");
            if !node.is_empty() && !spec.get("schedulingGates").is_empty() {
                node.forbidden(errors, "cannot be set until all schedulingGates have been cleared");
            }
        }
        Some(old) => update::pod(&spec, &old.get("spec"), errors),
    }
}

/// Metadata and spec of a template.
pub(super) fn template(template: &At, errors: &mut Errors) {
    template_with_claims(template, &[], errors);
}

/// A template whose pods get further volumes, from claims of these names.
pub(super) fn template_with_claims(template: &At, claims: &[&str], errors: &mut Errors) {
    // Upstream leaves `metadata` out of these paths.
    metadata::labels(&template.told_as("metadata.labels", "labels"), errors);
    metadata::annotations(&template.told_as("metadata.annotations", "annotations"), errors);
    let spec = template.get("spec");
    pod_spec(&spec, Role::Template { claims }, errors);
    let ephemeral = spec.get("ephemeralContainers");
    if !ephemeral.is_empty() {
        ephemeral.forbidden(errors, "ephemeral containers not allowed in pod template");
    }
}

/// What a pod's spec is for.
#[derive(Clone, Copy)]
enum Role<'a> {
    Pod,
    Template { claims: &'a [&'a str] },
}

fn pod_spec(spec: &At, role: Role, errors: &mut Errors) {
    let volume_list = spec.get("volumes");
    let mut volumes = volume::volumes(&volume_list, errors);
    let empty_dirs = volume_list.items().filter(|v| v.get("emptyDir").is_set()).map(|v| v.get("name").text()).collect();
    if let Role::Template { claims } = role {
        volumes.extend(claims);
    }
    let pod = Pod {
        template: matches!(role, Role::Template { .. }),
        host_network: spec.get("hostNetwork").is_true(),
        user_namespace: spec.get("hostUsers").value == &Value::Bool(false),
        volumes,
        empty_dirs,
        claims: spec.get("resourceClaims").list().iter().filter_map(|c| c["name"].as_str()).collect(),
    };
    container::containers(spec, &pod, errors);
    requirements(&spec.get("resources"), errors);
    for field in ["restartPolicy", "dnsPolicy"] {
        spec.get(field).need(errors);
    }
    metadata::labels(&spec.get("nodeSelector"), errors);
    security::pod(&spec.get("securityContext"), spec, errors);
    affinity::affinity(&spec.get("affinity"), errors);
    tolerations(&spec.get("tolerations"), errors);
    affinity::spread_constraints(&spec.get("topologySpreadConstraints"), errors);
    names(spec, errors);
    dns(spec, errors);
    lists(spec, errors);
    spec.get("activeDeadlineSeconds").in_range(errors, 1, i64::from(i32::MAX));
    let overhead = spec.get("overhead");
    for (name, amount) in overhead.entries() {
        quantity(&amount, name, errors);
    }
}

fn names(spec: &At, errors: &mut Errors) {
    type Check = fn(&str) -> Vec<String>;
    const RULES: [(&str, Check); 6] = [
        ("serviceAccountName", format::dns_subdomain),
        ("nodeName", format::dns_subdomain),
        ("hostname", format::dns_label),
        ("subdomain", format::dns_label),
        ("priorityClassName", format::dns_subdomain),
        ("runtimeClassName", format::dns_subdomain),
    ];
    for (field, rule) in RULES {
        let name = spec.get(field);
        if !name.is_empty() {
            name.check(errors, rule(name.text()));
        }
    }
    spec.get("os.name").one_of(errors, &["linux", "windows"]);
}

fn dns(spec: &At, errors: &mut Errors) {
    let config = spec.get("dnsConfig");
    let (servers, searches) = (config.get("nameservers"), config.get("searches"));
    if spec.str("dnsPolicy") == "None" && servers.is_empty() {
        if config.is_set() {
            servers.required(errors, "must provide at least one DNS nameserver when `dnsPolicy` is None");
        } else {
            let detail = "must provide `dnsConfig` when `dnsPolicy` is None";
            config.required(errors, detail);
        }
    }
    if servers.list().len() > 3 {
        servers.invalid(errors, "must not have more than 3 nameservers");
    }
    for server in servers.items() {
        server.check(errors, format::ip(server.text()));
    }
    if searches.list().len() > 32 {
        searches.invalid(errors, "must not have more than 32 search paths");
    }
    for search in searches.items() {
        if search.text() != "." {
            let name = search.text().trim_end_matches('.').replace('_', "-");
            search.check(errors, format::dns_subdomain(&name));
        }
    }
    for option in config.get("options").items() {
        option.get("name").need(errors);
    }
}

fn lists(spec: &At, errors: &mut Errors) {
    for alias in spec.get("hostAliases").items() {
        let ip = alias.get("ip");
        ip.check(errors, format::ip(ip.text()));
        for name in alias.get("hostnames").items() {
            name.check(errors, format::dns_subdomain(name.text()));
        }
    }
    for gate in spec.get("readinessGates").items() {
        label_name(&gate.get("conditionType"), errors);
    }
    let mut gates: HashSet<&str> = HashSet::new();
    for gate in spec.get("schedulingGates").items() {
        let name = gate.get("name");
        if gates.contains(&name.text()) {
            gate.duplicate(errors);
        } else {
            label_name(&name, errors);
        }
        gates.insert(gate.str("name"));
    }
    let mut claims: HashSet<&str> = HashSet::new();
    for claim in spec.get("resourceClaims").items() {
        let name = claim.get("name");
        if name.need(errors) {
            name.check(errors, format::dns_label(name.text()));
        }
        if claims.contains(&name.text()) {
            name.duplicate(errors);
        }
        claims.insert(claim.str("name"));
        let set = claim.set_members(&["resourceClaimName", "resourceClaimTemplateName"]);
        if set.len() != 1 {
            let detail = "must specify exactly one of: `resourceClaimName`, `resourceClaimTemplateName`";
            claim.invalid(errors, detail);
        }
    }
}

#[cfg(test)]
mod tests;
