//! What is taken and yet better done otherwise: in pods, services and claims. The words are upstream's.

use std::collections::{BTreeMap, HashSet};

use kube1_api::quantity::Quantity;
use kube1_api::validate::{cidr_advice, ip_advice, label_value_problems};
use serde_json::Value;

use super::volume_advice;

const NODE_LABELS: [(&str, &str); 8] = [
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    ("failure-domain.beta.kubernetes.io/zone", "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"),
    ("beta.kubernetes.io/instance-type", "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    ("scheduler.alpha.kubernetes.io/preferAvoidPods", "deprecated since v1.22; use Taints and Tolerations instead"),
    ("node-role.kubernetes.io/master", "use \"node-role.kubernetes.io/control-plane\" instead"),
];

const ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    ("security.alpha.kubernetes.io/unsafe-sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
];

const SECCOMP: &str = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
const NO_SELECTOR: &str = "labelSelector: a null labelSelector results in matching no pod";
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub(super) fn items(list: &Value) -> impl Iterator<Item = (usize, &Value)> {
    list.as_array().into_iter().flatten().enumerate()
}

pub(super) fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_default()
}

pub(super) fn deprecated_label(label: &str) -> Option<&'static str> {
    NODE_LABELS.iter().find(|(old, _)| *old == label).map(|(_, what)| *what)
}

/// A pod, or the template of pods at `path`, which ends with a dot unless it is empty.
pub(super) fn template(path: &str, template: &Value, is_template: bool, warnings: &mut Vec<String>) {
    let (metadata, spec) = (&template["metadata"], &template["spec"]);
    node_labels(path, spec, warnings);
    for (key, what) in ANNOTATIONS.iter().filter(|(key, _)| !metadata["annotations"][key].is_null()) {
        warnings.push(format!("{path}metadata.annotations[{key}]: {what}"));
    }
    volume_advice::of_pods(&format!("{path}spec.volumes"), &spec["volumes"], warnings);
    repeated(path, spec, "hostAliases", "ip", warnings);
    repeated(path, spec, "imagePullSecrets", "name", warnings);
    for (index, _) in items(&spec["imagePullSecrets"]).filter(|(_, secret)| text(secret, "name").is_empty()) {
        warnings.push(format!("{path}spec.imagePullSecrets[{index}].name: invalid empty name \"\""));
    }
    for (index, alias) in items(&spec["hostAliases"]) {
        warnings.extend(ip_advice(&format!("{path}spec.hostAliases[{index}].ip"), text(alias, "ip")));
    }
    for (index, server) in items(&spec["dnsConfig"]["nameservers"]) {
        let at = format!("{path}spec.dnsConfig.nameservers[{index}]");
        warnings.extend(ip_advice(&at, server.as_str().unwrap_or_default()));
    }
    fractions(&format!("{path}spec.overhead"), &spec["overhead"], warnings);
    if spec["securityContext"]["seccompProfile"].is_null() {
        annotated(path, metadata, "seccomp.security.alpha.kubernetes.io/pod", SECCOMP, warnings);
    }
    for (at, container) in containers(path, spec) {
        one_container(path, &at, container, template, is_template, warnings);
    }
    ports(path, spec, warnings);
    if spec["terminationGracePeriodSeconds"].as_i64().is_some_and(|s| s < 0) {
        warnings.push(format!(
            "{path}spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
        ));
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let at = format!("{path}spec.affinity.{kind}");
        let terms = &spec["affinity"][kind];
        for (index, _) in items(&terms[REQUIRED]).filter(|(_, term)| term["labelSelector"].is_null()) {
            warnings.push(format!("{at}.{REQUIRED}[{index}].{NO_SELECTOR}"));
        }
        for (index, _) in items(&terms[PREFERRED]).filter(|(_, t)| t["podAffinityTerm"]["labelSelector"].is_null()) {
            warnings.push(format!("{at}.{PREFERRED}[{index}].podAffinityTerm.{NO_SELECTOR}"));
        }
    }
}

fn annotated(path: &str, metadata: &Value, key: &str, what: &str, warnings: &mut Vec<String>) {
    if !metadata["annotations"][key].is_null() {
        warnings.push(format!("{path}metadata.annotations[{key}]: {what}"));
    }
}

