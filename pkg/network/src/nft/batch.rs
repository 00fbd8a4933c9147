//! Transactions.

use std::io;

use super::content::{Chain, ChainType, Content, Element, Set};
use super::data::Key;
use super::encode;
use super::expr::{Expr, SetRef};
use super::rule::Rule;
use crate::nfnl::{Messages, NfnlSocket};

const FAMILY_INET: u8 = 1;
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
pub(super) const NEW_TABLE: u16 = SUBSYSTEM << 8;
const GET_TABLE: u16 = NEW_TABLE + 1;
const DELETE_TABLE: u16 = NEW_TABLE + 2;
const NEW_CHAIN: u16 = NEW_TABLE + 3;
const DELETE_CHAIN: u16 = NEW_TABLE + 5;
const NEW_RULE: u16 = NEW_TABLE + 6;
const DELETE_RULE: u16 = NEW_TABLE + 8;
const NEW_SET: u16 = NEW_TABLE + 9;
const DELETE_SET: u16 = NEW_TABLE + 11;
const NEW_ELEMENT: u16 = NEW_TABLE + 12;
const DELETE_ELEMENT: u16 = NEW_TABLE + 14;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

/// An attribute's length has 16 bits, so long lists of elements go in several messages.
const ELEMENTS_PER_MESSAGE: usize = 400;

/// Why the kernel refused a transaction, of which then nothing has happened.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    #[error("cannot talk to nftables (kernel support for nf_tables and CAP_NET_ADMIN are needed)")]
    Socket(#[source] io::Error),
    #[error("the kernel refused to change nftables table {table}: {what}")]
    Refused { table: String, what: String, source: io::Error },
}

impl NftError {
    /// Whether a table, set or element that the transaction needs is not there.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Refused { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// A table of family `inet` in the calling thread's network namespace.
#[derive(Clone, Debug)]
pub struct Table {
    name: String,
}

impl Table {
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }

    /// Makes the table hold exactly `content`, whatever it held before.
    pub fn replace(&self, content: &Content) -> Result<(), NftError> {
        let nothing = Content::default();
        let mut batch = Batch::new(&self.name);
        batch.table(NEW_TABLE);
        batch.table(DELETE_TABLE);
        batch.table(NEW_TABLE);
        batch.change(&[(&nothing, content)]);
        batch.commit()
    }

    /// Adds what is missing and rewrites the named chains; other chains, sets and elements stay.
    pub fn ensure(&self, content: &Content) -> Result<(), NftError> {
        let nothing = Content::default();
        let mut batch = Batch::new(&self.name);
        batch.table(NEW_TABLE);
        batch.change(&[(&nothing, content)]);
        batch.commit()
    }

    /// Brings each pair's part of the table from its first to its second state.
    pub fn change(&self, changes: &[(&Content, &Content)]) -> Result<(), NftError> {
        let mut batch = Batch::new(&self.name);
        batch.change(changes);
        if batch.is_empty() { Ok(()) } else { batch.commit() }
    }

    /// Whether the kernel has the table.
    pub fn exists(&self) -> Result<bool, NftError> {
        let mut messages = Messages::default();
        let sequence = messages.push(GET_TABLE, 0, FAMILY_INET, 0, |out| out.text(1, &self.name));
        messages.acknowledge_last();
        let socket = NfnlSocket::open().map_err(NftError::Socket)?;
        let refusals = socket.transact(messages, sequence).map_err(NftError::Socket)?;
        Ok(refusals.is_empty())
    }

    /// Removes the table if it exists.
    pub fn delete(&self) -> Result<(), NftError> {
        let mut batch = Batch::new(&self.name);
        batch.table(NEW_TABLE);
        batch.table(DELETE_TABLE);
        batch.commit()
    }
}

pub(super) struct Batch<'a> {
    family: u8,
    table: &'a str,
    messages: Messages,
    /// What each message does, for errors.
    steps: Vec<(&'static str, &'a str)>,
    set_ids: u32,
}

