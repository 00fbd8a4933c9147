//! What the cluster's zone says of one service.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use serde::{Deserialize, Serialize};

/// The DNS records of a service, in a form that can be kept on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Records {
    /// Addresses of the service itself.
    Cluster { addresses: Vec<IpAddr>, ports: Vec<Port> },
    /// One host for each ready endpoint.
    Headless { hosts: Vec<Host> },
    /// Another name.
    Alias(String),
}

/// A port by which SRV records are asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    pub name: String,
    /// In lower case.
    pub protocol: String,
    pub number: u16,
}

/// An endpoint of a headless service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// The pod's hostname, or else its address with dashes.
    pub name: String,
    pub address: IpAddr,
    pub ports: Vec<Port>,
}

impl Records {
    /// Nothing for a service that has no name in DNS yet.
    pub fn of<'a>(service: &Service, slices: impl Iterator<Item = &'a EndpointSlice>) -> Option<Self> {
        let spec = service.spec.as_ref()?;
        if spec.type_.as_deref() == Some("ExternalName") {
            return spec.external_name.clone().filter(|name| !name.is_empty()).map(Self::Alias);
        }
        match spec.cluster_ip.as_deref() {
            None | Some("") => return None,
            Some("None") => return Some(Self::Headless { hosts: slices.flat_map(hosts).collect() }),
            Some(_) => {}
        }
        let ips =
            spec.cluster_ips.as_ref().filter(|ips| !ips.is_empty()).map_or(spec.cluster_ip.as_slice(), |ips| &ips[..]);
        let ports = spec
            .ports
            .iter()
            .flatten()
            .filter_map(|port| Port::new(port.name.as_deref(), port.protocol.as_deref(), Some(port.port)));
        Some(Self::Cluster { addresses: ips.iter().filter_map(|ip| ip.parse().ok()).collect(), ports: ports.collect() })
    }
}

impl Port {
    fn new(name: Option<&str>, protocol: Option<&str>, number: Option<i32>) -> Option<Self> {
        let number = u16::try_from(number?).ok()?;
        let protocol = protocol.unwrap_or("TCP").to_ascii_lowercase();
        Some(Self { name: name.unwrap_or_default().to_owned(), protocol, number })
    }
}

fn hosts(slice: &EndpointSlice) -> Vec<Host> {
    let ports = slice.ports.iter().flatten();
    let ports: Vec<Port> =
        ports.filter_map(|port| Port::new(port.name.as_deref(), port.protocol.as_deref(), port.port)).collect();
    let ready =
        |endpoint: &&Endpoint| endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true);
    let endpoints = slice.endpoints.iter().flatten().filter(ready);
    endpoints
        .flat_map(|endpoint| endpoint.addresses.iter().map(move |address| (endpoint, address)))
        .filter_map(|(endpoint, address)| {
            let address: IpAddr = address.parse().ok()?;
            let name = endpoint.hostname.clone().filter(|name| !name.is_empty());
            Some(Host { name: name.unwrap_or_else(|| dashed(address)), address, ports: ports.clone() })
        })
        .collect()
}

/// An address as a label.
pub fn dashed(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}

/// The address that a label stands for.
pub fn undashed(label: &str) -> Option<IpAddr> {
    let v4 = label.replace('-', ".").parse().map(IpAddr::V4).ok();
    v4.or_else(|| label.replace('-', ":").parse().map(IpAddr::V6).ok())
}
