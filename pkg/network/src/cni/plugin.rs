//! A pod's interface: a veth pair whose host end is a port of the node's bridge.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;

use ipnet::IpNet;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::addresses::{Addresses, AllocationError, gateway};
use super::host_ports::{self, HostPortError};
use super::spec::{self, Attachment, Call, CniError, Config};
use crate::rtnl::{Link, Mac, Neighbour, NetlinkError, Route, RouteSocket};
use crate::{conntrack, netns};

const UDP: u8 = 17;
/// Makes a pod interface's MAC from its address.
const POD_MAC: u8 = 0x58;

impl From<AllocationError> for CniError {
    fn from(error: AllocationError) -> Self {
        match error {
            AllocationError::Exhausted(subnet) => Self::exhausted(subnet),
            AllocationError::Io { dir, source } => Self::io(&format!("cannot use {}", dir.display()), &source),
        }
    }
}

impl From<HostPortError> for CniError {
    fn from(error: HostPortError) -> Self {
        Self::kernel("cannot set up the pod's host ports", &error)
    }
}

impl From<NetlinkError> for CniError {
    fn from(error: NetlinkError) -> Self {
        Self::kernel("cannot set up the pod's network", &error)
    }
}

/// The owner of an address, as it is recorded.
fn owner(container: &str, interface: &str) -> String {
    format!("{container}/{interface}")
}

/// The name of the host's end, the same in every call for this interface.
fn host_interface(owner: &str) -> String {
    format!("veth{}", &hex::encode(Sha256::digest(owner))[..11])
}

/// Whether pods can be added.
pub(super) fn status(config: &Config) -> Result<(), CniError> {
    config.pod_subnet()?;
    let bridge = RouteSocket::open()?.link(&config.bridge);
    bridge.map(|_| ()).map_err(|_| CniError::not_available(&format!("interface {} is missing", config.bridge)))
}

pub(super) fn add(config: &Config, call: &Call) -> Result<Value, CniError> {
    let (subnet, owner) = (config.pod_subnet()?, owner(&call.container_id, &call.interface));
    let mut socket = RouteSocket::open()?;
    let bridge = socket.link(&config.bridge);
    let bridge = bridge.map_err(|_| CniError::try_again(&format!("interface {} is missing", config.bridge)))?;
    let address = Addresses::lock(&config.data_dir)?.allocate(subnet, &owner)?;
    let wired = wire(config, call, &mut socket, &bridge, address, subnet);
    if wired.is_err() {
        // What was done would never be deleted if the runtime gave up; its own DEL is harmless after this.
        let _ = delete(config, call);
    }
    wired
}

fn wire(
    config: &Config,
    call: &Call,
    socket: &mut RouteSocket,
    bridge: &Link,
    address: IpAddr,
    subnet: IpNet,
) -> Result<Value, CniError> {
    let host_name = host_interface(&owner(&call.container_id, &call.interface));
    let namespace = call.namespace()?;
    let file =
        File::open(namespace).map_err(|error| CniError::io("cannot open the pod's network namespace", &error))?;
    let mac = Mac::of(POD_MAC, address);
    socket.delete_link(&host_name)?;
    socket.create_veth(&host_name, &call.interface, mac, config.mtu, file.as_raw_fd())?;
    let host = socket.link(&host_name)?;
    socket.attach(host.index, bridge.index)?;
    socket.set_up(host.index)?;
    let router = gateway(subnet);
    netns::within(namespace, || configure(&call.interface, address, router, bridge.mac))
        .map_err(|error| CniError::io("cannot enter the pod's network namespace", &error))??;
    // The first packet to the pod need not wait for an answer to ARP.
    socket.replace_neighbour(bridge.index, Neighbour::Address { ip: address, mac })?;
    let ports = &config.runtime_config.port_mappings;
    if !ports.is_empty() {
        let _lock = Addresses::lock(&config.data_dir)?;
        host_ports::open(&config.data_dir, &call.container_id, address, ports)?;
    }
    let interfaces = json!([
        {"name": host_name, "mac": host.mac.map(|mac| mac.to_string()).unwrap_or_default()},
        {"name": call.interface, "mac": mac.to_string(), "sandbox": namespace},
    ]);
    Ok(spec::result(config, interfaces, Some((IpNet::from(address), router))))
}

