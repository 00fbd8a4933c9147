//! Services. What the allocators decide (free addresses and ports) is theirs to check.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::at::At;
use super::pod::port_reference;
use super::{Errors, format, metadata};
use crate::field::FieldError;

const EXTERNAL_NAME: &str = "ExternalName";
const BALANCER: &str = "LoadBalancer";
const ONLY_BALANCER: &str = "may only be used when `type` is 'LoadBalancer'";
const TOPOLOGY_HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

pub(super) fn service(object: &At, old: Option<&At>, errors: &mut Errors) {
    let (spec, annotations) = (object.get("spec"), object.get("metadata.annotations"));
    let old_spec = old.map(|old| old.get("spec"));
    if let Some(old) = &old_spec {
        change(&spec, old, errors);
    }
    let (hints, mode) = (annotations.key(TOPOLOGY_HINTS), annotations.key(TOPOLOGY_MODE));
    if hints.is_set() && mode.is_set() && hints.value != mode.value {
        mode.invalid(errors, format!("must match annotations[{TOPOLOGY_HINTS}] when both are specified"));
    }
    let kind = spec.str("type");
    if spec.get("ports").is_empty() && !is_headless(&spec) && kind != EXTERNAL_NAME {
        spec.get("ports").required(errors, "");
    }
    match kind {
        "LoadBalancer" | "NodePort" if is_headless(&spec) => {
            let detail = format!("may not be set to 'None' for {kind} services");
            spec.get("clusterIPs").index(0).invalid_value(errors, "None", detail);
        }
        EXTERNAL_NAME => external_name(&spec, errors),
        _ => {}
    }
    ports(&spec, errors);
    metadata::labels(&spec.get("selector"), errors);
    affinity(&spec, errors);
    addresses(&spec, old_spec.as_ref(), errors);
    external_ips(&spec.get("externalIPs"), old_spec.as_ref(), errors);
    spec.get("type").need_one_of(errors, &["ClusterIP", EXTERNAL_NAME, BALANCER, "NodePort"]);
    unique_ports(&spec, errors);
    source_ranges(&spec, &annotations, old, errors);
    let allocate = spec.get("allocateLoadBalancerNodePorts");
    if allocate.is_set() && kind != BALANCER {
        allocate.forbidden(errors, ONLY_BALANCER);
    }
    balancer_class(&spec, errors);
    external_traffic(&spec, errors);
    let internal = spec.get("internalTrafficPolicy");
    if !internal.is_set() && matches!(kind, "NodePort" | BALANCER | "ClusterIP") {
        internal.required(errors, "");
    } else if internal.is_set() {
        internal.exactly_one_of(errors, &["Cluster", "Local"]);
    }
    let distribution = spec.get("trafficDistribution");
    if distribution.is_set() {
        distribution.exactly_one_of(errors, &["PreferClose", "PreferSameZone", "PreferSameNode"]);
    }
}

/// What is wrong with the addresses and families that a service asks for; its allocation looks at them before all else.
pub fn service_addresses(service: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let (object, old) = (At::root(service), old.map(At::root));
    addresses(&object.get("spec"), old.as_ref().map(|old| old.get("spec")).as_ref(), &mut errors);
    errors
}

fn is_headless(spec: &At) -> bool {
    matches!(spec.get("clusterIPs").list(), [only] if only == "None")
}

fn external_name(spec: &At, errors: &mut Errors) {
    for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        let field = spec.get(field);
        if !field.is_empty() {
            field.forbidden(errors, "may not be set for ExternalName services");
        }
    }
    let name = spec.get("externalName");
    match name.text().strip_suffix('.').unwrap_or(name.text()) {
        "" => name.required(errors, ""),
        text => format::dns_subdomain(text).into_iter().for_each(|why| name.invalid_value(errors, text, why)),
    }
}

