//! What a table holds, as data that can be compared.

use std::collections::BTreeMap;
use std::time::Duration;

use super::data::{DataType, Key};
use super::expr::Verdict;
use super::rule::Rule;

/// Chains, sets and elements of a table, or of one owner's part of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Content {
    pub sets: BTreeMap<String, Set>,
    pub chains: BTreeMap<String, Chain>,
    /// By set, which need not be one of this content's own.
    pub elements: BTreeMap<String, BTreeMap<Key, Element>>,
}

impl Content {
    /// Adds a chain that others jump to.
    pub fn chain(&mut self, name: impl Into<String>, rules: Vec<Rule>) {
        self.chains.insert(name.into(), Chain { hook: None, rules });
    }

    /// Adds a chain that the kernel calls.
    pub fn base_chain(&mut self, name: impl Into<String>, hook: Hook, rules: Vec<Rule>) {
        self.chains.insert(name.into(), Chain { hook: Some(hook), rules });
    }

    pub fn set(&mut self, name: impl Into<String>, set: Set) {
        self.sets.insert(name.into(), set);
    }

    /// Adds an element to a set; an element with the same key is replaced.
    pub fn element(&mut self, set: impl Into<String>, key: Key, element: Element) {
        self.elements.entry(set.into()).or_default().insert(key, element);
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Chain {
    pub hook: Option<Hook>,
    pub rules: Vec<Rule>,
}

/// Where in a packet's way the kernel calls a chain. What no rule decides is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    pub kind: ChainType,
    pub point: HookPoint,
    pub priority: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainType {
    Filter,
    Nat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookPoint {
    Prerouting = 0,
    Input = 1,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

/// A set, or a map when it has a value type.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Set {
    pub key: Vec<DataType>,
    /// Empty for a set.
    pub value: Vec<DataType>,
    /// Whether the values are verdicts.
    pub verdicts: bool,
    /// Whether elements are ranges; see [`super::ranges`].
    pub interval: bool,
    /// Elements come from packets, and go when this time has passed without one.
    pub timeout: Option<Duration>,
}

impl Set {
    pub fn of(key: &[DataType]) -> Self {
        Self { key: key.to_vec(), ..Self::default() }
    }

    pub fn map(key: &[DataType], value: &[DataType]) -> Self {
        Self { key: key.to_vec(), value: value.to_vec(), ..Self::default() }
    }

    pub fn verdict_map(key: &[DataType]) -> Self {
        Self { key: key.to_vec(), verdicts: true, ..Self::default() }
    }

    pub(super) fn is_map(&self) -> bool {
        self.verdicts || !self.value.is_empty()
    }
}

/// What a set keeps at a key.
#[derive(Clone, Debug, PartialEq)]
pub enum Element {
    Member,
    /// The end of the range that the key before it begins.
    RangeEnd,
    Value(Key),
    Verdict(Verdict),
}
