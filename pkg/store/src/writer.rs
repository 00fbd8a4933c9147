//! The writer thread: takes what is waiting, commits it together, tells observers, then answers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use crate::embedded::{Shared, open_database};
use crate::error::StoreError;
use crate::model::{Compare, Event, KeyValue, Page, Range, Revision, Txn};
use crate::store::{Observer, Watch};
use crate::table::{self, Rows};

/// One commit takes at most this many transactions or bytes.
const BATCH: usize = 512;
const BATCH_BYTES: usize = 8 << 20;
/// Changes that may wait in a watch; one that lags more is ended.
const WATCH_QUEUE: usize = 1024;

pub(crate) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

pub(crate) enum Command {
    Txn(Txn, Reply<Revision>),
    Observe(Range, Arc<dyn Observer>, Reply<Page>),
    Watch(Range, Revision, Reply<Watch>),
}

pub(crate) struct Writer {
    shared: Arc<Shared>,
    /// `None` after a failed commit, until the file could be opened again.
    database: Option<redb::Database>,
    commands: mpsc::Receiver<Command>,
    observers: Vec<(Range, Arc<dyn Observer>)>,
    watches: Vec<(Range, mpsc::Sender<Vec<Event>>)>,
    /// What a commit that reported failure may have written all the same.
    doubtful: Option<(Vec<Event>, Revision)>,
}

type Waiting = Vec<(Txn, Reply<Revision>)>;
type Outcome = Result<Revision, StoreError>;

impl Writer {
    pub fn new(shared: Arc<Shared>, database: redb::Database, commands: mpsc::Receiver<Command>) -> Self {
        Self { shared, database: Some(database), commands, observers: Vec::new(), watches: Vec::new(), doubtful: None }
    }

    pub fn run(mut self) {
        while let Some(first) = self.commands.blocking_recv() {
            let mut waiting = Waiting::new();
            let (mut next, mut bytes) = (Some(first), 0);
            while let Some(command) = next {
                match command {
                    Command::Txn(txn, reply) => {
                        bytes += txn.size();
                        waiting.push((txn, reply));
                    }
                    other => {
                        self.commit(std::mem::take(&mut waiting));
                        self.register(other);
                    }
                }
                let room = waiting.len() < BATCH && bytes < BATCH_BYTES;
                next = if room { self.commands.try_recv().ok() } else { None };
            }
            self.commit(waiting);
        }
    }

    fn commit(&mut self, waiting: Waiting) {
        if waiting.is_empty() {
            return;
        }
        let (txns, replies): (Vec<Txn>, Vec<Reply<Revision>>) = waiting.into_iter().unzip();
        let outcomes = match self.write(&txns) {
            Ok(outcomes) => outcomes,
            Err(error) => {
                tracing::error!(error = %error, "writing to the datastore failed");
                // After a failed write redb refuses everything until the file is opened again.
                self.shared.view.write().rows = None;
                self.database = None;
                let source = Arc::new(error);
                let path = &self.shared.path;
                txns.iter().map(|_| Err(StoreError::Write { path: path.clone(), source: source.clone() })).collect()
            }
        };
        // An origin may hold the last reference to the store: its owner's, not this thread's, must be the last to go.
        drop(txns);
        for (reply, outcome) in replies.into_iter().zip(outcomes) {
            // A writer that went away does not want to know.
            let _ = reply.send(outcome);
        }
    }

    /// Commits all transactions whose compares hold, in order.
    fn write(&mut self, txns: &[Txn]) -> Result<Vec<Outcome>, redb::Error> {
        self.reopen()?;
        let database = self.database.as_ref().ok_or(redb::Error::DatabaseClosed)?;
        let mut revision = self.shared.revision.load(Ordering::Acquire);
        let before = revision;
        let (mut events, mut outcomes) = (Vec::new(), Vec::with_capacity(txns.len()));
        let commit = database.begin_write()?;
        {
            let mut rows = table::open(&commit)?;
            for txn in txns {
                outcomes.push(match check(&rows, &txn.compares)? {
                    Some(failed) => Err(failed),
                    None => {
                        let changed = apply(&mut rows, txn, revision + 1, &mut events)?;
                        revision += u64::from(changed);
                        Ok(revision)
                    }
                });
            }
            if revision > before {
                table::write_revision(&mut rows, revision)?;
            }
        }
        if revision == before {
            commit.abort()?;
            return Ok(outcomes);
        }
        match commit.commit().map_err(redb::Error::from).and_then(|()| Rows::open(database)) {
            Ok(rows) => self.publish(&events, revision, rows),
            Err(error) => {
                self.doubtful = Some((events, revision));
                return Err(error);
            }
        }
        Ok(outcomes)
    }

