//! Lists of values.

use std::sync::Arc;

use serde_json::Value as Json;

use super::shape::{Keyed, Shape};
use super::value::Value;

#[derive(Clone, Debug)]
pub enum List<'a> {
    Owned(Arc<Vec<Value<'a>>>),
    Json {
        items: &'a [Json],
        item: &'a Shape,
        keyed: &'a Keyed,
    },
    /// Two after each other, which takes no time and memory to make.
    Joined(Arc<Joined<'a>>),
}

#[derive(Debug)]
pub struct Joined<'a> {
    first: List<'a>,
    second: List<'a>,
    len: usize,
    depth: u32,
}

/// Lists joined deeper than this are copied, so that nothing recurses far.
const JOINED_MAX: u32 = 64;
/// Copying more items than this is left to the deeper structure.
const COPIED_MAX: usize = 1 << 20;

impl<'a> From<Vec<Value<'a>>> for List<'a> {
    fn from(items: Vec<Value<'a>>) -> Self {
        Self::Owned(Arc::new(items))
    }
}

impl<'a> List<'a> {
    pub fn len(&self) -> usize {
        match self {
            Self::Owned(items) => items.len(),
            Self::Json { items, .. } => items.len(),
            Self::Joined(joined) => joined.len,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn get(&self, index: usize) -> Option<Value<'a>> {
        match self {
            Self::Owned(items) => items.get(index).cloned(),
            Self::Json { items, item, .. } => items.get(index).map(|i| Value::shaped(i, item)),
            Self::Joined(joined) => {
                let first = joined.first.len();
                if index < first { joined.first.get(index) } else { joined.second.get(index - first) }
            }
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> {
        (0..self.len()).map_while(|index| self.get(index))
    }

    fn depth(&self) -> u32 {
        match self {
            Self::Joined(joined) => joined.depth,
            _ => 0,
        }
    }

    pub(super) fn contains(&self, value: &Value<'_>) -> bool {
        self.iter().any(|item| item.equals(value))
    }

    /// One list after the other; sets and lists with keys are merged. None if it would take too much memory.
    pub(super) fn join(self, other: Self) -> Option<Self> {
        if let Self::Json { keyed, .. } = &self {
            match keyed {
                Keyed::Index => {}
                Keyed::Value => {
                    let new: Vec<_> = other.iter().filter(|item| !self.contains(item)).collect();
                    return Some(Self::from(self.iter().chain(new).collect::<Vec<_>>()));
                }
                Keyed::Fields(keys) => return Some(self.merged(&other, keys)),
            }
        }
        if self.is_empty() {
            return Some(other);
        }
        if other.is_empty() {
            return Some(self);
        }
        let (len, depth) = (self.len().checked_add(other.len())?, self.depth().max(other.depth()) + 1);
        if depth > JOINED_MAX {
            return (len <= COPIED_MAX).then(|| Self::from(self.iter().chain(other.iter()).collect::<Vec<_>>()));
        }
        Some(Self::Joined(Arc::new(Joined { first: self, second: other, len, depth })))
    }

    fn merged(&self, other: &Self, keys: &[String]) -> Self {
        let mut merged: Vec<Value<'a>> = self.iter().collect();
        for item in other.iter() {
            match merged.iter_mut().find(|known| same_keys(known, &item, keys)) {
                Some(known) => *known = item,
                None => merged.push(item),
            }
        }
        Self::from(merged)
    }

    /// An item at the end, in place where nothing else has the list.
    pub(super) fn push(&mut self, item: Value<'a>) {
        if let Self::Owned(items) = self {
            Arc::make_mut(items).push(item);
        } else {
            *self = Self::from(self.iter().chain([item]).collect::<Vec<_>>());
        }
    }

    /// The order counts, unless the first is a set or has keys.
    pub(super) fn equals(&self, other: &Self) -> bool {
        if self.len() != other.len() {
            return false;
        }
        let keyed = match (self, other) {
            (Self::Json { keyed, .. }, _) | (_, Self::Json { keyed, .. }) => *keyed,
            _ => &Keyed::Index,
        };
        match keyed {
            Keyed::Index => self.iter().zip(other.iter()).all(|(a, b)| a.equals(&b)),
            Keyed::Value => self.iter().all(|item| other.contains(&item)),
            Keyed::Fields(keys) => {
                let same = |item: &Value<'_>| other.iter().find(|o| same_keys(o, item, keys));
                self.iter().all(|item| same(&item).is_some_and(|o| o.equals(&item)))
            }
        }
    }
}

fn same_keys(a: &Value<'_>, b: &Value<'_>, keys: &[String]) -> bool {
    let (Value::Map(a), Value::Map(b)) = (a, b) else { return false };
    keys.iter().all(|key| {
        let key = Value::from(super::shape::escape(key).unwrap_or_default());
        match (a.get(&key), b.get(&key)) {
            (Some(a), Some(b)) => a.equals(&b),
            (None, None) => true,
            _ => false,
        }
    })
}
