//! The other nodes: where their pods are and how packets get there.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use serde::{Deserialize, Serialize};

use super::OverlayError;
use crate::rtnl::{Mac, Neighbour, Route, RouteSocket};

const TUNNEL_MAC: u8 = 0x78;

/// Another node, as far as the network needs to know it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Peer {
    pub subnet: IpNet,
    pub node_ip: IpAddr,
}

impl Peer {
    /// Nothing if the node has no pod addresses or no internal address yet.
    pub fn of(node: &Node) -> Option<Self> {
        let addresses = node.status.as_ref()?.addresses.as_ref()?;
        let internal = addresses.iter().find(|address| address.type_ == "InternalIP")?;
        Some(Self { subnet: subnet(node)?, node_ip: internal.address.parse().ok()? })
    }

    fn route(&self, device: u32) -> Route {
        let gateway = Some(self.subnet.network());
        Route { destination: self.subnet, gateway, device, onlink: true, source: None }
    }

    fn neighbours(&self) -> [Neighbour; 2] {
        let mac = tunnel_mac(self.node_ip);
        [Neighbour::Address { ip: self.subnet.network(), mac }, Neighbour::Forward { mac, node: self.node_ip }]
    }
}

/// The node's range of pod addresses.
pub(super) fn subnet(node: &Node) -> Option<IpNet> {
    node.spec.as_ref()?.pod_cidr.as_ref()?.parse().ok()
}

/// The MAC of a node's tunnel interface, which every node can work out.
pub(super) fn tunnel_mac(node_ip: IpAddr) -> Mac {
    Mac::of(TUNNEL_MAC, node_ip)
}

/// Makes routes and neighbours of the tunnel those of `peers`, touching only what differs.
pub(super) fn program(
    socket: &mut RouteSocket,
    tunnel: u32,
    cluster_cidr: IpNet,
    peers: &[Peer],
) -> Result<(), OverlayError> {
    let wanted: Vec<Neighbour> = peers.iter().flat_map(Peer::neighbours).collect();
    let found = socket.neighbours(tunnel)?;
    for gone in found.iter().filter(|neighbour| !wanted.contains(neighbour)) {
        socket.delete_neighbour(tunnel, *gone)?;
    }
    for missing in wanted.iter().filter(|neighbour| !found.contains(neighbour)) {
        socket.replace_neighbour(tunnel, *missing)?;
    }
    let wanted: Vec<Route> = peers.iter().map(|peer| peer.route(tunnel)).collect();
    let found = socket.routes(tunnel)?;
    let ours = found.iter().filter(|route| route.gateway.is_some() && cluster_cidr.contains(&route.destination));
    for gone in ours.filter(|route| !wanted.contains(route)) {
        socket.delete_route(gone)?;
    }
    for missing in wanted.iter().filter(|route| !found.contains(route)) {
        socket.replace_route(missing)?;
    }
    Ok(())
}
