//! How a store fails.

use std::path::PathBuf;

use crate::model::{KeyValue, Revision};

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A compare failed: what the key holds instead.
    #[error("the key was changed by someone else")]
    Compare { index: usize, current: Option<KeyValue> },
    /// The revision is no longer kept.
    #[error("revision {asked} has been compacted; the oldest kept one is {oldest}")]
    Compacted { asked: Revision, oldest: Revision },
    #[error("revision {asked} is in the future; the newest one is {newest}")]
    Future { asked: Revision, newest: Revision },
    /// Nothing of this write is in the store. Later writes may succeed.
    #[error("could not write to the datastore {}: check the disk's free space and health", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: std::sync::Arc<redb::Error>,
    },
    #[error("could not read the datastore {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: Box<redb::Error>,
    },
    #[error("the datastore {} is in use by another process: stop that server first", path.display())]
    InUse { path: PathBuf },
    #[error("the datastore {} cannot be opened; if it is damaged, restore a snapshot", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: Box<redb::Error>,
    },
    /// The journal skips commits, so that going on would hide acknowledged writes.
    #[error("the journal of the datastore {} is damaged after revision {revision}: restore a snapshot, or move journal.0 and \
        journal.1 beside it away to go on from that revision without what came later", path.display())]
    Gap { path: PathBuf, revision: Revision },
    #[error("could not prepare {}", path.display())]
    Directory {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The last commit failed; the next write tries to open the file again.
    #[error("the datastore is unavailable after a failed write")]
    Unavailable,
    #[error("the datastore is closed")]
    Closed,
}
