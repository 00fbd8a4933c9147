//! The embedded engine: one writer thread that commits what is waiting together, to a journal; from there it goes to
//! one redb file.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot};

use crate::checkpoint;
use crate::error::StoreError;
use crate::history::{History, Limits};
use crate::journal::{Journal, Record};
use crate::model::{Page, Range, Revision, Txn};
use crate::store::{Health, Observer, Store, Watch};
use crate::table::{self, Rows};
use crate::view::{Changes, View};
use crate::writer::{Command, Writer};

const FILE: &str = "store.redb";
/// Writers waiting beyond this many wait in their own tasks.
const QUEUE: usize = 1024;
/// Revisions skipped after a restore, so that no client takes an old revision for a new one.
const RESTORE_GAP: Revision = 1_000_000;

/// How an embedded store behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Memory for cached pages of the file.
    pub cache_bytes: usize,
    pub history: Limits,
}

impl Default for Options {
    fn default() -> Self {
        let history = Limits { revisions: 4096, bytes: 8 << 20, age: Duration::from_secs(300) };
        Self { cache_bytes: 4 << 20, history }
    }
}

/// What readers and the writer thread share.
pub(crate) struct Shared {
    pub path: PathBuf,
    pub cache_bytes: usize,
    /// What readers see, replaced at once after each commit.
    pub view: RwLock<View>,
    pub revision: AtomicU64,
    /// The last commit failed.
    pub failing: AtomicBool,
}

/// A store in one directory of one process.
///
/// An acknowledged write is on disk. A commit that fails (full or broken disk) fails the writes it held; the store
/// goes on and later writes may succeed.
pub struct EmbeddedStore {
    shared: Arc<Shared>,
    commands: Option<mpsc::Sender<Command>>,
    writer: Option<JoinHandle<()>>,
}

