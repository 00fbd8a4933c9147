//! Types of set keys and values, and their bytes.

use std::net::IpAddr;

use ipnet::IpNet;

/// A type of a key's or value's part. The numbers are those by which `nft` shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataType {
    Integer = 4,
    Ipv4Addr = 7,
    Ipv6Addr = 8,
    InetProto = 12,
    InetService = 13,
    Mark = 19,
}

impl DataType {
    /// The address type of an address' family.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::Ipv4Addr } else { Self::Ipv6Addr }
    }

    /// Bytes of a value that stands alone.
    pub(super) fn size(self) -> u32 {
        match self {
            Self::Ipv6Addr => 16,
            Self::InetProto => 1,
            Self::InetService => 2,
            Self::Integer | Self::Ipv4Addr | Self::Mark => 4,
        }
    }

    fn host_order(self) -> bool {
        matches!(self, Self::Integer | Self::Mark)
    }
}

/// Number and size of the type that several parts make together.
pub(super) fn concatenation(parts: &[DataType]) -> (u32, u32) {
    match parts {
        [one] => (*one as u32, one.size()),
        many => many
            .iter()
            .fold((0, 0), |(id, size), part| (id << 6 | *part as u32, size + part.size().next_multiple_of(4))),
    }
}

/// The byte order mark that `nft` needs to show numbers of a host-order type: 1 for host, 2 for network order.
pub(super) fn byte_order(parts: &[DataType]) -> u32 {
    if parts.len() == 1 && parts[0].host_order() { 1 } else { 2 }
}

/// The bytes of a set's key or value, built part by part.
///
/// A key of several parts has each of them padded to four bytes, one of a single part none.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    bytes: Vec<u8>,
    parts: u8,
}

impl Key {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn ip(self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => self.part(&v4.octets()),
            IpAddr::V6(v6) => self.part(&v6.octets()),
        }
    }

    /// An IP protocol number.
    pub fn proto(self, number: u8) -> Self {
        self.part(&[number])
    }

    /// A port number.
    pub fn port(self, port: u16) -> Self {
        self.part(&port.to_be_bytes())
    }

    /// A number in the host's byte order.
    pub fn number(self, number: u32) -> Self {
        self.part(&number.to_ne_bytes())
    }

    pub fn part(mut self, part: &[u8]) -> Self {
        if self.parts > 0 {
            self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        }
        self.bytes.extend_from_slice(part);
        self.parts += 1;
        if self.parts > 1 {
            self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        }
        self
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The smallest list of disjoint, ordered, half-open ranges that covers `nets` of one family: first address and the
/// one after the last, which is absent when the range reaches the end of the address space.
pub fn ranges(nets: &[IpNet]) -> Vec<(IpAddr, Option<IpAddr>)> {
    let mut spans: Vec<(u128, u128)> =
        nets.iter().map(|net| (number(net.network()), number(net.broadcast()))).collect();
    spans.sort_unstable();
    let mut merged: Vec<(u128, u128)> = Vec::new();
    for (first, last) in spans {
        match merged.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => merged.push((first, last)),
        }
    }
    let v4 = nets.first().is_some_and(|net| net.addr().is_ipv4());
    merged.into_iter().map(|(first, last)| (address(first, v4), next(last, v4))).collect()
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

fn address(number: u128, v4: bool) -> IpAddr {
    if v4 { IpAddr::from((number as u32).to_be_bytes()) } else { IpAddr::from(number.to_be_bytes()) }
}

fn next(last: u128, v4: bool) -> Option<IpAddr> {
    let end = if v4 { u128::from(u32::MAX) } else { u128::MAX };
    (last < end).then(|| address(last + 1, v4))
}
