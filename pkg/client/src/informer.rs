//! Shared informers: one watch and one cache per kind and selection, however many components of a process use it.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use kube::api::ApiResource;
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cache::{Cache, IndexFn};
use crate::keep::Keep;
use crate::raw::{RawObject, follow};

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
    pub fn all<K: Keep>(&self) -> Informer<K> {
        self.select(Selection::default())
    }

    /// The objects of a kind that a selection names, in all namespaces.
    pub fn select<K: Keep>(&self, selection: Selection) -> Informer<K> {
        self.start("", selection)
    }

    /// The objects of a kind in one namespace that a selection names.
    pub fn select_in<K>(&self, namespace: &str, selection: Selection) -> Informer<K>
    where
        K: Keep<Object: Resource<Scope = NamespaceResourceScope>>,
    {
        self.start(namespace, selection)
    }

    fn start<K: Keep>(&self, namespace: &str, selection: Selection) -> Informer<K> {
        let mut started = self.started.lock();
        let key = (TypeId::of::<K>(), namespace.to_owned(), selection.clone());
        if let Some(found) = started.get(&key).and_then(|any| Arc::clone(any).downcast::<Inner<K>>().ok()) {
            return Informer { inner: found };
        }
        let inner = Arc::new(Inner::<K>::new());
        started.insert(key, Arc::clone(&inner) as Arc<dyn Any + Send + Sync>);
        self.feed(ApiResource::erase::<K::Object>(&()), namespace, selection, Arc::clone(&inner) as Arc<dyn Observer>);
        Informer { inner }
    }

    fn feed(&self, kind: ApiResource, namespace: &str, selection: Selection, observer: Arc<dyn Observer>) {
        let client = self.client.clone();
        let api = match namespace {
            "" => Api::all_with(client, &kind),
            _ => Api::namespaced_with(client, namespace, &kind),
        };
        let task = follow(api, kind.kind, selection, move |event| observer.observe(event));
        let shutdown = self.shutdown.clone();
        self.tracker.spawn(async move { shutdown.run_until_cancelled(task).await });
    }

    /// Waits until every informer has stopped. Call after `shutdown` is cancelled.
    pub async fn stopped(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}

type Tell<K> = Box<dyn Fn(&Event<K>) + Send + Sync>;

/// Whom to tell of changes, until this is cancelled.
struct Handler<K> {
    stop: Option<CancellationToken>,
    tell: Tell<K>,
}

/// What a watch feeds, whatever its kind.
trait Observer: Send + Sync {
    fn observe(&self, event: watcher::Event<RawObject>);
}

struct Inner<K> {
    cache: RwLock<Cache<K>>,
    /// What has come of a list that is not complete.
    listing: Mutex<Vec<K>>,
    /// Held while a change is applied and told, so that every handler sees every change once and in order.
    handlers: Mutex<Vec<Handler<K>>>,
    synced: watch::Sender<bool>,
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

impl<K: Keep> Informer<K> {
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.inner.cache.read().get(key).cloned()
    }

