//! Shared informers: one watch and one cache per kind and selection, however many components of a process use it.

use std::any::{Any, TypeId};
use std::collections::{BTreeSet, HashMap};
use std::fmt::{self, Debug};
use std::hash::Hash;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use parking_lot::{Mutex, RwLock};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Namespace and name; the namespace is empty for cluster-scoped objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    pub namespace: String,
    pub name: String,
}

impl ObjectKey {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    pub fn of<K: Resource>(object: &K) -> Self {
        let meta = object.meta();
        Self::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// A change of the cache, told to handlers in the order in which it happened.
#[derive(Clone, Debug)]
pub enum Event<K> {
    Added(Arc<K>),
    Updated { old: Arc<K>, new: Arc<K> },
    Deleted(Arc<K>),
}

impl<K> Event<K> {
    /// The newest known state of the object.
    pub fn object(&self) -> &Arc<K> {
        match self {
            Self::Added(object) | Self::Deleted(object) | Self::Updated { new: object, .. } => object,
        }
    }
}

/// Which objects of a kind an informer holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selection {
    pub field_selector: String,
    pub label_selector: String,
}

/// Kind, namespace (all when empty) and selection.
type InformerKey = (TypeId, String, Selection);

/// Hands out informers, each started at its first use and stopped at `shutdown`.
///
/// Cloning shares everything. Two requests for one kind and selection get the same informer.
#[derive(Clone)]
pub struct Informers {
    client: Client,
    shutdown: CancellationToken,
    tracker: TaskTracker,
    started: Arc<Mutex<HashMap<InformerKey, Arc<dyn Any + Send + Sync>>>>,
}

impl Informers {
    /// A factory for informers that watch with `client`'s identity.
    pub fn new(client: Client, shutdown: CancellationToken) -> Self {
        Self { client, shutdown, tracker: TaskTracker::new(), started: Arc::default() }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// All objects of a kind, in all namespaces.
    pub fn all<K>(&self) -> Informer<K>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        self.select(Selection::default())
    }

    /// The objects of a kind that a selection names, in all namespaces.
    pub fn select<K>(&self, selection: Selection) -> Informer<K>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        self.start("", selection, || Api::all(self.client.clone()))
    }

    /// The objects of a kind in one namespace that a selection names.
    pub fn select_in<K>(&self, namespace: &str, selection: Selection) -> Informer<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + Sync
            + 'static,
    {
        self.start(namespace, selection, || Api::namespaced(self.client.clone(), namespace))
    }

    fn start<K>(&self, namespace: &str, selection: Selection, api: impl FnOnce() -> Api<K>) -> Informer<K>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let mut started = self.started.lock();
        let key = (TypeId::of::<K>(), namespace.to_owned(), selection.clone());
        if let Some(found) = started.get(&key).and_then(|any| Arc::clone(any).downcast::<Inner<K>>().ok()) {
            return Informer { inner: found };
        }
        let inner = Arc::new(Inner::<K>::new());
        started.insert(key, Arc::clone(&inner) as Arc<dyn Any + Send + Sync>);
        let task = run(Arc::clone(&inner), api(), selection);
        let shutdown = self.shutdown.clone();
        self.tracker.spawn(async move { shutdown.run_until_cancelled(task).await });
        Informer { inner }
    }

    /// Waits until every informer has stopped. Call after `shutdown` is cancelled.
    pub async fn stopped(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}

type Handler<K> = Box<dyn Fn(&Event<K>) + Send + Sync>;
type IndexFn<K> = fn(&K) -> Vec<String>;

struct Inner<K> {
    cache: RwLock<Cache<K>>,
    /// Held while a change is applied and told, so that every handler sees every change once and in order.
    handlers: Mutex<Vec<Handler<K>>>,
    synced: watch::Sender<bool>,
}

struct Cache<K> {
    objects: HashMap<ObjectKey, Arc<K>>,
    indexes: HashMap<&'static str, Index<K>>,
}

struct Index<K> {
    values: IndexFn<K>,
    keys: HashMap<String, BTreeSet<ObjectKey>>,
}

/// A cache of one kind, kept current by a watch.
///
/// Reads never wait for the server; after a disconnection they give the last known state.
pub struct Informer<K> {
    inner: Arc<Inner<K>>,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<K: Resource<DynamicType = ()>> Informer<K> {
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.inner.cache.read().objects.get(key).cloned()
    }

