//! What the collections share, and how commits reach them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use hashbrown::HashMap;
use kube1_api::status::Status;
use kube1_store::{Event, Observer, Origin, Page, Revision, Store};
use parking_lot::RwLock;

use super::collection::{Collection, Identity, Sealing};
use super::encryption::Encryption;
use super::object::{Draft, Object};
use super::pacer::Pacer;
use super::{OpenError, ROOT};

/// A reader of the future waits this long.
const PATIENCE: Duration = Duration::from_secs(3);

pub(super) struct Hub {
    store: Arc<dyn Store>,
    encryption: Arc<Encryption>,
    /// By group and plural.
    collections: RwLock<HashMap<String, HashMap<String, Arc<Collection>>>>,
    clock: Arc<Clock>,
    pub pacer: Arc<Pacer>,
}

/// The revisions that readers see.
pub(super) struct Clock {
    published: AtomicU64,
    compacted: AtomicU64,
    changes: tokio::sync::watch::Sender<u64>,
}

impl Clock {
    fn new() -> Self {
        Self { published: AtomicU64::new(0), compacted: AtomicU64::new(0), changes: tokio::sync::watch::Sender::new(0) }
    }

    /// Every collection shows all changes up to here.
    pub fn published(&self) -> u64 {
        self.published.load(Ordering::Acquire)
    }

    /// States before this one are not shown any more.
    pub fn compacted(&self) -> u64 {
        self.compacted.load(Ordering::Acquire)
    }

    fn publish(&self, revision: u64) {
        self.published.fetch_max(revision, Ordering::AcqRel);
        self.changes.send_replace(revision);
    }

    pub async fn wait_for(&self, revision: u64) -> Result<(), Status> {
        if self.published() >= revision {
            return Ok(());
        }
        let mut changes = self.changes.subscribe();
        let reached = changes.wait_for(|published| *published >= revision);
        match tokio::time::timeout(PATIENCE, reached).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Status::too_large_resource_version(revision, self.published())),
        }
    }
}

/// What a write hands to its own publication, and gets back from it.
pub(super) struct Write {
    pub collection: Arc<Collection>,
    /// `None` for deletes.
    pub draft: Option<Draft>,
    pub result: OnceLock<Arc<Object>>,
}

/// As configurations name a resource: `deployments.apps`, or `pods`.
fn full_name(group: &str, plural: &str) -> String {
    if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") }
}

impl Hub {
    pub fn new(store: Arc<dyn Store>, encryption: Arc<Encryption>) -> Self {
        Self { store, encryption, collections: RwLock::default(), clock: Arc::new(Clock::new()), pacer: Arc::default() }
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    pub fn encryption(&self) -> &Encryption {
        &self.encryption
    }

    pub fn published(&self) -> u64 {
        self.clock.published()
    }

    pub async fn wait_for(&self, revision: u64) -> Result<(), Status> {
        self.clock.wait_for(revision).await
    }

    pub fn collection(&self, group: &str, plural: &str, identity: impl FnOnce() -> Identity) -> Arc<Collection> {
        if let Some(found) = self.collections.read().get(group).and_then(|group| group.get(plural)) {
            return found.clone();
        }
        let resource = full_name(group, plural);
        let sealing = self.encryption.concerns(&resource).then(|| Sealing::new(self.encryption.clone(), resource));
        let mut collections = self.collections.write();
        let made = || {
            let prefix = format!("{ROOT}{}/{plural}/", if group.is_empty() { "core" } else { group });
            Arc::new(Collection::new(
                prefix,
                identity(),
                self.store.clone(),
                self.clock.clone(),
                self.pacer.clone(),
                sealing,
            ))
        };
        collections.entry_ref(group).or_default().entry_ref(plural).or_insert_with(made).clone()
    }

    pub fn all(&self) -> Vec<Arc<Collection>> {
        self.collections.read().values().flat_map(HashMap::values).cloned().collect()
    }

    /// The collection of a key. Objects of custom resources come before their rows: their own text tells the kind.
    fn owner(&self, key: &[u8], value: &[u8]) -> Option<Arc<Collection>> {
        let mut parts = std::str::from_utf8(key).ok()?.strip_prefix(ROOT)?.splitn(3, '/');
        let (group, plural) = (parts.next()?, parts.next()?);
        let group = if group == "core" { "" } else { group };
        let plain = || {
            let value = Bytes::copy_from_slice(value);
            self.encryption.decrypt(&full_name(group, plural), key, &value).unwrap_or(value)
        };
        Some(self.collection(group, plural, || Identity::read(&plain())))
    }

    /// Takes the first state.
    pub fn load(&self, page: Page) -> Result<(), OpenError> {
        for item in page.items {
            let name = || String::from_utf8_lossy(&item.key).into_owned();
            let owner = self.owner(&item.key, &item.value).ok_or_else(|| OpenError::Malformed(name()))?;
            owner.load(&item)?;
        }
        for collection in self.all() {
            collection.loaded(page.revision);
        }
        self.clock.compacted.store(page.revision, Ordering::Release);
        self.clock.publish(page.revision);
        Ok(())
    }

    fn publish(&self, event: &Event) {
        if let Some(write) = event.origin.as_ref().and_then(|o| o.downcast_ref::<Write>()) {
            if let Some(object) = write.collection.apply(&event.key, write.draft.as_ref(), event.revision) {
                let _ = write.result.set(object);
            }
            return;
        }
        // Written by somebody else, through the store.
        let value = event.value.as_ref().or(event.previous.as_ref()).map(|kv| &kv.value[..]).unwrap_or_default();
        let Some(owner) = self.owner(&event.key, value) else { return };
        match event.value.as_ref().map(|kv| owner.decode(kv)).transpose() {
            // It is put aside until it can be read.
            Ok(Some(None)) => {}
            Ok(draft) => {
                owner.apply(&event.key, draft.flatten().as_ref(), event.revision);
            }
            Err(error) => tracing::error!(%error, "ignoring a foreign write to the datastore"),
        }
    }

    /// Deletes what has expired.
    pub async fn expire(&self) {
        for collection in self.all() {
            collection.expire().await;
        }
    }

    pub async fn compact(&self, revision: u64) {
        self.clock.compacted.fetch_max(revision, Ordering::AcqRel);
        for collection in self.all() {
            collection.trim();
        }
        if let Err(error) = self.store.compact(revision).await {
            tracing::warn!(%error, "could not forget old revisions");
        }
    }
}

/// Hands commits to the collections. Weak, because the collections keep the store that keeps this.
pub(super) struct Publisher(Weak<Hub>);

impl Publisher {
    pub fn new(hub: &Arc<Hub>) -> Self {
        Self(Arc::downgrade(hub))
    }
}

impl Observer for Publisher {
    fn committed(&self, events: &[Event], revision: Revision) {
        let Some(hub) = self.0.upgrade() else { return };
        for event in events {
            hub.publish(event);
        }
        hub.clock.publish(revision);
    }
}

/// Keeps its type in one place for the writers.
pub(super) fn origin(write: &Arc<Write>) -> Origin {
    write.clone()
}
