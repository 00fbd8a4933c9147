//! Spans of requests, which a collector gets over OTLP: OpenTelemetry's traces as KEP-647 has them. A process without a
//! [`Tracer`] does nothing of all this.

mod config;
mod context;
mod export;
mod wire;

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use http::HeaderMap;
use parking_lot::Mutex;
use tokio::sync::mpsc;

pub use config::{Settings, TracingConfigError};
use context::Context;
pub use export::Exporter;

/// Spans that wait to be sent; more are dropped, and counted.
const WAITING: usize = 2048;

tokio::task_local! {
    /// What the present task is at.
    static CURRENT: Span;
}

/// What is told of a span.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Text(String),
    Number(i64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

/// An attribute's name and value.
pub type Attribute = (&'static str, Value);

/// A span, as it is told once it has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    context: Context,
    parent: Option<[u8; 8]>,
    /// The caller's span, where that is not taken for the parent.
    link: Option<Context>,
    name: Cow<'static, str>,
    server: bool,
    start: SystemTime,
    end: SystemTime,
    attributes: Vec<Attribute>,
    failed: bool,
}

impl Ended {
    /// One that has only begun.
    fn new(context: Context, name: Cow<'static, str>, start: SystemTime) -> Self {
        let (parent, link, attributes) = (None, None, Vec::new());
        Self { context, parent, link, name, server: false, start, end: start, attributes, failed: false }
    }
}

/// Decides what is traced, and hands it to an [`Exporter`]. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tracer {
    rate: u32,
    spans: mpsc::Sender<Ended>,
}

impl Tracer {
    /// `service` and `instance` tell the collector who traces. The exporter is to be run.
    pub fn new(settings: &Settings, service: &str, instance: &str) -> (Self, Exporter) {
        let (spans, waiting) = mpsc::channel(WAITING);
        (Self { rate: settings.rate, spans }, Exporter::new(settings, service, instance, waiting))
    }

    /// The span of work that nobody asked for, of which the configured share is traced.
    pub fn root(&self, name: &'static str, attributes: impl FnOnce() -> Vec<Attribute>) -> Span {
        let context = Context::root(self.rate);
        let attributes = if context.sampled { attributes() } else { Vec::new() };
        Span::new(self, Ended { attributes, ..Ended::new(context, name.into(), SystemTime::now()) })
    }

    /// The span of a request that came at `started`. A caller's span becomes its parent if the caller is `trusted`, and
    /// then also says whether the request is traced; of others the configured share is.
    pub fn request(
        &self,
        name: String,
        headers: &HeaderMap,
        trusted: bool,
        started: Instant,
        attributes: Vec<Attribute>,
    ) -> Span {
        let caller = Context::read(headers);
        let (context, parent, link) = match caller {
            Some(caller) if trusted => (caller.child(), Some(caller.span), None),
            caller => (Context::root(self.rate), None, caller),
        };
        let start = SystemTime::now() - started.elapsed();
        Span::new(self, Ended { parent, link, server: true, attributes, ..Ended::new(context, name.into(), start) })
    }
}

#[derive(Debug)]
struct Open {
    tracer: Tracer,
    /// Until it has ended; nothing if it is not recorded.
    span: Mutex<Option<Ended>>,
}

/// Work that is under way; it ends when the last of its clones is dropped.
#[derive(Clone, Debug)]
pub struct Span {
    context: Context,
    open: Arc<Open>,
}

impl Span {
    fn new(tracer: &Tracer, span: Ended) -> Self {
        let context = span.context;
        let span = Mutex::new(Some(span).filter(|_| context.sampled));
        Self { context, open: Arc::new(Open { tracer: tracer.clone(), span }) }
    }

    /// Whether anything of it is told.
    pub fn is_recorded(&self) -> bool {
        self.context.sampled
    }

    /// Tells more of it.
    pub fn add(&self, name: &'static str, value: impl Into<Value>) {
        if let Some(span) = &mut *self.open.span.lock() {
            span.attributes.push((name, value.into()));
        }
    }

    /// Says that the work failed.
    pub fn fail(&self) {
        if let Some(span) = &mut *self.open.span.lock() {
            span.failed = true;
        }
    }

    /// Does the work: spans that begin in it are below this one, and [`inject`] tells others of it.
    pub async fn scope<F: Future>(self, work: F) -> F::Output {
        CURRENT.scope(self, work).await
    }

    fn child(&self, name: &'static str, attributes: Vec<Attribute>) -> Self {
        let Self { context, open } = self;
        let begun = Ended::new(context.child(), name.into(), SystemTime::now());
        Self::new(&open.tracer, Ended { parent: Some(context.span), attributes, ..begun })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(mut span) = self.span.get_mut().take() {
            span.end = SystemTime::now();
            if self.tracer.spans.try_send(span).is_err() {
                export::count("dropped", 1);
            }
        }
    }
}

/// Whether the present work is traced.
pub fn is_traced() -> bool {
    CURRENT.try_with(Span::is_recorded).unwrap_or(false)
}

/// The span of a part of the present work, if that work is traced, until it is dropped. `attributes` are only made then.
pub fn begin(name: &'static str, attributes: impl FnOnce() -> Vec<Attribute>) -> Option<Span> {
    CURRENT.try_with(|span| span.is_recorded().then(|| span.child(name, attributes()))).ok().flatten()
}

/// The same around a part that has parts of its own, or tells others of its trace.
pub async fn within<F: Future>(name: &'static str, attributes: impl FnOnce() -> Vec<Attribute>, work: F) -> F::Output {
    match begin(name, attributes) {
        Some(span) => Box::pin(span.scope(work)).await,
        None => work.await,
    }
}

/// Tells the receiver of a request what it is a part of, by W3C's header `traceparent`.
pub fn inject(headers: &mut HeaderMap) {
    let _ = CURRENT.try_with(|span| span.context.write(headers));
}
