//! The audit log: one JSON line for every answered request, at level Metadata.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kube1_api::status::Status;
use serde_json::{Value, json};
use tokio::io::{AsyncWriteExt, BufWriter};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::respond::Reply;
use crate::call::Call;
use crate::user::UserInfo;

/// Lines that wait to be written; more are dropped and counted, so that a slow disk does not stop the server.
const QUEUE: usize = 4096;

/// Where audit events go; by default nowhere.
#[derive(Clone, Default)]
pub struct Audit {
    sender: Option<mpsc::Sender<String>>,
    dropped: Arc<AtomicU64>,
}

/// The log could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the audit log {}", path.display())]
pub struct AuditError {
    path: PathBuf,
    source: std::io::Error,
}

/// An event that is not yet complete.
pub struct Entry(Option<Value>);

impl Audit {
    /// Opens a log for appending. The returned writer must be run for as long as the log is used.
    pub async fn open(path: &Path) -> Result<(Self, AuditWriter), AuditError> {
        let mut options = tokio::fs::OpenOptions::new();
        let file = options
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .await
            .map_err(|source| AuditError { path: path.to_owned(), source })?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let writer = AuditWriter { receiver, file: BufWriter::new(file), dropped: dropped.clone() };
        Ok((Self { sender: Some(sender), dropped }, writer))
    }

    /// Notes a request before it is handled; `real` is the user who impersonates another.
    pub fn begin(&self, call: &Call, real: Option<&UserInfo>) -> Entry {
        if self.sender.is_none() {
            return Entry(None);
        }
        let user = user_json(real.unwrap_or(&call.user));
        let info = &call.info;
        let mut event = json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": call.audit_id,
            "stage": "ResponseComplete", "requestURI": call.parts.uri.path_and_query().map(|p| p.as_str()), "verb": info.verb, "user": user,
            "sourceIPs": [call.client_ip], "userAgent": call.user_agent(), "requestReceivedTimestamp": now(),
        });
        if real.is_some() {
            event["impersonatedUser"] = user_json(&call.user);
        }
        if info.is_resource {
            let mut object = json!({"resource": info.resource, "apiVersion": info.version});
            let parts = [
                ("namespace", &info.namespace),
                ("name", &info.name),
                ("apiGroup", &info.group),
                ("subresource", &info.subresource),
            ];
            for (key, value) in parts {
                if !value.is_empty() {
                    object[key] = value.clone().into();
                }
            }
            event["objectRef"] = object;
        }
        Entry(Some(event))
    }

    /// Completes the event by its outcome and queues it.
    pub fn end(&self, entry: Entry, result: &Result<Reply, Status>) {
        let (Some(sender), Entry(Some(mut event))) = (&self.sender, entry) else { return };
        event["responseStatus"] = match result {
            Ok(reply) => json!({"metadata": {}, "code": reply.status().as_u16()}),
            Err(status) => {
                json!({"metadata": {}, "code": status.code(), "status": "Failure", "reason": status.reason(),
                "message": status.message()})
            }
        };
        event["stageTimestamp"] = now().into();
        if sender.try_send(event.to_string()).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Writes the queued lines.
pub struct AuditWriter {
    receiver: mpsc::Receiver<String>,
    file: BufWriter<tokio::fs::File>,
    dropped: Arc<AtomicU64>,
}

impl AuditWriter {
    /// Runs until cancelled, and then writes what is queued.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut lines = Vec::new();
        loop {
            tokio::select! {
                biased;
                read = self.receiver.recv_many(&mut lines, 256) => if read == 0 {
                    return;
                },
                () = cancel.cancelled() => return,
            }
            if let Err(error) = self.write(&lines).await {
                tracing::error!(%error, lines = lines.len(), "cannot write to the audit log");
            }
            lines.clear();
            let dropped = self.dropped.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                tracing::warn!(dropped, "audit events were dropped: the audit log's disk is too slow");
            }
        }
    }

    async fn write(&mut self, lines: &[String]) -> std::io::Result<()> {
        for line in lines {
            self.file.write_all(line.as_bytes()).await?;
            self.file.write_all(b"\n").await?;
        }
        self.file.flush().await
    }
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

fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}
