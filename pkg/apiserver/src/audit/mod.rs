//! Auditing: what is noted of requests, by the rules of a policy, and where it goes.

mod log;
mod policy;
mod trail;
mod webhook;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

pub use log::LogOptions;
pub use policy::{Level, Policy, PolicyError, Stage};
pub use trail::Trail;
pub use webhook::BatchOptions;

use crate::call::Call;
use crate::dial::{Remote, RemoteError};
use crate::metrics::{Counters, Registrar};
use crate::user::UserInfo;
use log::LogFile;
use webhook::{Throttle, Webhook};

/// How requests and the writing of their events wait for each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Requests go on; events that find no room are dropped and counted.
    Batch,
    /// Requests wait for room.
    #[default]
    Blocking,
    /// Requests wait until events are written; one whose first event cannot be is refused.
    BlockingStrict,
}

/// The flags of auditing. Without a policy nothing is noted.
#[derive(Clone, Debug, Default)]
pub struct AuditOptions {
    pub policy_file: Option<PathBuf>,
    pub log: Option<LogOptions>,
    pub log_mode: Mode,
    pub log_batch: BatchOptions,
    pub webhook: Option<WebhookOptions>,
}

#[derive(Clone, Debug)]
pub struct WebhookOptions {
    /// A kubeconfig file.
    pub config_file: PathBuf,
    pub mode: Mode,
    pub batch: BatchOptions,
    pub initial_backoff: Duration,
}

/// Auditing cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error("cannot open the audit log {}", path.display())]
    Log { path: PathBuf, source: std::io::Error },
    #[error("the audit webhook cannot be used")]
    Webhook(#[from] RemoteError),
}

/// Notes requests; by default none.
#[derive(Clone, Default)]
pub struct Audit {
    inner: Option<Arc<(Policy, Arc<Sinks>)>>,
    levels: Option<Counters>,
}

/// Where events go.
pub(crate) struct Sinks {
    sinks: Vec<Sink>,
    events: Counters,
    errors: Counters,
    refused: Counters,
}

#[derive(Clone)]
struct Sink {
    name: &'static str,
    mode: Mode,
    sender: mpsc::Sender<Item>,
}

struct Item {
    event: String,
    written: Option<oneshot::Sender<bool>>,
}

/// Writes what is queued for one sink; must be run for as long as the audit is used.
pub struct AuditWriter {
    name: &'static str,
    receiver: mpsc::Receiver<Item>,
    target: Target,
    batch: BatchOptions,
    mode: Mode,
    errors: Counters,
}

enum Target {
    /// Taken while a thread writes to it.
    Log(Option<LogFile>),
    Webhook(Webhook),
}

impl Audit {
    /// Reads the policy and opens what it writes to.
    pub fn open(options: &AuditOptions, metrics: &mut Registrar) -> Result<(Self, Vec<AuditWriter>), AuditError> {
        let events =
            metrics.counters("apiserver_audit_event", "Audit events generated and sent to the audit backend", &[]);
        let help = "Audit events that failed to be audited properly, by the plugin that failed";
        let errors = metrics.counters("apiserver_audit_error", help, &["plugin"]);
        let levels = metrics.counters("apiserver_audit_level", "Policy levels for audit events", &["level"]);
        let help = "API requests rejected due to an error in audit logging backend";
        let refused = metrics.counters("apiserver_audit_requests_rejected", help, &[]);
        let Some(path) = &options.policy_file else {
            if options.log.is_some() || options.webhook.is_some() {
                tracing::warn!("nothing is audited: there is no --audit-policy-file");
            }
            return Ok((Self::default(), Vec::new()));
        };
        let policy = Policy::read(path)?;
        let (mut sinks, mut writers) = (Vec::new(), Vec::new());
        let mut add = |name, mode, batch: &BatchOptions, target| {
            let (sender, receiver) = mpsc::channel(batch.buffer.max(1));
            sinks.push(Sink { name, mode, sender });
            writers.push(AuditWriter { name, receiver, target, batch: batch.clone(), mode, errors: errors.clone() });
        };
        if let Some(log) = &options.log {
            let file = LogFile::open(log.clone());
            let file = file.map_err(|source| AuditError::Log { path: log.path.clone(), source })?;
            let batch = BatchOptions { max_size: usize::MAX, throttle: None, ..options.log_batch.clone() };
            add("log", options.log_mode, &batch, Target::Log(Some(file)));
        }
        if let Some(webhook) = &options.webhook {
            let remote = Remote::from_kubeconfig(&webhook.config_file)?;
            let target = Target::Webhook(Webhook { remote, initial_backoff: webhook.initial_backoff });
            add("webhook", webhook.mode, &webhook.batch, target);
        }
        let sinks = Arc::new(Sinks { sinks, events, errors, refused });
        Ok((Self { inner: Some(Arc::new((policy, sinks))), levels: Some(levels) }, writers))
    }