/// Every container, with its place.
fn containers<'a>(path: &'a str, spec: &'a Value) -> impl Iterator<Item = (String, &'a Value)> {
    ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(move |list| {
        items(&spec[list]).map(move |(index, container)| (format!("{path}spec.{list}[{index}]"), container))
    })
}

/// What a term at `path` says of nodes. Values that no label can have are told of where they are not refused.
pub(super) fn expressions(path: &str, term: &Value, any_values: bool, warnings: &mut Vec<String>) {
    for (index, expression) in items(&term["matchExpressions"]) {
        let (at, key) = (format!("{path}.matchExpressions[{index}]"), text(expression, "key"));
        if let Some(what) = deprecated_label(key) {
            warnings.push(format!("{at}.key: {key} is {what}"));
        }
        for (place, value) in items(&expression["values"]).filter(|_| any_values) {
            let value = value.as_str().unwrap_or_default();
            for problem in label_value_problems(value) {
                warnings.push(format!("{at}.values[{place}]: {value} is invalid, {problem}"));
            }
        }
    }
}

fn node_labels(path: &str, spec: &Value, warnings: &mut Vec<String>) {
    for key in spec["nodeSelector"].as_object().into_iter().flat_map(|selector| selector.keys()) {
        if let Some(what) = deprecated_label(key) {
            warnings.push(format!("{path}spec.nodeSelector[{key}]: {what}"));
        }
    }
    let node = &spec["affinity"]["nodeAffinity"];
    let required = items(&node[REQUIRED]["nodeSelectorTerms"])
        .map(|(index, term)| (format!("{REQUIRED}.nodeSelectorTerms[{index}]"), term, false));
    let preferred = items(&node[PREFERRED])
        .map(|(index, term)| (format!("{PREFERRED}[{index}].preference"), &term["preference"], true));
    for (place, term, free) in required.chain(preferred) {
        expressions(&format!("{path}spec.affinity.nodeAffinity.{place}"), term, free, warnings);
    }
    for (index, constraint) in items(&spec["topologySpreadConstraints"]) {
        let (at, key) = (format!("{path}spec.topologySpreadConstraints[{index}]"), text(constraint, "topologyKey"));
        if let Some(what) = deprecated_label(key) {
            warnings.push(format!("{at}.topologyKey: {key} is {what}"));
        }
        if constraint["labelSelector"].is_null() {
            warnings.push(format!("{at}.{NO_SELECTOR}"));
        }
    }
}

/// Entries of a list that name the same.
fn repeated(path: &str, spec: &Value, list: &str, member: &str, warnings: &mut Vec<String>) {
    let mut seen = HashSet::new();
    for (index, entry) in items(&spec[list]) {
        let name = text(entry, member);
        if !seen.insert(name) {
            warnings.push(format!("{path}spec.{list}[{index}].{member}: duplicate {member} {name:?}"));
        }
    }
}

/// Bytes come whole.
fn fractions(at: &str, list: &Value, warnings: &mut Vec<String>) {
    for name in ["memory", "ephemeral-storage"] {
        fraction(at, list, name, warnings);
    }
}

fn fraction(at: &str, list: &Value, name: &str, warnings: &mut Vec<String>) {
    let amount = list[name].as_str().and_then(|text| Quantity::parse(text).ok());
    if let Some(amount) = amount.filter(|amount| amount.millis() % 1000 != 0) {
        let shown = amount.to_string();
        warnings.push(format!("{at}[{name}]: fractional byte value {shown:?} is invalid, must be an integer"));
    }
}

