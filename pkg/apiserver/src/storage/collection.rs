//! One resource's objects: the newest state, what changed lately, and who watches.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kube1_store::{KeyValue, Store, StoreError, Txn};
use parking_lot::{Mutex, RwLock};
use serde_json::Value;

use super::OpenError;
use super::encryption::{Encryption, mark_of};
use super::error::StorageError;
use super::expiry::Expiry;
use super::hub::{Clock, Write, origin};
use super::kms::Unreadable;
use super::map::{Key, ObjectMap};
use super::meters::Meters;
use super::object::{Draft, Layout, Object};
use super::pacer::Pacer;
use super::watchers::Watchers;

/// So many changes are kept however old they are ...
const KEPT: usize = 100;
/// ... and never more than these, which younger than `FRESH` may be.
const MOST: usize = 8192;
const FRESH: Duration = Duration::from_secs(300);
/// ... nor more than so many bytes of states that are not the present one.
const MOST_BYTES: usize = 24 << 20;

/// Objects that are looked at to tell how large they are.
const SAMPLE: usize = 8;

/// What a resource's stored objects call themselves.
pub(super) struct Identity {
    pub api_version: String,
    pub kind: String,
    pub selectable: Vec<String>,
}

impl Identity {
    /// Reads it off an object.
    pub fn read(value: &[u8]) -> Self {
        let value: Value = serde_json::from_slice(value).unwrap_or_default();
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        Self { api_version: text(&value["apiVersion"]), kind: text(&value["kind"]), selectable: Vec::new() }
    }
}

/// One change of one object.
#[derive(Debug)]
pub(super) struct Change {
    /// For deletes the last state, at the deletion's revision.
    pub object: Arc<Object>,
    pub previous: Option<Arc<Object>>,
    pub deleted: bool,
    pub at: Instant,
}

impl Change {
    pub fn revision(&self) -> u64 {
        self.object.revision()
    }

    /// Bytes of the states that are kept for the past alone.
    fn size(&self) -> usize {
        let last = if self.deleted { self.object.json().len() } else { 0 };
        last + self.previous.as_ref().map_or(0, |previous| previous.json().len())
    }
}

#[derive(Default)]
pub(super) struct State {
    pub objects: ObjectMap,
    /// Objects by the text of the indexed field.
    pub index: HashMap<String, ObjectMap>,
    /// Revision of the last change.
    pub revision: u64,
    /// In rising order of revision.
    pub changes: VecDeque<Arc<Change>>,
    /// What the changes keep of the past.
    past_bytes: usize,
    /// Changes up to this revision are forgotten.
    pub floor: u64,
    pub watchers: Watchers,
    pub expiry: Option<Expiry>,
    /// What cannot be read before a key management service has decrypted its keys, by key. It is missing in all else.
    pub locked: BTreeMap<Bytes, KeyValue>,
    /// What was locked and is shown with the next change.
    pub unlocked: BTreeMap<Bytes, (KeyValue, Arc<Object>)>,
    /// Since when something is locked, and why.
    pub locked_since: Option<Instant>,
    pub lock_reason: Option<String>,
}

/// How a collection's values are kept in the store.
pub(super) struct Sealing {
    encryption: Arc<Encryption>,
    resource: String,
    /// What the stored values begin with, by their keys.
    marks: Mutex<HashMap<Bytes, String>>,
}

impl Sealing {
    pub fn new(encryption: Arc<Encryption>, resource: String) -> Self {
        Self { encryption, resource, marks: Mutex::default() }
    }

    fn seal(&self, key: &[u8], plain: &Bytes) -> Result<Bytes, StorageError> {
        let sealed = self.encryption.encrypt(&self.resource, key, plain).map_err(StorageError::Encrypt)?;
        self.marks.lock().entry(Bytes::copy_from_slice(key)).or_insert_with(|| mark_of(&sealed));
        Ok(sealed)
    }

    fn open(&self, item: &KeyValue) -> Result<Bytes, Unreadable> {
        let plain = self.encryption.decrypt(&self.resource, &item.key, &item.value)?;
        self.note(&item.key, mark_of(&item.value));
        Ok(plain)
    }

    fn note(&self, key: &Bytes, mark: String) {
        self.marks.lock().insert(key.clone(), mark);
    }

    fn is_outdated(&self, key: &Bytes) -> bool {
        let Some(wanted) = self.encryption.mark(&self.resource) else { return false };
        self.marks.lock().get(key).is_some_and(|mark| *mark != wanted)
    }
}