    /// All objects, in no particular order.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.inner.cache.read().all().cloned().collect()
    }

    pub fn list_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        self.inner.cache.read().of_namespace(namespace).cloned().collect()
    }

    pub fn len(&self) -> usize {
        self.inner.cache.read().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps an index of the objects by the values that `values` gives for each. Harmless when it exists already.
    pub fn add_index(&self, name: &'static str, values: IndexFn<K>) {
        self.inner.cache.write().add_index(name, values);
    }

    /// The objects whose index has `value`; none if there is no such index.
    pub fn by_index(&self, name: &'static str, value: &str) -> Vec<Arc<K>> {
        self.inner.cache.read().by_index(name, value)
    }

    /// Tells `handler` of every change from now on, after an `Added` for every object that is there already.
    ///
    /// Handlers run on the watch's own task: they must be quick, normally adding a key to a work queue, and must not
    /// add handlers. They may read this informer's cache, which holds the change already.
    pub fn add_handler(&self, handler: impl Fn(&Event<K>) + Send + Sync + 'static) {
        self.add(Handler { stop: None, tell: Box::new(handler) });
    }

    /// The same until `stop` is cancelled: it is not told of anything after that, and forgotten with the next change.
    pub fn add_handler_until(&self, stop: CancellationToken, handler: impl Fn(&Event<K>) + Send + Sync + 'static) {
        self.add(Handler { stop: Some(stop), tell: Box::new(handler) });
    }

    fn add(&self, handler: Handler<K>) {
        let mut handlers = self.inner.handlers.lock();
        for object in self.list() {
            (handler.tell)(&Event::Added(object));
        }
        handlers.push(handler);
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

impl<K: Keep> Inner<K> {
    fn new() -> Self {
        Self {
            cache: RwLock::default(),
            listing: Mutex::default(),
            handlers: Mutex::default(),
            synced: watch::Sender::new(false),
        }
    }

    fn tell(handlers: &mut Vec<Handler<K>>, event: &Event<K>) {
        handlers.retain(|handler| !handler.stop.as_ref().is_some_and(CancellationToken::is_cancelled));
        for handler in handlers {
            (handler.tell)(event);
        }
    }

    fn apply(&self, object: K) {
        let mut handlers = self.handlers.lock();
        self.apply_locked(&mut handlers, object);
    }

    fn apply_locked(&self, handlers: &mut Vec<Handler<K>>, object: K) {
        let new = Arc::new(object);
        let event = match self.cache.write().insert(Arc::clone(&new)) {
            Some(old) if old.version() == new.version() && new.version() != 0 => return,
            Some(old) => Event::Updated { old, new },
            None => Event::Added(new),
        };
        Self::tell(handlers, &event);
    }

    /// `last` is the object's last state, if it could be read.
    fn delete(&self, key: &ObjectKey, last: Option<K>) {
        let mut handlers = self.handlers.lock();
        let known = self.cache.write().remove(key);
        if let Some(known) = known {
            Self::tell(&mut handlers, &Event::Deleted(last.map_or(known, Arc::new)));
        }
    }

    /// Makes the cache equal to a complete list.
    fn replace(&self, objects: Vec<K>) {
        let mut handlers = self.handlers.lock();
        let listed: std::collections::HashSet<ObjectKey> = objects.iter().map(K::key).collect();
        let gone: Vec<ObjectKey> =
            self.cache.read().all().map(|object| object.key()).filter(|key| !listed.contains(key)).collect();
        for key in gone {
            let removed = self.cache.write().remove(&key);
            if let Some(object) = removed {
                Self::tell(&mut handlers, &Event::Deleted(object));
            }
        }
        for object in objects {
            self.apply_locked(&mut handlers, object);
        }
        drop(handlers);
        self.synced.send_replace(true);
    }
}

impl<K: Keep> Observer for Inner<K> {
    fn observe(&self, event: watcher::Event<RawObject>) {
        let decode = |raw: &RawObject| {
            let refused =
                |error| tracing::warn!(kind = %K::Object::kind(&()), object = %raw.key(), %error, "object left out");
            raw.decode::<K::Object>().map_err(refused).ok().map(K::keep)
        };
        match event {
            watcher::Event::Init => self.listing.lock().clear(),
            watcher::Event::InitApply(raw) => self.listing.lock().extend(decode(&raw)),
            watcher::Event::InitDone => {
                let listed = std::mem::take(&mut *self.listing.lock());
                self.replace(listed);
            }
            watcher::Event::Apply(raw) => {
                if let Some(object) = decode(&raw) {
                    self.apply(object);
                }
            }
            watcher::Event::Delete(raw) => self.delete(&raw.key(), decode(&raw)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use k8s_openapi::api::core::v1::ConfigMap;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    #[test]
    fn a_handler_is_forgotten_once_it_is_stopped() {
        let informer = Informer { inner: Arc::new(Inner::<ConfigMap>::new()) };
        let (stop, told) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&told);
        informer.add_handler_until(stop.clone(), move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let object = |version: &str| ConfigMap {
            metadata: ObjectMeta {
                name: Some("a".into()),
                resource_version: Some(version.into()),
                ..ObjectMeta::default()
            },
            ..ConfigMap::default()
        };
        informer.inner.apply(object("1"));
        assert_eq!(told.load(Ordering::Relaxed), 1);
        stop.cancel();
        informer.inner.apply(object("2"));
        assert_eq!(told.load(Ordering::Relaxed), 1);
        assert_eq!(Arc::strong_count(&told), 1, "what it held is free");
    }
}
