//! nftables over netlink: tables are described as data and changed in atomic transactions.
//!
//! A [`Content`] says what a table holds; [`Table::replace`], [`Table::ensure`] and [`Table::change`] bring the kernel
//! there, each in one transaction that either happens completely or not at all.

mod batch;
mod content;
mod data;
mod encode;
mod expr;
mod foreign;
mod rule;
#[cfg(test)]
mod tests;

pub use batch::{NftError, Table};
pub use content::{Chain, ChainType, Content, Element, Hook, HookPoint, Set};
pub use data::{DataType, Key, ranges};
pub use expr::{Expr, Field, Reg, Reject, SetRef, Verdict};
pub use foreign::ForeignChain;
pub use rule::{CT_DNAT, CT_ESTABLISHED, CT_INVALID, CT_NEW, CT_RELATED, Rule};

/// Priorities of chains at which the kernel's own steps happen.
pub mod priority {
    pub const RAW: i32 = -300;
    pub const DSTNAT: i32 = -100;
    pub const FILTER: i32 = 0;
    pub const SRCNAT: i32 = 100;
}