/// Inside the pod's namespace: address, and routes that lead everything to the node.
fn configure(interface: &str, address: IpAddr, router: IpAddr, router_mac: Option<Mac>) -> Result<(), NetlinkError> {
    let mut socket = RouteSocket::open()?;
    let link = socket.link(interface)?;
    socket.add_address(link.index, IpNet::from(address))?;
    socket.set_up(link.index)?;
    for route in routes(link.index, router) {
        socket.replace_route(&route)?;
    }
    if let Some(mac) = router_mac {
        socket.replace_neighbour(link.index, Neighbour::Address { ip: router, mac })?;
    }
    Ok(())
}

fn routes(device: u32, router: IpAddr) -> [Route; 2] {
    let any = if router.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    let all = IpNet::new(any, 0).expect("zero is a valid prefix length");
    [
        Route { destination: IpNet::from(router), gateway: None, device, onlink: false, source: None },
        Route { destination: all, gateway: Some(router), device, onlink: false, source: None },
    ]
}

/// Undoes an ADD, however much of it was done; harmless to repeat.
pub(super) fn delete(config: &Config, call: &Call) -> Result<(), CniError> {
    release(config, &Attachment { container_id: call.container_id.clone(), ifname: call.interface.clone() })
}

fn release(config: &Config, attachment: &Attachment) -> Result<(), CniError> {
    let owner = owner(&attachment.container_id, &attachment.ifname);
    let mut socket = RouteSocket::open()?;
    socket.delete_link(&host_interface(&owner))?;
    let addresses = Addresses::lock(&config.data_dir)?;
    let had_ports = host_ports::close(&config.data_dir, &attachment.container_id)?;
    let held = addresses.address_of(&owner)?;
    if let (Some(address), Ok(bridge)) = (held, socket.link(&config.bridge)) {
        let mac = Mac::of(POD_MAC, address);
        socket.delete_neighbour(bridge.index, Neighbour::Address { ip: address, mac })?;
    }
    if had_ports && let Some(address) = held {
        // A later pod may get these ports; packets of an old flow must not go on to this address.
        let stale = |flow: &conntrack::Flow| flow.protocol == UDP && flow.answered_by.0 == address;
        conntrack::forget(address.is_ipv6(), stale)
            .map_err(|error: io::Error| CniError::kernel("cannot forget the pod's connections", &error))?;
    }
    addresses.free(&owner)?;
    Ok(())
}

/// Whether the pod's network is still what ADD made.
pub(super) fn check(config: &Config, call: &Call) -> Result<(), CniError> {
    let owner = owner(&call.container_id, &call.interface);
    let address = Addresses::lock(&config.data_dir)?.address_of(&owner)?;
    let address = address.ok_or_else(|| CniError::check("no address is recorded".to_owned()))?;
    let previous = config.prev_result.as_ref().and_then(|result| result["ips"][0]["address"].as_str());
    if previous.is_some_and(|previous| previous != IpNet::from(address).to_string()) {
        return Err(CniError::check(format!("its address is {address}, not {}", previous.unwrap_or_default())));
    }
    let router = gateway(config.pod_subnet()?);
    let host = RouteSocket::open()?.link(&host_interface(&owner))?;
    if !host.up || host.controller.is_none() {
        return Err(CniError::check(format!("{} is down or not in its bridge", host.name)));
    }
    let seen = netns::within(call.namespace()?, || {
        let mut socket = RouteSocket::open()?;
        let link = socket.link(&call.interface)?;
        let addresses = socket.addresses()?;
        let routes_there = socket.routes(link.index)?;
        Ok::<_, NetlinkError>((link, addresses, routes_there))
    });
    let (link, addresses, there) =
        seen.map_err(|error| CniError::io("cannot enter the pod's network namespace", &error))??;
    if !link.up || !addresses.contains(&(link.index, IpNet::from(address))) {
        return Err(CniError::check(format!("{} is down or has lost address {address}", link.name)));
    }
    match routes(link.index, router).iter().find(|route| !there.contains(route)) {
        Some(route) => Err(CniError::check(format!("the route to {} is missing", route.destination))),
        None => Ok(()),
    }
}

/// Releases everything but the attachments that the runtime says are alive.
pub(super) fn collect_garbage(config: &Config) -> Result<(), CniError> {
    let Some(valid) = &config.valid_attachments else {
        return Err(CniError::environment("cni.dev/valid-attachments is missing"));
    };
    let owners = Addresses::lock(&config.data_dir)?.owners()?;
    for owner in owners {
        let Some((container_id, ifname)) = owner.split_once('/') else { continue };
        let attachment = Attachment { container_id: container_id.to_owned(), ifname: ifname.to_owned() };
        if !valid.contains(&attachment) {
            release(config, &attachment)?;
        }
    }
    Ok(())
}