/// The objects of one resource.
pub struct Collection {
    prefix: String,
    pub(super) layout: Arc<Layout>,
    pub(super) identity: Identity,
    /// A field by which many watchers select single values.
    pub(super) indexed: Option<&'static str>,
    sealing: Option<Sealing>,
    store: Arc<dyn Store>,
    pub(super) clock: Arc<Clock>,
    pacer: Arc<Pacer>,
    pub(super) state: RwLock<State>,
    pub(super) meters: Meters,
    /// That of the state, for those who ask for nothing else. Set while the state is locked.
    pub(super) revision: AtomicU64,
    /// Some objects cannot be read yet, or are not shown yet.
    pub(super) is_locked: AtomicBool,
}

impl Collection {
    pub(super) fn new(
        prefix: String,
        identity: Identity,
        store: Arc<dyn Store>,
        clock: Arc<Clock>,
        pacer: Arc<Pacer>,
        sealing: Option<Sealing>,
    ) -> Self {
        let selectable: Vec<&str> = identity.selectable.iter().map(String::as_str).collect();
        let (indexed, expiry) = match (identity.api_version.as_str(), identity.kind.as_str()) {
            ("v1", "Pod") => (Some("spec.nodeName"), None),
            ("v1", "Event") => (None, Some(Expiry::default())),
            _ => (None, None),
        };
        let floor = clock.published();
        Self {
            layout: Arc::new(Layout::new(&identity.api_version, &identity.kind, &selectable)),
            meters: Meters::new(&prefix),
            prefix,
            identity,
            indexed,
            sealing,
            store,
            clock,
            pacer,
            state: RwLock::new(State { floor, expiry, ..State::default() }),
            revision: AtomicU64::new(0),
            is_locked: AtomicBool::new(false),
        }
    }

