//! Choosing addresses: at random from the upper part of a range first, so that the lower part stays free for addresses
//! that users name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use rand::Rng;

/// Ranges of one family.
pub(super) struct Addresses<'a>(&'a [IpNet]);

/// Usable addresses of a range: offsets from its base.
struct Span {
    base: u128,
    v4: bool,
    /// Offsets 1 to this are usable.
    last: u128,
    /// Offsets up to this are left for users while others are free.
    reserved: u128,
}

impl Span {
    fn new(range: &IpNet) -> Self {
        let bits = range.max_prefix_len() - range.prefix_len();
        // More than 2^64 addresses are never looked at.
        let size = 1_u128 << bits.min(64);
        let (base, v4) = match range.network() {
            IpAddr::V4(ip) => (u128::from(u32::from(ip)), true),
            IpAddr::V6(ip) => (u128::from(ip), false),
        };
        // The network address is never used, nor is the broadcast address of IPv4.
        let last = size.saturating_sub(if v4 { 2 } else { 1 });
        let reserved = if size < 16 { 0 } else { (size / 16).clamp(16, 256).min(last) };
        Self { base, v4, last, reserved }
    }

    fn at(&self, offset: u128) -> IpAddr {
        let number = self.base + offset;
        if self.v4 { IpAddr::V4(Ipv4Addr::from(number as u32)) } else { IpAddr::V6(Ipv6Addr::from(number)) }
    }

    /// From a random start through all offsets of the part.
    fn search(&self, first: u128, last: u128, is_free: &impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
        if first > last {
            return None;
        }
        let count = last - first + 1;
        let start = rand::rng().random_range(0..count);
        (0..count).map(|step| self.at(first + (start + step) % count)).find(|ip| is_free(*ip))
    }
}

impl<'a> Addresses<'a> {
    pub fn new(ranges: &'a [IpNet]) -> Self {
        Self(ranges)
    }

    pub fn contains(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|range| {
            let broadcast = range.addr().is_ipv4() && ip == range.broadcast();
            range.contains(&ip) && ip != range.network() && !broadcast
        })
    }

    pub fn choose(&self, is_free: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
        self.0.iter().map(Span::new).find_map(|span| {
            span.search(span.reserved + 1, span.last, &is_free).or_else(|| span.search(1, span.reserved, &is_free))
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_range_is_used_up_from_above() {
        let ranges: Vec<IpNet> = vec!["10.0.0.0/27".parse().unwrap()];
        let pool = Addresses::new(&ranges);
        let taken = RefCell::new(BTreeSet::new());
        let mut order = Vec::new();
        while let Some(ip) = pool.choose(|ip| !taken.borrow().contains(&ip)) {
            taken.borrow_mut().insert(ip);
            order.push(ip);
        }
        assert_eq!(order.len(), 30);
        assert!(order[..14].iter().all(|ip| *ip > "10.0.0.16".parse::<IpAddr>().unwrap()));
        assert!(order.iter().all(|ip| pool.contains(*ip)));
        for outside in ["10.0.0.0", "10.0.0.31", "10.0.0.32"] {
            assert!(!pool.contains(outside.parse().unwrap()), "{outside}");
        }
        let wide: Vec<IpNet> = vec!["fd00::/64".parse().unwrap()];
        assert!(Addresses::new(&wide).choose(|_| true).is_some());
    }
}
