//! The kernel's expressions: the steps of a rule.

use std::net::IpAddr;
use std::time::Duration;

use super::content::{Element, Set};
use super::data::Key;

/// A 32 bit register; values of more bytes take the following ones too.
pub type Reg = u32;

/// What can be read from a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    NfProto,
    L4Proto,
    Mark,
    IifName,
    OifName,
    Saddr4,
    Daddr4,
    Saddr6,
    Daddr6,
    Sport,
    Dport,
    IcmpType,
    CtState,
    CtStatus,
    CtMark,
    /// What the routing tables say of the destination address.
    DaddrType,
    SaddrType,
}

impl Field {
    pub fn saddr(of: IpAddr) -> Self {
        if of.is_ipv4() { Self::Saddr4 } else { Self::Saddr6 }
    }

    pub fn daddr(of: IpAddr) -> Self {
        if of.is_ipv4() { Self::Daddr4 } else { Self::Daddr6 }
    }

    /// Registers that a value takes.
    pub(super) fn words(self) -> Reg {
        match self {
            Self::Saddr6 | Self::Daddr6 | Self::IifName | Self::OifName => 4,
            _ => 1,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    Drop,
    Return,
    Jump(String),
    Goto(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    PortUnreachable,
    TcpReset,
}

/// The set that a lookup uses.
#[derive(Clone, Debug, PartialEq)]
pub enum SetRef {
    Named(String),
    /// A constant set that belongs to the rule.
    Own(Set, Vec<(Key, Element)>),
}

impl From<&str> for SetRef {
    fn from(name: &str) -> Self {
        Self::Named(name.to_owned())
    }
}

impl From<String> for SetRef {
    fn from(name: String) -> Self {
        Self::Named(name)
    }
}

/// One step of a rule; a step that does not match ends the rule.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    Load {
        field: Field,
        to: Reg,
    },
    SetMark {
        from: Reg,
    },
    Compare {
        reg: Reg,
        equal: bool,
        value: Vec<u8>,
    },
    Range {
        reg: Reg,
        equal: bool,
        from: Vec<u8>,
        to: Vec<u8>,
    },
    Bitwise {
        from: Reg,
        to: Reg,
        mask: Vec<u8>,
        xor: Vec<u8>,
    },
    Immediate {
        to: Reg,
        value: Vec<u8>,
    },
    Verdict(Verdict),
    /// Without `to` the key must be there (or must not, when `absent`); with it, the value is put there.
    Lookup {
        set: SetRef,
        key: Reg,
        to: Option<Reg>,
        absent: bool,
    },
    /// Looks up a verdict and follows it.
    VerdictLookup {
        set: SetRef,
        key: Reg,
    },
    /// Adds the key with a value to a named map, or renews its time when it is there.
    Remember {
        set: String,
        key: Reg,
        value: Option<Reg>,
        timeout: Option<Duration>,
    },
    /// Removes the key; for a map, `value` must hold some value.
    Forget {
        set: String,
        key: Reg,
        value: Option<Reg>,
    },
    Random {
        modulus: u32,
        to: Reg,
    },
    DestinationNat {
        v6: bool,
        address: Reg,
        port: Option<Reg>,
    },
    Masquerade {
        random: bool,
    },
    Reject(Reject),
    Counter,
    /// At most so many packets in a second pass.
    Limit {
        per_second: u64,
        burst: u32,
    },
}
