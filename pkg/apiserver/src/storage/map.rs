//! The objects of a collection, ordered by namespace and name. Copies share structure, so a reader takes one in
//! constant time and is not disturbed by writers.

use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;

use equivalent::{Comparable, Equivalent};
use imbl::OrdSet;

use super::object::Object;

#[derive(Clone, Debug)]
struct Entry(Arc<Object>);

/// Namespace and name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
}

impl Entry {
    fn key(&self) -> Key<'_> {
        Key { namespace: self.0.namespace(), name: self.0.name() }
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl Equivalent<Entry> for Key<'_> {
    fn equivalent(&self, entry: &Entry) -> bool {
        *self == entry.key()
    }
}

impl Comparable<Entry> for Key<'_> {
    fn compare(&self, entry: &Entry) -> Ordering {
        self.cmp(&entry.key())
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct ObjectMap(OrdSet<Entry>);

impl FromIterator<Arc<Object>> for ObjectMap {
    fn from_iter<I: IntoIterator<Item = Arc<Object>>>(objects: I) -> Self {
        Self(objects.into_iter().map(Entry).collect())
    }
}

impl ObjectMap {
    pub fn get(&self, key: Key<'_>) -> Option<&Arc<Object>> {
        self.0.get(&key).map(|e| &e.0)
    }

    /// Returns what the key held.
    pub fn insert(&mut self, object: Arc<Object>) -> Option<Arc<Object>> {
        self.0.insert(Entry(object)).map(|e| e.0)
    }

    pub fn remove(&mut self, key: Key<'_>) -> Option<Arc<Object>> {
        self.0.remove(&key).map(|e| e.0)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// From `start` on, to the end of the namespace if one is given.
    pub fn range<'a>(
        &'a self,
        namespace: Option<&'a str>,
        start: Bound<Key<'a>>,
    ) -> impl Iterator<Item = &'a Arc<Object>> {
        let start = match (namespace, start) {
            (Some(namespace), Bound::Unbounded) => Bound::Included(Key { namespace, name: "" }),
            (_, start) => start,
        };
        let entries = self.0.range::<_, Key<'_>>((start, Bound::Unbounded)).map(|e| &e.0);
        entries.take_while(move |o| namespace.is_none_or(|ns| o.namespace() == ns))
    }
}