impl<'a> Batch<'a> {
    fn new(table: &'a str) -> Self {
        Self::of_family(FAMILY_INET, table)
    }

    pub(super) fn of_family(family: u8, table: &'a str) -> Self {
        let mut messages = Messages::default();
        messages.push(BATCH_BEGIN, 0, 0, SUBSYSTEM, |_| {});
        Self { family, table, messages, steps: vec![("begin", "")], set_ids: 0 }
    }

    fn is_empty(&self) -> bool {
        self.steps.len() == 1
    }

    fn step(&mut self, kind: u16, flags: u16, what: (&'static str, &'a str), fill: impl FnOnce(&mut Messages)) {
        self.messages.push(kind, flags, self.family, 0, fill);
        self.steps.push(what);
    }

    fn table(&mut self, kind: u16) {
        let table = self.table;
        let flags = if kind == NEW_TABLE { CREATE } else { 0 };
        self.step(kind, flags, ("change table", table), |out| out.text(1, table));
    }

    pub(super) fn change(&mut self, changes: &[(&'a Content, &'a Content)]) {
        for (old, new) in changes {
            self.add_sets_and_chains(old, new);
        }
        for (old, new) in changes {
            self.delete_elements(old, new);
        }
        for (old, new) in changes {
            self.rewrite_chains(old, new);
        }
        for (old, new) in changes {
            self.add_elements(old, new);
        }
        for (old, new) in changes {
            self.delete_sets_and_chains(old, new);
        }
    }

    fn add_sets_and_chains(&mut self, old: &'a Content, new: &'a Content) {
        for (name, set) in &new.sets {
            if old.sets.get(name) != Some(set) {
                self.new_set(name, set, None);
            }
        }
        for (name, chain) in &new.chains {
            if old.chains.get(name).map(|old| old.hook) != Some(chain.hook) {
                self.new_chain(name, chain);
            }
        }
    }

    fn delete_elements(&mut self, old: &'a Content, new: &'a Content) {
        for (set, elements) in &old.elements {
            if old.sets.contains_key(set) && !new.sets.contains_key(set) {
                continue; // They go with the set.
            }
            let kept = new.elements.get(set);
            let gone = elements.iter().filter(|(key, element)| kept.and_then(|kept| kept.get(*key)) != Some(*element));
            self.elements(DELETE_ELEMENT, set, &gone.collect::<Vec<_>>());
        }
    }

    fn add_elements(&mut self, old: &'a Content, new: &'a Content) {
        for (set, elements) in &new.elements {
            let had = old.elements.get(set);
            let added = elements.iter().filter(|(key, element)| had.and_then(|had| had.get(*key)) != Some(*element));
            self.elements(NEW_ELEMENT, set, &added.collect::<Vec<_>>());
        }
    }

    fn rewrite_chains(&mut self, old: &'a Content, new: &'a Content) {
        let gone = old.chains.keys().filter(|name| !new.chains.contains_key(*name));
        gone.for_each(|name| self.flush_chain(name));
        for (name, chain) in &new.chains {
            if old.chains.get(name).map(|old| &old.rules) != Some(&chain.rules) {
                self.flush_chain(name);
                chain.rules.iter().for_each(|rule| self.new_rule(name, rule));
            }
        }
    }

    fn delete_sets_and_chains(&mut self, old: &'a Content, new: &'a Content) {
        let table = self.table;
        for name in old.sets.keys().filter(|name| !new.sets.contains_key(*name)) {
            self.step(DELETE_SET, 0, ("delete set", name), |out| {
                out.text(1, table);
                out.text(2, name);
            });
        }
        for name in old.chains.keys().filter(|name| !new.chains.contains_key(*name)) {
            self.step(DELETE_CHAIN, 0, ("delete chain", name), |out| {
                out.text(1, table);
                out.text(3, name);
            });
        }
    }

    fn new_set(&mut self, name: &'a str, set: &'a Set, own_size: Option<usize>) -> u32 {
        self.set_ids += 1;
        let (table, id) = (self.table, self.set_ids);
        self.step(NEW_SET, CREATE, ("add set", name), |out| encode::set(out, table, name, set, id, own_size));
        id
    }

