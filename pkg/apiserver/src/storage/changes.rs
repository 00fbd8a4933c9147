//! Reading a collection by what changed, for parts that keep something computed from it.

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::collection::Collection;
use super::object::Object;

/// What happened to a collection since a revision.
#[derive(Debug)]
pub struct Changes {
    /// To be asked from next time.
    pub revision: u64,
    /// In order; a deleted object is marked `true` and is in its last state.
    pub objects: Vec<(Arc<Object>, bool)>,
    /// Older changes are forgotten: `objects` is the whole present state instead.
    pub complete: bool,
}

impl Collection {
    /// The revision of the collection's last change. Cheap.
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// The changes after `revision`, which a former call gave; 0 to begin.
    pub fn changes_since(&self, revision: u64) -> Changes {
        let state = self.state.read();
        if revision == 0 || revision < state.floor {
            let objects = state.objects.range(None, Bound::Unbounded).map(|o| (o.clone(), false)).collect();
            return Changes { revision: state.revision, objects, complete: true };
        }
        let objects = state.since(revision).map(|change| (change.object.clone(), change.deleted)).collect();
        Changes { revision: state.revision, objects, complete: false }
    }

    /// The objects whose indexed field (pods: `spec.nodeName`) has this value.
    pub fn indexed(&self, value: &str) -> Vec<Arc<Object>> {
        let objects = self.state.read().index.get(value).cloned().unwrap_or_default();
        objects.range(None, Bound::Unbounded).cloned().collect()
    }
}
