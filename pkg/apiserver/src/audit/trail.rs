//! What is noted of one request while it is handled.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::header::CONTENT_TYPE;
use kube1_api::status::Status;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::Sinks;
use super::policy::{Level, Stage, Verdict};
use crate::call::{Call, Lasting};
use crate::http::body::{ResponseBody, read_limited};
use crate::http::respond::Reply;
use crate::user::UserInfo;

const USER_AGENT_MAX: usize = 1024;
/// A slower request says in an annotation how long it took.
const SLOW_MILLIS: i128 = 500;
/// Longest answer that is read back for the event, in bytes.
const ANSWER_MAX: usize = 64 << 20;

/// A request's events. Without an audit policy, or when the policy says so, notes are dropped at once.
///
/// When the last clone is dropped before [`Trail::complete`], as with answers that are streamed, the request counts as
/// completed.
#[derive(Clone, Default)]
pub struct Trail(Option<Arc<Entry>>);

struct Entry {
    verdict: Verdict,
    sinks: Arc<Sinks>,
    received: jiff::Timestamp,
    complete: AtomicBool,
    notes: Mutex<Notes>,
}

#[derive(Default)]
struct Notes {
    event: Map<String, Value>,
    annotations: BTreeMap<String, String>,
}

impl Trail {
    pub(super) fn new(verdict: Verdict, sinks: Arc<Sinks>, call: &Call, user: Option<&UserInfo>) -> Self {
        let received = jiff::Timestamp::now();
        let info = &call.info;
        let mut event = json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": verdict.level.as_str(), "auditID": call.audit_id,
            "requestURI": call.parts.uri.path_and_query().map(|p| p.as_str()), "verb": info.verb,
            "user": user.map_or_else(|| json!({}), user_json), "sourceIPs": source_addresses(call),
            "userAgent": user_agent(call), "requestReceivedTimestamp": time(received),
        });
        if info.is_resource {
            let mut object = Map::new();
            for (key, value) in [
                ("resource", &info.resource),
                ("namespace", &info.namespace),
                ("name", &info.name),
                ("apiGroup", &info.group),
                ("apiVersion", &info.version),
                ("subresource", &info.subresource),
            ] {
                if !value.is_empty() {
                    object.insert(key.into(), value.clone().into());
                }
            }
            event["objectRef"] = object.into();
        }
        let event = if let Value::Object(event) = event { event } else { Map::new() };
        let notes = Mutex::new(Notes { event, ..Notes::default() });
        Self(Some(Arc::new(Entry { verdict, sinks, received, complete: AtomicBool::new(false), notes })))
    }

    fn at(&self, level: Level) -> Option<&Arc<Entry>> {
        self.0.as_ref().filter(|entry| entry.verdict.level >= level)
    }

    pub fn is_enabled(&self) -> bool {
        self.0.is_some()
    }

    /// Adds an annotation; the first of a key stays.
    pub fn annotate(&self, key: impl Into<String>, value: impl Into<String>) {
        self.annotate_at(Level::Metadata, key, value);
    }

    /// Adds an annotation that events below `level` do not have.
    pub fn annotate_at(&self, level: Level, key: impl Into<String>, value: impl Into<String>) {
        if let Some(entry) = self.at(level) {
            entry.notes.lock().annotations.entry(key.into()).or_insert_with(|| value.into());
        }
    }

    /// Adds what admission noted. Patches of webhooks tell of the object, so events below Request do not have them.
    pub fn annotate_all(&self, annotations: BTreeMap<String, String>) {
        for (key, value) in annotations {
            let patch = key.starts_with("patch.webhook.admission.k8s.io/");
            self.annotate_at(if patch { Level::Request } else { Level::Metadata }, key, value);
        }
    }

    /// Notes whom the user acts as; `constraint` is the mode of constrained impersonation, if it was one.
    pub fn impersonated(&self, user: &UserInfo, constraint: Option<&str>) {
        let Some(entry) = &self.0 else { return };
        let mut notes = entry.notes.lock();
        notes.event.insert("impersonatedUser".into(), user_json(user));
        if let Some(mode) = constraint {
            let mode = json!({"impersonationConstraint": format!("impersonate:{mode}")});
            notes.event.insert("authenticationMetadata".into(), mode);
        }
    }

    /// Notes the object that the request brought.
    pub fn request_object(&self, object: &Value) {
        let Some(entry) = &self.0 else { return };
        let mut notes = entry.notes.lock();
        if let Some(reference) = notes.event.get_mut("objectRef").and_then(Value::as_object_mut) {
            for key in ["namespace", "name", "uid", "resourceVersion"] {
                let text = object["metadata"][key].as_str().filter(|t| !t.is_empty());
                if let Some(text) = text {
                    reference.entry(key).or_insert_with(|| text.into());
                }
            }
        }
        if entry.verdict.level >= Level::Request {
            let mut object = object.clone();
            entry.trim(&mut object);
            notes.event.insert("requestObject".into(), object);
        }
    }

    /// Notes a patch, as it came.
    pub fn request_patch(&self, patch: &Value) {
        if let Some(entry) = self.at(Level::Request) {
            entry.notes.lock().event.insert("requestObject".into(), patch.clone());
        }
    }

    /// Writes the event of the request's begin; false when that must refuse the request.
    pub async fn begin(&self) -> bool {
        match &self.0 {
            None => true,
            Some(entry) => entry.emit(Stage::RequestReceived).await,
        }
    }

    /// Notes the outcome and writes the last event.
    pub async fn complete(&self, result: &mut Result<Reply, Status>) {
        let Some(entry) = &self.0 else { return };
        entry.answered(result).await;
        if let Some(took) = entry.slow() {
            self.annotate("apiserver.latency.k8s.io/total", took);
        }
        entry.complete.store(true, Ordering::Relaxed);
        entry.emit(Stage::ResponseComplete).await;
    }

    /// Notes the beginning of an answer that may go on for long; the last event is written when it is over.
    pub async fn started(self, result: &mut Result<Reply, Status>, lasting: &Lasting) {
        let Some(entry) = &self.0 else { return };
        entry.notes.lock().event.insert("responseStatus".into(), outcome(result));
        entry.emit(Stage::ResponseStarted).await;
        lasting.add(self);
    }

    /// Notes that handling the request panicked, and writes the last event.
    pub async fn panicked(&self, why: &str) {
        let Some(entry) = &self.0 else { return };
        let status = json!({"metadata": {}, "code": 500, "status": "Failure", "reason": "InternalError",
            "message": format!("APIServer panic'd: {why}")});
        entry.notes.lock().event.insert("responseStatus".into(), status);
        entry.complete.store(true, Ordering::Relaxed);
        entry.emit(Stage::Panic).await;
    }

    /// Writes the event of a request without a valid credential.
    pub async fn refused(&self, message: &str) {
        let Some(entry) = &self.0 else { return };
        let status = json!({"metadata": {}, "code": 401, "message": message});
        entry.notes.lock().event.insert("responseStatus".into(), status);
        entry.complete.store(true, Ordering::Relaxed);
        entry.emit(Stage::ResponseStarted).await;
    }
}

