//! Creations and deletions that a controller did and its cache does not show yet.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use kube::Resource;
use kube1_client::{Event, Keep, ObjectKey};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::owner::{Owned, controller_key};

/// After this long the cache is believed again: a watch event was lost.
const EXPIRY: Duration = Duration::from_secs(300);

/// Keeps a controller from acting on a cache older than its own last actions. Cloning shares it.
#[derive(Clone, Default)]
pub struct Expectations {
    pending: Arc<Mutex<HashMap<ObjectKey, Pending>>>,
}

struct Pending {
    creations: usize,
    deletions: HashSet<String>,
    since: Instant,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.creations == 0 && self.deletions.is_empty()
    }
}

impl Expectations {
    /// Whether the cache shows everything done for the owner.
    pub fn satisfied(&self, owner: &ObjectKey) -> bool {
        let pending = self.pending.lock();
        pending.get(owner).is_none_or(|p| p.is_empty() || p.since.elapsed() > EXPIRY)
    }

    /// To be called before `count` creations.
    pub fn expect_creations(&self, owner: &ObjectKey, count: usize) {
        self.entry(owner, |p| p.creations += count);
    }

    /// To be called before the deletion of objects with these UIDs.
    pub fn expect_deletions(&self, owner: &ObjectKey, uids: impl IntoIterator<Item = String>) {
        self.entry(owner, |p| p.deletions.extend(uids));
    }

    /// A creation was seen, or failed.
    pub fn created(&self, owner: &ObjectKey) {
        self.seen(owner, |pending| pending.creations = pending.creations.saturating_sub(1));
    }

    /// A deletion was seen, or failed.
    pub fn deleted(&self, owner: &ObjectKey, uid: &str) {
        self.seen(owner, |pending| {
            pending.deletions.remove(uid);
        });
    }

    /// Takes what an object's change shows off the expectations of its controller, if that is of the kind `O`. One that
    /// is being deleted counts as gone.
    pub fn observe<O: Resource<DynamicType = ()>, K: Owned + Keep>(&self, event: &Event<K>) {
        let object = event.object();
        let Some(key) = controller_key::<O>(&**object) else { return };
        if matches!(event, Event::Added(_)) {
            self.created(&key);
        }
        if matches!(event, Event::Deleted(_)) || object.is_deleted() {
            self.deleted(&key, object.uid());
        }
    }

    /// The owner is gone.
    pub fn forget(&self, owner: &ObjectKey) {
        self.pending.lock().remove(owner);
    }

    fn seen(&self, owner: &ObjectKey, take: impl FnOnce(&mut Pending)) {
        let mut all = self.pending.lock();
        let Some(pending) = all.get_mut(owner) else { return };
        take(pending);
        // Not every controller learns that an owner is gone.
        if pending.is_empty() {
            all.remove(owner);
        }
    }

    fn entry(&self, owner: &ObjectKey, change: impl FnOnce(&mut Pending)) {
        let mut pending = self.pending.lock();
        let fresh = || Pending { creations: 0, deletions: HashSet::new(), since: Instant::now() };
        let entry = pending.entry(owner.clone()).or_insert_with(fresh);
        if entry.is_empty() || entry.since.elapsed() > EXPIRY {
            *entry = fresh();
        }
        change(entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_owner_waits_for_all_its_actions_or_the_expiry() {
        let (expectations, owner) = (Expectations::default(), ObjectKey::new("ns", "rs"));
        expectations.expect_creations(&owner, 2);
        expectations.expect_deletions(&owner, ["a".to_owned()]);
        expectations.created(&owner);
        expectations.created(&owner);
        assert!(!expectations.satisfied(&owner));
        expectations.deleted(&owner, "a");
        assert!(expectations.satisfied(&owner));
        assert!(expectations.pending.lock().is_empty(), "what is seen takes no memory");
        expectations.expect_creations(&owner, 1);
        tokio::time::advance(EXPIRY / 2).await;
        assert!(!expectations.satisfied(&owner));
        tokio::time::advance(EXPIRY).await;
        assert!(expectations.satisfied(&owner));
    }
}