    /// The object as it is now. `namespace` is empty for cluster-scoped resources.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.state.read().objects.get(Key { namespace, name }).cloned()
    }

    /// All objects, of one namespace or of all, in order.
    pub fn all(&self, namespace: Option<&str>) -> Vec<Arc<Object>> {
        let objects = self.state.read().objects.clone();
        objects.range(namespace, std::ops::Bound::Unbounded).cloned().collect()
    }

    pub fn len(&self) -> usize {
        self.state.read().objects.len()
    }

    /// How many objects there are, about how many bytes one has, and how many watchers would be told of a change.
    pub fn stats(&self) -> (u64, u64, u64) {
        let state = self.state.read();
        let some = state.objects.range(None, std::ops::Bound::Unbounded).take(SAMPLE);
        let (count, bytes) =
            some.fold((0, 0), |(count, bytes), object| (count + 1, bytes + object.json().len() as u64));
        (state.objects.len() as u64, bytes / count.max(1), state.watchers.len() as u64)
    }

    pub(super) fn show_metrics(&self) {
        let revision = self.state.read().revision;
        self.meters.show(revision);
    }

    pub fn is_empty(&self) -> bool {
        self.state.read().objects.is_empty()
    }

    /// Stores a new object.
    pub async fn create(self: &Arc<Self>, value: Value) -> Result<Arc<Object>, StorageError> {
        let (key, write, bytes) = self.prepare(value)?;
        let txn = Txn::new().if_absent(key.clone()).put(key, bytes);
        match self.commit("create", txn, &write).await {
            Err(StorageError::Store(StoreError::Compare { .. })) => Err(StorageError::AlreadyExists),
            other => other,
        }
    }

    /// Replaces the object if it still is at `expected`.
    pub async fn update(self: &Arc<Self>, value: Value, expected: u64) -> Result<Arc<Object>, StorageError> {
        let (key, write, bytes) = self.prepare(value)?;
        let mark = mark_of(&bytes);
        let txn = Txn::new().if_modified_at(key.clone(), expected).put(key.clone(), bytes);
        let written = self.commit("update", txn, &write).await.map_err(conflict)?;
        if let Some(sealing) = &self.sealing {
            sealing.note(&key, mark);
        }
        Ok(written)
    }

    /// Whether the object's value is kept in a way that is not the one for new values; writing it again mends that.
    pub fn is_outdated(&self, namespace: &str, name: &str) -> bool {
        self.sealing.as_ref().is_some_and(|sealing| sealing.is_outdated(&self.key(namespace, name)))
    }

    /// Removes the object if it still is at `expected`; returns its last state at the deletion's revision.
    pub async fn delete(
        self: &Arc<Self>,
        namespace: &str,
        name: &str,
        expected: u64,
    ) -> Result<Arc<Object>, StorageError> {
        let key = self.key(namespace, name);
        let write = Arc::new(Write { collection: self.clone(), draft: None, result: Default::default() });
        let txn = Txn::new().if_modified_at(key.clone(), expected).delete(key.clone());
        let gone = self.commit("delete", txn, &write).await.map_err(conflict)?;
        if let Some(sealing) = &self.sealing {
            sealing.marks.lock().remove(&key);
        }
        Ok(gone)
    }

    fn prepare(self: &Arc<Self>, value: Value) -> Result<(Bytes, Arc<Write>, Bytes), StorageError> {
        let draft = Draft::new(&self.layout, value).ok_or(StorageError::Malformed)?;
        let (namespace, name) = draft.key();
        let key = self.key(namespace, name);
        let bytes = match &self.sealing {
            Some(sealing) => sealing.seal(&key, &draft.json)?,
            None => draft.json.clone(),
        };
        let write = Write { collection: self.clone(), draft: Some(draft), result: Default::default() };
        Ok((key, Arc::new(write), bytes))
    }

    async fn commit(&self, operation: &str, txn: Txn, write: &Arc<Write>) -> Result<Arc<Object>, StorageError> {
        let started = Instant::now();
        let span = kube1_trace::begin(span_name(operation), || vec![("type", self.identity.kind.as_str().into())]);
        let done = self.store.txn(txn.origin(origin(write))).await;
        drop(span);
        let failed = done.as_ref().is_err_and(|error| !matches!(error, StoreError::Compare { .. }));
        self.meters.requested(operation, failed, started.elapsed());
        done?;
        write.result.get().cloned().ok_or(StorageError::NotFound)
    }

    fn key(&self, namespace: &str, name: &str) -> Bytes {
        let prefix = &self.prefix;
        if namespace.is_empty() { format!("{prefix}{name}") } else { format!("{prefix}{namespace}/{name}") }.into()
    }

    /// Takes an object of the first state.
    pub(super) fn load(&self, item: &KeyValue) -> Result<(), OpenError> {
        let Some(draft) = self.decode(item)? else { return Ok(()) };
        let object = Arc::new(draft.commit(item.mod_revision));
        let mut state = self.state.write();
        if let Some(expiry) = &mut state.expiry {
            expiry.loaded(&object);
        }
        self.index(&mut state, None, Some(&object));
        state.objects.insert(object);
        self.meters.loaded();
        Ok(())
    }

    /// The first state is complete; nothing is known of before.
    pub(super) fn loaded(&self, revision: u64) {
        let mut state = self.state.write();
        state.revision = revision;
        self.revision.store(revision, Ordering::Release);
        state.floor = revision;
        if let Some(expiry) = &mut state.expiry {
            expiry.sort();
        }
    }

    /// Reads a stored value; `None` when a key management service must decrypt its key first, for which it is put aside.
    pub(super) fn decode(&self, item: &KeyValue) -> Result<Option<Draft>, OpenError> {
        let read = self.read(item)?;
        if let (None, Some(sealing)) = (&read, &self.sealing) {
            self.lock(item);
            sealing.encryption.locked.notify_one();
        }
        Ok(read)
    }

    /// The same without putting it aside.
    pub(super) fn read(&self, item: &KeyValue) -> Result<Option<Draft>, OpenError> {
        let name = || String::from_utf8_lossy(&item.key).into_owned();
        let json = match self.sealing.as_ref().map(|sealing| sealing.open(item)) {
            None => item.value.clone(),
            Some(Ok(json)) => json,
            Some(Err(Unreadable::Locked)) => return Ok(None),
            Some(Err(Unreadable::Broken(reason))) => return Err(OpenError::Encrypted { key: name(), reason }),
        };
        Draft::read(&self.layout, json).map(Some).ok_or_else(|| OpenError::Malformed(name()))
    }

    /// Makes a committed change visible. Called in the order of revisions.
    pub(super) fn apply(&self, key: &[u8], draft: Option<&Draft>, revision: u64) -> Option<Arc<Object>> {
        let new = draft.map(|d| Arc::new(d.commit(revision)));
        let mut state = self.state.write();
        if self.is_locked.load(Ordering::Relaxed) {
            self.show_unlocked(&mut state, key, revision);
        }
        let previous = match &new {
            Some(object) => state.objects.insert(object.clone()),
            None => state.objects.remove(self.split(key)?),
        };
        let deleted = new.is_none();
        let object = match new {
            Some(object) => object,
            None => Arc::new(previous.as_ref()?.at(revision)),
        };
        self.index(&mut state, previous.as_ref(), (!deleted).then_some(&object));
        if let Some(expiry) = state.expiry.as_mut().filter(|_| !deleted) {
            expiry.renew(&object);
        }
        let change = Arc::new(Change { object: object.clone(), previous, deleted, at: Instant::now() });
        state.revision = revision;
        self.meters.changed();
        self.revision.store(revision, Ordering::Release);
        state.watchers.send(&change, self.indexed, &self.pacer);
        state.past_bytes += change.size();
        state.changes.push_back(change);
        state.trim();
        Some(object)
    }

    pub(super) fn index(&self, state: &mut State, old: Option<&Arc<Object>>, new: Option<&Arc<Object>>) {
        let Some(field) = self.indexed else { return };
        let [before, after] = [old, new].map(|o| o.map(|o| o.field(field).into_owned()).filter(|v| !v.is_empty()));
        if let (Some(value), Some(old)) = (&before, old)
            && before != after
            && let Some(objects) = state.index.get_mut(value)
        {
            objects.remove(Key { namespace: old.namespace(), name: old.name() });
            if objects.is_empty() {
                state.index.remove(value);
            }
        }
        if let (Some(value), Some(new)) = (after, new) {
            state.index.entry(value).or_default().insert(new.clone());
        }
    }

    fn split<'a>(&self, key: &'a [u8]) -> Option<Key<'a>> {
        let rest = std::str::from_utf8(key).ok()?.strip_prefix(self.prefix.as_str())?;
        let (namespace, name) = rest.split_once('/').unwrap_or(("", rest));
        Some(Key { namespace, name })
    }

    /// Ends all watches, so that the watchers come back and see the objects in their new form.
    pub fn end_watches(&self) {
        self.state.read().watchers.end();
    }

    /// Forgets changes that grew old without new ones coming.
    pub(super) fn trim(&self) {
        self.state.write().trim();
    }
}

