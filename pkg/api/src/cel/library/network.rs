//! IP addresses and networks.

use std::fmt;
use std::net::IpAddr;

use super::Row;
use crate::cel::call::Call;
use crate::cel::extension::Extension;
use crate::cel::value::{Error, Evaluated, Value};

pub(super) const ROWS: &[Row] = &[
    ("ip", "string_to_ip", "(string) -> net.IP", |c| Ok(Extension::Ip(read_ip(&c.text(0)?)?).into())),
    ("isIP", "is_ip", "(string) -> bool", |c| Ok(read_ip(&c.text(0)?).is_ok().into())),
    ("ip.isCanonical", "ip_is_canonical", "(string) -> bool", |c| {
        let text = c.text(0)?;
        Ok((read_ip(&text)?.to_string() == *text).into())
    }),
    ("family", "ip_family", "net.IP.() -> int", |c| Ok(Value::Int(if ip(c, 0)?.is_ipv4() { 4 } else { 6 }))),
    ("isUnspecified", "ip_is_unspecified", "net.IP.() -> bool", |c| Ok(ip(c, 0)?.is_unspecified().into())),
    ("isLoopback", "ip_is_loopback", "net.IP.() -> bool", |c| Ok(ip(c, 0)?.is_loopback().into())),
    ("isLinkLocalMulticast", "ip_is_link_local_multicast", "net.IP.() -> bool", |c| {
        Ok(link_local_multicast(ip(c, 0)?).into())
    }),
    ("isLinkLocalUnicast", "ip_is_link_local_unicast", "net.IP.() -> bool", |c| Ok(link_local(ip(c, 0)?).into())),
    ("isGlobalUnicast", "ip_is_global_unicast", "net.IP.() -> bool", |c| Ok(global_unicast(ip(c, 0)?).into())),
    ("cidr", "string_to_cidr", "(string) -> net.CIDR", |c| Ok(Extension::Cidr(Cidr::read(&c.text(0)?)?).into())),
    ("isCIDR", "is_cidr", "(string) -> bool", |c| Ok(Cidr::read(&c.text(0)?).is_ok().into())),
    ("containsIP", "cidr_contains_ip_string", "net.CIDR.(string) -> bool", contains_ip),
    ("containsIP", "cidr_contains_ip_ip", "net.CIDR.(net.IP) -> bool", contains_ip),
    ("containsCIDR", "cidr_contains_cidr_string", "net.CIDR.(string) -> bool", contains_cidr),
    ("containsCIDR", "cidr_contains_cidr", "net.CIDR.(net.CIDR) -> bool", contains_cidr),
    ("ip", "cidr_ip", "net.CIDR.() -> net.IP", |c| Ok(Extension::Ip(cidr(c, 0)?.ip).into())),
    ("prefixLength", "cidr_prefix_length", "net.CIDR.() -> int", |c| Ok(Value::Int(cidr(c, 0)?.bits.into()))),
    ("masked", "cidr_masked", "net.CIDR.() -> net.CIDR", |c| Ok(Extension::Cidr(cidr(c, 0)?.masked()).into())),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    ip: IpAddr,
    pub(in crate::cel) bits: u8,
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.bits)
    }
}

fn read_ip(text: &str) -> Result<IpAddr, Error> {
    if text.contains('%') {
        return Err(Error::failed(format!("IP address {text:?} with zone value is not allowed")));
    }
    let read: IpAddr = text.parse().map_err(|_| {
        let why = format!("ParseAddr({text:?}): unable to parse IP");
        Error::failed(format!("IP Address {text:?} parse error during conversion from string: {why}"))
    })?;
    if is_mapped(read) {
        return Err(Error::failed(format!("IPv4-mapped IPv6 address {text:?} is not allowed")));
    }
    Ok(read)
}

fn is_mapped(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

impl Cidr {
    fn read(text: &str) -> Result<Self, Error> {
        let wrong = |why: &str| {
            let why = format!("netip.ParsePrefix({text:?}): {why}");
            Error::failed(format!(
                "network address parse error during conversion from string: network address parse error during conversion from string: {why}"
            ))
        };
        let (address, bits) = text.rsplit_once('/').ok_or_else(|| wrong("no '/'"))?;
        let ip: IpAddr = address.parse().map_err(|_| wrong("unable to parse IP"))?;
        let plain = bits.bytes().all(|b| b.is_ascii_digit()) && (bits == "0" || !bits.starts_with('0'));
        let bits =
            Some(bits).filter(|_| plain).and_then(|b| b.parse().ok()).ok_or_else(|| wrong("bad bits after slash"))?;
        if bits > if ip.is_ipv4() { 32 } else { 128 } {
            return Err(wrong("prefix length out of range"));
        }
        if is_mapped(ip) {
            let why = format!("IPv4-mapped IPv6 address {text:?} is not allowed");
            return Err(Error::failed(format!("network address parse error during conversion from string: {why}")));
        }
        Ok(Self { ip, bits })
    }

    fn masked(self) -> Self {
        let ip = match self.ip {
            IpAddr::V4(ip) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                IpAddr::V4((u32::from(ip) & mask).into())
            }
            IpAddr::V6(ip) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                IpAddr::V6((u128::from(ip) & mask).into())
            }
        };
        Self { ip, ..self }
    }

    fn contains(self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.ip.is_ipv4() && Self { ip, bits: self.bits }.masked() == self.masked()
    }
}

fn ip(call: &Call<'_, '_>, index: usize) -> Result<IpAddr, Error> {
    match call.arg(index) {
        Value::Extension(Extension::Ip(ip)) => Ok(*ip),
        Value::String(text) => read_ip(text),
        _ => Err(Error::no_overload()),
    }
}

fn cidr(call: &Call<'_, '_>, index: usize) -> Result<Cidr, Error> {
    match call.arg(index) {
        Value::Extension(Extension::Cidr(cidr)) => Ok(*cidr),
        Value::String(text) => Cidr::read(text),
        _ => Err(Error::no_overload()),
    }
}

fn contains_ip<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    Ok(cidr(call, 0)?.contains(ip(call, 1)?).into())
}

fn contains_cidr<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    let (outer, inner) = (cidr(call, 0)?, cidr(call, 1)?);
    Ok((outer.bits <= inner.bits && outer.contains(inner.ip)).into())
}

fn link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

fn link_local_multicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.octets()[..3] == [224, 0, 0],
        IpAddr::V6(ip) => ip.segments()[0] & 0xff0f == 0xff02,
    }
}

fn global_unicast(ip: IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !(broadcast || ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || link_local(ip))
}
