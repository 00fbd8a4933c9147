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
use super::watchers::{Crowd, Seen, Selection, Target, Watcher};
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

#[derive(Debug)]
struct Shared {
    /// When the change happened.
    at: std::time::Instant,
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
    pub(super) fn shared(kind: WatchKind, object: Arc<Object>, at: std::time::Instant) -> Self {
        let shared = Shared { at, json: OnceLock::new(), protobuf: OnceLock::new() };
        Self { kind, object, shared: Some(Arc::new(shared)) }
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
        let (queue, receiver) = mpsc::channel(QUEUE);
        let selection = Selection {
            namespace: namespace.map(str::to_owned),
            labels: options.labels.clone(),
            fields: options.fields.clone(),
        };
        let watcher = Watcher { id: 0, selection: Arc::new(selection), queue };
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
            stream.backlog = state.since(after).filter_map(|change| Seen::new(change).by(&watcher.selection)).collect();
            stream.after = after;
        }
        (stream.id, stream.pace.crowd) = state.watchers.add(stream.target.clone(), watcher);
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
    pace: Pace,
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
            pace: Pace::default(),
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

/// Gathers what comes in quick succession to a watcher of a crowd: it is told at once after a quiet time, and of all
/// that came meanwhile after a pause.
#[derive(Default)]
struct Pace {
    crowd: Arc<Crowd>,
    /// Changes are being told, until none is left.
    flowing: bool,
    /// So many were told since it began.
    told: u32,
    /// When telling them began the last time.
    began: Option<Instant>,
    /// The end of the pause before telling what is there now.
    resumes: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    /// Whether the changes that are there shall wait; the task is woken when they need not any more.
    fn hold(&mut self, cx: &mut Context<'_>) -> bool {
        if self.flowing {
            return false;
        }
        if self.resumes.is_none() {
            let end = self.began.zip(self.crowd.pause(self.told)).map(|(began, pause)| began + pause);
            let Some(end) = end.filter(|end| *end > Instant::now()) else { return false };
            self.resumes = Some(end);
            match &mut self.sleep {
                Some(sleep) => sleep.as_mut().reset(end),
                None => self.sleep = Some(Box::pin(tokio::time::sleep_until(end))),
            }
        }
        self.sleep.as_mut().is_some_and(|sleep| sleep.as_mut().poll(cx).is_pending())
    }

    fn tell(&mut self, event: &WatchEvent) {
        if std::mem::replace(&mut self.flowing, true) {
            self.told = self.told.saturating_add(1);
            return;
        }
        self.told = 1;
        let now = Instant::now();
        if let Some(shared) = &event.shared {
            let ready = self.resumes.unwrap_or(shared.at.into()).max(shared.at.into());
            self.crowd.told_after(now.saturating_duration_since(ready));
        }
        self.began = Some(now);
        self.resumes = None;
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
            if !this.queue.is_empty() && this.pace.hold(cx) {
                return Poll::Pending;
            }
            // Read before the queue is found empty: then all changes up to it were told.
            let published = this.collection.clock.published();
            match this.queue.poll_recv(cx) {
                Poll::Ready(Some(event)) if event.object.revision() <= this.after => continue,
                Poll::Ready(event) => {
                    event.iter().for_each(|event| this.pace.tell(event));
                    return Poll::Ready(event);
                }
                Poll::Pending => this.pace.flowing = false,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> WatchEvent {
        let layout = Arc::new(crate::storage::object::Layout::new("v1", "Pod", &[]));
        let object = Arc::new(Object::free(&layout, Bytes::new(), 1));
        WatchEvent::shared(WatchKind::Added, object, Instant::now().into())
    }

    #[tokio::test(start_paused = true)]
    async fn a_watcher_of_a_slow_crowd_is_told_of_several_changes_at_once() {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut pace = Pace { crowd: Crowd::of(1000), ..Pace::default() };
        let slow = event();
        tokio::time::advance(Duration::from_millis(20)).await;
        assert!(!pace.hold(&mut cx), "the first one is told at once");
        pace.tell(&slow);
        pace.flowing = false;
        assert!(!pace.hold(&mut cx), "and so is one that comes alone after it");
        pace.tell(&slow);
        assert!(!pace.hold(&mut cx), "and what is there with it");
        pace.tell(&slow);
        pace.flowing = false;
        assert!(pace.hold(&mut cx), "after two at once the next one waits");
        tokio::time::advance(Duration::from_millis(39)).await;
        assert!(pace.hold(&mut cx));
        tokio::time::advance(Duration::from_millis(2)).await;
        assert!(!pace.hold(&mut cx), "for twice the time that telling took");
        pace.tell(&event());
        pace.tell(&event());
        pace.flowing = false;
        tokio::time::advance(Duration::from_millis(201)).await;
        assert!(!pace.hold(&mut cx), "after a quiet time nothing waits");
        let few = Pace { crowd: Crowd::of(3), began: Some(Instant::now()), ..Pace::default() };
        few.crowd.told_after(Duration::from_secs(1));
        assert_eq!(few.crowd.pause(9), None, "few watchers are never paused");
    }
}
