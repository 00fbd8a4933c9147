//! What differs between ingress and egress, and between IPv4 and IPv6.

use std::net::IpAddr;

use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};

use crate::nft::{DataType, Field, Rule};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    Ingress,
    Egress,
}

/// The parts of a policy's rule that both directions have.
pub struct PolicyRule<'a> {
    pub peers: &'a [NetworkPolicyPeer],
    pub ports: &'a [NetworkPolicyPort],
}

impl Direction {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    /// Whether the policy says anything of this direction.
    pub fn is_in(self, policy: &NetworkPolicy) -> bool {
        let Some(spec) = &policy.spec else { return false };
        match &spec.policy_types {
            Some(types) if !types.is_empty() => types.iter().any(|kind| kind.eq_ignore_ascii_case(self.name())),
            _ => self == Self::Ingress || spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()),
        }
    }

    pub fn rules(self, policy: &NetworkPolicy) -> Vec<PolicyRule<'_>> {
        let Some(spec) = &policy.spec else { return Vec::new() };
        let ingress = spec.ingress.iter().flatten().filter(|_| self == Self::Ingress);
        let egress = spec.egress.iter().flatten().filter(|_| self == Self::Egress);
        let ingress = ingress.map(|rule| (rule.from.as_deref(), rule.ports.as_deref()));
        let all = ingress.chain(egress.map(|rule| (rule.to.as_deref(), rule.ports.as_deref())));
        all.map(|(peers, ports)| PolicyRule { peers: peers.unwrap_or_default(), ports: ports.unwrap_or_default() })
            .collect()
    }
}

/// The fields of one IP family.
#[derive(Clone, Copy)]
pub struct Family {
    pub v6: bool,
    pub digit: char,
    pub address: DataType,
    pub saddr: Field,
    pub daddr: Field,
}

pub const FAMILIES: [Family; 2] = [
    Family { v6: false, digit: '4', address: DataType::Ipv4Addr, saddr: Field::Saddr4, daddr: Field::Daddr4 },
    Family { v6: true, digit: '6', address: DataType::Ipv6Addr, saddr: Field::Saddr6, daddr: Field::Daddr6 },
];

impl Family {
    pub fn rule(self) -> Rule {
        if self.v6 { Rule::new().v6() } else { Rule::new().v4() }
    }

    pub fn has(self, address: &IpAddr) -> bool {
        address.is_ipv6() == self.v6
    }

    /// The field with the selected pod's address, and the one with the other side's.
    pub fn own_and_peer(self, direction: Direction) -> (Field, Field) {
        match direction {
            Direction::Ingress => (self.daddr, self.saddr),
            Direction::Egress => (self.saddr, self.daddr),
        }
    }
}
