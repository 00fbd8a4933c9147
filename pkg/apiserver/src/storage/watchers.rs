//! Who watches a collection, and what of a change each of them is told.

use std::collections::HashMap;
use std::sync::Arc;

use kube1_api::selector::{FieldSelector, LabelSelector};

use super::collection::Change;
use super::feed::{Feed, Reader};
use super::object::Object;
use super::pacer::Pacer;
use super::watch::{WatchEvent, WatchKind};

/// Which changes can concern a watcher.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Target {
    All,
    Name(String),
    Indexed(String),
}

/// What a watcher wants to see. Many watchers mostly want the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Selection {
    pub namespace: Option<String>,
    pub labels: LabelSelector,
    pub fields: FieldSelector,
}

impl Selection {
    fn selects(&self, object: &Object) -> bool {
        self.namespace.as_ref().is_none_or(|ns| object.namespace() == ns) && object.matches(&self.labels, &self.fields)
    }
}

/// The watchers of a collection. Those who want to see the same share a feed.
#[derive(Default)]
pub(super) struct Watchers {
    by_target: HashMap<Target, HashMap<Arc<Selection>, Arc<Feed>>>,
    count: usize,
}

impl Watchers {
    pub fn len(&self) -> usize {
        self.count
    }

    /// Ends all watches.
    pub fn end(&self) {
        self.by_target.values().flat_map(HashMap::values).for_each(|feed| feed.end());
    }

    /// Hands a change to everyone it concerns.
    pub fn send(&self, change: &Change, indexed: Option<&str>, pacer: &Pacer) {
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
        for (selection, feed) in targets.iter().filter_map(|target| self.by_target.get(target)).flatten() {
            if let Some(event) = seen.by(selection) {
                feed.push(event, pacer);
            }
        }
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.by_target.is_empty() && self.count == 0
    }

    /// A reader of the changes from now on.
    pub fn add(&mut self, target: Target, selection: Arc<Selection>) -> Reader {
        self.count += 1;
        self.by_target.entry(target).or_default().entry(selection).or_default().join()
    }

    /// Forgets a reader that is gone.
    pub fn remove(&mut self, target: &Target, selection: &Selection) {
        self.count -= 1;
        let Some(feeds) = self.by_target.get_mut(target) else { return };
        if feeds.get(selection).is_some_and(|feed| feed.is_empty()) {
            feeds.remove(selection);
        }
        if feeds.is_empty() {
            self.by_target.remove(target);
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
            WatchEvent::shared(kind, object)
        });
        Some(event.clone())
    }
}
