//! Bridge and tunnel.

use std::net::IpAddr;

use ipnet::IpNet;

use super::OverlayError;
use super::files::State;
use super::peers::tunnel_mac;
use crate::cni::gateway;
use crate::rtnl::{Link, Mac, Route, RouteSocket, Vxlan};
use crate::{BRIDGE, TUNNEL};

const VNI: u32 = 1;
const PORT: u16 = 8472;
const BRIDGE_MAC: u8 = 0x42;
/// For a node whose address is on no interface that says its own.
const USUAL_MTU: u32 = 1500;

pub(super) struct Devices {
    bridge: u32,
    /// Index of the tunnel's interface; none if the kernel cannot have one and nobody needs it.
    pub(super) tunnel: Option<u32>,
    /// What fits into a tunnel's packet.
    pub(super) mtu: u32,
}

/// Creates what is missing, and anew what is different.
pub(super) fn ensure(socket: &mut RouteSocket, state: &State) -> Result<Devices, OverlayError> {
    let uplink = uplink(socket, state.node_ip)?;
    let outer = uplink.as_ref().map_or(USUAL_MTU, |link| link.mtu);
    let mtu = outer - overhead(state.node_ip);
    let bridge = ensure_bridge(socket, state.subnet, mtu)?;
    set_addresses(socket, &bridge, IpNet::new(gateway(state.subnet), state.subnet.prefix_len()).ok())?;
    let device = uplink.map_or(0, |link| link.index);
    let vxlan = Vxlan { vni: VNI, port: PORT, local: state.node_ip, device };
    let tunnel = match ensure_tunnel(socket, vxlan, mtu) {
        Ok(tunnel) => Some(tunnel),
        Err(error) if state.peers.is_empty() => {
            tracing::warn!(%error, "this node cannot be joined by others: VXLAN does not work");
            None
        }
        Err(error) => return Err(error),
    };
    if let Some(tunnel) = &tunnel {
        // The source of what the host itself sends to other nodes' pods.
        set_addresses(socket, tunnel, Some(IpNet::from(state.subnet.network())))?;
    }
    Ok(Devices { bridge: bridge.index, tunnel: tunnel.map(|tunnel| tunnel.index), mtu })
}

/// Lets the host choose an address of the pod network as its own for what it sends to services.
pub(super) fn route_services(
    socket: &mut RouteSocket,
    devices: &Devices,
    subnet: IpNet,
    service_cidrs: &[IpNet],
) -> Result<(), OverlayError> {
    for cidr in service_cidrs.iter().filter(|cidr| cidr.addr().is_ipv4() == subnet.addr().is_ipv4()) {
        let source = Some(gateway(subnet));
        let route = Route { destination: *cidr, gateway: None, device: devices.bridge, onlink: false, source };
        if !socket.routes(devices.bridge)?.contains(&route) {
            socket.replace_route(&route)?;
        }
    }
    Ok(())
}

/// Outer IP, UDP, VXLAN and inner Ethernet headers.
fn overhead(node_ip: IpAddr) -> u32 {
    if node_ip.is_ipv4() { 50 } else { 70 }
}

/// The interface that has the node's address, unless it is loopback.
fn uplink(socket: &mut RouteSocket, node_ip: IpAddr) -> Result<Option<Link>, OverlayError> {
    let index = socket.addresses()?.into_iter().find_map(|(index, net)| (net.addr() == node_ip).then_some(index));
    let links = socket.links()?;
    Ok(links.into_iter().find(|link| Some(link.index) == index && link.name != "lo"))
}

fn ensure_bridge(socket: &mut RouteSocket, subnet: IpNet, mtu: u32) -> Result<Link, OverlayError> {
    let mac = Mac::of(BRIDGE_MAC, subnet.network());
    let link = match socket.link(BRIDGE) {
        Ok(link) if link.kind == "bridge" && link.mac == Some(mac) => link,
        Ok(_) => {
            socket.delete_link(BRIDGE)?;
            socket.create_bridge(BRIDGE, mac, mtu)?
        }
        Err(error) if error.is_missing() => socket.create_bridge(BRIDGE, mac, mtu)?,
        Err(error) => return Err(error.into()),
    };
    if link.mtu != mtu {
        socket.set_mtu(link.index, mtu)?;
    }
    if !link.up {
        socket.set_up(link.index)?;
    }
    Ok(link)
}

fn ensure_tunnel(socket: &mut RouteSocket, vxlan: Vxlan, mtu: u32) -> Result<Link, OverlayError> {
    let mac = tunnel_mac(vxlan.local);
    match socket.link(TUNNEL) {
        Ok(link) if link.vxlan() == Some(&vxlan) && link.mac == Some(mac) && link.mtu == mtu && link.up => Ok(link),
        Ok(_) => {
            socket.delete_link(TUNNEL)?;
            Ok(socket.create_vxlan(TUNNEL, mac, mtu, vxlan)?)
        }
        Err(error) if error.is_missing() => Ok(socket.create_vxlan(TUNNEL, mac, mtu, vxlan)?),
        Err(error) => Err(error.into()),
    }
}

/// Makes `address` the interface's only one, but for link-local ones, which the kernel gives.
fn set_addresses(socket: &mut RouteSocket, link: &Link, address: Option<IpNet>) -> Result<(), OverlayError> {
    for (index, found) in socket.addresses()? {
        let link_local = matches!(found.addr(), IpAddr::V6(v6) if v6.is_unicast_link_local());
        if index == link.index && Some(found) != address && !link_local {
            socket.delete_address(index, found)?;
        }
    }
    match address {
        Some(address) => Ok(socket.add_address(link.index, address)?),
        None => Ok(()),
    }
}