    /// All objects, in no particular order.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.inner.cache.read().objects.values().cloned().collect()
    }

    pub fn list_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let cache = self.inner.cache.read();
        cache.objects.iter().filter(|(key, _)| key.namespace == namespace).map(|(_, o)| Arc::clone(o)).collect()
    }

    pub fn len(&self) -> usize {
        self.inner.cache.read().objects.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps an index of the objects by the values that `values` gives for each. Harmless when it exists already.
    pub fn add_index(&self, name: &'static str, values: IndexFn<K>) {
        let mut cache = self.inner.cache.write();
        if cache.indexes.contains_key(name) {
            return;
        }
        let mut index = Index { values, keys: HashMap::new() };
        for (key, object) in &cache.objects {
            index.insert(key, object);
        }
        cache.indexes.insert(name, index);
    }

    /// The objects whose index has `value`; none if there is no such index.
    pub fn by_index(&self, name: &'static str, value: &str) -> Vec<Arc<K>> {
        let cache = self.inner.cache.read();
        let keys = cache.indexes.get(name).and_then(|index| index.keys.get(value));
        keys.into_iter().flatten().filter_map(|key| cache.objects.get(key).cloned()).collect()
    }

    /// Tells `handler` of every change from now on, after an `Added` for every object that is there already.
    ///
    /// Handlers run on the watch's own task: they must be quick, normally adding a key to a work queue, and must not
    /// add handlers. They may read this informer's cache, which holds the change already.
    pub fn add_handler(&self, handler: impl Fn(&Event<K>) + Send + Sync + 'static) {
        let mut handlers = self.inner.handlers.lock();
        for object in self.list() {
            handler(&Event::Added(object));
        }
        handlers.push(Box::new(handler));
    }

    /// Whether the first complete list has arrived.
    pub fn has_synced(&self) -> bool {
        *self.inner.synced.borrow()
    }

    /// Waits for the first complete list. Cancel-safe.
    pub async fn synced(&self) {
        let mut synced = self.inner.synced.subscribe();
        // The sender lives in `self`, so this cannot fail.
        let _ = synced.wait_for(|synced| *synced).await;
    }
}

impl<K: Resource<DynamicType = ()>> Inner<K> {
    fn new() -> Self {
        let cache = Cache { objects: HashMap::new(), indexes: HashMap::new() };
        Self { cache: RwLock::new(cache), handlers: Mutex::new(Vec::new()), synced: watch::Sender::new(false) }
    }

    fn tell(handlers: &[Handler<K>], event: &Event<K>) {
        for handler in handlers {
            handler(event);
        }
    }

    fn apply(&self, object: K) {
        let handlers = self.handlers.lock();
        self.apply_locked(&handlers, object);
    }

    fn apply_locked(&self, handlers: &[Handler<K>], object: K) {
        let (key, new) = (ObjectKey::of(&object), Arc::new(object));
        let event = match self.cache.write().insert(key, Arc::clone(&new)) {
            Some(old) if old.meta().resource_version == new.meta().resource_version => return,
            Some(old) => Event::Updated { old, new },
            None => Event::Added(new),
        };
        Self::tell(handlers, &event);
    }

    fn delete(&self, object: K) {
        let handlers = self.handlers.lock();
        let key = ObjectKey::of(&object);
        if self.cache.write().remove(&key).is_some() {
            Self::tell(&handlers, &Event::Deleted(Arc::new(object)));
        }
    }

    /// Makes the cache equal to a complete list.
    fn replace(&self, objects: Vec<K>) {
        let handlers = self.handlers.lock();
        let listed: std::collections::HashSet<ObjectKey> = objects.iter().map(ObjectKey::of).collect();
        let gone: Vec<ObjectKey> =
            self.cache.read().objects.keys().filter(|key| !listed.contains(*key)).cloned().collect();
        for key in gone {
            let removed = self.cache.write().remove(&key);
            if let Some(object) = removed {
                Self::tell(&handlers, &Event::Deleted(object));
            }
        }
        for object in objects {
            self.apply_locked(&handlers, object);
        }
        drop(handlers);
        self.synced.send_replace(true);
    }
}

impl<K> Cache<K> {
    fn insert(&mut self, key: ObjectKey, object: Arc<K>) -> Option<Arc<K>> {
        let old = self.objects.insert(key.clone(), Arc::clone(&object));
        for index in self.indexes.values_mut() {
            if let Some(old) = &old {
                index.remove(&key, old);
            }
            index.insert(&key, &object);
        }
        old
    }

    fn remove(&mut self, key: &ObjectKey) -> Option<Arc<K>> {
        let old = self.objects.remove(key)?;
        for index in self.indexes.values_mut() {
            index.remove(key, &old);
        }
        Some(old)
    }
}

impl<K> Index<K> {
    fn insert(&mut self, key: &ObjectKey, object: &K) {
        for value in (self.values)(object) {
            self.keys.entry(value).or_default().insert(key.clone());
        }
    }

    fn remove(&mut self, key: &ObjectKey, object: &K) {
        for value in (self.values)(object) {
            if let Some(keys) = self.keys.get_mut(&value) {
                keys.remove(key);
                if keys.is_empty() {
                    self.keys.remove(&value);
                }
            }
        }
    }
}

async fn run<K>(inner: Arc<Inner<K>>, api: Api<K>, selection: Selection)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let mut config = watcher::Config::default();
    if !selection.field_selector.is_empty() {
        config = config.fields(&selection.field_selector);
    }
    if !selection.label_selector.is_empty() {
        config = config.labels(&selection.label_selector);
    }
    let events = watcher(api, config).default_backoff().modify(|object| {
        // No component reads it, and it is often the larger half of an object.
        object.managed_fields_mut().clear();
        object.managed_fields_mut().shrink_to_fit();
    });
    let mut events = std::pin::pin!(events);
    let mut listing = Vec::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init) => listing = Vec::new(),
            Ok(watcher::Event::InitApply(object)) => listing.push(object),
            Ok(watcher::Event::InitDone) => inner.replace(std::mem::take(&mut listing)),
            Ok(watcher::Event::Apply(object)) => inner.apply(object),
            Ok(watcher::Event::Delete(object)) => inner.delete(object),
            Err(error) => {
                tracing::debug!(kind = %K::kind(&()), %error, "watch interrupted, will be resumed");
            }
        }
    }
}
