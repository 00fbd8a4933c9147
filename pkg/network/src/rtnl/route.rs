//! Routes, neighbours and forwarding entries.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};

use super::{Mac, NetlinkError, RouteSocket};

/// A route of the main table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    pub destination: IpNet,
    /// Without it the destination is reached directly.
    pub gateway: Option<IpAddr>,
    /// Index of the interface.
    pub device: u32,
    /// Take the gateway to be reachable although no address of the interface says so.
    pub onlink: bool,
    /// The address that this host's own packets get.
    pub source: Option<IpAddr>,
}

/// What is known of a neighbour: for an IP address its MAC, for a MAC on a tunnel (`Forward`) the node behind which it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Neighbour {
    Address { ip: IpAddr, mac: Mac },
    Forward { mac: Mac, node: IpAddr },
}

impl RouteSocket {
    /// Routes by unicast through an interface.
    pub fn routes(&mut self, device: u32) -> Result<Vec<Route>, NetlinkError> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            self.dump(Message::GetRoute(message), |answer| {
                if let Message::NewRoute(message) = answer {
                    routes.extend(parse_route(&message).filter(|route| route.device == device));
                }
            })?;
        }
        Ok(routes)
    }

    /// Adds a route, in place of one with the same destination.
    pub fn replace_route(&mut self, route: &Route) -> Result<(), NetlinkError> {
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        self.change(Message::NewRoute(route_message(route)), flags, || format!("add route to {}", route.destination))
    }

    /// Removes a route; harmless when it is not there.
    pub fn delete_route(&mut self, route: &Route) -> Result<(), NetlinkError> {
        let message = Message::DelRoute(route_message(route));
        match self.change(message, 0, || format!("remove route to {}", route.destination)) {
            Err(error) if error.is_missing() => Ok(()),
            result => result,
        }
    }

    /// Permanent neighbours and forwarding entries of an interface.
    pub fn neighbours(&mut self, device: u32) -> Result<Vec<Neighbour>, NetlinkError> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6, AddressFamily::Bridge] {
            let mut message = NeighbourMessage::default();
            message.header.family = family;
            self.dump(Message::GetNeighbour(message), |answer| {
                let Message::NewNeighbour(message) = answer else { return };
                let header = &message.header;
                if header.ifindex == device && header.state == NeighbourState::Permanent {
                    found.extend(parse_neighbour(&message));
                }
            })?;
        }
        Ok(found)
    }

    pub fn replace_neighbour(&mut self, device: u32, neighbour: Neighbour) -> Result<(), NetlinkError> {
        let message = Message::NewNeighbour(neighbour_message(device, neighbour));
        self.change(message, NLM_F_CREATE | NLM_F_REPLACE, || format!("add neighbour {neighbour:?}"))
    }

    /// Removes an entry; harmless when it is not there.
    pub fn delete_neighbour(&mut self, device: u32, neighbour: Neighbour) -> Result<(), NetlinkError> {
        let message = Message::DelNeighbour(neighbour_message(device, neighbour));
        match self.change(message, 0, || format!("remove neighbour {neighbour:?}")) {
            Err(error) if error.is_missing() => Ok(()),
            result => result,
        }
    }
}

pub(super) fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn route_message(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: family(route.destination.addr()),
        destination_prefix_length: route.destination.prefix_len(),
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::Static,
        scope: if route.gateway.is_some() { RouteScope::Universe } else { RouteScope::Link },
        kind: RouteType::Unicast,
        flags: if route.onlink { RouteFlags::Onlink } else { RouteFlags::empty() },
        ..RouteHeader::default()
    };
    if route.destination.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(route.destination.network().into()));
    }
    message.attributes.extend(route.gateway.map(|gateway| RouteAttribute::Gateway(gateway.into())));
    message.attributes.push(RouteAttribute::Oif(route.device));
    message.attributes.extend(route.source.map(|source| RouteAttribute::PrefSource(source.into())));
    message
}

fn parse_route(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    if header.table != RouteHeader::RT_TABLE_MAIN || header.kind != RouteType::Unicast {
        return None;
    }
    let unspecified =
        if header.address_family == AddressFamily::Inet { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    let (mut destination, mut gateway, mut device, mut source) = (unspecified, None, 0, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = route_ip(address)?,
            RouteAttribute::Gateway(address) => gateway = route_ip(address),
            RouteAttribute::PrefSource(address) => source = route_ip(address),
            RouteAttribute::Oif(index) => device = *index,
            _ => {}
        }
    }
    let destination = IpNet::new(destination, header.destination_prefix_length).ok()?;
    Some(Route { destination, gateway, device, onlink: header.flags.contains(RouteFlags::Onlink), source })
}

fn route_ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

fn neighbour_message(device: u32, neighbour: Neighbour) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = device;
    message.header.state = NeighbourState::Permanent;
    message.header.kind = RouteType::Unicast;
    let (ip, mac) = match neighbour {
        Neighbour::Address { ip, mac } => {
            message.header.family = family(ip);
            (ip, mac)
        }
        Neighbour::Forward { mac, node } => {
            message.header.family = AddressFamily::Bridge;
            message.header.flags = NeighbourFlags::Own;
            (node, mac)
        }
    };
    let ip = match ip {
        IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
        IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
    };
    message.attributes =
        vec![NeighbourAttribute::Destination(ip), NeighbourAttribute::LinkLayerAddress(mac.0.to_vec())];
    message
}

fn parse_neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    let (mut ip, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => ip = Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => ip = Some(IpAddr::V6(*v6)),
            NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => ip = ip_of(bytes),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = <[u8; 6]>::try_from(&bytes[..]).ok().map(Mac),
            _ => {}
        }
    }
    let forward = message.header.family == AddressFamily::Bridge;
    let (ip, mac) = (ip?, mac?);
    Some(if forward { Neighbour::Forward { mac, node: ip } } else { Neighbour::Address { ip, mac } })
}

fn ip_of(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from).ok();
    v4.or_else(|| <[u8; 16]>::try_from(bytes).map(IpAddr::from).ok())
}
