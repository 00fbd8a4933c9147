//! Addresses and networks as text.
//!
//! Go's parser also takes zeros in front of the numbers of IPv4 addresses, and the API tells of those in other words
//! than of what is no address at all.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(in crate::validate) fn is_ip(text: &str) -> bool {
    parse(text).is_some()
}

pub(in crate::validate) fn is_ipv4(text: &str) -> bool {
    matches!(parse(text), Some(IpAddr::V4(_)))
}

/// Whether it is an IPv6 address that stands for no IPv4 address.
pub(in crate::validate) fn is_ipv6(text: &str) -> bool {
    matches!(parse(text), Some(IpAddr::V6(address)) if address.to_ipv4_mapped().is_none())
}

/// Takes leading zeros, as long as the rest is an address.
fn parse(text: &str) -> Option<IpAddr> {
    text.parse().ok().or_else(|| {
        let parts: Option<Vec<&str>> = text.split('.').map(unpadded).collect();
        parts?.join(".").parse::<Ipv4Addr>().ok().map(IpAddr::V4)
    })
}

fn unpadded(number: &str) -> Option<&str> {
    let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    let short = number.trim_start_matches('0');
    digits.then_some(if short.is_empty() { "0" } else { short })
}

fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

/// What is wrong with an address in whichever spelling.
pub(in crate::validate) fn ip(text: &str) -> Vec<String> {
    let problem = match parse(text) {
        None => "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        Some(_) if text.parse::<IpAddr>().is_err() => "must not have leading 0s",
        Some(address) if is_mapped(address) => "must not be an IPv4-mapped IPv6 address",
        Some(_) => return Vec::new(),
    };
    vec![problem.into()]
}

/// What is wrong with an address at which something is to be reached.
pub(in crate::validate) fn endpoint_ip(text: &str) -> Vec<String> {
    let Some(address) = parse(text).map(|address| address.to_canonical()) else {
        return vec!["must be a valid IP address".into()];
    };
    let (local, group) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments()[0] & 0xff0f == 0xff02),
    };
    let cases = [
        (address.is_unspecified(), format!("may not be unspecified ({text})")),
        (address.is_loopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)".into()),
        (local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)".into()),
        (group, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".into()),
    ];
    cases.into_iter().filter(|(wrong, _)| *wrong).map(|(_, problem)| problem).collect()
}

/// What is wrong with an address in its one normal spelling.
pub(in crate::validate) fn canonical_ip(text: &str) -> Vec<String> {
    let normal = text.parse::<IpAddr>().map(|address| address.to_string());
    match (ip(text), normal) {
        (problems, Ok(normal)) if problems.is_empty() && normal != text => vec![canonical(&normal)],
        (problems, _) => problems,
    }
}

fn canonical(normal: &str) -> String {
    format!("must be in canonical form (\"{normal}\")")
}

struct Network {
    address: IpAddr,
    length: u8,
    /// Zeros in front of a number.
    padded: bool,
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        let parsed = parse(address)?;
        let digits = !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit());
        let length = bits.parse::<u64>().ok().and_then(|n| u8::try_from(n).ok()).filter(|_| digits)?;
        let max = if parsed.is_ipv4() { 32 } else { 128 };
        let padded = address.parse::<IpAddr>().is_err() || (bits.len() > 1 && bits.starts_with('0'));
        (length <= max).then_some(Self { address: parsed, length, padded })
    }

    fn base(&self) -> IpAddr {
        let length = u32::from(self.length);
        match self.address {
            IpAddr::V4(v4) => {
                IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & u32::MAX.checked_shl(32 - length).unwrap_or(0)))
            }
            IpAddr::V6(v6) => {
                IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & u128::MAX.checked_shl(128 - length).unwrap_or(0)))
            }
        }
    }
}

/// What is wrong with a network in whichever spelling.
pub(in crate::validate) fn cidr(text: &str) -> Vec<String> {
    let problem = match Network::parse(text) {
        None => "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
        Some(network) if network.padded => "must not have leading 0s in IP or prefix length",
        Some(network) if is_mapped(network.address) => "must not have an IPv4-mapped IPv6 address",
        Some(network) if network.base() != network.address => "must not have bits set beyond the prefix length",
        Some(_) => return Vec::new(),
    };
    vec![problem.into()]
}

/// Whether it is no network at all, however it is spelled.
pub(in crate::validate) fn is_invalid_cidr(text: &str) -> bool {
    Network::parse(text).is_none()
}

