//! What goes into a store and comes out of it.

use std::any::Any;
use std::sync::Arc;

use bytes::Bytes;

/// The store's counter. Every transaction that changes something takes the next one; the first is 2, as in etcd.
pub type Revision = u64;

/// Something the writer of a transaction hands to the observers of its events, so that they need not decode values
/// that it just encoded. It never reaches the disk.
pub type Origin = Arc<dyn Any + Send + Sync>;

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    pub key: Bytes,
    pub value: Bytes,
    pub create_revision: Revision,
    pub mod_revision: Revision,
    /// How often the key was put since it was created; the first put is 1.
    pub version: u64,
}

/// Asks for keys, in order, from `start` up to and without `end`.
#[derive(Clone, Debug, Default)]
pub struct Range {
    pub start: Bytes,
    /// Empty: no upper bound.
    pub end: Bytes,
    /// The most keys wanted; 0 for all.
    pub limit: usize,
    /// The state asked for; `None` for the newest.
    pub revision: Option<Revision>,
}

impl Range {
    /// All keys that begin with `prefix`.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let start = prefix.into();
        Self { end: prefix_end(&start), start, ..Self::default() }
    }

    /// One key.
    pub fn key(key: impl Into<Bytes>) -> Self {
        let start = key.into();
        let end = [&start[..], &[0]].concat().into();
        Self { start, end, ..Self::default() }
    }

    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    #[must_use]
    pub fn at(mut self, revision: Revision) -> Self {
        self.revision = Some(revision);
        self
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        key >= &self.start[..] && (self.end.is_empty() || key < &self.end[..])
    }
}

/// The least key above every key with the prefix; empty when there is none.
fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            break;
        }
    }
    end.into()
}

/// Answer to a `Range`.
#[derive(Clone, Debug, Default)]
pub struct Page {
    pub items: Vec<KeyValue>,
    /// The store's revision when this was read (not the one asked for).
    pub revision: Revision,
    /// Keys beyond the limit exist.
    pub more: bool,
}

/// What must hold for a transaction to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compare {
    Absent(Bytes),
    /// The key was last written at this revision.
    Modified(Bytes, Revision),
}

/// Puts and deletes that happen together, or not at all when a compare fails. Deleting an absent key does nothing.
#[derive(Clone, Default)]
pub struct Txn {
    pub compares: Vec<Compare>,
    pub puts: Vec<(Bytes, Bytes)>,
    pub deletes: Vec<Bytes>,
    pub origin: Option<Origin>,
}

impl Txn {
    pub fn new() -> Self {
        Self::default()
    }

    /// Only when the key does not exist.
    #[must_use]
    pub fn if_absent(mut self, key: impl Into<Bytes>) -> Self {
        self.compares.push(Compare::Absent(key.into()));
        self
    }

    /// Only when the key was last written at `revision`.
    #[must_use]
    pub fn if_modified_at(mut self, key: impl Into<Bytes>, revision: Revision) -> Self {
        self.compares.push(Compare::Modified(key.into(), revision));
        self
    }

    #[must_use]
    pub fn put(mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        self.puts.push((key.into(), value.into()));
        self
    }

    #[must_use]
    pub fn delete(mut self, key: impl Into<Bytes>) -> Self {
        self.deletes.push(key.into());
        self
    }

    #[must_use]
    pub fn origin(mut self, origin: Origin) -> Self {
        self.origin = Some(origin);
        self
    }

    pub(crate) fn size(&self) -> usize {
        self.puts.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>()
            + self.deletes.iter().map(Bytes::len).sum::<usize>()
    }
}

/// One key's change.
#[derive(Clone)]
pub struct Event {
    pub key: Bytes,
    /// `None` when the key was deleted.
    pub value: Option<KeyValue>,
    /// What the key held before.
    pub previous: Option<KeyValue>,
    pub revision: Revision,
    pub origin: Option<Origin>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_cover_exactly_their_keys() {
        let range = Range::prefix("a/");
        assert!(range.contains(b"a/") && range.contains(b"a/\xff") && !range.contains(b"a0") && !range.contains(b"a"));
        assert_eq!(prefix_end(b"a\xff\xff"), "b");
        assert!(prefix_end(b"\xff").is_empty());
        let key = Range::key("k");
        assert!(key.contains(b"k") && !key.contains(b"k\x01"));
    }
}
