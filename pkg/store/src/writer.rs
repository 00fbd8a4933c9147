//! The writer thread: takes what is waiting, commits it together, tells observers, then answers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::checkpoint::Checkpointer;
use crate::embedded::Shared;
use crate::error::StoreError;
use crate::journal::Journal;
use crate::model::{Compare, Event, KeyValue, Page, Range, Revision, Txn};
use crate::store::{Observer, Watch};
use crate::table::Rows;
use crate::view::{Changes, View};

/// One commit takes at most this many transactions or bytes.
const BATCH: usize = 512;
const BATCH_BYTES: usize = 1 << 20;
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
    journal: Journal,
    checkpointer: Checkpointer,
    commands: mpsc::Receiver<Command>,
    observers: Vec<(Range, Arc<dyn Observer>)>,
    watches: Vec<(Range, mpsc::Sender<Vec<Event>>)>,
}

type Waiting = Vec<(Txn, Reply<Revision>)>;
type Outcome = Result<Revision, StoreError>;

impl Writer {
    pub fn new(
        shared: Arc<Shared>,
        journal: Journal,
        database: redb::Database,
        commands: mpsc::Receiver<Command>,
    ) -> Self {
        let checkpointer = Checkpointer::new(shared.clone(), database);
        Self { shared, journal, checkpointer, commands, observers: Vec::new(), watches: Vec::new() }
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
        // What could not be written is in the journal.
        let _ = self.checkpointer.finish();
    }

    fn commit(&mut self, waiting: Waiting) {
        if waiting.is_empty() {
            return;
        }
        let (txns, replies): (Vec<Txn>, Vec<Reply<Revision>>) = waiting.into_iter().unzip();
        let written = self.write(&txns);
        self.shared.failing.store(written.is_err(), Ordering::Relaxed);
        let outcomes = match written {
            Ok(outcomes) => outcomes,
            Err(error) => {
                tracing::error!(%error, "writing to the datastore failed");
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
        let before = self.shared.revision.load(Ordering::Acquire);
        self.checkpointer.recover()?;
        let (outcomes, events, revision) = {
            let view = self.shared.view.read();
            let rows = view.rows.clone().ok_or(redb::Error::DatabaseClosed)?;
            Draft::new(&view, &rows, before).take(txns)?
        };
        if events.is_empty() {
            return Ok(outcomes);
        }
        if !self.journal.has_room(&events) {
            self.checkpointer.begin(before)?;
            self.journal.turn()?;
        }
        self.journal.append(before, revision, &events)?;
        self.publish(&events, revision);
        Ok(outcomes)
    }

    fn publish(&mut self, events: &[Event], revision: Revision) {
        {
            let mut view = self.shared.view.write();
            view.apply(events);
            view.history.push(events, Instant::now());
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

/// What transactions would change, each seeing those before it.
struct Draft<'a> {
    view: &'a View,
    rows: &'a Rows,
    changed: Changes,
    /// What was looked at last: a transaction asks for a key to compare it, and again to change it.
    seen: Option<(Bytes, Option<KeyValue>)>,
    events: Vec<Event>,
    revision: Revision,
}

type Drafted = (Vec<Outcome>, Vec<Event>, Revision);

impl<'a> Draft<'a> {
    fn new(view: &'a View, rows: &'a Rows, revision: Revision) -> Self {
        Self { view, rows, changed: Changes::new(), seen: None, events: Vec::new(), revision }
    }

    fn take(mut self, txns: &[Txn]) -> Result<Drafted, redb::Error> {
        let mut outcomes = Vec::with_capacity(txns.len());
        for txn in txns {
            outcomes.push(match self.check(&txn.compares)? {
                Some(failed) => Err(failed),
                None => {
                    self.apply(txn)?;
                    Ok(self.revision)
                }
            });
        }
        Ok((outcomes, self.events, self.revision))
    }

    fn get(&mut self, key: &Bytes) -> Result<Option<KeyValue>, redb::Error> {
        if let Some((_, item)) = self.seen.as_ref().filter(|(seen, _)| seen == key) {
            return Ok(item.clone());
        }
        let item = match self.changed.get(key).or_else(|| self.view.changed(key)) {
            Some(item) => item.clone(),
            None => self.rows.get(key)?,
        };
        self.seen = Some((key.clone(), item.clone()));
        Ok(item)
    }

    /// The first compare that does not hold.
    fn check(&mut self, compares: &[Compare]) -> Result<Option<StoreError>, redb::Error> {
        for (index, compare) in compares.iter().enumerate() {
            let (key, expected) = match compare {
                Compare::Absent(key) => (key, 0),
                Compare::Modified(key, revision) => (key, *revision),
            };
            let current = self.get(key)?;
            if current.as_ref().map_or(0, |kv| kv.mod_revision) != expected {
                return Ok(Some(StoreError::Compare { index, current }));
            }
        }
        Ok(None)
    }

    /// Takes the next revision if the transaction changes anything.
    fn apply(&mut self, txn: &Txn) -> Result<(), redb::Error> {
        let (before, revision) = (self.events.len(), self.revision + 1);
        for (key, value) in &txn.puts {
            let previous = self.get(key)?;
            let item = KeyValue {
                key: key.clone(),
                value: value.clone(),
                create_revision: previous.as_ref().map_or(revision, |p| p.create_revision),
                mod_revision: revision,
                version: previous.as_ref().map_or(0, |p| p.version) + 1,
            };
            self.push(txn, Some(item), previous, revision, key);
        }
        for key in &txn.deletes {
            if let Some(previous) = self.get(key)? {
                self.push(txn, None, Some(previous), revision, key);
            }
        }
        if self.events.len() > before {
            self.revision = revision;
        }
        Ok(())
    }

    fn push(
        &mut self,
        txn: &Txn,
        value: Option<KeyValue>,
        previous: Option<KeyValue>,
        revision: Revision,
        key: &Bytes,
    ) {
        self.seen = Some((key.clone(), value.clone()));
        self.changed.insert(key.clone(), value.clone());
        self.events.push(Event { key: key.clone(), value, previous, revision, origin: txn.origin.clone() });
    }
}
