//! Interfaces and their addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::RawFd;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, InfoVxlan, LinkAttribute, LinkFlags,
    LinkInfo, LinkMessage,
};

use super::{NetlinkError, RouteSocket};

/// A hardware address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// A locally administered address that depends on an IP address only, so that other nodes need not be told of it.
    pub fn of(kind: u8, address: IpAddr) -> Self {
        let [a, b, c, d] = match address {
            IpAddr::V4(v4) => v4.octets(),
            IpAddr::V6(v6) => v6.octets().chunks(4).fold([0; 4], |mut sum: [u8; 4], part| {
                sum.iter_mut().zip(part).for_each(|(sum, byte)| *sum = sum.rotate_left(1) ^ byte);
                sum
            }),
        };
        Self([0x0a, kind, a, b, c, d])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub mac: Option<Mac>,
    pub mtu: u32,
    pub up: bool,
    /// Index of the bridge that it is a port of.
    pub controller: Option<u32>,
    /// `bridge`, `vxlan`, `veth` ... for virtual interfaces.
    pub kind: String,
    vxlan: Option<Vxlan>,
}

impl Link {
    /// How it was configured, if it is a VXLAN interface.
    pub fn vxlan(&self) -> Option<&Vxlan> {
        self.vxlan.as_ref()
    }

    fn from(message: LinkMessage) -> Self {
        let mut link = Self { index: message.header.index, ..Self::default() };
        link.up = message.header.flags.contains(LinkFlags::Up);
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Controller(index) => link.controller = Some(index),
                LinkAttribute::Address(bytes) => link.mac = bytes.try_into().ok().map(Mac),
                LinkAttribute::LinkInfo(infos) => infos.into_iter().for_each(|info| match info {
                    LinkInfo::Kind(kind) => link.kind = kind.to_string(),
                    LinkInfo::Data(InfoData::Vxlan(data)) => link.vxlan = Some(Vxlan::from(&data)),
                    _ => {}
                }),
                _ => {}
            }
        }
        link
    }
}

/// A tunnel's parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vxlan {
    pub vni: u32,
    pub port: u16,
    /// The address of this host that other nodes send to.
    pub local: IpAddr,
    /// Index of the interface that has `local`.
    pub device: u32,
}

impl Vxlan {
    fn from(data: &[InfoVxlan]) -> Self {
        let mut vxlan = Self { vni: 0, port: 0, local: Ipv4Addr::UNSPECIFIED.into(), device: 0 };
        for info in data {
            match info {
                InfoVxlan::Id(vni) => vxlan.vni = *vni,
                InfoVxlan::Port(port) => vxlan.port = *port,
                InfoVxlan::Local(local) => vxlan.local = (*local).into(),
                InfoVxlan::Local6(local) => vxlan.local = (*local).into(),
                InfoVxlan::Link(index) => vxlan.device = *index,
                _ => {}
            }
        }
        vxlan
    }
}

