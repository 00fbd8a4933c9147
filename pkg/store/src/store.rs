//! The trait that every engine implements.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::error::StoreError;
use crate::model::{Event, Page, Range, Revision, Txn};

/// Hears of every change.
///
/// Called in the order of revisions, once per commit, after the changes are durable and before their writers are
/// told. It must not block: all writers wait for it.
pub trait Observer: Send + Sync + 'static {
    /// `revision` is the store's newest one; `events` are never empty.
    fn committed(&self, events: &[Event], revision: Revision);
}

/// How a store does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// It takes requests.
    pub open: bool,
    /// The last change that was to be written could be.
    pub writes: bool,
}

/// Changes of a range of keys, in order.
#[derive(Debug)]
pub struct Watch {
    pub(crate) receiver: mpsc::Receiver<Vec<Event>>,
}

impl Watch {
    /// The next changes; `None` when the watcher was too slow or the store is closed.
    pub async fn next(&mut self) -> Option<Vec<Event>> {
        self.receiver.recv().await
    }
}

/// An ordered map from keys to values with one counter of revisions, as etcd's.
///
/// All methods are cancel-safe in that state stays consistent; a transaction whose future is dropped may still happen.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The newest revision that readers see.
    fn revision(&self) -> Revision;

    /// Reads a range at the newest or a kept older revision.
    async fn range(&self, range: Range) -> Result<Page, StoreError>;

    /// Does all of `txn`, or nothing. When it returns, the change is durable and every observer has seen it.
    async fn txn(&self, txn: Txn) -> Result<Revision, StoreError>;

    /// Calls `observer` for every commit after the returned page was read, which holds everything in `range` at
    /// that moment: nothing is missed and nothing is told twice.
    async fn observe(&self, range: Range, observer: Arc<dyn Observer>) -> Result<Page, StoreError>;

    /// Changes of keys in `range` after revision `after`.
    async fn watch(&self, range: Range, after: Revision) -> Result<Watch, StoreError>;

    /// Forgets the history before `revision`.
    async fn compact(&self, revision: Revision) -> Result<(), StoreError>;

    /// Bytes that it takes on disk.
    fn size(&self) -> u64;

    /// How the store does, as far as it knows without asking the disk.
    fn health(&self) -> Health;

    /// Writes a consistent copy to a new file; a server can be started from it.
    async fn snapshot(&self, path: &Path) -> Result<(), StoreError>;
}
