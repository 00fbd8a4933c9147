//! Watches: each has its own bounded queue, filled at commit; one that falls behind is ended.

use std::collections::VecDeque;
use std::ops::Bound;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use kube1_api::status::Status;
use rand::Rng;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};

use super::collection::Collection;
use super::map::{Key, ObjectMap};
use super::object::Object;
use super::watchers::{Seen, Target, Watcher};
use crate::options::ListOptions;

/// Changes that may wait in one watch.
const QUEUE: usize = 4096;
const BOOKMARK_PERIOD: Duration = Duration::from_secs(60);
/// The last bookmark comes this long before the end.
const FAREWELL: Duration = Duration::from_secs(2);
/// Watches without a timeout end after one to two of these.
const LIFETIME: u64 = 1800;
const INITIAL_END: &str = "k8s.io/initial-events-end";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchKind {
    Added,
    Modified,
    Deleted,
    Bookmark,
}

impl WatchKind {
    /// As in the event's `type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
            Self::Bookmark => "BOOKMARK",
        }
    }
}

/// Encodings that watchers of one event share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Json,
    Protobuf,
}

#[derive(Debug, Default)]
struct Encoded {
    json: OnceLock<Bytes>,
    protobuf: OnceLock<Bytes>,
}

/// One event of a watch.
#[derive(Clone, Debug)]
pub struct WatchEvent {
    pub kind: WatchKind,
    /// For bookmarks an object with only kind and metadata.
    pub object: Arc<Object>,
    encoded: Option<Arc<Encoded>>,
}

impl WatchEvent {
    fn new(kind: WatchKind, object: Arc<Object>) -> Self {
        Self { kind, object, encoded: None }
    }

    /// An event that several watchers get.
    pub(super) fn shared(kind: WatchKind, object: Arc<Object>) -> Self {
        Self { kind, object, encoded: Some(Arc::default()) }
    }

    /// The event in the storage version's wire form, encoded by the first watcher that asks and shared with the
    /// others. Every caller must pass the same function for the same encoding.
    pub fn encoded(&self, encoding: Encoding, encode: impl FnOnce() -> Bytes) -> Bytes {
        let Some(encoded) = &self.encoded else { return encode() };
        let slot = match encoding {
            Encoding::Json => &encoded.json,
            Encoding::Protobuf => &encoded.protobuf,
        };
        slot.get_or_init(encode).clone()
    }
}

