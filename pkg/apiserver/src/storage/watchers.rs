//! Who watches a collection, and what of a change each of them is told.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use kube1_api::selector::{FieldSelector, LabelSelector};
use tokio::sync::mpsc;

use super::collection::Change;
use super::object::Object;
use super::watch::{WatchEvent, WatchKind};

/// Which changes can concern a watcher.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Target {
    All,
    Name(String),
    Indexed(String),
}

/// What a watcher wants to see. Watchers of a crowd mostly want the same.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Selection {
    pub namespace: Option<String>,
    pub labels: LabelSelector,
    pub fields: FieldSelector,
}

pub(super) struct Watcher {
    pub id: u64,
    pub selection: Arc<Selection>,
    pub queue: mpsc::Sender<WatchEvent>,
}

impl Selection {
    fn selects(&self, object: &Object) -> bool {
        self.namespace.as_ref().is_none_or(|ns| object.namespace() == ns) && object.matches(&self.labels, &self.fields)
    }
}

/// Those who watch the same target, and how long telling them takes.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    size: AtomicUsize,
    /// The longest time from a change to one of them that was seen lately, in microseconds.
    lag: AtomicU64,
}

impl Crowd {
    /// Watchers who are told within this time of each other need not be spared.
    const SHORT: Duration = Duration::from_millis(2);
    /// No change waits longer than this to be told together with others, nor longer than this for each watcher.
    const LONG: Duration = Duration::from_millis(200);
    const LONG_EACH: Duration = Duration::from_micros(200);
    /// At most so many times as long as telling all takes is waited.
    const PARTS: u32 = 4;

    #[cfg(test)]
    pub fn of(size: usize) -> Arc<Self> {
        Arc::new(Self { size: size.into(), lag: 0.into() })
    }

    /// A change was told so long after it could have been.
    pub fn told_after(&self, lag: Duration) {
        let lag = u64::try_from(lag.as_micros()).unwrap_or(u64::MAX);
        if lag > self.lag.load(Ordering::Relaxed) {
            self.lag.store(lag, Ordering::Relaxed);
        }
    }

    /// How long a watcher that was just told of so many changes at once should go untold of further ones, so that telling
    /// all takes only a part of the time. Changes that come one by one are never held back.
    pub fn pause(&self, told: u32) -> Option<Duration> {
        let parts = if told < 2 { 0 } else { told.min(Self::PARTS) };
        let size = u32::try_from(self.size.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
        let most = Self::LONG_EACH.saturating_mul(size).min(Self::LONG);
        let pause = Duration::from_micros(self.lag.load(Ordering::Relaxed)).saturating_mul(parts).min(most);
        (pause >= Self::SHORT).then_some(pause)
    }

    /// A further change is told: the times of older ones count less.
    fn next(&self) {
        let lag = self.lag.load(Ordering::Relaxed);
        self.lag.store(lag - lag.div_ceil(8), Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Group {
    watchers: Vec<Watcher>,
    crowd: Arc<Crowd>,
}

impl Group {
    fn retain(&mut self, keep: impl FnMut(&Watcher) -> bool) {
        self.watchers.retain(keep);
        self.crowd.size.store(self.watchers.len(), Ordering::Relaxed);
    }
}

/// So many of the latest watchers are looked at for one that wants to see the same.
const ALIKE: usize = 16;

/// The watchers of a collection.
#[derive(Default)]
pub(super) struct Watchers {
    by_target: HashMap<Target, Group>,
    last_id: u64,
}

impl Watchers {
    pub fn len(&self) -> usize {
        self.by_target.values().map(|group| group.watchers.len()).sum()
    }

    /// Queues a change for everyone it concerns, and drops those whose queue is full.
    pub fn send(&mut self, change: &Change, indexed: Option<&str>) {
        if self.by_target.is_empty() {
            return;
        }
        let mut targets = smallvec::SmallVec::<[Target; 4]>::new();
        targets.push(Target::All);
        targets.push(Target::Name(change.object.name().to_owned()));
        if let Some(field) = indexed {
            for object in [Some(&change.object), change.previous.as_ref()].into_iter().flatten() {
                let target = Target::Indexed(object.field(field).into_owned());
                if !targets.contains(&target) {
                    targets.push(target);
                }
            }
        }
        let mut seen = Seen::new(change);
        for target in targets {
            let Some(group) = self.by_target.get_mut(&target) else { continue };
            group.crowd.next();
            // What the last ones wanted and are told.
            let mut told: smallvec::SmallVec<[(Arc<Selection>, Option<WatchEvent>); 4]> = smallvec::SmallVec::new();
            group.retain(|watcher| {
                let known = told.iter().find(|(selection, _)| Arc::ptr_eq(selection, &watcher.selection));
                let event = match known {
                    Some((_, event)) => event.clone(),
                    None => {
                        told.truncate(3);
                        let event = seen.by(&watcher.selection);
                        told.insert(0, (watcher.selection.clone(), event.clone()));
                        event
                    }
                };
                event.is_none_or(|event| watcher.queue.try_send(event).is_ok())
            });
            if group.watchers.is_empty() {
                self.by_target.remove(&target);
            }
        }
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.by_target.is_empty()
    }

    /// Gives the watcher's id and the crowd that it is one of.
    pub fn add(&mut self, target: Target, mut watcher: Watcher) -> (u64, Arc<Crowd>) {
        self.last_id += 1;
        watcher.id = self.last_id;
        let group = self.by_target.entry(target).or_default();
        if let Some(other) = group.watchers.iter().rev().take(ALIKE).find(|w| w.selection == watcher.selection) {
            watcher.selection = other.selection.clone();
        }
        group.watchers.push(watcher);
        group.crowd.size.store(group.watchers.len(), Ordering::Relaxed);
        (self.last_id, group.crowd.clone())
    }

    pub fn remove(&mut self, target: &Target, id: u64) {
        if let Some(group) = self.by_target.get_mut(target) {
            group.retain(|w| w.id != id);
            if group.watchers.is_empty() {
                self.by_target.remove(target);
            }
        }
    }
}

/// A change as watchers with different selectors see it; each form is made once.
pub(super) struct Seen<'a> {
    change: &'a Change,
    added: Option<WatchEvent>,
    modified: Option<WatchEvent>,
    deleted: Option<WatchEvent>,
}

impl<'a> Seen<'a> {
    pub fn new(change: &'a Change) -> Self {
        Self { change, added: None, modified: None, deleted: None }
    }

    /// `None` when the change does not concern those who want to see this.
    pub fn by(&mut self, selection: &Selection) -> Option<WatchEvent> {
        let change = self.change;
        let before = change.previous.as_ref().is_some_and(|o| selection.selects(o));
        let after = !change.deleted && selection.selects(&change.object);
        let (slot, kind) = match (before, after) {
            (false, false) => return None,
            (false, true) => (&mut self.added, WatchKind::Added),
            (true, true) => (&mut self.modified, WatchKind::Modified),
            (true, false) => (&mut self.deleted, WatchKind::Deleted),
        };
        let event = slot.get_or_insert_with(|| {
            let object = match (&change.previous, kind) {
                // It left the selection: the last state that was in it.
                (Some(previous), WatchKind::Deleted) if !change.deleted => Arc::new(previous.at(change.revision())),
                _ => change.object.clone(),
            };
            WatchEvent::shared(kind, object, change.at)
        });
        Some(event.clone())
    }
}
