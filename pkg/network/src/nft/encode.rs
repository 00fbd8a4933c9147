//! Rules, sets and elements in the kernel's encoding.

use std::time::Duration;

use super::content::{Element, Set};
use super::data::{Key, byte_order, concatenation};
use super::expr::{Expr, Field, Reg, Reject, SetRef, Verdict};
use crate::nfnl::Messages;

const LIST_ITEM: u16 = 1;
const VERDICT_REGISTER: u32 = 0;
const FIRST_REGISTER: u32 = 8;
const VERDICT_TYPE: u32 = 0xffff_ff00;

const SET_ANONYMOUS: u32 = 0x1;
const SET_CONSTANT: u32 = 0x2;
const SET_INTERVAL: u32 = 0x4;
const SET_MAP: u32 = 0x8;
const SET_TIMEOUT: u32 = 0x10;
const SET_EVAL: u32 = 0x20;

const ELEMENT_RANGE_END: u32 = 1;

/// Writes the attributes of a set. `id` names it within the transaction.
pub(super) fn set(out: &mut Messages, table: &str, name: &str, set: &Set, id: u32, own_size: Option<usize>) {
    let mut flags = if own_size.is_some() { SET_ANONYMOUS | SET_CONSTANT } else { 0 };
    flags |= if set.is_map() { SET_MAP } else { 0 };
    flags |= if set.interval { SET_INTERVAL } else { 0 };
    flags |= if set.timeout.is_some() { SET_TIMEOUT | SET_EVAL } else { 0 };
    let (key_type, key_size) = concatenation(&set.key);
    out.text(1, table);
    out.text(2, name);
    out.be32(3, flags);
    out.be32(4, key_type);
    out.be32(5, key_size);
    if set.verdicts {
        out.be32(6, VERDICT_TYPE);
    } else if set.is_map() {
        let (value_type, value_size) = concatenation(&set.value);
        out.be32(6, value_type);
        out.be32(7, value_size);
    }
    if let Some(size) = own_size {
        out.nest(9, |out| out.be32(1, size as u32));
    }
    out.be32(10, id);
    if let Some(timeout) = set.timeout {
        out.be64(11, timeout.as_millis() as u64);
    }
    out.bytes(13, &user_data(set));
}

/// The byte orders of key and value, which only `nft` reads.
fn user_data(set: &Set) -> Vec<u8> {
    let mut data = vec![0, 4];
    data.extend_from_slice(&byte_order(&set.key).to_ne_bytes());
    if !set.value.is_empty() {
        data.extend_from_slice(&[1, 4]);
        data.extend_from_slice(&byte_order(&set.value).to_ne_bytes());
    }
    data
}

/// Writes one element into a list of elements.
pub(super) fn element(out: &mut Messages, key: &Key, element: &Element) {
    out.nest(LIST_ITEM, |out| {
        if *element == Element::RangeEnd {
            out.be32(3, ELEMENT_RANGE_END);
        }
        out.nest(1, |out| out.bytes(1, key.as_bytes()));
        match element {
            Element::Member | Element::RangeEnd => {}
            Element::Value(value) => out.nest(2, |out| out.bytes(1, value.as_bytes())),
            Element::Verdict(verdict) => out.nest(2, |out| verdict_data(out, verdict)),
        }
    });
}

fn verdict_data(out: &mut Messages, verdict: &Verdict) {
    let (code, chain) = match verdict {
        Verdict::Accept => (1, None),
        Verdict::Drop => (0, None),
        Verdict::Jump(chain) => (-3i32 as u32, Some(chain)),
        Verdict::Goto(chain) => (-4i32 as u32, Some(chain)),
        Verdict::Return => (-5i32 as u32, None),
    };
    out.nest(2, |out| {
        out.be32(1, code);
        if let Some(chain) = chain {
            out.text(2, chain);
        }
    });
}

/// Writes a rule's list of expressions.
pub(super) fn exprs(out: &mut Messages, exprs: &[Expr], own_ids: &[u32]) {
    let mut own_ids = own_ids.iter().copied();
    for expr in exprs {
        out.nest(LIST_ITEM, |out| {
            out.text(1, name(expr));
            out.nest(2, |out| body(out, expr, &mut own_ids));
        });
    }
}

fn name(expr: &Expr) -> &'static str {
    match expr {
        Expr::Load { field, .. } => source(*field).0,
        Expr::SetMark { .. } => "meta",
        Expr::Compare { .. } => "cmp",
        Expr::Range { .. } => "range",
        Expr::Bitwise { .. } => "bitwise",
        Expr::Immediate { .. } | Expr::Verdict(_) => "immediate",
        Expr::Lookup { .. } | Expr::VerdictLookup { .. } => "lookup",
        Expr::Remember { .. } | Expr::Forget { .. } => "dynset",
        Expr::Random { .. } => "numgen",
        Expr::DestinationNat { .. } => "nat",
        Expr::Masquerade { .. } => "masq",
        Expr::Reject(_) => "reject",
        Expr::Counter => "counter",
        Expr::Limit { .. } => "limit",
    }
}