impl Collection {
    /// Watches one namespace or, with `None`, everything.
    ///
    /// Fails with 410 when the changes since the asked revision are forgotten; upstream reports that as the first event
    /// of a successful answer.
    pub async fn watch(
        self: &Arc<Self>,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<WatchStream, Status> {
        let asked = options.resource_version.filter(|v| *v != 0);
        let initial = options.send_initial_events.unwrap_or(asked.is_none());
        if let (Some(revision), true) = (asked, initial) {
            self.clock.wait_for(revision).await?;
        }
        let (queue, receiver) = mpsc::channel(QUEUE);
        let watcher = Watcher {
            id: 0,
            namespace: namespace.map(str::to_owned),
            labels: options.labels.clone(),
            fields: options.fields.clone(),
            queue,
        };
        let mut stream = WatchStream::new(self.clone(), receiver, options);
        stream.target = match (options.fields.exact("metadata.name"), self.indexed) {
            (Some(name), _) => Target::Name(name.to_owned()),
            (None, Some(field)) => options.fields.exact(field).map_or(Target::All, |v| Target::Indexed(v.to_owned())),
            (None, None) => Target::All,
        };
        let published = self.clock.published();
        let mut state = self.state.write();
        stream.told = published.max(state.revision);
        let mut objects = ObjectMap::default();
        if initial {
            objects = match (&stream.target, namespace) {
                (Target::Name(name), Some(namespace)) => {
                    state.objects.get(Key { namespace, name }).cloned().into_iter().collect()
                }
                (Target::Indexed(value), _) if !value.is_empty() => state.index.get(value).cloned().unwrap_or_default(),
                _ => state.objects.clone(),
            };
            stream.initial_end = options.bookmarks;
        } else if let Some(after) = asked {
            if after < state.floor {
                let text = format!("too old resource version: {after} ({})", state.floor);
                return Err(Status::expired(text));
            }
            stream.backlog = state.since(after).filter_map(|change| Seen::new(change).by(&watcher)).collect();
            stream.after = after;
        }
        stream.id = state.watchers.add(stream.target.clone(), watcher);
        drop(state);
        let selected =
            objects.range(namespace, Bound::Unbounded).filter(|o| o.matches(&options.labels, &options.fields));
        stream.initial = selected.cloned().collect::<Vec<_>>().into_iter();
        Ok(stream)
    }

    fn bookmark(&self, revision: u64, initial_end: bool) -> WatchEvent {
        let mut object = json!({"apiVersion": self.identity.api_version, "kind": self.identity.kind,
            "metadata": {"resourceVersion": revision.to_string(), "creationTimestamp": null}});
        if initial_end {
            object["metadata"]["annotations"] = json!({INITIAL_END: "true"});
        }
        let json = kube1_api::codec::encode_canonical(&object).into();
        WatchEvent::new(WatchKind::Bookmark, Arc::new(Object::free(&self.layout, json, revision)))
    }
}

/// The events of a watch. Ends at its timeout, and when its reader is too slow.
pub struct WatchStream {
    collection: Arc<Collection>,
    target: Target,
    id: u64,
    initial: std::vec::IntoIter<Arc<Object>>,
    initial_end: bool,
    backlog: VecDeque<WatchEvent>,
    queue: mpsc::Receiver<WatchEvent>,
    /// Changes up to here are not wanted.
    after: u64,
    /// Everything up to here was told, once initial events and backlog are.
    told: u64,
    bookmarks: bool,
    alarm: Pin<Box<Sleep>>,
    deadline: Instant,
}

impl WatchStream {
    fn new(collection: Arc<Collection>, queue: mpsc::Receiver<WatchEvent>, options: &ListOptions) -> Self {
        let seconds = options.timeout_seconds.filter(|s| *s > 0);
        let seconds = seconds.unwrap_or_else(|| rand::rng().random_range(LIFETIME..2 * LIFETIME));
        let deadline = Instant::now() + Duration::from_secs(seconds);
        let first = next_alarm(Instant::now(), deadline);
        Self {
            collection,
            target: Target::All,
            id: 0,
            initial: Vec::new().into_iter(),
            initial_end: false,
            backlog: VecDeque::new(),
            queue,
            after: 0,
            told: 0,
            bookmarks: options.bookmarks,
            alarm: Box::pin(tokio::time::sleep_until(first)),
            deadline,
        }
    }

    /// What can be told without waiting.
    fn ready(&mut self) -> Option<WatchEvent> {
        if let Some(object) = self.initial.next() {
            return Some(WatchEvent::new(WatchKind::Added, object));
        }
        if std::mem::take(&mut self.initial_end) {
            return Some(self.collection.bookmark(self.told, true));
        }
        self.backlog.pop_front()
    }
}

/// A bookmark's time, or the end.
fn next_alarm(now: Instant, deadline: Instant) -> Instant {
    let farewell = deadline.checked_sub(FAREWELL).filter(|f| *f > now);
    farewell.map_or(deadline, |farewell| farewell.min(now + BOOKMARK_PERIOD))
}

impl Stream for WatchStream {
    type Item = WatchEvent;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<WatchEvent>> {
        let this = self.get_mut();
        if let Some(event) = this.ready() {
            return Poll::Ready(Some(event));
        }
        loop {
            // Read before the queue is found empty: then all changes up to it were told.
            let published = this.collection.clock.published();
            match this.queue.poll_recv(cx) {
                Poll::Ready(Some(event)) if event.object.revision() <= this.after => continue,
                Poll::Ready(event) => return Poll::Ready(event),
                Poll::Pending => {}
            }
            if this.queue.is_empty() {
                this.told = this.told.max(published).max(this.after);
            }
            if this.alarm.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            if now >= this.deadline {
                return Poll::Ready(None);
            }
            this.alarm.as_mut().reset(next_alarm(now, this.deadline));
            if this.bookmarks && this.queue.is_empty() {
                return Poll::Ready(Some(this.collection.bookmark(this.told, false)));
            }
        }
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        self.collection.state.write().watchers.remove(&self.target, self.id);
    }
}
