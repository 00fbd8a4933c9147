//! Objects that live for an hour after their last write: events.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::collection::Collection;
use super::object::Object;

const LIFETIME: Duration = Duration::from_secs(3600);
/// So many are removed at once, so that other writers get their turn.
const BATCH: usize = 256;

struct Entry {
    at: Instant,
    namespace: Box<str>,
    name: Box<str>,
    revision: u64,
}

/// When which revision of which object ends, in order.
#[derive(Default)]
pub(super) struct Expiry(VecDeque<Entry>);

impl Expiry {
    pub fn renew(&mut self, object: &Object) {
        self.push(object, Instant::now() + LIFETIME);
    }

    /// An object of the first state: its own times tell how old it is.
    pub fn loaded(&mut self, object: &Object) {
        let fields = ["metadata.creationTimestamp", "lastTimestamp", "eventTime", "series.lastObservedTime"];
        let written = fields.iter().filter_map(|f| object.field(f).parse::<jiff::Timestamp>().ok()).max();
        let age = written
            .map_or(LIFETIME, |at| Duration::try_from(jiff::Timestamp::now().duration_since(at)).unwrap_or_default());
        self.push(object, Instant::now() + LIFETIME.saturating_sub(age));
    }

    pub fn sort(&mut self) {
        self.0.make_contiguous().sort_by_key(|e| e.at);
    }

    fn push(&mut self, object: &Object, at: Instant) {
        let (namespace, name) = (object.namespace().into(), object.name().into());
        self.0.push_back(Entry { at, namespace, name, revision: object.revision() });
    }

    fn due(&mut self, now: Instant) -> Vec<Entry> {
        let count = self.0.iter().take(BATCH).take_while(|e| e.at <= now).count();
        self.0.drain(..count).collect()
    }
}

impl Collection {
    /// Deletes what has expired and was not written again.
    pub(super) async fn expire(self: &Arc<Self>) {
        loop {
            let due = match &mut self.state.write().expiry {
                Some(expiry) => expiry.due(Instant::now()),
                None => return,
            };
            if due.is_empty() {
                return;
            }
            let current = due
                .iter()
                .filter(|e| self.get(&e.namespace, &e.name).is_some_and(|object| object.revision() == e.revision));
            let deletes = current.map(|e| self.delete(&e.namespace, &e.name, e.revision));
            for result in futures::future::join_all(deletes).await {
                // A conflict means that it was written again, which put it back into the queue.
                if let Err(super::StorageError::Store(error)) = result {
                    tracing::warn!(%error, "could not remove expired objects");
                    return;
                }
            }
        }
    }
}
