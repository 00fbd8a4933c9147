//! From a Service's port to an address that answers for it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use kube1_api::resource::ResourceTable;
use rand::seq::IndexedRandom;
use serde_json::Value;

use super::connect::Address;
use crate::storage::{Collection, Storage};

const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// Why a Service has no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    #[error("service \"{0}\" not found")]
    NoService(String),
    #[error("service \"{service}\" has no port {port}")]
    NoPort { service: String, port: String },
    #[error("no endpoints available for service \"{0}\"")]
    NoEndpoints(String),
}

/// Finds addresses of Services in what is stored.
#[derive(Clone)]
pub struct Resolver {
    services: Arc<Collection>,
    slices: Arc<Collection>,
}

impl Resolver {
    /// None if the table serves no Services.
    pub fn new(storage: &Storage, table: &ResourceTable) -> Option<Self> {
        let services = storage.collection(&*table.stored("", "services")?);
        let slices = storage.collection(&*table.stored("discovery.k8s.io", "endpointslices")?);
        Some(Self { services, slices })
    }

    /// A ready endpoint of a port, by its number or name; an empty port means the only one.
    pub fn endpoint(&self, namespace: &str, name: &str, port: &str) -> Result<SocketAddr, ResolveError> {
        let service = self.services.get(namespace, name).ok_or_else(|| ResolveError::NoService(name.to_owned()))?;
        let service = service.value();
        let ports = service["spec"]["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
        let wanted = ports.iter().find(|p| match port {
            "" => ports.len() == 1,
            _ => p["name"] == port || p["port"].as_u64().is_some_and(|n| n.to_string() == port),
        });
        let no_port = || ResolveError::NoPort { service: name.to_owned(), port: port.to_owned() };
        let port_name = wanted.ok_or_else(no_port)?["name"].as_str().unwrap_or_default();
        let addresses = self.ready(namespace, name, port_name);
        addresses.choose(&mut rand::rng()).copied().ok_or_else(|| ResolveError::NoEndpoints(name.to_owned()))
    }

    /// Where a Service that has a name outside of the cluster leads; none for all others.
    pub fn external(&self, namespace: &str, name: &str, port: u16) -> Option<Address> {
        let service = self.services.get(namespace, name)?.value();
        let host = service["spec"]["externalName"].as_str().filter(|_| service["spec"]["type"] == "ExternalName")?;
        Some(Address::Host(host.to_owned(), port))
    }

    fn ready(&self, namespace: &str, name: &str, port_name: &str) -> Vec<SocketAddr> {
        let slices = self.slices.all(Some(namespace));
        let slices = slices.iter().filter(|s| s.label(SERVICE_LABEL) == Some(name)).map(|s| s.value());
        slices.flat_map(|slice| slice_addresses(&slice, port_name)).collect()
    }
}

fn slice_addresses(slice: &Value, port_name: &str) -> Vec<SocketAddr> {
    let ports = slice["ports"].as_array().into_iter().flatten();
    let port = ports.filter(|p| p["name"].as_str().unwrap_or_default() == port_name).find_map(|p| p["port"].as_u64());
    let Some(port) = port.and_then(|p| u16::try_from(p).ok()) else { return Vec::new() };
    let endpoints = slice["endpoints"].as_array().into_iter().flatten();
    let ready = endpoints.filter(|e| e["conditions"]["ready"] != false);
    let addresses = ready.flat_map(|e| e["addresses"].as_array().into_iter().flatten());
    let addresses = addresses.filter_map(|a| a.as_str()?.parse::<IpAddr>().ok());
    addresses.map(|ip| SocketAddr::new(ip, port)).collect()
}
