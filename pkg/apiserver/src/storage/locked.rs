//! Objects that cannot be read before a key management service has decrypted their keys: after a start without the
//! service, or written by another server. Until then nothing is told of their collection, which would be incomplete.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kube1_api::status::Status;
use kube1_store::{KeyValue, Txn};

use super::collection::{Collection, State};
use super::hub::Hub;

/// Between attempts while a service is away.
const PAUSE: Duration = Duration::from_secs(1);
/// A request waits so long for what is locked.
const PATIENCE: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(20);

impl Collection {
    /// Waits until all objects can be read; 500 with the reason when that takes too long.
    pub async fn readable(&self) -> Result<(), Status> {
        if !self.is_locked() {
            return Ok(());
        }
        let unlocked = async {
            while self.is_locked() {
                tokio::time::sleep(LOOK).await;
            }
        };
        // What is locked for longer is not worth a wait of everybody.
        let since = self.state.read().locked_since;
        let patience = PATIENCE.saturating_sub(since.map_or(Duration::ZERO, |since| since.elapsed()));
        if tokio::time::timeout(patience, unlocked).await.is_ok() {
            return Ok(());
        }
        let state = self.state.read();
        let Some(key) = state.locked.keys().next() else { return Ok(()) };
        let key = String::from_utf8_lossy(key);
        let why = state.lock_reason.as_deref().unwrap_or("failed to decrypt DEK, error: not answered yet");
        Err(Status::internal(format!("unable to transform key {key:?}: {why}")))
    }

    /// Puts a value aside whose key is not known.
    pub(super) fn lock(&self, item: &KeyValue) {
        let mut state = self.state.write();
        state.locked.insert(item.key.clone(), item.clone());
        state.locked_since.get_or_insert_with(Instant::now);
        self.is_locked.store(true, Ordering::Release);
    }

    /// Whether some objects cannot be read yet.
    pub fn is_locked(&self) -> bool {
        self.is_locked.load(Ordering::Acquire)
    }

    /// Reads what can be read now. Gives one of them that is to be written again as it is: the change shows all.
    fn unlock(&self) -> Option<KeyValue> {
        let locked: Vec<KeyValue> = self.state.read().locked.values().cloned().collect();
        let mut readable = Vec::new();
        for item in locked {
            match self.read(&item) {
                Ok(Some(draft)) => readable.push((item.clone(), Arc::new(draft.commit(item.mod_revision)))),
                Ok(None) => {}
                Err(error) => self.state.write().lock_reason = Some(error.to_string()),
            }
        }
        let mut state = self.state.write();
        for (item, object) in readable {
            // Unless it was changed or removed in the meantime.
            if state.locked.get(&item.key).is_some_and(|known| known.mod_revision == item.mod_revision) {
                state.locked.remove(&item.key);
                state.unlocked.insert(item.key.clone(), (item, object));
            }
        }
        let all = state.locked.is_empty();
        if all && state.unlocked.is_empty() {
            state.locked_since = None;
            self.is_locked.store(false, Ordering::Release);
        }
        state.unlocked.values().next().filter(|_| all).map(|(item, _)| item.clone())
    }

    /// Takes what can be read now into the state, before a change of `key` at `revision`. Whoever knows an older state
    /// has to read all of it anew.
    pub(super) fn show_unlocked(&self, state: &mut State, key: &[u8], revision: u64) {
        state.locked.remove(key);
        state.unlocked.remove(key);
        if !state.locked.is_empty() {
            return;
        }
        for (_, object) in std::mem::take(&mut state.unlocked).into_values() {
            if let Some(expiry) = &mut state.expiry {
                expiry.loaded(&object);
            }
            let old = state.objects.insert(object.clone());
            self.index(state, old.as_ref(), Some(&object));
        }
        state.forget(revision);
        state.watchers.end();
        (state.locked_since, state.lock_reason) = (None, None);
        self.is_locked.store(false, Ordering::Release);
    }
}

impl Hub {
    /// Has keys decrypted and shows what was locked, as long as there is such.
    pub async fn unlock(&self) {
        self.encryption().locked.notified().await;
        loop {
            let waiting: Vec<Arc<Collection>> = self.all().into_iter().filter(|c| c.is_locked()).collect();
            if waiting.is_empty() {
                return;
            }
            let values: Vec<Bytes> = waiting
                .iter()
                .flat_map(|c| c.state.read().locked.values().map(|i| i.value.clone()).collect::<Vec<_>>())
                .collect();
            let failure = self.encryption().unlock(values.iter()).await.err();
            for collection in waiting {
                collection.state.write().lock_reason.clone_from(&failure);
                let Some(item) = collection.unlock() else { continue };
                let txn = Txn::new().if_modified_at(item.key.clone(), item.mod_revision).put(item.key, item.value);
                if let Err(error) = self.store().txn(txn).await {
                    tracing::warn!(%error, "objects that can be read again are not shown yet");
                }
            }
            if let Some(reason) = failure {
                tracing::warn!(reason, "stored objects cannot be read without the key management service");
                // Also for writes: the service may just have come up.
                let _ = self.encryption().check().await;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
