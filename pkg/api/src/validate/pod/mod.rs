//! Pods and pod templates.

use std::collections::{BTreeSet, HashMap, HashSet};

mod affinity;
mod annotation;
mod container;
mod environment;
mod handler;
mod mount;
mod projected;
mod resources;
mod security;
mod status;
mod update;
mod volume;
mod windows;

use serde_json::Value;

use super::at::At;
use super::selector::label_name;
use super::{Errors, format, metadata};
use crate::field::FieldError;

pub(super) use affinity::{taint_effect, tolerations};
pub(super) use handler::port as port_reference;
pub(super) use mount::{descending, no_backsteps};
pub(super) use status::status;
pub(super) use update::{ephemeral_containers, resize};

/// What rules about parts of a pod need to know of the whole.
struct Pod<'a> {
    template: bool,
    host_network: bool,
    /// The pod has user ids of its own.
    user_namespace: bool,
    never_restarts: bool,
    /// Seconds that it has to end.
    grace: Option<i64>,
    os: &'a str,
    /// Volumes with which nothing is wrong.
    volumes: HashMap<&'a str, Volume>,
    /// Names of its claims for devices.
    claims: BTreeSet<&'a str>,
}

impl Pod<'_> {
    /// Visits the containers of all roles in the order in which they start.
    fn each_container(spec: &At, mut visit: impl FnMut(&At)) {
        for list in ["initContainers", "containers", "ephemeralContainers"] {
            spec.get(list).items().for_each(|container| visit(&container));
        }
    }
}

/// What containers must know of a volume.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Volume {
    /// Comes from a claim, so that it may be a device.
    Claim,
    Other,
}

pub(super) fn pod(object: &At, old: Option<&At>, errors: &mut Errors) {
    let (annotations, spec) = (object.get("metadata.annotations"), object.get("spec"));
    whole_pod(object, errors);
    match old {
        None => {
            let ephemeral = spec.get("ephemeralContainers");
            if !ephemeral.is_empty() {
                ephemeral.forbidden(errors, "cannot be set on create");
            }
            let node = spec.get("nodeName");
            if !node.is_empty() && !spec.get("schedulingGates").is_empty() {
                node.forbidden(errors, "cannot be set until all schedulingGates have been cleared");
            }
            annotation::agree(&annotations, &spec, errors);
        }
        Some(old) => {
            annotation::change(&annotations, &old.get("metadata.annotations"), errors);
            annotation::annotations(&annotations, &spec, errors);
            update::pod(&spec, &old.get("spec"), errors);
        }
    }
}

/// Annotations and spec of a pod, however it came to be.
fn whole_pod(object: &At, errors: &mut Errors) {
    let spec = object.get("spec");
    annotation::annotations(&object.get("metadata.annotations"), &spec, errors);
    pod_spec(&spec, Role::Pod { name: object.str("metadata.name"), mirror: is_mirror(object) }, errors);
    if spec.get("serviceAccountName").is_empty() {
        for volume in spec.get("volumes").items() {
            for source in volume.get("projected.sources").items() {
                let token = source.get("serviceAccountToken");
                if token.is_set() {
                    token.forbidden(errors, "must not be specified when serviceAccountName is not set");
                }
            }
        }
    }
    for list in ["containers", "initContainers"] {
        spec.get(list).items().for_each(|c| container::trimmed_image(&c, errors));
    }
}

/// Whether a kubelet made the pod to show one that it runs by itself.
fn is_mirror(object: &At) -> bool {
    object.get("metadata.annotations").key("kubernetes.io/config.mirror").is_set()
}

/// Metadata and spec of a template.
pub(super) fn template(template: &At, errors: &mut Errors) {
    template_with_claims(template, &[], errors);
}