impl State {
    /// Forgets what happened before `revision`.
    pub fn forget(&mut self, revision: u64) {
        self.changes.clear();
        self.past_bytes = 0;
        self.floor = revision;
    }

    fn trim(&mut self) {
        while self.changes.len() > KEPT {
            let Some(oldest) = self.changes.front() else { return };
            let small = self.changes.len() <= MOST && self.past_bytes <= MOST_BYTES;
            if small && oldest.at.elapsed() < FRESH {
                return;
            }
            self.floor = oldest.revision();
            self.past_bytes -= oldest.size();
            self.changes.pop_front();
        }
    }

    /// The changes after a revision, which must not be below the floor.
    pub fn since(&self, revision: u64) -> impl DoubleEndedIterator<Item = &Arc<Change>> {
        let start = self.changes.partition_point(|c| c.revision() <= revision);
        self.changes.range(start..)
    }
}

/// Upstream's name of a write's span.
fn span_name(operation: &str) -> &'static str {
    match operation {
        "create" => "Create etcd3",
        "update" => "GuaranteedUpdate etcd3",
        _ => "Delete etcd3",
    }
}

fn conflict(error: StorageError) -> StorageError {
    match error {
        StorageError::Store(StoreError::Compare { current: None, .. }) => StorageError::NotFound,
        StorageError::Store(StoreError::Compare { current: Some(kv), .. }) => {
            StorageError::Conflict { current: kv.mod_revision }
        }
        other => other,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_past_of_large_objects_is_shorter() {
        let layout = Arc::new(Layout::new("v1", "ConfigMap", &[]));
        for (size, kept) in [(10, 4000), (1 << 10, 4000), (100 << 10, MOST_BYTES / (100 << 10)), (1 << 20, KEPT)] {
            let json = Bytes::from(vec![b'x'; size]);
            let object = |revision| Arc::new(Object::free(&layout, &json, revision));
            let mut state = State::default();
            for revision in 1..=4000 {
                let (object, previous) = (object(revision), Some(object(revision)));
                let change = Arc::new(Change { object, previous, deleted: false, at: Instant::now() });
                state.past_bytes += change.size();
                state.changes.push_back(change);
                state.trim();
            }
            assert_eq!(state.changes.len(), kept, "changes of {size} bytes");
            assert_eq!(state.past_bytes, state.changes.iter().map(|change| change.size()).sum::<usize>());
        }
    }
}
