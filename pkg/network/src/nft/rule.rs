//! Rules, built in terms of packet fields.

use std::net::IpAddr;

use ipnet::IpNet;

use super::content::{Element, Set};
use super::data::{DataType, Key};
use super::expr::{Expr, Field, Reg, Reject, SetRef, Verdict};

pub const CT_INVALID: u32 = 1;
pub const CT_ESTABLISHED: u32 = 2;
pub const CT_RELATED: u32 = 4;
pub const CT_NEW: u32 = 8;
/// The bit of [`Field::CtStatus`] that connections with a translated destination have.
pub const CT_DNAT: u32 = 1 << 5;

const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
const LOCAL_ADDRESS: u32 = 2;

/// A rule under construction: each call adds a condition or an action, which apply in this order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rule {
    pub(super) exprs: Vec<Expr>,
}

impl Rule {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn expr(mut self, expr: Expr) -> Self {
        self.exprs.push(expr);
        self
    }

    fn load(self, field: Field, to: Reg) -> Self {
        self.expr(Expr::Load { field, to })
    }

    /// Loads fields one after the other as a key.
    pub fn load_all(mut self, fields: &[Field]) -> Self {
        let mut to = 0;
        for field in fields {
            self = self.load(*field, to);
            to += field.words();
        }
        self
    }

    pub fn is(self, field: Field, value: &[u8]) -> Self {
        self.load(field, 0).expr(Expr::Compare { reg: 0, equal: true, value: value.to_vec() })
    }

    pub fn is_not(self, field: Field, value: &[u8]) -> Self {
        self.load(field, 0).expr(Expr::Compare { reg: 0, equal: false, value: value.to_vec() })
    }

    /// Whether the packet is of this address' family. Needed before its addresses are looked at.
    pub fn family(self, of: IpAddr) -> Self {
        if of.is_ipv4() { self.v4() } else { self.v6() }
    }

    pub fn v4(self) -> Self {
        self.is(Field::NfProto, &[NFPROTO_IPV4])
    }

    pub fn v6(self) -> Self {
        self.is(Field::NfProto, &[NFPROTO_IPV6])
    }

    pub fn proto(self, number: u8) -> Self {
        self.is(Field::L4Proto, &[number])
    }

    pub fn port(self, field: Field, port: u16) -> Self {
        self.is(field, &port.to_be_bytes())
    }

    pub fn port_range(self, field: Field, first: u16, last: u16) -> Self {
        let (from, to) = (first.to_be_bytes().to_vec(), last.to_be_bytes().to_vec());
        self.load(field, 0).expr(Expr::Range { reg: 0, equal: true, from, to })
    }

    /// Whether a field of one byte lies between two values.
    pub fn byte_range(self, field: Field, first: u8, last: u8) -> Self {
        let (from, to) = (vec![first], vec![last]);
        self.load(field, 0).expr(Expr::Range { reg: 0, equal: true, from, to })
    }

    /// Whether an interface has this name.
    pub fn interface(self, field: Field, name: &str) -> Self {
        self.is(field, &interface_name(name))
    }

    pub fn not_interface(self, field: Field, name: &str) -> Self {
        self.is_not(field, &interface_name(name))
    }

    /// Whether an address is in a network, or is not when `inside` is false.
    pub fn network(self, field: Field, net: IpNet, inside: bool) -> Self {
        let (mask, value) = match net {
            IpNet::V4(net) => (net.netmask().octets().to_vec(), net.network().octets().to_vec()),
            IpNet::V6(net) => (net.netmask().octets().to_vec(), net.network().octets().to_vec()),
        };
        let xor = vec![0; mask.len()];
        let rule = self.load(field, 0);
        let full = net.prefix_len() == net.max_prefix_len();
        let rule = if full { rule } else { rule.expr(Expr::Bitwise { from: 0, to: 0, mask, xor }) };
        rule.expr(Expr::Compare { reg: 0, equal: inside, value })
    }

    /// Whether any of `bits` is set in a number such as a mark or a connection's state.
    pub fn any_bit(self, field: Field, bits: u32) -> Self {
        let (mask, xor) = (bits.to_ne_bytes().to_vec(), vec![0; 4]);
        let rule = self.load(field, 0).expr(Expr::Bitwise { from: 0, to: 0, mask, xor });
        rule.expr(Expr::Compare { reg: 0, equal: false, value: vec![0; 4] })
    }