    /// Opens the file again after a failed commit.
    fn reopen(&mut self) -> Result<(), redb::Error> {
        if self.database.is_some() {
            return Ok(());
        }
        let reopened = open_database(&self.shared.path, self.shared.cache_bytes).map_err(flatten)?;
        let found = table::read_revision(&reopened)?;
        let rows = Rows::open(&reopened)?;
        self.database = Some(reopened);
        // The failed commit may have reached the disk: then it did happen, although its writers were told of an error.
        match self.doubtful.take() {
            Some((events, revision)) if revision == found => self.publish(&events, revision, rows),
            _ => self.shared.view.write().rows = Some(Arc::new(rows)),
        }
        Ok(())
    }

    fn publish(&mut self, events: &[Event], revision: Revision, rows: Rows) {
        {
            let mut view = self.shared.view.write();
            view.history.push(events, Instant::now());
            view.rows = Some(Arc::new(rows));
            self.shared.revision.store(revision, Ordering::Release);
        }
        for (range, observer) in &self.observers {
            if events.iter().all(|e| range.contains(&e.key)) {
                observer.committed(events, revision);
            } else {
                let wanted: Vec<Event> = events.iter().filter(|e| range.contains(&e.key)).cloned().collect();
                if !wanted.is_empty() {
                    observer.committed(&wanted, revision);
                }
            }
        }
        self.watches.retain(|(range, sender)| {
            let wanted: Vec<Event> = events.iter().filter(|e| range.contains(&e.key)).cloned().collect();
            if wanted.is_empty() { !sender.is_closed() } else { sender.try_send(wanted).is_ok() }
        });
    }

    fn register(&mut self, command: Command) {
        match command {
            Command::Txn(..) => {}
            Command::Observe(range, observer, reply) => {
                let page = self.shared.range(&range);
                if page.is_ok() {
                    self.observers.push((range, observer));
                }
                let _ = reply.send(page);
            }
            Command::Watch(range, after, reply) => {
                let _ = reply.send(self.watch(range, after));
            }
        }
    }

    fn watch(&mut self, range: Range, after: Revision) -> Result<Watch, StoreError> {
        let past = self.shared.view.read().history.since(&range, after)?;
        let (sender, receiver) = mpsc::channel(WATCH_QUEUE);
        if !past.is_empty() {
            // The queue is new and empty.
            let _ = sender.try_send(past);
        }
        self.watches.push((range, sender));
        Ok(Watch { receiver })
    }
}

type Table<'a> = redb::Table<'a, &'static [u8], &'static [u8]>;

/// The first compare that does not hold.
fn check(rows: &Table<'_>, compares: &[Compare]) -> Result<Option<StoreError>, redb::Error> {
    for (index, compare) in compares.iter().enumerate() {
        let (key, expected) = match compare {
            Compare::Absent(key) => (key, 0),
            Compare::Modified(key, revision) => (key, *revision),
        };
        let current = table::get(rows, key)?;
        if current.as_ref().map_or(0, |kv| kv.mod_revision) != expected {
            return Ok(Some(StoreError::Compare { index, current }));
        }
    }
    Ok(None)
}

/// Whether the transaction changed anything.
fn apply(rows: &mut Table<'_>, txn: &Txn, revision: Revision, events: &mut Vec<Event>) -> Result<bool, redb::Error> {
    let before = events.len();
    for (key, value) in &txn.puts {
        let previous = table::get(rows, key)?;
        let item = KeyValue {
            key: key.clone(),
            value: value.clone(),
            create_revision: previous.as_ref().map_or(revision, |p| p.create_revision),
            mod_revision: revision,
            version: previous.as_ref().map_or(0, |p| p.version) + 1,
        };
        table::put(rows, &item)?;
        events.push(Event { key: key.clone(), value: Some(item), previous, revision, origin: txn.origin.clone() });
    }
    for key in &txn.deletes {
        let Some(previous) = table::get(rows, key)? else { continue };
        rows.remove(&key[..])?;
        let origin = txn.origin.clone();
        events.push(Event { key: key.clone(), value: None, previous: Some(previous), revision, origin });
    }
    Ok(events.len() > before)
}

fn flatten(error: StoreError) -> redb::Error {
    match error {
        StoreError::Directory { source, .. } => redb::Error::Io(source),
        other => redb::Error::Corrupted(other.to_string()),
    }
}
