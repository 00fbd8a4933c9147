//! Reading single stored objects, for parts that need nothing else of the storage.

use std::collections::HashMap;
use std::sync::Arc;

use kube1_api::resource::ResourceTable;
use serde_json::Value;

use crate::authz::{NodeState, PodStamp};
use crate::storage::{Collection, Storage};

/// Gives the current state of stored objects.
pub trait Reader: Send + Sync + 'static {
    /// The object, from this server's view of the storage; `namespace` is empty for cluster-scoped resources.
    fn get(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Value>;
}

/// Reads the built-in resources from storage. Parses the objects that are asked for.
pub struct StorageReader {
    /// By plural name, then group.
    collections: HashMap<String, Vec<(String, Arc<Collection>)>>,
    pods: Arc<Collection>,
}

impl StorageReader {
    pub fn new(storage: &Storage, table: &ResourceTable) -> Self {
        let mut collections: HashMap<String, Vec<(String, Arc<Collection>)>> = HashMap::new();
        for row in table.iter().filter(|row| row.is_stored() && row.is_storage_version()) {
            let entry = (row.storage_group.clone(), storage.collection(row));
            collections.entry(row.storage_plural.clone()).or_default().push(entry);
        }
        let pods = table.stored("", "pods").expect("pods are a built-in resource");
        Self { collections, pods: storage.collection(&pods) }
    }

    /// The collection of a built-in resource.
    pub fn collection(&self, group: &str, plural: &str) -> Option<&Arc<Collection>> {
        self.collections.get(plural)?.iter().find(|(g, _)| g == group).map(|(_, collection)| collection)
    }
}

impl Reader for StorageReader {
    fn get(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        Some(self.collection(group, plural)?.get(namespace, name)?.value())
    }
}

impl NodeState for StorageReader {
    fn pods_on(&self, node: &str) -> Vec<PodStamp> {
        let stamp = |pod: &Arc<crate::storage::Object>| PodStamp {
            namespace: pod.namespace().into(),
            name: pod.name().into(),
            uid: pod.uid().into(),
            revision: pod.revision(),
        };
        self.pods.indexed(node).iter().map(stamp).collect()
    }
}

#[cfg(test)]
pub mod testing {
    use std::collections::BTreeMap;

    use parking_lot::Mutex;

    use super::*;

    /// Objects held in memory, by plural name, namespace and name.
    #[derive(Default)]
    pub struct Objects(Mutex<BTreeMap<(String, String, String), Value>>);

    impl Objects {
        pub fn put(&self, plural: &str, object: Value) {
            self.0.lock().insert(Self::key(plural, &object["metadata"]), object);
        }

        pub fn remove(&self, plural: &str, namespace: &str, name: &str) {
            self.0.lock().remove(&(plural.into(), namespace.into(), name.into()));
        }

        pub fn all(&self, plural: &str) -> Vec<Value> {
            self.0.lock().iter().filter(|(key, _)| key.0 == plural).map(|(_, object)| object.clone()).collect()
        }

        fn key(plural: &str, metadata: &Value) -> (String, String, String) {
            let text = |key: &str| metadata[key].as_str().unwrap_or_default().to_owned();
            (plural.into(), text("namespace"), text("name"))
        }
    }

    impl Reader for Objects {
        fn get(&self, _group: &str, plural: &str, namespace: &str, name: &str) -> Option<Value> {
            self.0.lock().get(&(plural.into(), namespace.into(), name.into())).cloned()
        }
    }
}