    /// Whether the destination is an address of this host.
    pub fn to_this_host(self) -> Self {
        self.is(Field::DaddrType, &LOCAL_ADDRESS.to_ne_bytes())
    }

    pub fn from_this_host(self) -> Self {
        self.is(Field::SaddrType, &LOCAL_ADDRESS.to_ne_bytes())
    }

    pub fn in_set(self, fields: &[Field], set: impl Into<SetRef>) -> Self {
        self.load_all(fields).expr(Expr::Lookup { set: set.into(), key: 0, to: None, absent: false })
    }

    pub fn not_in_set(self, fields: &[Field], set: impl Into<SetRef>) -> Self {
        self.load_all(fields).expr(Expr::Lookup { set: set.into(), key: 0, to: None, absent: true })
    }

    /// Follows the verdict that a map has for these fields; goes on when it has none.
    pub fn verdict_of(self, fields: &[Field], map: impl Into<SetRef>) -> Self {
        self.load_all(fields).expr(Expr::VerdictLookup { set: map.into(), key: 0 })
    }

    /// Sets bits of the packet's mark.
    pub fn mark(self, bits: u32) -> Self {
        let (mask, xor) = ((!bits).to_ne_bytes().to_vec(), bits.to_ne_bytes().to_vec());
        self.load(Field::Mark, 0).expr(Expr::Bitwise { from: 0, to: 0, mask, xor }).expr(Expr::SetMark { from: 0 })
    }

    pub fn unmark(self, bits: u32) -> Self {
        let (mask, xor) = ((!bits).to_ne_bytes().to_vec(), vec![0; 4]);
        self.load(Field::Mark, 0).expr(Expr::Bitwise { from: 0, to: 0, mask, xor }).expr(Expr::SetMark { from: 0 })
    }

    /// Translates the destination to one of `targets`, chosen at random for each connection.
    pub fn balance(self, v6: bool, targets: &[(IpAddr, u16)]) -> Self {
        let words = if v6 { 4 } else { 1 };
        self.pick(v6, targets, 0).expr(Expr::DestinationNat { v6, address: 0, port: Some(words) })
    }

    /// Puts address and port of a random one of `targets` into the registers from `to` on.
    pub fn pick(self, v6: bool, targets: &[(IpAddr, u16)], to: Reg) -> Self {
        let endpoint = |(address, port): &(IpAddr, u16)| Key::new().ip(*address).port(*port);
        if let [only] = targets {
            let value = endpoint(only);
            let (address, port) = value.as_bytes().split_at(if v6 { 16 } else { 4 });
            let words = address.len() as Reg / 4;
            let rule = self.expr(Expr::Immediate { to, value: address.to_vec() });
            return rule.expr(Expr::Immediate { to: to + words, value: port[..2].to_vec() });
        }
        let address = if v6 { DataType::Ipv6Addr } else { DataType::Ipv4Addr };
        let map = Set::map(&[DataType::Integer], &[address, DataType::InetService]);
        let entry = |(number, target)| (Key::new().number(number), Element::Value(endpoint(target)));
        let set = SetRef::Own(map, (0u32..).zip(targets).map(entry).collect());
        self.expr(Expr::Random { modulus: targets.len() as u32, to }).expr(Expr::Lookup {
            set,
            key: to,
            to: Some(to),
            absent: false,
        })
    }

    pub fn masquerade(self) -> Self {
        self.expr(Expr::Masquerade { random: true })
    }

    pub fn reject(self) -> Self {
        self.expr(Expr::Reject(Reject::PortUnreachable))
    }

    pub fn verdict(self, verdict: Verdict) -> Self {
        self.expr(Expr::Verdict(verdict))
    }

    pub fn accept(self) -> Self {
        self.verdict(Verdict::Accept)
    }

    pub fn deny(self) -> Self {
        self.verdict(Verdict::Drop)
    }

    pub fn jump(self, chain: impl Into<String>) -> Self {
        self.verdict(Verdict::Jump(chain.into()))
    }

    pub fn goto(self, chain: impl Into<String>) -> Self {
        self.verdict(Verdict::Goto(chain.into()))
    }
}

fn interface_name(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    let length = name.len().min(15);
    bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
    bytes
}
