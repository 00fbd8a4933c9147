//! What a Service uses of the shared ranges.

use std::collections::BTreeSet;
use std::net::IpAddr;

use kube1_api::field::FieldPath;
use serde_json::Value;

/// Addresses and ports of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Claims {
    pub addresses: BTreeSet<IpAddr>,
    pub ports: BTreeSet<u16>,
}

impl Claims {
    pub fn of(service: &Value) -> Self {
        let addresses = if needs_addresses(service) { addresses_of(service) } else { Vec::new() };
        let ports = wanted_ports(service).into_iter().filter_map(|(_, port)| port);
        Self { addresses: addresses.into_iter().collect(), ports: ports.collect() }
    }

    pub fn without(&self, other: &Self) -> Self {
        Self {
            addresses: self.addresses.difference(&other.addresses).copied().collect(),
            ports: self.ports.difference(&other.ports).copied().collect(),
        }
    }
}

fn kind(service: &Value) -> &str {
    service["spec"]["type"].as_str().unwrap_or("ClusterIP")
}

pub(super) fn is_headless(service: &Value) -> bool {
    service["spec"]["clusterIP"] == "None" || service["spec"]["clusterIPs"][0] == "None"
}

pub(super) fn is_external(service: &Value) -> bool {
    kind(service) == "ExternalName"
}

pub(super) fn needs_addresses(service: &Value) -> bool {
    !is_external(service) && !is_headless(service)
}

/// The addresses it has or asks for, in order.
pub(super) fn addresses_of(service: &Value) -> Vec<IpAddr> {
    let listed = service["spec"]["clusterIPs"].as_array().into_iter().flatten();
    let listed: Vec<IpAddr> = listed.filter_map(|ip| ip.as_str()?.parse().ok()).collect();
    if !listed.is_empty() {
        return listed;
    }
    service["spec"]["clusterIP"].as_str().and_then(|ip| ip.parse().ok()).into_iter().collect()
}

/// Where a Service names a node port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PortPath {
    Port(usize),
    HealthCheck,
}

impl PortPath {
    pub fn field(self) -> FieldPath {
        let spec = FieldPath::new("spec");
        match self {
            Self::Port(index) => spec.child("ports").index(index).child("nodePort"),
            Self::HealthCheck => spec.child("healthCheckNodePort"),
        }
    }
}

/// The node ports it needs, and those among them that it names. Those come first, so that none is handed out before.
pub(super) fn wanted_ports(service: &Value) -> Vec<(PortPath, Option<u16>)> {
    let spec = &service["spec"];
    let number = |value: &Value| value.as_u64().and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0);
    let every = match kind(service) {
        "NodePort" => true,
        "LoadBalancer" => spec["allocateLoadBalancerNodePorts"].as_bool() != Some(false),
        _ => return Vec::new(),
    };
    let ports = spec["ports"].as_array().into_iter().flatten().enumerate();
    let mut wanted: Vec<(PortPath, Option<u16>)> = ports
        .map(|(index, port)| (PortPath::Port(index), number(&port["nodePort"])))
        .filter(|(_, port)| every || port.is_some())
        .collect();
    if kind(service) == "LoadBalancer" && spec["externalTrafficPolicy"] == "Local" {
        wanted.push((PortPath::HealthCheck, number(&spec["healthCheckNodePort"])));
    }
    wanted.sort_by_key(|(_, port)| port.is_none());
    wanted
}

/// The node port of a port with the same number and another protocol.
pub(super) fn shared_port(service: &Value, path: &PortPath) -> Option<u16> {
    let PortPath::Port(index) = path else { return None };
    let ports = service["spec"]["ports"].as_array()?;
    let this = ports.get(*index)?;
    let twin = ports.iter().find(|p| {
        p["port"] == this["port"] && p["protocol"] != this["protocol"] && p["nodePort"].as_u64().is_some_and(|n| n != 0)
    })?;
    twin["nodePort"].as_u64().and_then(|p| u16::try_from(p).ok())
}

pub(super) fn set_port(service: &mut Value, path: &PortPath, port: u16) {
    match path {
        PortPath::Port(index) => service["spec"]["ports"][*index]["nodePort"] = port.into(),
        PortPath::HealthCheck => service["spec"]["healthCheckNodePort"] = port.into(),
    }
}
