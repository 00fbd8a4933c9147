//! Who watches a collection, and what of a change each of them is told.

use std::collections::HashMap;
use std::sync::Arc;

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

pub(super) struct Watcher {
    pub id: u64,
    pub namespace: Option<String>,
    pub labels: LabelSelector,
    pub fields: FieldSelector,
    pub queue: mpsc::Sender<WatchEvent>,
}

impl Watcher {
    fn selects(&self, object: &Object) -> bool {
        self.namespace.as_ref().is_none_or(|ns| object.namespace() == ns) && object.matches(&self.labels, &self.fields)
    }
}

/// The watchers of a collection.
#[derive(Default)]
pub(super) struct Watchers {
    by_target: HashMap<Target, Vec<Watcher>>,
    last_id: u64,
}

impl Watchers {
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
            let Some(watchers) = self.by_target.get_mut(&target) else { continue };
            watchers.retain(|watcher| match seen.by(watcher) {
                Some(event) => watcher.queue.try_send(event).is_ok(),
                None => true,
            });
            if watchers.is_empty() {
                self.by_target.remove(&target);
            }
        }
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.by_target.is_empty()
    }

    pub fn add(&mut self, target: Target, mut watcher: Watcher) -> u64 {
        self.last_id += 1;
        watcher.id = self.last_id;
        self.by_target.entry(target).or_default().push(watcher);
        self.last_id
    }

    pub fn remove(&mut self, target: &Target, id: u64) {
        if let Some(watchers) = self.by_target.get_mut(target) {
            watchers.retain(|w| w.id != id);
            if watchers.is_empty() {
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

    /// `None` when the change does not concern the watcher.
    pub fn by(&mut self, watcher: &Watcher) -> Option<WatchEvent> {
        let change = self.change;
        let before = change.previous.as_ref().is_some_and(|o| watcher.selects(o));
        let after = !change.deleted && watcher.selects(&change.object);
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
            WatchEvent::shared(kind, object)
        });
        Some(event.clone())
    }
}
