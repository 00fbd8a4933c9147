//! Sends spans to a collector, some at a time.

use std::sync::LazyLock;
use std::time::Duration;

use kube1_grpc::{CallError, Service};
use kube1_telemetry::metrics::{Counters, shared};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::wire::{self, ExportResponse, Resource, Span};
use crate::{Ended, Settings};

/// So many go at once, at the latest after this time.
const BATCH: usize = 512;
const DELAY: Duration = Duration::from_secs(5);
const CALL: Duration = Duration::from_secs(10);
/// A collector that is away is asked again after this time, then after twice that, for a minute.
const RETRY: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(60);
/// What is left at shutdown must go within this.
const FLUSH: Duration = Duration::from_secs(2);

static SPANS: LazyLock<Counters> = LazyLock::new(|| {
    shared(|r| r.counters("kube1_trace_spans", "Spans of traced requests, by what became of them.", &["result"]))
});

/// Notes what became of spans: `sent`, `refused` by the collector, or `dropped`.
pub(crate) fn count(result: &str, spans: usize) {
    SPANS.add(&[result], spans as u64);
}

/// Sends the spans of a [`crate::Tracer`].
#[derive(Debug)]
pub struct Exporter {
    service: Service,
    resource: Resource,
    waiting: mpsc::Receiver<Ended>,
}

impl Exporter {
    pub(crate) fn new(settings: &Settings, service: &str, instance: &str, waiting: mpsc::Receiver<Ended>) -> Self {
        let attributes = vec![wire::text("service.name", service), wire::text("service.instance.id", instance)];
        Self { service: Service::new(settings.collector.clone()), resource: Resource { attributes }, waiting }
    }

    /// Runs until cancelled, and sends what is left then.
    pub async fn run(mut self, cancel: CancellationToken) {
        while let Some(Some(first)) = cancel.run_until_cancelled(self.waiting.recv()).await {
            let mut batch = vec![Span::new(first)];
            let until = sleep(DELAY);
            tokio::pin!(until);
            while batch.len() < BATCH {
                tokio::select! {
                    () = &mut until => break,
                    () = cancel.cancelled() => break,
                    next = self.waiting.recv() => match next {
                        Some(span) => batch.push(Span::new(span)),
                        None => break,
                    },
                }
            }
            let count = batch.len();
            let sent = self.send(batch, PATIENCE);
            tokio::pin!(sent);
            if cancel.run_until_cancelled(&mut sent).await.is_none() && timeout(FLUSH, sent).await.is_err() {
                self::count("dropped", count);
            }
        }
        let mut rest = Vec::new();
        while let Ok(span) = self.waiting.try_recv() {
            rest.push(Span::new(span));
        }
        if !rest.is_empty() {
            let _ = timeout(FLUSH, self.send(rest, FLUSH)).await;
        }
    }

    async fn send(&self, spans: Vec<Span>, patience: Duration) {
        let count = spans.len();
        let request = wire::request(&self.resource, spans);
        let (until, mut pause) = (Instant::now() + patience, RETRY);
        loop {
            let answer: Result<ExportResponse, CallError> = self.service.call(wire::EXPORT, &request, CALL).await;
            match answer {
                Ok(ExportResponse { partial_success }) => {
                    let refused =
                        partial_success.map_or(0, |partial| usize::try_from(partial.rejected_spans).unwrap_or(0));
                    self::count("refused", refused.min(count));
                    return self::count("sent", count.saturating_sub(refused));
                }
                Err(error) if is_passing(&error) && Instant::now() + pause < until => {
                    tracing::debug!(%error, "the collector of traces is away");
                    sleep(pause).await;
                    pause *= 2;
                }
                Err(error) => {
                    tracing::warn!(%error, spans = count, "spans are lost: the collector of traces did not take them");
                    return self::count("dropped", count);
                }
            }
        }
    }
}

/// Whether OTLP says that a failure may pass.
fn is_passing(error: &CallError) -> bool {
    matches!(
        error.code,
        "Canceled" | "DeadlineExceeded" | "ResourceExhausted" | "Aborted" | "OutOfRange" | "Unavailable" | "DataLoss"
    )
}