/// A template whose pods get further volumes, from claims of these names.
pub(super) fn template_with_claims(template: &At, claims: &[&str], errors: &mut Errors) {
    let (spec, annotations) = (template.get("spec"), template.get("metadata.annotations"));
    // Upstream's paths leave the metadata out.
    metadata::labels(&template.get("metadata.labels").renamed("labels"), errors);
    let shown = annotations.renamed("annotations");
    metadata::annotations(&shown, errors);
    annotation::annotations(&shown, &spec, errors);
    pod_spec(&spec, Role::Template { claims }, errors);
    annotation::agree(&annotations, &spec, errors);
    let ephemeral = spec.get("ephemeralContainers");
    if !ephemeral.is_empty() {
        ephemeral.forbidden(errors, "ephemeral containers not allowed in pod template");
    }
}

/// What a pod's spec is for.
#[derive(Clone, Copy)]
enum Role<'a> {
    Pod { name: &'a str, mirror: bool },
    Template { claims: &'a [&'a str] },
}

fn pod_spec(spec: &At, role: Role, errors: &mut Errors) {
    let (name, mirror, more) = match role {
        Role::Pod { name, mirror } => (name, mirror, &[][..]),
        Role::Template { claims } => ("", false, claims),
    };
    let mut volumes = volume::volumes(&spec.get("volumes"), name, errors);
    volumes.extend(more.iter().map(|claim| (*claim, Volume::Claim)));
    let claims = spec.get("resourceClaims");
    let pod = Pod {
        template: matches!(role, Role::Template { .. }),
        host_network: spec.get("hostNetwork").is_true(),
        user_namespace: spec.get("hostUsers").value == &Value::Bool(false),
        never_restarts: spec.str("restartPolicy") == "Never",
        grace: spec.get("terminationGracePeriodSeconds").int(),
        os: spec.str("os.name"),
        volumes,
        claims: claims.list().iter().filter_map(|c| c["name"].as_str()).filter(|name| !name.is_empty()).collect(),
    };
    resource_claims(&claims, mirror, errors);
    container::containers(spec, &pod, errors);
    resources::of_pod(spec, errors);
    container::network_of_host(spec, &pod, errors);
    spec.get("restartPolicy").need_one_of(errors, &["Always", "OnFailure", "Never"]);
    spec.get("dnsPolicy").need_one_of(errors, &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"]);
    metadata::labels(&spec.get("nodeSelector"), errors);
    security::pod(spec, errors);
    affinity::affinity(&spec.get("affinity"), errors);
    dns(spec, errors);
    gates(spec, errors);
    affinity::spread_constraints(&spec.get("topologySpreadConstraints"), errors);
    windows::host_process(spec, &pod, errors);
    security::host_users(spec, &pod, errors);
    host_name(spec, &pod, errors);
    names(spec, &NAMES[..2], errors);
    spec.get("activeDeadlineSeconds").in_range(errors, 1, i64::from(i32::MAX));
    names(spec, &NAMES[2..4], errors);
    tolerations(&spec.get("tolerations"), errors);
    host_aliases(&spec.get("hostAliases"), errors);
    names(spec, &NAMES[4..5], errors);
    let class = spec.get("runtimeClassName");
    if class.is_set() {
        class.check(errors, format::dns_subdomain(class.text()));
    }
    let preemption = spec.get("preemptionPolicy");
    if preemption.is_set() {
        preemption.need_one_of(errors, &["PreemptLowerPriority", "Never"]);
    }
    if spec.get("overhead").is_set() {
        resources::overhead(&spec.get("overhead"), errors);
    }
    windows::os(spec, errors);
    environment::file_volumes(spec, errors);
}

type Check = fn(&str) -> Vec<String>;

const NAMES: [(&str, Check); 5] = [
    ("serviceAccountName", format::dns_subdomain),
    ("nodeName", format::dns_subdomain),
    ("hostname", format::dns_label),
    ("subdomain", format::dns_label),
    ("priorityClassName", format::dns_subdomain),
];

fn names(spec: &At, rules: &[(&str, Check)], errors: &mut Errors) {
    for (field, rule) in rules {
        let name = spec.get(field);
        if !name.is_empty() {
            name.check(errors, rule(name.text()));
        }
    }
}

fn host_name(spec: &At, pod: &Pod, errors: &mut Errors) {
    let name = spec.get("hostnameOverride");
    if !name.is_set() {
        return;
    }
    if spec.get("setHostnameAsFQDN").is_true() {
        name.forbidden(errors, "may not be specified when setHostnameAsFQDN is true");
    }
    if pod.host_network {
        name.forbidden(errors, "may not be specified when hostNetwork is true");
    }
    name.no_longer(errors, 64);
    name.check(errors, format::dns_subdomain(name.text()));
}

fn dns(spec: &At, errors: &mut Errors) {
    const SEARCH_CHARACTERS: usize = 2048;
    let config = spec.get("dnsConfig");
    let (servers, searches) = (config.get("nameservers"), config.get("searches"));
    if spec.str("dnsPolicy") == "None" && servers.is_empty() {
        return match config.is_set() {
            true => servers.required(errors, "must provide at least one DNS nameserver when `dnsPolicy` is None"),
            false => config.required(errors, "must provide `dnsConfig` when `dnsPolicy` is None"),
        };
    }
    if servers.list().len() > 3 {
        servers.invalid(errors, "must not have more than 3 nameservers");
    }
    for server in servers.items() {
        server.check(errors, format::ip(server.text()));
    }
    let paths: Vec<&str> = searches.list().iter().filter_map(Value::as_str).collect();
    if paths.len() > 32 {
        searches.invalid(errors, "must not have more than 32 search paths");
    }
    if paths.join(" ").len() > SEARCH_CHARACTERS {
        let detail =
            format!("must not have more than {SEARCH_CHARACTERS} characters (including spaces) in the search list");
        searches.invalid(errors, detail);
    }
    for search in searches.items().filter(|search| search.text() != ".") {
        let name = search.text().strip_suffix('.').unwrap_or(search.text());
        for problem in format::search_domain(name) {
            search.invalid_value(errors, name, problem);
        }
    }
    for option in config.get("options").items() {
        if option.get("name").is_empty() {
            option.required(errors, "must not be empty");
        }
    }
}

fn host_aliases(aliases: &At, errors: &mut Errors) {
    for alias in aliases.items() {
        let ip = alias.get("ip");
        ip.check(errors, format::ip(ip.text()));
        for name in alias.get("hostnames").items() {
            name.check(errors, format::dns_subdomain(name.text()));
        }
    }
}

fn gates(spec: &At, errors: &mut Errors) {
    for gate in spec.get("readinessGates").items() {
        label_name(&gate.get("conditionType"), errors);
    }
    let mut gates: HashSet<&str> = HashSet::new();
    for gate in spec.get("schedulingGates").items() {
        let name = gate.str("name");
        for problem in format::qualified_name(name) {
            gate.invalid_value(errors, name, problem);
        }
        if !gates.insert(name) {
            errors.push(FieldError::duplicate(&gate.path(), name));
        }
    }
}

fn resource_claims(claims: &At, mirror: bool, errors: &mut Errors) {
    let mut names: HashSet<&str> = HashSet::new();
    for claim in claims.items() {
        if mirror {
            errors.push(FieldError::forbidden(&Default::default(), "static pods do not support resource claims"));
            continue;
        }
        let name = claim.get("name");
        if name.need(errors) {
            if names.insert(name.text()) {
                name.check(errors, format::dns_label(name.text()));
            } else {
                name.duplicate(errors);
            }
        }
        let sources = ["resourceClaimName", "resourceClaimTemplateName"];
        let internal = serde_json::json!({"Name": name.text(), "ResourceClaimName": claim.value.get(sources[0]),
            "ResourceClaimTemplateName": claim.value.get(sources[1])});
        match claim.set_members(&sources).len() {
            0 => {
                let detail = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
                claim.invalid_value(errors, internal, detail);
            }
            1 => {}
            _ => {
                let detail = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                claim.invalid_value(errors, internal, detail);
            }
        }
        for source in sources.map(|source| claim.get(source)).iter().filter(|source| source.is_set()) {
            source.check(errors, format::dns_subdomain(source.text()));
        }
    }
}

#[cfg(test)]
mod tests;