/// Whether one network is a part of the other, and smaller.
pub(in crate::validate) fn is_inside(inner: &str, outer: &str) -> bool {
    let (Some(inner), Some(outer)) = (Network::parse(inner), Network::parse(outer)) else { return false };
    let start = Network { address: inner.address, length: outer.length, padded: false };
    inner.address.is_ipv4() == outer.address.is_ipv4() && inner.length > outer.length && start.base() == outer.base()
}

/// What is wrong with a network in its one normal spelling.
pub(in crate::validate) fn canonical_cidr(text: &str) -> Vec<String> {
    let problems = cidr(text);
    let normal = Network::parse(text).map(|network| format!("{}/{}", network.base(), network.length));
    match normal {
        Some(normal) if problems.is_empty() && normal != text => vec![canonical(&normal)],
        _ => problems,
    }
}

/// What is wrong with the address of an interface and the length of its network's prefix.
pub(in crate::validate) fn interface(text: &str) -> Vec<String> {
    let Some(network) = Network::parse(text) else {
        return vec!["must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)".into()];
    };
    let (address, length) = match network.address {
        IpAddr::V6(v6) if network.length > 32 => match v6.to_ipv4_mapped() {
            Some(v4) => (IpAddr::V4(v4), network.length.saturating_sub(96)),
            None => (network.address, network.length),
        },
        address => (address, network.length),
    };
    let normal = format!("{address}/{length}");
    if normal == text { Vec::new() } else { vec![canonical(&normal)] }
}

/// Advice about an address that is taken and yet not in its normal spelling; `path` says where it is.
pub fn ip_advice(path: &str, text: &str) -> Option<String> {
    let address = parse(text)?;
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(v6)) if !is_mapped(address) => (v6.to_string() != text).then(|| {
            format!("{path}: IPv6 address {text:?} should be in RFC 5952 canonical format ({:?})", v6.to_string())
        }),
        Ok(IpAddr::V4(_)) => None,
        _ => {
            let normal = address.to_canonical().to_string();
            Some(format!("{path}: non-standard IP address {text:?} is invalid: use {normal:?}"))
        }
    }
}

/// The same about a network.
pub fn cidr_advice(path: &str, text: &str) -> Vec<String> {
    let Some(network) = Network::parse(text) else { return Vec::new() };
    let normal = format!("{}/{}", network.base().to_canonical(), network.length);
    let mut advice = Vec::new();
    if network.base() != network.address {
        let alone = format!("{}/{}", network.address, if network.address.is_ipv4() { 32 } else { 128 });
        advice.push(format!(
            "{path}: CIDR value {text:?} is ambiguous in this context (should be {normal:?} or {alone:?}?)"
        ));
    }
    if network.padded || is_mapped(network.address) {
        advice.push(format!("{path}: non-standard CIDR value {text:?} is invalid: use {normal:?}"));
    }
    let plain = format!("{}/{}", network.address, network.length);
    if advice.is_empty() && network.address.is_ipv6() && plain != text {
        advice.push(format!("{path}: IPv6 CIDR value {text:?} should be in RFC 5952 canonical format ({plain:?})"));
    }
    advice
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_apart_from_their_spellings() {
        type Check = fn(&str) -> Vec<String>;
        let cases: &[(Check, &str, &str)] = &[
            (ip, "10.0.0.1", ""),
            (ip, "FE80:0::abc", ""),
            (ip, "010.0.0.1", "must not have leading 0s"),
            (ip, "::ffff:1.2.3.4", "must not be an IPv4-mapped IPv6 address"),
            (ip, "1.2.3", "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"),
            (canonical_ip, "FE80::ABC", "must be in canonical form (\"fe80::abc\")"),
            (canonical_ip, "fe80::abc", ""),
            (cidr, "10.0.0.0/8", ""),
            (cidr, "::/0", ""),
            (cidr, "10.0.0.0/33", "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"),
            (cidr, "10.0.0.0/08", "must not have leading 0s in IP or prefix length"),
            (cidr, "10.0.0.1/8", "must not have bits set beyond the prefix length"),
            (cidr, "::ffff:10.0.0.0/104", "must not have an IPv4-mapped IPv6 address"),
            (canonical_cidr, "FD00::/8", "must be in canonical form (\"fd00::/8\")"),
            (interface, "10.0.0.1/8", ""),
            (interface, "10.0.0.1", "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)"),
        ];
        for (check, text, expected) in cases {
            assert_eq!(check(text).join("; "), *expected, "{text}");
        }
        assert!(is_inside("10.1.0.0/16", "10.0.0.0/8") && !is_inside("10.0.0.0/8", "10.0.0.0/8"));
        assert!(!is_inside("11.0.0.0/16", "10.0.0.0/8") && !is_inside("::/16", "0.0.0.0/8"));
    }
}
