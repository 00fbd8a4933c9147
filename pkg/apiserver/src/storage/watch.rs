//! Watches: each reads the feed of what it selects, filled at commit; one that falls behind is ended.

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
use tokio::time::{Instant, Sleep};

use super::collection::Collection;
use super::feed::{Next, Reader, Round};
use super::map::{Key, ObjectMap};
use super::object::Object;
use super::watchers::{Seen, Selection, Target};
use crate::options::ListOptions;

const BOOKMARK_PERIOD: Duration = Duration::from_secs(60);
/// The last bookmark comes this long before the end.
const FAREWELL: Duration = Duration::from_secs(2);
/// Watches without a timeout end after one to two of these.
const LIFETIME: u64 = 1800;
/// Longer than any server runs, in seconds: what clients ask for may be too much for a clock.
const LIFETIME_MAX: u64 = 10 * 365 * 86_400;
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
struct Shared {
    json: OnceLock<Bytes>,
    protobuf: OnceLock<Bytes>,
}

/// One event of a watch.
#[derive(Clone, Debug)]
pub struct WatchEvent {
    pub kind: WatchKind,
    /// For bookmarks an object with only kind and metadata.
    pub object: Arc<Object>,
    shared: Option<Arc<Shared>>,
}

impl WatchEvent {
    fn new(kind: WatchKind, object: Arc<Object>) -> Self {
        Self { kind, object, shared: None }
    }

    /// An event that several watchers get.
    pub(super) fn shared(kind: WatchKind, object: Arc<Object>) -> Self {
        Self { kind, object, shared: Some(Arc::default()) }
    }

    /// Whether it is the bookmark after which no initial events come.
    pub fn ends_initial(&self) -> bool {
        self.kind == WatchKind::Bookmark
            && std::str::from_utf8(self.object.json()).is_ok_and(|text| text.contains(INITIAL_END))
    }

    /// The event in the storage version's wire form, encoded by the first watcher that asks and shared with the
    /// others. Every caller must pass the same function for the same encoding.
    pub fn encoded(&self, encoding: Encoding, encode: impl FnOnce() -> Bytes) -> Bytes {
        let Some(shared) = &self.shared else { return encode() };
        let slot = match encoding {
            Encoding::Json => &shared.json,
            Encoding::Protobuf => &shared.protobuf,
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
        let selection = Arc::new(Selection {
            namespace: namespace.map(str::to_owned),
            labels: options.labels.clone(),
            fields: options.fields.clone(),
        });
        let target = match (options.fields.exact("metadata.name"), self.indexed) {
            (Some(name), _) => Target::Name(name.to_owned()),
            (None, Some(field)) => options.fields.exact(field).map_or(Target::All, |v| Target::Indexed(v.to_owned())),
            (None, None) => Target::All,
        };
        let published = self.clock.published();
        let mut state = self.state.write();
        let told = published.max(state.revision);
        let (mut objects, mut backlog, mut after) = (ObjectMap::default(), VecDeque::new(), 0);
        if initial {
            objects = match (&target, namespace) {
                (Target::Name(name), Some(namespace)) => {
                    state.objects.get(Key { namespace, name }).cloned().into_iter().collect()
                }
                (Target::Indexed(value), _) if !value.is_empty() => state.index.get(value).cloned().unwrap_or_default(),
                _ => state.objects.clone(),
            };
        } else if let Some(asked) = asked {
            if asked < state.floor {
                let text = format!("too old resource version: {asked} ({})", state.floor);
                return Err(Status::expired(text));
            }
            backlog = state.since(asked).filter_map(|change| Seen::new(change).by(&selection)).collect();
            after = asked;
        }
        let reader = state.watchers.add(target.clone(), selection.clone());
        drop(state);
        let selected =
            objects.range(namespace, Bound::Unbounded).filter(|o| o.matches(&options.labels, &options.fields));
        let seconds = options.timeout_seconds.filter(|s| *s > 0);
        let seconds = seconds.unwrap_or_else(|| rand::rng().random_range(LIFETIME..2 * LIFETIME));
        let deadline = Instant::now() + Duration::from_secs(seconds.min(LIFETIME_MAX));
        Ok(WatchStream {
            initial: selected.cloned().collect::<Vec<_>>().into_iter(),
            initial_end: initial && options.bookmarks,
            backlog,
            reader: Some(reader),
            after,
            told,
            bookmarks: options.bookmarks,
            bookmark_due: false,
            alarm: Box::pin(tokio::time::sleep_until(next_alarm(Instant::now(), deadline))),
            deadline,
            collection: self.clone(),
            target,
            selection,
        })
    }

    fn bookmark(&self, revision: u64, initial_end: bool) -> WatchEvent {
        let mut object = json!({"apiVersion": self.identity.api_version, "kind": self.identity.kind,
            "metadata": {"resourceVersion": revision.to_string(), "creationTimestamp": null}});
        if initial_end {
            object["metadata"]["annotations"] = json!({INITIAL_END: "true"});
        }
        let json = kube1_api::codec::encode_canonical(&object);
        WatchEvent::new(WatchKind::Bookmark, Arc::new(Object::free(&self.layout, &json, revision)))
    }
}

/// What a watcher is told at a time.
#[derive(Clone, Debug)]
pub enum Told {
    Event(WatchEvent),
    /// Events that all who watch the same are told together.
    Round(Arc<Round>),
}

/// The events of a watch. Ends at its timeout, and when its reader is too slow.
pub struct WatchStream {
    collection: Arc<Collection>,
    target: Target,
    selection: Arc<Selection>,
    initial: std::vec::IntoIter<Arc<Object>>,
    initial_end: bool,
    backlog: VecDeque<WatchEvent>,
    /// Until the end.
    reader: Option<Reader>,
    /// Changes up to here are not wanted.
    after: u64,
    /// Everything up to here was told, once initial events and backlog are.
    told: u64,
    bookmarks: bool,
    bookmark_due: bool,
    alarm: Pin<Box<Sleep>>,
    deadline: Instant,
}

impl WatchStream {
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

