//! Services. What the allocators decide (free addresses and ports) is theirs to check.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::at::At;
use super::pod::port_reference;
use super::{Errors, format, metadata};
use crate::field::FieldError;

const EXTERNAL_NAME: &str = "ExternalName";

pub(super) fn service(object: &At, old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    let kind = spec.str("type");
    let headless = spec.str("clusterIP") == "None";
    spec.get("type").need(errors);
    if matches!(kind, "LoadBalancer" | "NodePort") && headless {
        spec.get("clusterIPs").index(0).invalid_value(
            errors,
            "None",
            format!("may not be set to 'None' for {kind} services"),
        );
    }
    if kind == EXTERNAL_NAME {
        external_name(&spec, errors);
    } else {
        if !headless && spec.get("ports").is_empty() {
            spec.get("ports").required(errors, "");
        }
        spec.get("internalTrafficPolicy").need(errors);
    }
    ports(&spec, errors);
    metadata::labels(&spec.get("selector"), errors);
    affinity(&spec, errors);
    external(&spec, errors);
    families(&spec, errors);
    for ip in spec.get("externalIPs").items() {
        ip.check(errors, format::ip(ip.text()));
    }
    spec.get("trafficDistribution").one_of(errors, &["PreferClose", "PreferSameNode", "PreferSameZone"]);
    if let Some(old) = old {
        change(&spec, &old.get("spec"), errors);
    }
}

fn external_name(spec: &At, errors: &mut Errors) {
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        let field = spec.get(field);
        if !field.is_empty() {
            field.forbidden(errors, "may not be set for ExternalName services");
        }
    }
    let name = spec.get("externalName");
    if name.need(errors) {
        name.check(errors, format::dns_subdomain(name.text().strip_suffix('.').unwrap_or(name.text())));
    }
}

fn ports(spec: &At, errors: &mut Errors) {
    let kind = spec.str("type");
    let list = spec.get("ports");
    let several = list.list().len() > 1;
    let mut names: HashSet<&str> = HashSet::new();
    let (mut taken, mut node_taken) = (HashSet::new(), HashSet::new());
    for port in list.items() {
        let name = port.get("name");
        if several && name.is_empty() {
            name.required(errors, "");
        } else if !name.is_empty() {
            name.check(errors, format::dns_label(name.text()));
            if names.contains(&name.text()) {
                name.duplicate(errors);
            }
            names.insert(name.text());
        }
        let number = port.get("port");
        for problem in format::port_number(number.int().unwrap_or(0)) {
            number.invalid_value(errors, number.int().unwrap_or(0), problem);
        }
        let protocol = port.get("protocol");
        protocol.need(errors);
        port_reference(&port.get("targetPort"), errors);
        let application = port.get("appProtocol");
        if !application.is_empty() {
            application.check(errors, format::qualified_name(application.text()));
        }
        if kind == "LoadBalancer" && number.int() == Some(10250) {
            number.invalid(errors, "may not expose port 10250 externally since it is used by kubelet");
        }
        let node_port = port.get("nodePort");
        if matches!(kind, "ClusterIP" | EXTERNAL_NAME) && !node_port.is_empty() {
            node_port.forbidden(errors, format!("may not be used when `type` is '{kind}'"));
        }
        let key = (protocol.text(), number.int());
        if taken.contains(&key) {
            let value = json!({"protocol": key.0, "port": key.1});
            errors.push(FieldError::duplicate(&port.path(), value));
        }
        taken.insert(key);
        if !node_port.is_empty() {
            let key = (protocol.text(), node_port.int());
            if node_taken.contains(&key) {
                node_port.duplicate(errors);
            }
            node_taken.insert(key);
        }
    }
}

fn affinity(spec: &At, errors: &mut Errors) {
    spec.get("sessionAffinity").need(errors);
    let config = spec.get("sessionAffinityConfig");
    if spec.str("sessionAffinity") == "None" && config.is_set() {
        let detail = "must not be set when session affinity is None";
        config.forbidden(errors, detail);
    }
    let timeout = config.get("clientIP.timeoutSeconds");
    if timeout.int().is_some_and(|seconds| !(1..=86400).contains(&seconds)) {
        timeout.invalid(errors, "must be greater than 0 and less than 86400");
    }
}