    fn new_chain(&mut self, name: &'a str, chain: &'a Chain) {
        let table = self.table;
        self.step(NEW_CHAIN, CREATE, ("add chain", name), |out| {
            out.text(1, table);
            out.text(3, name);
            let Some(hook) = chain.hook else { return };
            out.nest(4, |out| {
                out.be32(1, hook.point as u32);
                out.be32(2, hook.priority as u32);
            });
            const ACCEPT: u32 = 1;
            out.be32(5, ACCEPT);
            out.text(7, if hook.kind == ChainType::Nat { "nat" } else { "filter" });
        });
    }

    fn flush_chain(&mut self, name: &'a str) {
        let table = self.table;
        self.step(DELETE_RULE, 0, ("empty chain", name), |out| {
            out.text(1, table);
            out.text(2, name);
        });
    }

    fn new_rule(&mut self, chain: &'a str, rule: &'a Rule) {
        self.put_rule(chain, rule, APPEND);
    }

    /// Adds a rule before all others of its chain.
    pub(super) fn first_rule(&mut self, chain: &'a str, rule: &'a Rule) {
        self.put_rule(chain, rule, 0);
    }

    /// Removes the rule that the kernel knows by this number.
    pub(super) fn delete_rule(&mut self, chain: &'a str, handle: u64) {
        let table = self.table;
        self.step(DELETE_RULE, 0, ("delete a rule of chain", chain), |out| {
            out.text(1, table);
            out.text(2, chain);
            out.be64(3, handle);
        });
    }

    fn put_rule(&mut self, chain: &'a str, rule: &'a Rule, place: u16) {
        let mut own_ids = Vec::new();
        for expr in &rule.exprs {
            let (Expr::Lookup { set, .. } | Expr::VerdictLookup { set, .. }) = expr else { continue };
            if let SetRef::Own(set, elements) = set {
                let name = encode::own_name(set);
                let id = self.new_set(name, set, Some(elements.len()));
                let elements: Vec<_> = elements.iter().map(|(key, element)| (key, element)).collect();
                self.elements_of(NEW_ELEMENT, name, Some(id), &elements);
                own_ids.push(id);
            }
        }
        let table = self.table;
        self.step(NEW_RULE, CREATE | place, ("add a rule to chain", chain), |out| {
            out.text(1, table);
            out.text(2, chain);
            out.nest(4, |out| encode::exprs(out, &rule.exprs, &own_ids));
        });
    }

    fn elements(&mut self, kind: u16, set: &'a str, elements: &[(&Key, &Element)]) {
        self.elements_of(kind, set, None, elements);
    }

    fn elements_of(&mut self, kind: u16, set: &'a str, id: Option<u32>, elements: &[(&Key, &Element)]) {
        let table = self.table;
        for some in elements.chunks(ELEMENTS_PER_MESSAGE) {
            let flags = if kind == NEW_ELEMENT { CREATE } else { 0 };
            self.step(kind, flags, ("change elements of set", set), |out| {
                out.text(1, table);
                out.text(2, set);
                if let Some(id) = id {
                    out.be32(4, id);
                }
                out.nest(3, |out| some.iter().for_each(|(key, element)| encode::element(out, key, element)));
            });
        }
    }

    pub(super) fn commit(mut self) -> Result<(), NftError> {
        self.messages.acknowledge_last();
        let last = self.messages.sequence();
        self.messages.push(BATCH_END, 0, 0, SUBSYSTEM, |_| {});
        let socket = NfnlSocket::open().map_err(NftError::Socket)?;
        let refusals = socket.transact(self.messages, last).map_err(NftError::Socket)?;
        let Some((sequence, source)) = refusals.into_iter().next() else { return Ok(()) };
        let (what, name) = self.steps.get(sequence as usize - 1).copied().unwrap_or(("commit", ""));
        let what = format!("{what} {name}");
        Err(NftError::Refused { table: self.table.to_owned(), what, source })
    }
}
