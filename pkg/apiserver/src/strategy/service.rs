//! Services: what a change of type makes meaningless, and what an update may leave out.

use serde_json::{Value, json};

use super::{Context, remove, set};

pub(super) fn create(service: &mut Value, _: &Context<'_>) {
    service["status"] = json!({"loadBalancer": {}});
    if service["spec"]["type"] == "ExternalName" {
        remove(&mut service["spec"], "internalTrafficPolicy");
    }
}

/// Fills in what was allocated before and is left out now, then clears what the new type does not have.
pub(super) fn update(new: &mut Value, old: &Value, _: &Context<'_>) {
    if kind(new) != "ExternalName" && kind(old) != "ExternalName" {
        keep_cluster_ips(new, old);
    }
    follow_cluster_ip(new, old);
    clear_meaningless(new, old);
    if has_node_ports(new) && has_node_ports(old) {
        keep_node_ports(new, old);
    }
    if needs_health_port(new) && needs_health_port(old) && unset(&new["spec"]["healthCheckNodePort"]) {
        copy(new, old, "healthCheckNodePort");
    }
    if kind(new) != "LoadBalancer" {
        new["status"]["loadBalancer"] = json!({});
    }
}

fn kind(service: &Value) -> &str {
    service["spec"]["type"].as_str().unwrap_or("ClusterIP")
}

fn has_node_ports(service: &Value) -> bool {
    matches!(kind(service), "NodePort" | "LoadBalancer")
}

fn needs_health_port(service: &Value) -> bool {
    kind(service) == "LoadBalancer" && service["spec"]["externalTrafficPolicy"] == "Local"
}

fn unset(value: &Value) -> bool {
    value.is_null() || value == 0 || value == ""
}

fn copy(new: &mut Value, old: &Value, member: &str) {
    set(new, &["spec", member], old["spec"][member].clone());
}

fn same(new: &Value, old: &Value, member: &str) -> bool {
    new["spec"][member] == old["spec"][member]
}

/// A member that the old type needed and the caller did not touch goes with the type.
fn clear_meaningless(new: &mut Value, old: &Value) {
    let drop_all = |new: &mut Value, members: &[&str]| {
        for member in members {
            if same(new, old, member) {
                remove(&mut new["spec"], member);
            }
        }
    };
    if kind(old) != "ExternalName" && kind(new) == "ExternalName" {
        if same(new, old, "clusterIP") && same(new, old, "clusterIPs") {
            drop_all(new, &["clusterIP", "clusterIPs"]);
        }
        drop_all(new, &["ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"]);
    }
    if has_node_ports(old) && !has_node_ports(new) {
        clear_node_ports(new, old);
        if externally_reachable(old) && !externally_reachable(new) {
            drop_all(new, &["externalTrafficPolicy"]);
        }
    }
    if needs_health_port(old) && !needs_health_port(new) {
        drop_all(new, &["healthCheckNodePort"]);
    }
    if kind(old) == "LoadBalancer" && kind(new) != "LoadBalancer" {
        drop_all(new, &["allocateLoadBalancerNodePorts", "loadBalancerClass"]);
    }
}

fn externally_reachable(service: &Value) -> bool {
    let external = service["spec"]["externalIPs"].as_array().is_some_and(|ips| !ips.is_empty());
    has_node_ports(service) || (kind(service) == "ClusterIP" && external)
}

fn clear_node_ports(new: &mut Value, old: &Value) {
    let old_ports = old["spec"]["ports"].as_array().cloned().unwrap_or_default();
    let used = |port: &Value| old_ports.iter().any(|o| o["nodePort"] == port["nodePort"]);
    for port in ports_mut(new) {
        if used(port) {
            remove(port, "nodePort");
        }
    }
}

fn keep_cluster_ips(new: &mut Value, old: &Value) {
    if unset(&new["spec"]["clusterIP"]) {
        copy(new, old, "clusterIP");
    }
    if no_ips(new) && same(new, old, "clusterIP") {
        copy(new, old, "clusterIPs");
    }
}

fn no_ips(service: &Value) -> bool {
    service["spec"]["clusterIPs"].as_array().is_none_or(Vec::is_empty)
}

/// Old clients know of `clusterIP` only, and send `clusterIPs` as they were or not at all: they are made to follow it.
fn follow_cluster_ip(new: &mut Value, old: &Value) {
    let text = |service: &Value| service["spec"]["clusterIP"].as_str().unwrap_or_default().to_owned();
    let (ip, before) = (text(new), text(old));
    if ip == before {
        if no_ips(new) && !no_ips(old) {
            copy(new, old, "clusterIPs");
        }
    } else if no_ips(new) && no_ips(old) || same(new, old, "clusterIPs") {
        match ip.as_str() {
            "" => remove(&mut new["spec"], "clusterIPs"),
            ip => set(new, &["spec", "clusterIPs"], json!([ip])),
        }
    }
}

/// Ports are the same when they have the same name, or failing that the same protocol and port.
fn keep_node_ports(new: &mut Value, old: &Value) {
    let old_ports = old["spec"]["ports"].as_array().cloned().unwrap_or_default();
    let mut used: Vec<Value> = ports_mut(new).map(|p| p["nodePort"].clone()).filter(|p| !unset(p)).collect();
    for port in ports_mut(new) {
        if !unset(&port["nodePort"]) {
            continue;
        }
        let by_name = old_ports.iter().find(|o| o["name"].as_str() == port["name"].as_str());
        let by_port = || old_ports.iter().find(|o| o["protocol"] == port["protocol"] && o["port"] == port["port"]);
        let found = by_name.or_else(by_port).map(|o| o["nodePort"].clone());
        if let Some(node_port) = found.filter(|p| !unset(p) && !used.contains(p)) {
            used.push(node_port.clone());
            port["nodePort"] = node_port;
        }
    }
}

fn ports_mut(service: &mut Value) -> impl Iterator<Item = &mut Value> {
    service.get_mut("spec").and_then(|s| s.get_mut("ports")).and_then(Value::as_array_mut).into_iter().flatten()
}