impl Entry {
    fn event(&self, stage: Stage) -> Option<String> {
        if self.verdict.omit_stages.contains(&stage) {
            return None;
        }
        let notes = self.notes.lock();
        let mut event = notes.event.clone();
        event.insert("stage".into(), stage.as_str().into());
        let at = if stage == Stage::RequestReceived { self.received } else { jiff::Timestamp::now() };
        event.insert("stageTimestamp".into(), time(at).into());
        if !notes.annotations.is_empty() {
            event.insert("annotations".into(), json!(notes.annotations));
        }
        Some(Value::Object(event).to_string())
    }

    async fn emit(&self, stage: Stage) -> bool {
        match self.event(stage) {
            None => true,
            Some(event) => self.sinks.take(event, stage).await,
        }
    }

    /// Milliseconds since the request came, if they are many.
    fn slow(&self) -> Option<String> {
        let took = jiff::Timestamp::now().duration_since(self.received).as_millis();
        (took > SLOW_MILLIS).then(|| format!("{}.{:03}s", took / 1000, took % 1000))
    }

    /// Notes status and, if the policy wants it, body of the answer.
    async fn answered(&self, result: &mut Result<Reply, Status>) {
        let status = outcome(result);
        let mut object = None;
        if self.verdict.level >= Level::RequestResponse {
            object = match result {
                Err(status) => Some(status.to_json()),
                Ok(reply) => body_object(reply).await,
            };
            if let Some(object) = &mut object {
                self.trim(object);
            }
        }
        let mut notes = self.notes.lock();
        notes.event.insert("responseStatus".into(), status);
        if let Some(object) = object {
            notes.event.insert("responseObject".into(), object);
        }
    }