fn one_container(
    path: &str,
    at: &str,
    container: &Value,
    template: &Value,
    is_template: bool,
    warnings: &mut Vec<String>,
) {
    let (metadata, name, context) = (&template["metadata"], text(container, "name"), &container["securityContext"]);
    if context["seccompProfile"].is_null() {
        let key = format!("container.seccomp.security.alpha.kubernetes.io/{name}");
        annotated(path, metadata, &key, SECCOMP, warnings);
    }
    let whole = &template["spec"]["securityContext"]["appArmorProfile"];
    if is_template && whole.is_null() && context["appArmorProfile"].is_null() {
        let key = format!("container.apparmor.security.beta.kubernetes.io/{name}");
        annotated(path, metadata, &key, "deprecated since v1.30; use the \"appArmorProfile\" field instead", warnings);
    }
    for name in ["memory", "ephemeral-storage"] {
        for list in ["limits", "requests"] {
            fraction(&format!("{at}.resources.{list}"), &container["resources"][list], name, warnings);
        }
    }
    let mut seen = HashSet::new();
    for (index, variable) in items(&container["env"]) {
        let (name, value) = (text(variable, "name"), text(variable, "value"));
        let earlier = format!("$({name})");
        let hides = !variable["valueFrom"].is_null() || value == earlier || !value.contains(&earlier);
        if !seen.insert(name) && hides {
            warnings.push(format!(
                "{at}.env[{index}]: hides previous definition of {name:?}, which may be dropped when using apply"
            ));
        }
    }
}

/// Ports that more than one entry names.
fn ports(path: &str, spec: &Value, warnings: &mut Vec<String>) {
    let mut all: BTreeMap<(i64, &str), Vec<(String, &Value)>> = BTreeMap::new();
    let mut names: BTreeMap<&str, (String, String)> = BTreeMap::new();
    for (container_at, container) in containers(path, spec) {
        for (index, port) in items(&container["ports"]) {
            let at = format!("{container_at}.ports[{index}]");
            let (ip, host) = (text(port, "hostIP"), port["hostPort"].as_i64().unwrap_or(0));
            let (number, protocol) = (port["containerPort"].as_i64().unwrap_or(0), text(port, "protocol"));
            if !ip.is_empty() && host == 0 {
                let name = text(port, "name");
                warnings.push(format!(
                    "{at}: hostIP set without hostPort: {{Name:{name} HostPort:0 ContainerPort:{number} Protocol:{protocol} HostIP:{ip}}}"
                ));
            }
            let others = all.entry((number, protocol)).or_default();
            for (place, other) in others.iter() {
                let (other_ip, other_host) = (text(other, "hostIP"), other["hostPort"].as_i64().unwrap_or(0));
                let what = if (ip, host) == (other_ip, other_host) {
                    "duplicate"
                } else if host == 0 || other_host == 0 {
                    "overlapping"
                } else if host == other_host && ip.is_empty() != other_ip.is_empty() {
                    "dangerously ambiguous"
                } else {
                    continue;
                };
                warnings.push(format!("{at}: {what} port definition with {place}"));
            }
            others.push((at.clone(), port));
            let name = text(port, "name");
            // Init containers that end are gone when ports are looked for.
            if name.is_empty() || container_at.contains("initContainers[") && container["restartPolicy"] != "Always" {
                continue;
            }
            match names.get(name) {
                None => _ = names.insert(name, (container_at.clone(), at)),
                Some((same, _)) if *same == container_at => {}
                Some((_, first)) => warnings.push(format!(
                    "{at}: duplicate port name {name:?} with {first}, services and probes that select ports by name will use {first}"
                )),
            }
        }
    }
}

pub(super) fn claim_spec(path: &str, spec: &Value, warnings: &mut Vec<String>) {
    for list in ["limits", "requests"] {
        let (at, resources) = (format!("{path}.resources.{list}"), &spec["resources"][list]);
        let amount = resources["storage"].as_str().and_then(|text| Quantity::parse(text).ok());
        if let Some(amount) = amount.filter(|amount| amount.millis() % 1000 != 0) {
            let shown = amount.to_string();
            warnings.push(format!("{at}[storage]: fractional byte value {shown:?} is invalid, must be an integer"));
        }
    }
}