    /// The trail of a request; `user` is none when authentication failed.
    pub fn trail(&self, call: &Call, user: Option<&UserInfo>) -> Trail {
        let Some(inner) = &self.inner else { return Trail::default() };
        let verdict = inner.0.verdict(user, &call.info);
        if let Some(levels) = &self.levels {
            levels.inc(&[verdict.level.as_str()]);
        }
        if verdict.level == Level::None { Trail::default() } else { Trail::new(verdict, inner.1.clone(), call, user) }
    }
}

impl Sinks {
    /// Hands an event to every sink; false when it must refuse the request.
    async fn take(&self, event: String, stage: Stage) -> bool {
        self.events.inc(&[]);
        let mut fine = true;
        for sink in &self.sinks {
            fine &= self.give(sink, event.clone()).await || stage != Stage::RequestReceived;
        }
        if !fine {
            self.refused.inc(&[]);
        }
        fine
    }

    async fn give(&self, sink: &Sink, event: String) -> bool {
        match sink.mode {
            Mode::Batch => self.queue(sink, event),
            Mode::Blocking => {
                if sink.sender.send(Item { event, written: None }).await.is_err() {
                    self.errors.inc(&[sink.name]);
                }
            }
            Mode::BlockingStrict => {
                let (sender, written) = oneshot::channel();
                let sent = sink.sender.send(Item { event, written: Some(sender) }).await.is_ok();
                return sent && written.await.unwrap_or(false);
            }
        }
        true
    }

    fn queue(&self, sink: &Sink, event: String) {
        if sink.sender.try_send(Item { event, written: None }).is_err() {
            self.errors.inc(&[sink.name]);
            tracing::warn!(sink = sink.name, "an audit event was dropped: too many are waiting to be written");
        }
    }

    /// As [`Sinks::take`], for what cannot wait.
    fn take_now(&self, event: String) {
        self.events.inc(&[]);
        self.sinks.iter().for_each(|sink| self.queue(sink, event.clone()));
    }
}

impl AuditWriter {
    /// Runs until cancelled, and then writes what is queued.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut throttle = self.batch.throttle.filter(|_| self.mode == Mode::Batch).map(Throttle::new);
        loop {
            let mut items = Vec::new();
            let running = cancel.run_until_cancelled(self.gather(&mut items)).await.is_some();
            if running && items.is_empty() {
                return;
            }
            if !running {
                while let Ok(item) = self.receiver.try_recv() {
                    items.push(item);
                }
            }
            for batch in split(items, self.batch.max_size) {
                if let Some(throttle) = throttle.as_mut().filter(|_| running) {
                    throttle.wait().await;
                }
                self.write(batch).await;
            }
            if !running {
                return;
            }
        }
    }

    /// Waits for events: in batch mode until there are many or the oldest has waited long enough.
    async fn gather(&mut self, items: &mut Vec<Item>) {
        let most = self.batch.max_size.min(self.batch.buffer.max(1));
        self.receiver.recv_many(items, most).await;
        if self.mode != Mode::Batch || !matches!(self.target, Target::Webhook(_)) {
            return;
        }
        let deadline = tokio::time::Instant::now() + self.batch.max_wait;
        while items.len() < most {
            let more = self.receiver.recv_many(items, most - items.len());
            if !matches!(tokio::time::timeout_at(deadline, more).await, Ok(count) if count > 0) {
                return;
            }
        }
    }

    async fn write(&mut self, items: Vec<Item>) {
        let (events, waiting): (Vec<String>, Vec<_>) = items.into_iter().map(|item| (item.event, item.written)).unzip();
        let (events, written) = match &mut self.target {
            Target::Log(file) => write_log(file, events).await,
            Target::Webhook(webhook) => {
                let sent = webhook.send(&events).await;
                (events, sent)
            }
        };
        if let Err(error) = &written {
            self.errors.add(&[self.name], events.len() as u64);
            tracing::error!(error, events = events.len(), sink = self.name, "audit events could not be written");
        }
        for sender in waiting.into_iter().flatten() {
            // The request may have gone meanwhile.
            let _ = sender.send(written.is_ok());
        }
    }
}

/// Writes lines on a thread that may block.
async fn write_log(slot: &mut Option<LogFile>, events: Vec<String>) -> (Vec<String>, Result<(), String>) {
    let Some(mut file) = slot.take() else { return (events, Err("the log's writer failed before".into())) };
    let writing = tokio::task::spawn_blocking(move || {
        let written = file.write(events.iter().map(String::as_str));
        (file, events, written)
    });
    match writing.await {
        Ok((file, events, written)) => {
            *slot = Some(file);
            (events, written.map_err(|error| error.to_string()))
        }
        Err(error) => (Vec::new(), Err(error.to_string())),
    }
}

/// Batches of at most `size`.
fn split(items: Vec<Item>, size: usize) -> Vec<Vec<Item>> {
    let mut batches: Vec<Vec<Item>> = Vec::new();
    for item in items {
        match batches.last_mut() {
            Some(last) if last.len() < size => last.push(item),
            _ => batches.push(vec![item]),
        }
    }
    batches
}