/// Expression and its parameter numbers: key for `meta`, `ct` and `fib`, base, offset and length for `payload`.
fn source(field: Field) -> (&'static str, [u32; 3]) {
    const NETWORK: u32 = 1;
    const TRANSPORT: u32 = 2;
    match field {
        Field::Mark => ("meta", [3, 0, 0]),
        Field::IifName => ("meta", [6, 0, 0]),
        Field::OifName => ("meta", [7, 0, 0]),
        Field::NfProto => ("meta", [15, 0, 0]),
        Field::L4Proto => ("meta", [16, 0, 0]),
        Field::Saddr4 => ("payload", [NETWORK, 12, 4]),
        Field::Daddr4 => ("payload", [NETWORK, 16, 4]),
        Field::Saddr6 => ("payload", [NETWORK, 8, 16]),
        Field::Daddr6 => ("payload", [NETWORK, 24, 16]),
        Field::Sport => ("payload", [TRANSPORT, 0, 2]),
        Field::Dport => ("payload", [TRANSPORT, 2, 2]),
        Field::IcmpType => ("payload", [TRANSPORT, 0, 1]),
        Field::CtState => ("ct", [0, 0, 0]),
        Field::CtStatus => ("ct", [2, 0, 0]),
        Field::CtMark => ("ct", [3, 0, 0]),
        Field::SaddrType => ("fib", [1, 0, 0]),
        Field::DaddrType => ("fib", [2, 0, 0]),
    }
}

fn register(reg: Reg) -> u32 {
    FIRST_REGISTER + reg
}

fn body(out: &mut Messages, expr: &Expr, own_ids: &mut impl Iterator<Item = u32>) {
    const FIB_ADDRESS_TYPE: u32 = 3;
    match expr {
        Expr::Load { field, to } => match source(*field) {
            ("payload", numbers) => {
                out.be32(1, register(*to));
                for (attribute, number) in (2..).zip(numbers) {
                    out.be32(attribute, number);
                }
            }
            ("fib", [flags, ..]) => {
                out.be32(1, register(*to));
                out.be32(2, FIB_ADDRESS_TYPE);
                out.be32(3, flags);
            }
            (_, [key, ..]) => {
                out.be32(1, register(*to));
                out.be32(2, key);
            }
        },
        Expr::SetMark { from } => {
            out.be32(2, 3);
            out.be32(3, register(*from));
        }
        Expr::Compare { reg, equal, value } => {
            out.be32(1, register(*reg));
            out.be32(2, u32::from(!equal));
            out.nest(3, |out| out.bytes(1, value));
        }
        Expr::Range { reg, equal, from, to } => {
            out.be32(1, register(*reg));
            out.be32(2, u32::from(!equal));
            out.nest(3, |out| out.bytes(1, from));
            out.nest(4, |out| out.bytes(1, to));
        }
        Expr::Bitwise { from, to, mask, xor } => {
            out.be32(1, register(*from));
            out.be32(2, register(*to));
            out.be32(3, mask.len() as u32);
            out.nest(4, |out| out.bytes(1, mask));
            out.nest(5, |out| out.bytes(1, xor));
        }
        Expr::Immediate { to, value } => {
            out.be32(1, register(*to));
            out.nest(2, |out| out.bytes(1, value));
        }
        Expr::Verdict(verdict) => {
            out.be32(1, VERDICT_REGISTER);
            out.nest(2, |out| verdict_data(out, verdict));
        }
        Expr::Lookup { set, key, to, absent } => {
            set_ref(out, set, own_ids);
            out.be32(2, register(*key));
            if let Some(to) = to {
                out.be32(3, register(*to));
            } else if *absent {
                out.be32(5, 1);
            }
        }
        Expr::VerdictLookup { set, key } => {
            set_ref(out, set, own_ids);
            out.be32(2, register(*key));
            out.be32(3, VERDICT_REGISTER);
        }
        Expr::Remember { set, key, value, timeout } => dynset(out, set, 1, *key, *value, *timeout),
        Expr::Forget { set, key, value } => dynset(out, set, 2, *key, *value, None),
        Expr::Random { modulus, to } => {
            const NUMGEN_RANDOM: u32 = 1;
            out.be32(1, register(*to));
            out.be32(2, *modulus);
            out.be32(3, NUMGEN_RANDOM);
        }
        Expr::DestinationNat { v6, address, port } => {
            out.be32(1, 1);
            out.be32(2, if *v6 { 10 } else { 2 });
            out.be32(3, register(*address));
            if let Some(port) = port {
                out.be32(5, register(*port));
            }
        }
        Expr::Masquerade { random } => {
            const FULLY_RANDOM: u32 = 16;
            if *random {
                out.be32(1, FULLY_RANDOM);
            }
        }
        Expr::Reject(Reject::PortUnreachable) => {
            out.be32(1, 2);
            out.bytes(2, &[1]);
        }
        Expr::Reject(Reject::TcpReset) => out.be32(1, 1),
        Expr::Counter => {
            out.be64(1, 0);
            out.be64(2, 0);
        }
        Expr::Limit { per_second, burst } => {
            out.be64(1, *per_second);
            out.be64(2, 1);
            out.be32(3, *burst);
            out.be32(4, 0);
        }
    }
}

fn set_ref(out: &mut Messages, set: &SetRef, own_ids: &mut impl Iterator<Item = u32>) {
    match set {
        SetRef::Named(name) => out.text(1, name),
        SetRef::Own(set, _) => {
            out.text(1, own_name(set));
            out.be32(4, own_ids.next().expect("the batch numbers every own set of a rule"));
        }
    }
}

/// The pattern by which the kernel names a rule's own set.
pub(super) fn own_name(set: &Set) -> &'static str {
    if set.is_map() { "__map%d" } else { "__set%d" }
}

fn dynset(out: &mut Messages, set: &str, op: u32, key: Reg, value: Option<Reg>, timeout: Option<Duration>) {
    out.text(1, set);
    out.be32(3, op);
    out.be32(4, register(key));
    if let Some(value) = value {
        out.be32(5, register(value));
    }
    if let Some(timeout) = timeout {
        out.be64(6, timeout.as_millis() as u64);
    }
}