pub(super) fn service(service: &Value, warnings: &mut Vec<String>) {
    let (spec, annotations) = (&service["spec"], &service["metadata"]["annotations"]);
    let (old, new) = ("service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode");
    if !annotations[old].is_null() {
        warnings.push(format!("annotation {old} is deprecated, please use {new} instead"));
    }
    let kind = text(spec, "type");
    let headless = kind == "ClusterIP" && text(spec, "clusterIP") == "None";
    let external = items(&spec["externalIPs"]).next().is_some();
    let addresses = |list: &str, warnings: &mut Vec<String>| {
        for (index, ip) in items(&spec[list]) {
            warnings.extend(ip_advice(&format!("spec.{list}[{index}]"), ip.as_str().unwrap_or_default()));
        }
    };
    addresses("clusterIPs", warnings);
    if headless {
        let ignored = [
            (!text(spec, "loadBalancerIP").is_empty(), "loadBalancerIP"),
            (external, "externalIPs"),
            (text(spec, "sessionAffinity") != "None", "SessionAffinity"),
        ];
        for (_, field) in ignored.iter().filter(|(there, _)| *there) {
            warnings.push(format!("spec.{field} is ignored for headless services"));
        }
    }
    addresses("externalIPs", warnings);
    let named = kind == "ExternalName";
    if external && !headless && !named {
        warnings.push("spec.externalIPs is deprecated and may no longer be implemented in some clusters".into());
    }
    warnings.extend(ip_advice("spec.loadBalancerIP", text(spec, "loadBalancerIP")));
    for (index, range) in items(&spec["loadBalancerSourceRanges"]) {
        let at = format!("spec.loadBalancerSourceRanges[{index}]");
        warnings.extend(cidr_advice(&at, range.as_str().unwrap_or_default()));
    }
    if named && external {
        warnings.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".into());
    }
    if !named && !text(spec, "externalName").is_empty() {
        warnings.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".into());
    }
    if text(spec, "trafficDistribution") == "PreferClose" {
        warnings.push("spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"".into());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pods_are_advised() {
        for (spec, expected) in [
            (
                json!({"nodeSelector": {"beta.kubernetes.io/os": "x"}}),
                "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
            ),
            (
                json!({"containers": [{"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "$(A)2"}, {"name": "A", "value": "3"}]}]}),
                "spec.containers[0].env[2]: hides previous definition of \"A\", which may be dropped when using apply",
            ),
            (
                json!({"containers": [{"ports": [{"containerPort": 80, "protocol": "TCP"}, {"containerPort": 80, "protocol": "TCP", "hostPort": 1}]}]}),
                "spec.containers[0].ports[1]: overlapping port definition with spec.containers[0].ports[0]",
            ),
            (
                json!({"containers": [{"resources": {"requests": {"memory": "100m"}}}]}),
                "spec.containers[0].resources.requests[memory]: fractional byte value \"100m\" is invalid, must be an integer",
            ),
            (
                json!({"terminationGracePeriodSeconds": -1}),
                "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
            ),
            (
                json!({"initContainers": [{"ports": [{"containerPort": 1, "name": "a"}]},
                    {"restartPolicy": "Always", "ports": [{"containerPort": 2, "name": "a"}]}],
                    "containers": [{"ports": [{"containerPort": 3, "name": "a"}]}]}),
                "spec.containers[0].ports[0]: duplicate port name \"a\" with spec.initContainers[1].ports[0], services and probes that select ports by name will use spec.initContainers[1].ports[0]",
            ),
            (
                json!({"affinity": {"nodeAffinity": {PREFERRED: [{"preference": {"matchExpressions": [{"key": "k", "values": ["-1"]}]}}],
                    REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": [{"key": "k", "values": ["-1"]}]}]}}}}),
                "spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchExpressions[0].values[0]: -1 is invalid, a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
            ),
            (
                json!({"imagePullSecrets": [{"name": "a"}, {"name": "a"}]}),
                "spec.imagePullSecrets[1].name: duplicate name \"a\"",
            ),
        ] {
            let mut warnings = Vec::new();
            template("", &json!({"spec": spec}), false, &mut warnings);
            assert_eq!(warnings, [expected]);
        }
    }

    #[test]
    fn services_are_advised() {
        let spec = json!({"type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"], "sessionAffinity": "ClientIP",
            "externalName": "a", "trafficDistribution": "PreferClose", "loadBalancerIP": "010.0.0.1"});
        let mut warnings = Vec::new();
        service(&json!({"spec": spec}), &mut warnings);
        let expected = [
            "spec.loadBalancerIP is ignored for headless services",
            "spec.SessionAffinity is ignored for headless services",
            "spec.loadBalancerIP: non-standard IP address \"010.0.0.1\" is invalid: use \"10.0.0.1\"",
            "spec.externalName is ignored when spec.type is not \"ExternalName\"",
            "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"",
        ];
        assert_eq!(warnings, expected);
    }
}
