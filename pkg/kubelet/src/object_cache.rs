//! ConfigMaps and Secrets that pods of this node use: each is watched by itself, as long as a pod needs it.
//!
//! A node may only read objects that its pods name, so there is no list of all.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Resource;
use kube1_client::{Informer, Informers, ObjectKey, Selection};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

/// How long a pod waits for the first answer about an object.
const SYNC: Duration = Duration::from_secs(10);

/// Watched objects of one kind.
struct Watched<K> {
    entries: Mutex<HashMap<ObjectKey, Entry<K>>>,
}

struct Entry<K> {
    informer: Informer<K>,
    users: Arc<Mutex<BTreeSet<String>>>,
    stop: CancellationToken,
}

/// Tells the pods (by uid) that use an object that it changed.
type Notify = Arc<dyn Fn(&str) + Send + Sync>;

/// The objects that pods of this node use.
pub struct ObjectCache {
    client: kube::Client,
    shutdown: CancellationToken,
    notify: Notify,
    config_maps: Watched<ConfigMap>,
    secrets: Watched<Secret>,
}

/// Why an object could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    #[error("{kind} \"{name}\" not found")]
    NotFound { kind: &'static str, name: String },
    #[error("failed to sync {kind} cache: timed out waiting for {name}")]
    NotSynced { kind: &'static str, name: String },
}

impl ObjectCache {
    /// `notify` is called with a pod's uid when something that the pod uses has changed.
    pub fn new(client: kube::Client, shutdown: CancellationToken, notify: Notify) -> Self {
        let (config_maps, secrets) = (Watched::default(), Watched::default());
        Self { client, shutdown, notify, config_maps, secrets }
    }

    pub async fn config_map(&self, pod: &str, namespace: &str, name: &str) -> Result<Arc<ConfigMap>, ObjectError> {
        self.config_maps.get(self, pod, namespace, name, "configmap").await
    }

    pub async fn secret(&self, pod: &str, namespace: &str, name: &str) -> Result<Arc<Secret>, ObjectError> {
        self.secrets.get(self, pod, namespace, name, "secret").await
    }

    /// Ends the watches that only this pod needed.
    pub fn release(&self, pod: &str) {
        self.config_maps.release(pod);
        self.secrets.release(pod);
    }
}

impl<K> Default for Watched<K> {
    fn default() -> Self {
        Self { entries: Mutex::default() }
    }
}

impl<K> Watched<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    async fn get(
        &self,
        cache: &ObjectCache,
        pod: &str,
        namespace: &str,
        name: &str,
        kind: &'static str,
    ) -> Result<Arc<K>, ObjectError> {
        let key = ObjectKey::new(namespace, name);
        let informer = self.informer(cache, pod, &key);
        if tokio::time::timeout(SYNC, informer.synced()).await.is_err() {
            return Err(ObjectError::NotSynced { kind, name: name.to_owned() });
        }
        informer.get(&key).ok_or_else(|| ObjectError::NotFound { kind, name: name.to_owned() })
    }

    fn informer(&self, cache: &ObjectCache, pod: &str, key: &ObjectKey) -> Informer<K> {
        let mut entries = self.entries.lock();
        if let Some(entry) = entries.get_mut(key) {
            entry.users.lock().insert(pod.to_owned());
            return entry.informer.clone();
        }
        let stop = cache.shutdown.child_token();
        let informers = Informers::new(cache.client.clone(), stop.clone());
        let field_selector = format!("metadata.name={}", key.name);
        let selection = Selection { field_selector, ..Selection::default() };
        let informer: Informer<K> = informers.select_in(&key.namespace, selection);
        let users = Arc::new(Mutex::new(BTreeSet::from([pod.to_owned()])));
        let (told, notify) = (Arc::clone(&users), Arc::clone(&cache.notify));
        informer.add_handler(move |_| {
            for pod in told.lock().iter() {
                notify(pod);
            }
        });
        entries.insert(key.clone(), Entry { informer: informer.clone(), users, stop });
        informer
    }

    fn release(&self, pod: &str) {
        self.entries.lock().retain(|_, entry| {
            let mut users = entry.users.lock();
            users.remove(pod);
            if users.is_empty() {
                entry.stop.cancel();
            }
            !users.is_empty()
        });
    }
}