fn ports(spec: &At, errors: &mut Errors) {
    let list = spec.get("ports");
    let several = list.list().len() > 1;
    let mut names: HashSet<&str> = HashSet::new();
    for port in list.items() {
        let name = port.get("name");
        if several && name.is_empty() {
            name.required(errors, "");
        } else if !name.is_empty() {
            name.check(errors, format::dns_label(name.text()));
            name.unique(&mut names, errors);
        }
        let number = port.number("port");
        for problem in format::port_number(number) {
            port.get("port").invalid_value(errors, number, problem);
        }
        port.get("protocol").need_one_of(errors, &["SCTP", "TCP", "UDP"]);
        port_reference(&port.get("targetPort"), errors);
        let application = port.get("appProtocol");
        if application.is_set() {
            application.check(errors, format::qualified_name(application.text()));
        }
    }
}

/// Node ports are for services that nodes show, and no port is there twice.
fn unique_ports(spec: &At, errors: &mut Errors) {
    let list = spec.get("ports");
    if spec.str("type") == "ClusterIP" {
        for port in list.items().filter(|port| port.number("nodePort") != 0) {
            port.get("nodePort").forbidden(errors, "may not be used when `type` is 'ClusterIP'");
        }
    }
    let (mut node_taken, mut taken) = (HashSet::new(), HashSet::new());
    for port in list.items().filter(|port| port.number("nodePort") != 0) {
        if !node_taken.insert((port.str("protocol"), port.number("nodePort"))) {
            port.get("nodePort").duplicate(errors);
        }
    }
    for port in list.items() {
        let (protocol, number) = (port.str("protocol"), port.number("port"));
        if !taken.insert((protocol, number)) {
            let shown = json!({"Name": "", "Protocol": protocol, "AppProtocol": null, "Port": number,
                "TargetPort": 0, "NodePort": 0});
            errors.push(FieldError::duplicate(&port.path(), shown));
        }
    }
}

fn affinity(spec: &At, errors: &mut Errors) {
    let (kind, config) = (spec.get("sessionAffinity"), spec.get("sessionAffinityConfig"));
    kind.need_one_of(errors, &["ClientIP", "None"]);
    match kind.text() {
        "ClientIP" => {
            let client = config.get("clientIP");
            let missing = [config, client, client.get("timeoutSeconds")].into_iter().find(|at| !at.is_set());
            if let Some(missing) = missing {
                return missing.required(errors, "when session affinity type is ClientIP");
            }
            let timeout = config.get("clientIP.timeoutSeconds");
            if timeout.int().is_some_and(|seconds| !(1..=86400).contains(&seconds)) {
                timeout.invalid(errors, "must be greater than 0 and less than 86400");
            }
        }
        "None" if config.is_set() => config.forbidden(errors, "must not be set when session affinity is None"),
        _ => {}
    }
}

/// Addresses that were there before may be what they are.
fn external_ips(list: &At, old: Option<&At>, errors: &mut Errors) {
    let before = old.map(|old| old.get("externalIPs").list().to_vec()).unwrap_or_default();
    for ip in list.items() {
        let problems = if before.contains(ip.value) { Vec::new() } else { format::ip(ip.text()) };
        ip.check(errors, if problems.is_empty() { format::endpoint_ip(ip.text()) } else { problems });
    }
}

fn source_ranges(spec: &At, annotations: &At, old: Option<&At>, errors: &mut Errors) {
    let (ranges, is_balancer) = (spec.get("loadBalancerSourceRanges"), spec.str("type") == BALANCER);
    let shown = ranges.renamed("LoadBalancerSourceRanges");
    let annotation = annotations.key(SOURCE_RANGES);
    if !ranges.is_empty() {
        if !is_balancer {
            shown.forbidden(errors, ONLY_BALANCER);
        }
        let before: Vec<&str> = old
            .and_then(|old| old.value["spec"]["loadBalancerSourceRanges"].as_array())
            .map_or(Vec::new(), |list| list.iter().filter_map(|v| v.as_str()).map(str::trim).collect());
        for range in shown.items() {
            let text = range.text().trim();
            let problems = if before.contains(&text) { Vec::new() } else { format::cidr(text) };
            problems.into_iter().for_each(|problem| range.invalid_value(errors, text, problem));
        }
    } else if annotation.is_set() {
        if !is_balancer {
            annotation.forbidden(errors, ONLY_BALANCER);
        }
        let same = old.is_some_and(|old| old.value["metadata"]["annotations"][SOURCE_RANGES] == *annotation.value);
        let text = annotation.text().trim();
        if !same && !text.is_empty() {
            for range in text.split(',').map(str::trim) {
                format::cidr(range).into_iter().for_each(|problem| annotation.invalid_value(errors, range, problem));
            }
        }
    }
}