impl RouteSocket {
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let mut links = Vec::new();
        self.dump(Message::GetLink(LinkMessage::default()), |answer| {
            if let Message::NewLink(message) = answer {
                links.push(Link::from(message));
            }
        })?;
        Ok(links)
    }

    pub fn link(&mut self, name: &str) -> Result<Link, NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        match self.get(Message::GetLink(message), || format!("show interface {name}")) {
            Ok(Some(Message::NewLink(message))) => Ok(Link::from(message)),
            Ok(_) => Err(NetlinkError::NoSuchLink(name.to_owned())),
            Err(error) if error.is_missing() => Err(NetlinkError::NoSuchLink(name.to_owned())),
            Err(error) => Err(error),
        }
    }

    fn create(
        &mut self,
        name: &str,
        mtu: u32,
        rest: Vec<LinkAttribute>,
        info: Vec<LinkInfo>,
    ) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes = vec![LinkAttribute::IfName(name.to_owned()), LinkAttribute::Mtu(mtu)];
        message.attributes.extend(rest);
        message.attributes.push(LinkAttribute::LinkInfo(info));
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        self.change(Message::NewLink(message), flags, || format!("create interface {name}"))
    }

    /// Creates a bridge that is up. Its MAC is fixed, as otherwise it would change with the bridge's ports.
    pub fn create_bridge(&mut self, name: &str, mac: Mac, mtu: u32) -> Result<Link, NetlinkError> {
        let address = vec![LinkAttribute::Address(mac.0.to_vec())];
        self.create(name, mtu, address, vec![LinkInfo::Kind(InfoKind::Bridge)])?;
        let link = self.link(name)?;
        self.set_up(link.index)?;
        self.link(name)
    }

    /// Creates a VXLAN interface that is up and learns nothing by itself.
    pub fn create_vxlan(&mut self, name: &str, mac: Mac, mtu: u32, vxlan: Vxlan) -> Result<Link, NetlinkError> {
        let local = match vxlan.local {
            IpAddr::V4(v4) => InfoVxlan::Local(v4),
            IpAddr::V6(v6) => InfoVxlan::Local6(v6),
        };
        let (id, port, device) = (InfoVxlan::Id(vxlan.vni), InfoVxlan::Port(vxlan.port), InfoVxlan::Link(vxlan.device));
        let data = InfoData::Vxlan(vec![id, local, port, device, InfoVxlan::Learning(false)]);
        let address = vec![LinkAttribute::Address(mac.0.to_vec())];
        self.create(name, mtu, address, vec![LinkInfo::Kind(InfoKind::Vxlan), LinkInfo::Data(data)])?;
        let link = self.link(name)?;
        self.set_up(link.index)?;
        self.link(name)
    }

    /// Creates a pair of interfaces, the second one in the network namespace that `namespace` is open on.
    pub fn create_veth(
        &mut self,
        name: &str,
        peer: &str,
        peer_mac: Mac,
        mtu: u32,
        namespace: RawFd,
    ) -> Result<(), NetlinkError> {
        let mut other = LinkMessage::default();
        other.attributes = vec![
            LinkAttribute::IfName(peer.to_owned()),
            LinkAttribute::Mtu(mtu),
            LinkAttribute::Address(peer_mac.0.to_vec()),
            LinkAttribute::NetNsFd(namespace),
        ];
        let data = InfoData::Veth(InfoVeth::Peer(other));
        self.create(name, mtu, Vec::new(), vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(data)])
    }

    /// Makes an interface a port of a bridge that may send packets back to where they came from: a pod that reaches
    /// itself through a service needs it where the kernel translates addresses of bridged packets.
    pub fn attach(&mut self, index: u32, bridge: u32) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(LinkAttribute::Controller(bridge));
        self.change(Message::SetLink(message), 0, || format!("attach interface {index} to its bridge"))?;
        let port = vec![InfoBridgePort::HairpinMode(true)];
        let mut message = LinkMessage::default();
        message.header.index = index;
        let info = vec![LinkInfo::PortKind(InfoPortKind::Bridge), LinkInfo::PortData(InfoPortData::BridgePort(port))];
        message.attributes.push(LinkAttribute::LinkInfo(info));
        self.change(Message::NewLink(message), 0, || format!("configure bridge port {index}"))
    }

    pub fn set_up(&mut self, index: u32) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.change(Message::SetLink(message), 0, || format!("set interface {index} up"))
    }

    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(LinkAttribute::Mtu(mtu));
        self.change(Message::SetLink(message), 0, || format!("set the MTU of interface {index}"))
    }

    /// Removes an interface if there is one of this name; says whether there was.
    pub fn delete_link(&mut self, name: &str) -> Result<bool, NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        match self.change(Message::DelLink(message), 0, || format!("remove interface {name}")) {
            Ok(()) => Ok(true),
            Err(error) if error.is_missing() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Index of the interface and address, for every address of the namespace.
    pub fn addresses(&mut self) -> Result<Vec<(u32, IpNet)>, NetlinkError> {
        let mut addresses = Vec::new();
        self.dump(Message::GetAddress(AddressMessage::default()), |answer| {
            let Message::NewAddress(message) = answer else { return };
            // On broadcast interfaces both are there and equal; on point-to-point ones `Local` is ours.
            let mut found = None;
            for attribute in &message.attributes {
                match attribute {
                    AddressAttribute::Local(address) => found = Some(*address),
                    AddressAttribute::Address(address) => found = found.or(Some(*address)),
                    _ => {}
                }
            }
            let net = found.and_then(|address| IpNet::new(address, message.header.prefix_len).ok());
            addresses.extend(net.map(|net| (message.header.index, net)));
        })?;
        Ok(addresses)
    }

    /// Gives an interface an address; harmless when it has it.
    pub fn add_address(&mut self, index: u32, address: IpNet) -> Result<(), NetlinkError> {
        let message = Message::NewAddress(address_message(index, address));
        match self.change(message, NLM_F_CREATE | NLM_F_EXCL, || format!("add address {address}")) {
            Err(error) if error.is_exists() => Ok(()),
            result => result,
        }
    }

    /// Takes an address from an interface; harmless when it does not have it.
    pub fn delete_address(&mut self, index: u32, address: IpNet) -> Result<(), NetlinkError> {
        match self
            .change(Message::DelAddress(address_message(index, address)), 0, || format!("remove address {address}"))
        {
            Err(error) if error.is_missing() => Ok(()),
            result => result,
        }
    }
}

fn address_message(index: u32, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = address.prefix_len();
    message.header.family = super::route::family(address.addr());
    message.attributes = vec![AddressAttribute::Local(address.addr()), AddressAttribute::Address(address.addr())];
    message
}