/// What only makes sense for services that can be reached from outside.
fn external(spec: &At, errors: &mut Errors) {
    let balancer = spec.str("type") == "LoadBalancer";
    let reachable = balancer || spec.str("type") == "NodePort" || !spec.get("externalIPs").is_empty();
    let policy = spec.get("externalTrafficPolicy");
    if !policy.is_empty() && !reachable {
        policy.invalid(errors, "may only be set for externally-accessible services");
    }
    let health = spec.get("healthCheckNodePort");
    if !(health.is_empty() || balancer && policy.text() == "Local") {
        let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        health.invalid(errors, detail);
    }
    for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass", "loadBalancerSourceRanges"] {
        let field = spec.get(field);
        if field.is_set() && !balancer && field.list().is_empty() != field.value.is_array() {
            field.forbidden(errors, "may only be used when `type` is 'LoadBalancer'");
        }
    }
    for range in spec.get("loadBalancerSourceRanges").items() {
        range.check(errors, format::cidr(range.text().trim()));
    }
    let class = spec.get("loadBalancerClass");
    if balancer && class.is_set() {
        class.check(errors, format::qualified_name(class.text()));
    }
}

/// Cluster addresses and their families.
fn families(spec: &At, errors: &mut Errors) {
    let (first, all, families) = (spec.get("clusterIP"), spec.get("clusterIPs"), spec.get("ipFamilies"));
    if !first.is_empty() && !all.is_empty() && all.list().first() != Some(first.value) {
        all.invalid(errors, "first value must match `clusterIP`");
    }
    if all.list().len() > 2 {
        all.invalid(errors, "may only hold up to 2 values");
    }
    for (index, ip) in all.items().enumerate() {
        if ip.text() == "None" {
            if index > 0 {
                ip.invalid(errors, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
            }
            continue;
        }
        ip.check(errors, format::ip(ip.text()));
        let family = families.list().get(index).and_then(Value::as_str);
        if family.is_some_and(|family| (family == "IPv4") != format::is_ipv4(ip.text())) {
            let detail =
                format!("expected an {} value as indicated by `ipFamilies[{index}]`", family.unwrap_or_default());
            ip.invalid(errors, detail);
        }
    }
    if families.list().len() > 2 {
        families.invalid(errors, "may only hold up to 2 values");
    }
    for (index, family) in families.items().enumerate() {
        if families.list()[..index].contains(family.value) {
            family.duplicate(errors);
        }
    }
    if spec.str("ipFamilyPolicy") == "SingleStack" {
        for list in [all, families] {
            if list.list().len() > 1 {
                list.invalid(errors, "may only hold up to 1 value for `ipFamilyPolicy` SingleStack");
            }
        }
    }
}

fn change(spec: &At, old: &At, errors: &mut Errors) {
    let (kind, old_kind) = (spec.str("type"), old.str("type"));
    if kind != EXTERNAL_NAME && old_kind != EXTERNAL_NAME {
        for list in ["clusterIPs", "ipFamilies"] {
            let (now, before) = (spec.get(list), old.get(list));
            match (now.list().first(), before.list().first()) {
                (Some(now_first), Some(first)) if now_first != first => {
                    now.index(0).invalid_value(errors, now.value.clone(), "may not change once set");
                }
                (None, Some(_)) => now.index(0).invalid_value(errors, "", "primary clusterIP can not be unset"),
                _ => {}
            }
        }
    }
    if kind == "LoadBalancer" && old_kind == "LoadBalancer" {
        let (class, old_class) = (spec.get("loadBalancerClass"), old.get("loadBalancerClass"));
        if class.value != old_class.value {
            class.invalid(errors, "may not change once set");
        }
    }
}
