//! Cells of services and their endpoints.

use serde_json::Value;

use super::cells::{NONE, UNKNOWN, UNSET, find, first_three, items, joined, or, shown, text};
use super::policy::load_balancer_addresses;

pub(super) fn cluster_ip(service: &Value) -> String {
    or(shown(&service["spec"]["clusterIPs"][0]), NONE)
}

pub(super) fn external_ip(service: &Value) -> String {
    let external: Vec<String> = items(service, "spec.externalIPs").map(shown).collect();
    match text(service, "spec.type") {
        "ClusterIP" | "NodePort" => or(external.join(","), NONE),
        "LoadBalancer" => or(joined(load_balancer_addresses(service).into_iter().chain(external), ","), "<pending>"),
        "ExternalName" => text(service, "spec.externalName").to_owned(),
        _ => UNKNOWN.to_owned(),
    }
}

pub(super) fn service_ports(service: &Value) -> String {
    let ports = items(service, "spec.ports").map(|port| {
        let (number, protocol) = (shown(&port["port"]), text(port, "protocol"));
        match port["nodePort"].as_i64().unwrap_or(0) {
            0 => format!("{number}/{protocol}"),
            node_port => format!("{number}:{node_port}/{protocol}"),
        }
    });
    or(joined(ports, ","), NONE)
}

/// An address and port; IPv6 addresses in brackets.
fn socket(address: &str, port: &str) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

pub(super) fn endpoints(endpoints: &Value) -> String {
    let mut all = Vec::new();
    for subset in items(endpoints, "subsets") {
        let addresses = || items(subset, "addresses").map(|a| text(a, "ip"));
        let ports: Vec<String> = items(subset, "ports").map(|p| shown(&p["port"])).collect();
        if ports.is_empty() {
            all.extend(addresses().map(str::to_owned));
        }
        all.extend(ports.iter().flat_map(|port| addresses().map(move |address| socket(address, port))));
    }
    or(first_three(&all), NONE)
}

pub(super) fn slice_ports(slice: &Value) -> String {
    let ports: Vec<String> = items(slice, "ports")
        .map(|port| or(shown(&port["port"]), text(port, "name")))
        .map(|port| or(port, "*"))
        .collect();
    or(first_three(&ports), UNSET)
}

pub(super) fn slice_endpoints(slice: &Value) -> String {
    let all: Vec<String> = items(slice, "endpoints").flat_map(|e| items(e, "addresses")).map(shown).collect();
    or(first_three(&all), UNSET)
}

pub(super) fn parent_ref(address: &Value) -> String {
    let parent = find(address, "spec.parentRef");
    if parent.is_null() {
        return NONE.to_owned();
    }
    let mut shown = text(parent, "resource").to_lowercase();
    for (separator, member) in [(".", "group"), ("/", "namespace"), ("/", "name")] {
        if !text(parent, member).is_empty() {
            shown.push_str(separator);
            shown.push_str(text(parent, member));
        }
    }
    shown
}