fn balancer_class(spec: &At, errors: &mut Errors) {
    let class = spec.get("loadBalancerClass");
    if !class.is_set() {
        return;
    }
    match spec.str("type") {
        BALANCER => class.check(errors, format::qualified_name(class.text())),
        _ => class.forbidden(errors, ONLY_BALANCER),
    }
}

fn needs_health_check(spec: &At) -> bool {
    spec.str("type") == BALANCER && spec.str("externalTrafficPolicy") == "Local"
}

fn external_traffic(spec: &At, errors: &mut Errors) {
    let external = !spec.get("externalIPs").is_empty();
    let reachable = match spec.str("type") {
        BALANCER | "NodePort" => true,
        kind => kind == "ClusterIP" && external,
    };
    let (policy, health) = (spec.get("externalTrafficPolicy"), spec.get("healthCheckNodePort"));
    if reachable {
        policy.need_one_of(errors, &["Cluster", "Local"]);
    } else if !policy.is_empty() {
        policy.invalid(errors, "may only be set for externally-accessible services");
    }
    if needs_health_check(spec) {
        if health.need(errors) {
            health.in_range(errors, 1, 65535);
        }
    } else if !health.is_empty() {
        let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        health.invalid(errors, detail);
    }
}

/// Cluster addresses and their families.
fn addresses(spec: &At, old: Option<&At>, errors: &mut Errors) {
    if spec.str("type") == EXTERNAL_NAME {
        return;
    }
    let (first, all, families) = (spec.get("clusterIP"), spec.get("clusterIPs"), spec.get("ipFamilies"));
    match (first.is_empty(), all.list().first()) {
        (false, None) => all.required(errors, ""),
        (false, Some(ip)) if ip != first.value => all.invalid(errors, "first value must match `clusterIP`"),
        (true, Some(_)) => all.invalid(errors, "must be empty when `clusterIP` is not specified"),
        _ => {}
    }
    for (index, family) in families.items().enumerate() {
        family.exactly_one_of(errors, &["IPv4", "IPv6"]);
        if families.list()[..index].contains(family.value) {
            family.duplicate(errors);
        }
    }
    let policy = spec.get("ipFamilyPolicy");
    if policy.is_set() {
        policy.exactly_one_of(errors, &["PreferDualStack", "RequireDualStack", "SingleStack"]);
    }
    if well_formed(&all, old, errors) {
        of_their_families(spec, errors);
    }
}

/// Tells whether the addresses are such that their families can be looked at.
fn well_formed(all: &At, old: Option<&At>, errors: &mut Errors) -> bool {
    let before = old.map(|old| old.get("clusterIPs").list().to_vec()).unwrap_or_default();
    let mut fine = true;
    for (index, ip) in all.items().enumerate() {
        if index == 0 && ip.text() == "None" {
            if all.list().len() > 1 {
                all.invalid(errors, "'None' must be the first and only value");
                fine = false;
            }
        } else if !before.contains(ip.value) {
            let problems = format::ip(ip.text());
            fine &= problems.is_empty();
            ip.check(errors, problems);
        }
    }
    if all.list().len() > 2 {
        all.invalid(errors, "may only hold up to 2 values");
    }
    fine
}

fn of_their_families(spec: &At, errors: &mut Errors) {
    let (all, families) = (spec.get("clusterIPs"), spec.get("ipFamilies"));
    let is_four: Vec<bool> = all.items().map(|ip| format::is_ipv4(ip.text())).collect();
    if is_four.len() > 1 && (is_four.iter().all(|four| *four) || is_four.iter().all(|four| !four)) {
        all.invalid(errors, "may specify no more than one IP for each IP family");
    }
    if is_headless(spec) {
        return;
    }
    for ((ip, family), (index, four)) in all.items().zip(families.list()).zip(is_four.iter().enumerate()) {
        let family = family.as_str().unwrap_or_default();
        if (family == "IPv4" && !four) || (family == "IPv6" && *four) {
            ip.invalid(errors, format!("expected an {family} value as indicated by `ipFamilies[{index}]`"));
        }
    }
}

