//! An informer's objects and the indexes over them.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::informer::ObjectKey;
use crate::keep::Keep;

/// The values under which an index holds an object.
pub(crate) type IndexFn<K> = fn(&K) -> Vec<String>;

/// Holds nothing but the objects for each of them: their own names are the keys.
pub(crate) struct Cache<K> {
    namespaces: HashMap<Box<str>, HashSet<Named<K>>>,
    indexes: Vec<Index<K>>,
}

/// An object of a namespace, found by its name.
struct Named<K>(Arc<K>);

impl<K: Keep> Borrow<str> for Named<K> {
    fn borrow(&self) -> &str {
        self.0.full_name().1
    }
}

impl<K: Keep> Hash for Named<K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let name: &str = self.borrow();
        name.hash(state);
    }
}

impl<K: Keep> PartialEq for Named<K> {
    fn eq(&self, other: &Self) -> bool {
        let (own, other): (&str, &str) = (self.borrow(), other.borrow());
        own == other
    }
}

impl<K: Keep> Eq for Named<K> {}

struct Index<K> {
    name: &'static str,
    values: IndexFn<K>,
    /// Objects by value, ordered by namespace and name.
    objects: HashMap<String, Vec<Arc<K>>>,
}

impl<K> Default for Cache<K> {
    fn default() -> Self {
        Self { namespaces: HashMap::new(), indexes: Vec::new() }
    }
}

impl<K: Keep> Cache<K> {
    /// Harmless when the index exists already.
    pub(crate) fn add_index(&mut self, name: &'static str, values: IndexFn<K>) {
        if self.indexes.iter().any(|index| index.name == name) {
            return;
        }
        let mut index = Index { name, values, objects: HashMap::new() };
        self.all().for_each(|object| index.insert(object));
        self.indexes.push(index);
    }

    pub(crate) fn by_index(&self, name: &'static str, value: &str) -> Vec<Arc<K>> {
        let index = self.indexes.iter().find(|index| index.name == name);
        index.and_then(|index| index.objects.get(value)).cloned().unwrap_or_default()
    }

    pub(crate) fn get(&self, key: &ObjectKey) -> Option<&Arc<K>> {
        self.namespaces.get(key.namespace.as_str())?.get(key.name.as_str()).map(|named| &named.0)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<K>> {
        self.namespaces.values().flatten().map(|named| &named.0)
    }

    pub(crate) fn of_namespace(&self, namespace: &str) -> impl Iterator<Item = &Arc<K>> {
        self.namespaces.get(namespace).into_iter().flatten().map(|named| &named.0)
    }

    pub(crate) fn len(&self) -> usize {
        self.namespaces.values().map(HashSet::len).sum()
    }

    pub(crate) fn insert(&mut self, object: Arc<K>) -> Option<Arc<K>> {
        let (namespace, _) = object.full_name();
        if !self.namespaces.contains_key(namespace) {
            self.namespaces.insert(namespace.into(), HashSet::new());
        }
        let objects = self.namespaces.get_mut(namespace)?;
        let old = objects.replace(Named(Arc::clone(&object))).map(|named| named.0);
        for index in &mut self.indexes {
            if let Some(old) = &old {
                index.remove(old);
            }
            index.insert(&object);
        }
        old
    }

    pub(crate) fn remove(&mut self, key: &ObjectKey) -> Option<Arc<K>> {
        let objects = self.namespaces.get_mut(key.namespace.as_str())?;
        let old = objects.take(key.name.as_str())?.0;
        if objects.is_empty() {
            self.namespaces.remove(key.namespace.as_str());
        }
        for index in &mut self.indexes {
            index.remove(&old);
        }
        Some(old)
    }
}

impl<K: Keep> Index<K> {
    fn insert(&mut self, object: &Arc<K>) {
        for value in (self.values)(object) {
            let objects = self.objects.entry(value).or_default();
            match objects.binary_search_by(|other| other.full_name().cmp(&object.full_name())) {
                Ok(place) => objects[place] = Arc::clone(object),
                Err(place) => objects.insert(place, Arc::clone(object)),
            }
        }
    }

    fn remove(&mut self, object: &K) {
        for value in (self.values)(object) {
            let Some(objects) = self.objects.get_mut(&value) else { continue };
            if let Ok(place) = objects.binary_search_by(|other| other.full_name().cmp(&object.full_name())) {
                objects.remove(place);
            }
            if objects.is_empty() {
                self.objects.remove(&value);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    use super::*;

    fn map(namespace: &str, name: &str, color: &str) -> Arc<ConfigMap> {
        let meta = json!({"namespace": namespace, "name": name, "labels": {"color": color}});
        Arc::new(serde_json::from_value(json!({"metadata": meta})).unwrap())
    }

    #[test]
    fn objects_are_found_by_name_namespace_and_index_until_they_go() {
        let mut cache = Cache::default();
        cache.insert(map("n", "b", "red"));
        cache.add_index("color", |map: &ConfigMap| {
            map.metadata.labels.iter().flatten().map(|(_, v)| v.clone()).collect()
        });
        for (namespace, name, color) in [("n", "a", "red"), ("m", "a", "red"), ("n", "c", "blue"), ("n", "c", "red")] {
            cache.insert(map(namespace, name, color));
        }
        let red = |cache: &Cache<ConfigMap>| {
            cache.by_index("color", "red").iter().map(|m| m.key().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(red(&cache), ["m/a", "n/a", "n/b", "n/c"]);
        assert!(cache.by_index("color", "blue").is_empty() && cache.by_index("other", "red").is_empty());
        assert_eq!((cache.len(), cache.of_namespace("n").count(), cache.all().count()), (4, 3, 4));
        assert!(cache.get(&ObjectKey::new("m", "a")).is_some() && cache.get(&ObjectKey::new("m", "b")).is_none());
        assert!(cache.remove(&ObjectKey::new("m", "a")).is_some() && cache.remove(&ObjectKey::new("m", "a")).is_none());
        assert_eq!((red(&cache).len(), cache.namespaces.len()), (3, 1), "an empty namespace is none");
    }
}
