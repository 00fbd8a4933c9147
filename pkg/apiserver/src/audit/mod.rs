//! Auditing: what is noted of requests, by the rules of a policy, and where it goes.

mod form;
mod log;
mod policy;
mod trail;
mod webhook;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

pub use form::{Format, Truncation};
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
    /// Requests wait until events are written, or cannot be.
    #[default]
    Blocking,
    /// As blocking, and a request whose first event cannot be written is refused.
    BlockingStrict,
}

/// The flags of auditing. Without a policy nothing is noted.
#[derive(Clone, Debug)]
pub struct AuditOptions {
    pub policy_file: Option<PathBuf>,
    pub log: Option<LogOptions>,
    pub log_mode: Mode,
    pub log_batch: BatchOptions,
    pub log_truncation: Option<Truncation>,
    pub webhook: Option<WebhookOptions>,
}

impl Default for AuditOptions {
    fn default() -> Self {
        Self {
            policy_file: None,
            log: None,
            log_mode: Mode::default(),
            log_batch: BatchOptions::of_log(),
            log_truncation: None,
            webhook: None,
        }
    }
}

#[derive(Clone, Debug)]
pub struct WebhookOptions {
    /// A kubeconfig file.
    pub config_file: PathBuf,
    pub mode: Mode,
    pub batch: BatchOptions,
    pub truncation: Option<Truncation>,
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
    truncation: Option<Truncation>,
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
        let mut add = |name, mode, batch: &BatchOptions, truncation, target| {
            let (sender, receiver) = mpsc::channel(batch.buffer.max(1));
            sinks.push(Sink { name, mode, sender });
            let (batch, errors) = (batch.clone(), errors.clone());
            writers.push(AuditWriter { name, receiver, target, batch, truncation, mode, errors });
        };
        if let Some(log) = &options.log {
            let file = LogFile::open(log.clone());
            let file = file.map_err(|source| AuditError::Log { path: log.path.clone(), source })?;
            add("log", options.log_mode, &options.log_batch, options.log_truncation, Target::Log(Some(file)));
        }
        if let Some(webhook) = &options.webhook {
            let remote = Remote::from_kubeconfig(&webhook.config_file)?;
            let target = Target::Webhook(Webhook { remote, initial_backoff: webhook.initial_backoff });
            add("webhook", webhook.mode, &webhook.batch, webhook.truncation, target);
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
            Mode::Batch => {
                self.queue(sink, event);
                true
            }
            Mode::Blocking | Mode::BlockingStrict => {
                let (sender, written) = oneshot::channel();
                let sent = sink.sender.send(Item { event, written: Some(sender) }).await.is_ok();
                if !sent {
                    self.errors.inc(&[sink.name]);
                }
                (sent && written.await.unwrap_or(false)) || sink.mode == Mode::Blocking
            }
        }
    }

    fn queue(&self, sink: &Sink, event: String) {
        if sink.sender.try_send(Item { event, written: None }).is_err() {
            self.errors.inc(&["buffered"]);
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
            for batch in self.batches(items) {
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
        let most = match self.mode {
            Mode::Batch => self.batch.max_size.clamp(1, self.batch.buffer.max(1)),
            // Whoever waits is waited for no longer than it takes.
            _ => self.batch.buffer.max(1),
        };
        self.receiver.recv_many(items, most).await;
        if self.mode != Mode::Batch {
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
        let count = events.len();
        let written = match &mut self.target {
            Target::Log(file) => write_log(file, events).await,
            Target::Webhook(webhook) => webhook.send(&events).await,
        };
        if let Err(error) = &written {
            self.errors.add(&[self.name], count as u64);
            tracing::error!(error, events = count, sink = self.name, "audit events could not be written");
        }
        for sender in waiting.into_iter().flatten() {
            // The request may have gone meanwhile.
            let _ = sender.send(written.is_ok());
        }
    }
}

impl AuditWriter {
    /// What is written at once: of events that are not too long, so many and so much as is allowed.
    fn batches(&self, items: Vec<Item>) -> Vec<Vec<Item>> {
        let most = match (&self.target, self.mode) {
            (Target::Webhook(_), Mode::Batch) => self.batch.max_size,
            _ => usize::MAX,
        };
        let Some(limits) = self.truncation else { return split(items, most, usize::MAX) };
        let mut fitting = Vec::with_capacity(items.len());
        for Item { event, written } in items {
            match (limits.cut(event), written) {
                (Some(event), written) => fitting.push(Item { event, written }),
                (None, written) => {
                    self.errors.inc(&["truncate"]);
                    tracing::error!(
                        sink = self.name,
                        "an audit event was dropped: it is too long even without its bodies"
                    );
                    if let Some(sender) = written {
                        // The request may have gone meanwhile.
                        let _ = sender.send(true);
                    }
                }
            }
        }
        split(fitting, most, limits.max_batch)
    }
}

/// Writes lines on a thread that may block.
async fn write_log(slot: &mut Option<LogFile>, events: Vec<String>) -> Result<(), String> {
    let Some(mut file) = slot.take() else { return Err("the log's writer failed before".into()) };
    let writing = tokio::task::spawn_blocking(move || {
        let written = file.write_events(events);
        (file, written)
    });
    let (file, written) = writing.await.map_err(|error| error.to_string())?;
    *slot = Some(file);
    written.map_err(|error| error.to_string())
}

/// Batches of at most `size` events and `bytes` bytes; one event may be longer.
fn split(items: Vec<Item>, size: usize, bytes: usize) -> Vec<Vec<Item>> {
    let mut batches: Vec<Vec<Item>> = Vec::new();
    let mut length = 0;
    for item in items {
        length += item.event.len();
        match batches.last_mut() {
            Some(last) if last.len() < size && length <= bytes => last.push(item),
            _ => {
                length = item.event.len();
                batches.push(vec![item]);
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_bounded_by_events_and_bytes() {
        let items = |lengths: &[usize]| lengths.iter().map(|n| Item { event: "x".repeat(*n), written: None }).collect();
        for (lengths, size, bytes, expected) in [
            (&[1, 1, 1, 1, 1][..], 2, 100, vec![2, 2, 1]),
            (&[5, 5, 5], 10, 10, vec![2, 1]),
            (&[20, 5, 5, 5], 10, 10, vec![1, 2, 1]),
            (&[], 10, 10, vec![]),
        ] {
            let found: Vec<usize> = split(items(lengths), size, bytes).iter().map(Vec::len).collect();
            assert_eq!(found, expected, "{lengths:?}");
        }
    }
}