const ONCE: &str = "may not change once set";

fn change(spec: &At, old: &At, errors: &mut Errors) {
    let is_external = |spec: &At| spec.str("type") == EXTERNAL_NAME;
    if !is_external(spec) && !is_external(old) {
        let (now, before) = (is_headless(spec), is_headless(old));
        if !(now && before) {
            changed_list(spec, old, "clusterIPs", errors);
        }
        if !now && !before {
            changed_list(spec, old, "ipFamilies", errors);
        }
    }
    if spec.str("type") == BALANCER && old.str("type") == BALANCER {
        let class = spec.get("loadBalancerClass");
        if class.value != old.get("loadBalancerClass").value {
            class.invalid(errors, ONCE);
        }
    }
    let (health, before) = (spec.get("healthCheckNodePort"), old.get("healthCheckNodePort"));
    if needs_health_check(spec) && needs_health_check(old) && health.int().unwrap_or(0) != before.int().unwrap_or(0) {
        health.forbidden(errors, "field is immutable");
    }
}

/// The first of them stays; a second one may come, and go again with the policy.
fn changed_list(spec: &At, old: &At, name: &str, errors: &mut Errors) {
    let (now, before) = (spec.get(name), old.get(name));
    let (new_list, old_list) = (now.list(), before.list());
    let (one, lost) = match name {
        "clusterIPs" => ("clusterIP", new_list.is_empty()),
        _ => ("ipFamily", spec.get("clusterIPs").is_empty()),
    };
    let whole = Value::from(new_list.to_vec());
    if new_list.len() == old_list.len() {
        for (index, _) in new_list.iter().zip(old_list).enumerate().filter(|(_, (a, b))| a != b) {
            now.index(if one == "clusterIP" { index } else { 0 }).invalid_value(errors, whole.clone(), ONCE);
        }
        return;
    }
    let shrunk = new_list.len() < old_list.len();
    if shrunk && lost {
        let detail = format!("primary {one} can not be unset");
        now.index(0).invalid_value(errors, whole.clone(), detail);
    }
    if let (Some(first), Some(was)) = (new_list.first(), old_list.first())
        && first != was
    {
        now.index(0).invalid_value(errors, spec.get("clusterIPs").value.clone(), ONCE);
    }
    let policy = spec.get("ipFamilyPolicy");
    if shrunk && new_list.len() == 1 && policy.text() != "SingleStack" {
        policy.invalid(errors, format!("must be set to 'SingleStack' when releasing the secondary {one}"));
    }
}

/// What a load balancer tells of itself.
pub(super) fn status(object: &At, old: &At, errors: &mut Errors) {
    let (ingress, before) = (object.get("status.loadBalancer.ingress"), old.get("status.loadBalancer.ingress"));
    if object.str("spec.type") != BALANCER && !ingress.is_empty() {
        return ingress.forbidden(errors, "may only be used when `spec.type` is 'LoadBalancer'");
    }
    for point in ingress.items() {
        let (ip, mode, host) = (point.get("ip"), point.get("ipMode"), point.get("hostname"));
        if !ip.is_empty() && !before.items().any(|known| known.str("ip") == ip.text()) {
            ip.check(errors, format::ip(ip.text()));
        }
        match (mode.is_set(), ip.is_empty()) {
            (false, false) => mode.required(errors, "must be specified when `ip` is set"),
            (true, true) => mode.forbidden(errors, "may not be specified when `ip` is not set"),
            (true, false) => mode.exactly_one_of(errors, &["Proxy", "VIP"]),
            _ => {}
        }
        if !host.is_empty() {
            host.check(errors, format::dns_subdomain(host.text()));
            if format::is_ip(host.text()) {
                host.invalid(errors, "must be a DNS name, not an IP address");
            }
        }
    }
}
