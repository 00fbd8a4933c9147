//! The other nodes: where their pods are and how packets get there.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use kube1_client::Keep;
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

/// What is kept of a node. Its whole object is long: it lists the images that are there.
#[derive(Clone, Debug)]
pub(super) struct PeerNode {
    name: Box<str>,
    version: u64,
    /// The node's range of pod addresses.
    pub subnet: Option<IpNet>,
    internal: Option<IpAddr>,
}

impl PeerNode {
    /// Nothing if the node has no pod addresses or no internal address yet.
    pub fn peer(&self) -> Option<Peer> {
        Some(Peer { subnet: self.subnet?, node_ip: self.internal? })
    }
}

impl Keep for PeerNode {
    type Object = Node;

    fn keep(node: Node) -> Self {
        let addresses = node.status.as_ref().and_then(|status| status.addresses.as_ref());
        let internal = addresses.into_iter().flatten().find(|address| address.type_ == "InternalIP");
        Self {
            version: Keep::version(&node),
            subnet: node.spec.as_ref().and_then(|spec| spec.pod_cidr.as_ref()?.parse().ok()),
            internal: internal.and_then(|address| address.address.parse().ok()),
            name: node.metadata.name.unwrap_or_default().into(),
        }
    }

    fn full_name(&self) -> (&str, &str) {
        ("", &self.name)
    }

    fn version(&self) -> u64 {
        self.version
    }
}

impl Peer {
    fn route(&self, device: u32) -> Route {
        let gateway = Some(self.subnet.network());
        Route { destination: self.subnet, gateway, device, onlink: true, source: None }
    }

    fn neighbours(&self) -> [Neighbour; 2] {
        let mac = tunnel_mac(self.node_ip);
        [Neighbour::Address { ip: self.subnet.network(), mac }, Neighbour::Forward { mac, node: self.node_ip }]
    }
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_is_a_peer_once_it_has_its_range_and_an_address() {
        let keep = |node: serde_json::Value| PeerNode::keep(serde_json::from_value(node).unwrap());
        let node = keep(json!({"metadata": {"name": "a", "resourceVersion": "7"}, "spec": {"podCIDR": "10.42.1.0/24"},
            "status": {"addresses": [{"type": "Hostname", "address": "a"}, {"type": "InternalIP", "address": "192.0.2.1"}],
                "images": [{"names": ["i"]}]}}));
        let peer = node.peer().unwrap();
        assert_eq!(
            (peer.subnet.to_string().as_str(), peer.node_ip.to_string().as_str()),
            ("10.42.1.0/24", "192.0.2.1")
        );
        assert_eq!((node.full_name(), Keep::version(&node)), (("", "a"), 7));
        assert!(keep(json!({"metadata": {"name": "a"}, "spec": {"podCIDR": "10.42.1.0/24"}})).peer().is_none());
    }
}
