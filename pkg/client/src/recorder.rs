//! Events that tell people what a component did with an object.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Events that may wait for the server. Later ones are dropped, as events are best effort.
const QUEUE: usize = 512;
/// Same events within this time are counted in one object, as upstream does for about ten minutes.
const AGGREGATION: Duration = Duration::from_secs(600);
/// Most distinct events remembered for counting.
const REMEMBERED: usize = 1024;

/// Severity of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    Normal,
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Records events for objects under a component's name. Never blocks; cloning shares the queue.
#[derive(Clone)]
pub struct EventRecorder {
    sender: mpsc::Sender<Note>,
    source: Arc<EventSource>,
}

struct Note {
    object: ObjectReference,
    kind: EventType,
    reason: String,
    message: String,
    source: Arc<EventSource>,
}

#[derive(PartialEq, Eq, Hash)]
struct NoteKey {
    uid: Option<String>,
    name: Option<String>,
    kind: EventType,
    reason: String,
    message: String,
    field_path: Option<String>,
}

struct Recorded {
    name: String,
    count: i32,
    last: Instant,
}

impl EventRecorder {
    /// A recorder and the task that writes its events until `shutdown`; the caller owns the task.
    pub fn new(
        client: Client,
        component: &str,
        host: Option<&str>,
        shutdown: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let source = EventSource { component: Some(component.to_owned()), host: host.map(str::to_owned) };
        let task = async move {
            shutdown.run_until_cancelled(write_events(client, receiver)).await;
        };
        (Self { sender, source: Arc::new(source) }, task)
    }

    /// Records an event about a typed object.
    pub fn event<K>(&self, object: &K, kind: EventType, reason: &str, message: impl Into<String>)
    where
        K: Resource<DynamicType = ()>,
    {
        self.event_for(object.object_ref(&()), kind, reason, message);
    }

    /// Records an event about the object that a reference names.
    pub fn event_for(&self, object: ObjectReference, kind: EventType, reason: &str, message: impl Into<String>) {
        let note =
            Note { object, kind, reason: reason.to_owned(), message: message.into(), source: Arc::clone(&self.source) };
        if self.sender.try_send(note).is_err() {
            tracing::debug!(reason, "event dropped: the queue is full");
        }
    }
}

async fn write_events(client: Client, mut receiver: mpsc::Receiver<Note>) {
    let recorded: Mutex<HashMap<NoteKey, Recorded>> = Mutex::default();
    while let Some(note) = receiver.recv().await {
        if let Err(error) = write_event(&client, &recorded, note).await {
            tracing::debug!(%error, "event not recorded");
        }
    }
}

async fn write_event(
    client: &Client,
    recorded: &Mutex<HashMap<NoteKey, Recorded>>,
    note: Note,
) -> Result<(), kube::Error> {
    let namespace = note.object.namespace.clone().filter(|n| !n.is_empty()).unwrap_or_else(|| "default".to_owned());
    let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
    let key = NoteKey {
        uid: note.object.uid.clone(),
        name: note.object.name.clone(),
        kind: note.kind,
        reason: note.reason.clone(),
        message: note.message.clone(),
        field_path: note.object.field_path.clone(),
    };
    let now = Time(Timestamp::now());
    let repeated = count_repeat(recorded, &key);
    if let Some((name, count)) = repeated {
        let patch = serde_json::json!({"count": count, "lastTimestamp": now});
        match api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
            // Expired meanwhile: written anew below.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error),
            Ok(_) => return Ok(()),
        }
    }
    let event = new_event(note, namespace, now);
    let name = event.metadata.name.clone().unwrap_or_default();
    api.create(&PostParams::default(), &event).await?;
    let mut recorded = recorded.lock();
    if recorded.len() >= REMEMBERED {
        recorded.retain(|_, r| r.last.elapsed() < AGGREGATION / 10);
    }
    recorded.insert(key, Recorded { name, count: 1, last: Instant::now() });
    Ok(())
}

/// The name and new count of the event to update, if the same was recorded lately.
fn count_repeat(recorded: &Mutex<HashMap<NoteKey, Recorded>>, key: &NoteKey) -> Option<(String, i32)> {
    let mut recorded = recorded.lock();
    let found = recorded.get_mut(key).filter(|r| r.last.elapsed() < AGGREGATION)?;
    found.count = found.count.saturating_add(1);
    found.last = Instant::now();
    Some((found.name.clone(), found.count))
}

fn new_event(note: Note, namespace: String, now: Time) -> Event {
    // Object name and a timestamp, as upstream names them: unique enough, and sorted by age for people.
    let base = note.object.name.clone().unwrap_or_default();
    let stamp = Timestamp::now().as_nanosecond() as u64;
    let mut event = Event {
        involved_object: note.object,
        type_: Some(note.kind.as_str().to_owned()),
        reason: Some(note.reason),
        message: Some(note.message),
        count: Some(1),
        first_timestamp: Some(now.clone()),
        last_timestamp: Some(now),
        reporting_component: note.source.component.clone(),
        reporting_instance: note.source.host.clone(),
        source: Some((*note.source).clone()),
        ..Event::default()
    };
    event.metadata.name = Some(format!("{base}.{stamp:016x}"));
    event.metadata.namespace = Some(namespace);
    event
}
