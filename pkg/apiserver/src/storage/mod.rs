//! All stored objects, in memory: collections that answer reads and watches, over a `Store` that keeps them.

mod changes;
mod cipher;
mod collection;
mod encryption;
mod error;
mod expiry;
mod feed;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod hub;
mod kms;
mod list;
mod locked;
mod map;
mod meters;
mod object;
mod pacer;
mod scan;
mod token;
mod watch;
mod watchers;

use std::sync::Arc;
use std::time::Duration;

use kube1_api::name::api_version;
use kube1_api::resource::{Resource, ResourceTable};
use kube1_api::status::Status;
use kube1_store::{Range, Store, StoreError};
use tokio_util::sync::CancellationToken;

pub use changes::Changes;
pub use cipher::{KeyError, SecretKey};
pub use collection::Collection;
pub use encryption::{Encryption, EncryptionError};
pub use error::StorageError;
pub use feed::Round;
pub use list::{ListPage, ListScan};
pub use object::Object;
pub use watch::{Encoding, Told, WatchEvent, WatchKind, WatchStream};

use hub::{Hub, Publisher};

/// All keys begin with this.
const ROOT: &str = "/registry/";
const HOUSEKEEPING: Duration = Duration::from_secs(15);
/// Lists at a revision, and continued lists, reach back this far at least and twice this far at most.
const COMPACTION: Duration = Duration::from_secs(150);

/// Why the stored objects could not be read at start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the stored object {0} cannot be read: restore a snapshot, or remove this key")]
    Malformed(String),
    #[error("the stored object {key} cannot be decrypted ({reason}): put the key back that it was written with")]
    Encrypted { key: String, reason: String },
}

/// Every collection of a server. Cheap to clone.
///
/// Reads come from memory and are consistent: a write that was acknowledged is seen by every read after it.
#[derive(Clone)]
pub struct Storage {
    hub: Arc<Hub>,
}

impl Storage {
    /// Loads what `store` holds, and keeps values in it as `encryption` says; as they are without.
    pub async fn open(
        store: Arc<dyn Store>,
        table: &ResourceTable,
        encryption: Option<Arc<Encryption>>,
    ) -> Result<Self, OpenError> {
        let hub = Arc::new(Hub::new(store.clone(), encryption.unwrap_or_default()));
        for row in table.iter().filter(|r| r.is_stored()) {
            hub.collection(&row.storage_group, &row.storage_plural, || identity(row));
        }
        let publisher = Arc::new(Publisher::new(&hub));
        hub.encryption().prime().await;
        let page = store.observe(Range::prefix(ROOT), publisher).await?;
        if hub.encryption().has_services()
            && let Err(reason) = hub.encryption().unlock(page.items.iter().map(|item| &item.value)).await
        {
            tracing::warn!(reason, "stored objects cannot be read before the key management service is well");
        }
        hub.load(page)?;
        Ok(Self { hub })
    }

    /// The objects of a resource, whichever of its versions the row is.
    pub fn collection(&self, resource: &Resource) -> Arc<Collection> {
        self.hub.collection(&resource.storage_group, &resource.storage_plural, || identity(resource))
    }

    /// Brings metrics up to date that are shown when they are read.
    pub fn show_metrics(&self) {
        self.hub.all().iter().for_each(|collection| collection.show_metrics());
    }

    /// The newest revision that reads show.
    pub fn revision(&self) -> u64 {
        self.hub.published()
    }

    /// Waits until reads show `revision`; 504 when that takes too long.
    pub async fn wait_for(&self, revision: u64) -> Result<(), Status> {
        self.hub.wait_for(revision).await
    }

    /// The store below, for snapshots.
    pub fn store(&self) -> &Arc<dyn Store> {
        self.hub.store()
    }

    /// Tells crowds of watchers, removes expired objects and forgets old history. Runs until cancelled.
    pub async fn run(&self, cancel: CancellationToken) {
        let unlock = async {
            loop {
                self.hub.unlock().await;
            }
        };
        tokio::join!(self.hub.pacer.run(&cancel), self.keep_house(&cancel), cancel.run_until_cancelled(unlock));
    }

    async fn keep_house(&self, cancel: &CancellationToken) {
        let mut tick = tokio::time::interval(HOUSEKEEPING);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut compacted_at = tokio::time::Instant::now();
        let mut compact_to = self.revision();
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                _ = tick.tick() => {}
            }
            self.hub.expire().await;
            if compacted_at.elapsed() >= COMPACTION {
                self.hub.compact(compact_to).await;
                compact_to = self.revision();
                compacted_at = tokio::time::Instant::now();
            }
        }
    }
}

fn identity(row: &Resource) -> collection::Identity {
    collection::Identity {
        api_version: api_version(&row.storage_group, &row.storage_version),
        kind: row.kind.clone(),
        selectable: row.selectable_fields.iter().map(|f| (*f).to_owned()).collect(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