impl EmbeddedStore {
    /// Opens or makes the store in `dir`, which only the owner may enter.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::open_with(dir, Options::default())
    }

    pub fn open_with(dir: &Path, options: Options) -> Result<Self, StoreError> {
        let directory = |source| StoreError::Directory { path: dir.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(directory)?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(directory)?;
        let path = dir.join(FILE);
        let database = open_database(&path, options.cache_bytes)?;
        let (journal, records) = Journal::open(&path).map_err(directory)?;
        let revision = replay(&path, &database, records)?;
        let rows = Rows::open(&database).map_err(|e| read_error(&path, e))?;
        let shared = Arc::new(Shared {
            path,
            cache_bytes: options.cache_bytes,
            view: RwLock::new(View::new(rows, History::new(revision, options.history))),
            revision: AtomicU64::new(revision),
            failing: AtomicBool::new(false),
        });
        let (commands, receiver) = mpsc::channel(QUEUE);
        let writer = Writer::new(shared.clone(), journal, database, receiver);
        let writer =
            std::thread::Builder::new().name("store-writer".into()).spawn(move || writer.run()).map_err(directory)?;
        Ok(Self { shared, commands: Some(commands), writer: Some(writer) })
    }

    /// Makes the store in `dir` from a snapshot. `dir` may not hold a store yet.
    pub fn restore(snapshot: &Path, dir: &Path) -> Result<(), StoreError> {
        let directory = |source| StoreError::Directory { path: dir.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(directory)?;
        let path = dir.join(FILE);
        if path.exists() {
            return Err(directory(std::io::ErrorKind::AlreadyExists.into()));
        }
        let source = open_existing(snapshot)?;
        let rows = Rows::open(&source).map_err(|e| read_error(snapshot, e))?;
        let revision = table::read_revision(&source).map_err(|e| read_error(snapshot, e))? + RESTORE_GAP;
        table::copy(&rows, &Changes::new(), &path, revision).map_err(|e| write_error(&path, e))
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Command,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let commands = self.commands.as_ref().ok_or(StoreError::Closed)?;
        commands.send(command(reply)).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.commands = None;
        let writer = self.writer.take();
        // The writer itself may drop the last reference, when whoever asked has given up waiting. It then ends by itself.
        if let Some(writer) = writer.filter(|w| w.thread().id() != std::thread::current().id()) {
            // The writer ends when it has done what was queued; a panic there was reported when it happened.
            let _ = writer.join();
        }
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    fn revision(&self) -> Revision {
        self.shared.revision.load(Ordering::Acquire)
    }

    async fn range(&self, range: Range) -> Result<Page, StoreError> {
        let shared = self.shared.clone();
        blocking(move || shared.range(&range)).await
    }

    async fn txn(&self, txn: Txn) -> Result<Revision, StoreError> {
        self.ask(|reply| Command::Txn(txn, reply)).await
    }

    async fn observe(&self, range: Range, observer: Arc<dyn Observer>) -> Result<Page, StoreError> {
        self.ask(|reply| Command::Observe(range, observer, reply)).await
    }

    async fn watch(&self, range: Range, after: Revision) -> Result<Watch, StoreError> {
        self.ask(|reply| Command::Watch(range, after, reply)).await
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        let newest = self.revision();
        if revision > newest {
            return Err(StoreError::Future { asked: revision, newest });
        }
        self.shared.view.write().history.compact(revision);
        Ok(())
    }

    fn size(&self) -> u64 {
        let entries = self.shared.path.parent().and_then(|dir| fs::read_dir(dir).ok()).into_iter().flatten();
        entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum()
    }

    fn health(&self) -> Health {
        let open = self.commands.as_ref().is_some_and(|commands| !commands.is_closed());
        Health { open, writes: !self.shared.failing.load(Ordering::Relaxed) }
    }

    async fn snapshot(&self, path: &Path) -> Result<(), StoreError> {
        let (shared, path) = (self.shared.clone(), path.to_owned());
        blocking(move || {
            if path.exists() {
                return Err(StoreError::Directory { path, source: std::io::ErrorKind::AlreadyExists.into() });
            }
            let (rows, changes, revision) = {
                let view = shared.view.read();
                let (rows, changes) = view.at(&Range::default(), None)?;
                (rows, changes, shared.revision.load(Ordering::Acquire))
            };
            table::copy(&rows, &changes, &path, revision).map_err(|e| write_error(&path, e))
        })
        .await
    }
}

impl Shared {
    pub fn range(&self, range: &Range) -> Result<Page, StoreError> {
        let view = self.view.read();
        let newest = self.revision.load(Ordering::Acquire);
        if let Some(asked) = range.revision.filter(|asked| *asked > newest) {
            return Err(StoreError::Future { asked, newest });
        }
        let (rows, instead) = view.at(range, range.revision)?;
        drop(view);
        let (items, more) = rows.page(range, instead).map_err(|e| read_error(&self.path, e))?;
        Ok(Page { items, revision: newest, more })
    }
}

/// Moves what the journal holds to the rows' file; gives the newest revision.
fn replay(path: &Path, database: &redb::Database, records: Vec<Record>) -> Result<Revision, StoreError> {
    let stored = table::read_revision(database).map_err(|e| read_error(path, e))?;
    let (mut revision, mut changes) = (stored, Changes::new());
    for record in records.into_iter().filter(|r| r.after > stored) {
        if record.before != revision {
            return Err(StoreError::Gap { path: path.to_owned(), revision });
        }
        revision = record.after;
        changes.extend(record.changes);
    }
    if revision > stored {
        checkpoint::write(database, &changes, revision).map_err(|e| write_error(path, e))?;
    }
    Ok(revision)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| StoreError::Closed)?
}

pub(crate) fn open_database(path: &Path, cache_bytes: usize) -> Result<redb::Database, StoreError> {
    // The file is made here rather than by redb so that it is never readable by others.
    let made = fs::OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(path);
    made.map_err(|source| StoreError::Directory { path: path.to_owned(), source })?;
    let database = redb::Builder::new().set_cache_size(cache_bytes).create(path).map_err(|e| open_error(path, e))?;
    table::prepare(&database).map_err(|e| write_error(path, e))?;
    Ok(database)
}

fn open_existing(path: &Path) -> Result<redb::Database, StoreError> {
    redb::Builder::new().set_check_integrity_on_open(true).open(path).map_err(|e| open_error(path, e))
}

fn open_error(path: &Path, error: redb::DatabaseError) -> StoreError {
    match error {
        redb::DatabaseError::DatabaseAlreadyOpen => StoreError::InUse { path: path.to_owned() },
        other => StoreError::Open { path: path.to_owned(), source: Box::new(other.into()) },
    }
}

pub(crate) fn read_error(path: &Path, error: redb::Error) -> StoreError {
    StoreError::Read { path: path.to_owned(), source: Box::new(error) }
}

pub(crate) fn write_error(path: &Path, error: redb::Error) -> StoreError {
    StoreError::Write { path: path.to_owned(), source: Arc::new(error) }
}