    fn trim(&self, object: &mut Value) {
        if !self.verdict.omit_managed_fields {
            return;
        }
        let remove = |object: &mut Value| {
            if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.remove("managedFields");
            }
        };
        remove(object);
        for list in ["items", "rows"] {
            let items = object.get_mut(list).and_then(Value::as_array_mut);
            items.into_iter().flatten().for_each(|item| match item.get_mut("object") {
                Some(inner) => remove(inner),
                None => remove(item),
            });
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if self.complete.load(Ordering::Relaxed) {
            return;
        }
        let closed = json!({"metadata": {}, "code": 200, "status": "Success", "message": "Connection closed early"});
        self.notes.get_mut().event.entry("responseStatus").or_insert(closed);
        if let Some(event) = self.event(Stage::ResponseComplete) {
            self.sinks.take_now(event);
        }
    }
}

/// The answer as responseStatus: of a failure its whole status but for the details' uid.
fn outcome(result: &Result<Reply, Status>) -> Value {
    match result {
        Ok(reply) => json!({"metadata": {}, "code": reply.status().as_u16()}),
        Err(status) => {
            let status = status.to_json();
            let mut out = Map::new();
            out.insert("metadata".into(), json!({}));
            for key in ["status", "message", "reason", "details", "code"] {
                if let Some(value) = status.get(key) {
                    out.insert(key.into(), value.clone());
                }
            }
            out.into()
        }
    }
}

/// The body of an answer if it is a JSON object. A list that is still being written is completed first.
async fn body_object(reply: &mut Reply) -> Option<Value> {
    let json = reply.headers().get(CONTENT_TYPE).is_some_and(|t| t.as_bytes().starts_with(b"application/json"));
    if !json {
        return None;
    }
    if let ResponseBody::Stream(_) = reply.body() {
        let body = std::mem::replace(reply.body_mut(), ResponseBody::empty());
        let bytes = read_limited(body, ANSWER_MAX).await.ok()?;
        *reply.body_mut() = ResponseBody::Full(bytes);
    }
    serde_json::from_slice(reply.body().full()?).ok()
}

fn user_json(user: &UserInfo) -> Value {
    let mut value = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        value["uid"] = user.uid.clone().into();
    }
    if !user.extra.is_empty() {
        value["extra"] = json!(user.extra);
    }
    value
}

/// The addresses that the request came through, the client's own first as far as proxies tell it.
fn source_addresses(call: &Call) -> Vec<String> {
    let header = |name: &str| call.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let client = call.client_ip.map(|ip| ip.to_string()).unwrap_or_default();
    let told = header("x-forwarded-for").split(',').chain([header("x-real-ip"), &client]);
    let mut found: Vec<String> = Vec::new();
    for text in told.map(str::trim).filter(|text| text.parse::<std::net::IpAddr>().is_ok()) {
        if found.last().is_none_or(|last| last != text) {
            found.push(text.to_owned());
        }
    }
    if found.is_empty() { vec!["127.0.0.1".into()] } else { found }
}

fn user_agent(call: &Call) -> String {
    let agent = call.user_agent();
    match agent.get(..USER_AGENT_MAX) {
        Some(start) if agent.len() > USER_AGENT_MAX => format!("{start}...TRUNCATED"),
        _ => agent.to_owned(),
    }
}

fn time(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}