    /// The next event or events; `None` at the end.
    pub fn poll_told(&mut self, cx: &mut Context<'_>) -> Poll<Option<Told>> {
        if let Some(event) = self.ready() {
            return Poll::Ready(Some(Told::Event(event)));
        }
        let Some(reader) = &self.reader else { return Poll::Ready(None) };
        loop {
            // Read before nothing is found: then all changes up to it were told.
            let published = self.collection.clock.published();
            let complete = match reader.read(cx) {
                Next::Round(round) if round.events()[0].object.revision() > self.after => {
                    return Poll::Ready(Some(Told::Round(round)));
                }
                Next::Round(round) => {
                    let wanted = round.events().iter().filter(|event| event.object.revision() > self.after);
                    self.backlog.extend(wanted.cloned());
                    match self.backlog.pop_front() {
                        Some(event) => return Poll::Ready(Some(Told::Event(event))),
                        None => continue,
                    }
                }
                Next::Ended => return Poll::Ready(None),
                Next::Wait { complete } => complete,
            };
            if complete {
                self.told = self.told.max(published).max(self.after);
                if std::mem::take(&mut self.bookmark_due) {
                    return Poll::Ready(Some(Told::Event(self.collection.bookmark(self.told, false))));
                }
            }
            if self.alarm.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            if now >= self.deadline {
                return Poll::Ready(None);
            }
            self.alarm.as_mut().reset(next_alarm(now, self.deadline));
            self.bookmark_due = self.bookmarks;
            // What is being gathered comes before the bookmark.
            reader.hurry();
        }
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
        match std::task::ready!(this.poll_told(cx)) {
            Some(Told::Event(event)) => Poll::Ready(Some(event)),
            // Nothing else is ready before a round: it takes the place of the backlog.
            Some(Told::Round(round)) => {
                this.backlog.extend(round.events().iter().cloned());
                Poll::Ready(this.backlog.pop_front())
            }
            None => Poll::Ready(None),
        }
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        self.reader = None;
        self.collection.state.write().watchers.remove(&self.target, &self.selection);
    }
}
