//! The bounded past: what changed lately, for watches from a revision and for reads at a revision.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::error::StoreError;
use crate::model::{Event, KeyValue, Range, Revision};
use crate::view::Changes;

/// How much of the past is kept; whichever limit is met first counts.
#[derive(Clone, Debug)]
pub struct Limits {
    pub revisions: usize,
    pub bytes: usize,
    pub age: Duration,
}

struct Entry {
    event: Event,
    at: Instant,
    size: usize,
}

/// Events after the revision `compacted`, in order.
pub struct History {
    entries: VecDeque<Entry>,
    bytes: usize,
    compacted: Revision,
    limits: Limits,
}

impl History {
    /// Knows nothing before `revision`.
    pub fn new(revision: Revision, limits: Limits) -> Self {
        Self { entries: VecDeque::new(), bytes: 0, compacted: revision, limits }
    }

    pub fn push(&mut self, events: &[Event], now: Instant) {
        for event in events {
            let size = |kv: &Option<KeyValue>| kv.as_ref().map_or(0, |kv| kv.value.len());
            // The origin is for observers at commit; keeping it would keep the writer's objects alive.
            let event = Event { origin: None, ..event.clone() };
            let size = event.key.len() + size(&event.value) + size(&event.previous);
            self.bytes += size;
            self.entries.push_back(Entry { event, at: now, size });
        }
        let limits = self.limits.clone();
        while let Some(oldest) = self.entries.front() {
            let old = now.saturating_duration_since(oldest.at) > limits.age;
            if !old && self.entries.len() <= limits.revisions && self.bytes <= limits.bytes {
                break;
            }
            let revision = oldest.event.revision;
            self.compact(revision);
        }
    }

    /// Forgets what led to `revision`.
    pub fn compact(&mut self, revision: Revision) {
        self.compacted = self.compacted.max(revision);
        while self.entries.front().is_some_and(|e| e.event.revision <= revision) {
            if let Some(entry) = self.entries.pop_front() {
                self.bytes -= entry.size;
            }
        }
    }

    fn check(&self, asked: Revision) -> Result<(), StoreError> {
        if asked < self.compacted { Err(StoreError::Compacted { asked, oldest: self.compacted }) } else { Ok(()) }
    }

    /// What happened in the range after a revision.
    pub fn since(&self, range: &Range, after: Revision) -> Result<Vec<Event>, StoreError> {
        self.check(after)?;
        let start = self.entries.partition_point(|e| e.event.revision <= after);
        let events = self.entries.range(start..).map(|e| &e.event);
        Ok(events.filter(|e| range.contains(&e.key)).cloned().collect())
    }

    /// For keys of the range that changed after a revision: what they held at it.
    pub fn undo(&self, range: &Range, to: Revision) -> Result<Changes, StoreError> {
        let mut before = Changes::new();
        for event in self.since(range, to)? {
            before.entry(event.key).or_insert(event.previous);
        }
        Ok(before)
    }
}
