//! Reading single stored objects, for parts that need nothing else of the storage.

use serde_json::Value;

/// Gives the current state of stored objects.
pub trait Reader: Send + Sync + 'static {
    /// The object, from this server's view of the storage; `namespace` is empty for cluster-scoped resources.
    fn get(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Value>;
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
