//! Files of configuration that take effect when they change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::metrics::{Counters, Gauges, Registrar};

/// Between looks at a file. A mounted ConfigMap changes by renaming, which looking at the path always notices.
const PAUSE: Duration = Duration::from_secs(1);

/// Tells how often a kind of file was taken over, under upstream's names.
#[derive(Clone)]
pub struct ReloadMetrics {
    reloads: Counters,
    last: Gauges,
    server: String,
}

impl ReloadMetrics {
    /// `kind` is `authentication`, `authorization` or `encryption`, or one that only this server has.
    pub fn new(kind: &str, metrics: &mut Registrar) -> Self {
        let name = format!("apiserver_{kind}_config_controller_automatic_reload");
        let help = format!("Automatic reloads of the {kind} configuration split by status");
        let reloads = metrics.counters(&format!("{name}s"), &help, &["status", "apiserver_id_hash"]);
        let help = format!("Timestamp of the last automatic reload of the {kind} configuration split by status");
        let last = metrics.gauges(&format!("{name}_last_timestamp_seconds"), &help, &["status", "apiserver_id_hash"]);
        Self { reloads, last, server: server_hash() }
    }

    fn note(&self, fine: bool) {
        let status = if fine { "success" } else { "failure" };
        self.reloads.inc(&[status, &self.server]);
        self.last.set(&[status, &self.server], kube1_pki::clock::unix_now() as f64);
    }
}

/// Tells the servers of a cluster apart.
pub(crate) fn server_hash() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let digest = Sha256::digest(host.as_bytes());
    digest.iter().fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

/// Those of all files that are followed.
#[derive(Clone)]
pub struct Reloads {
    pub authentication: ReloadMetrics,
    pub authorization: ReloadMetrics,
    pub encryption: ReloadMetrics,
    pub client_ca: ReloadMetrics,
    pub service_account_keys: ReloadMetrics,
    pub serving: ReloadMetrics,
}

impl Reloads {
    pub fn new(metrics: &mut Registrar) -> Self {
        Self {
            authentication: ReloadMetrics::new("authentication", metrics),
            authorization: ReloadMetrics::new("authorization", metrics),
            encryption: ReloadMetrics::new("encryption", metrics),
            client_ca: ReloadMetrics::new("client_ca", metrics),
            service_account_keys: ReloadMetrics::new("service_account_keys", metrics),
            serving: ReloadMetrics::new("serving_certificate", metrics),
        }
    }
}

/// What tells that a file was replaced or written to.
fn mark(path: &Path) -> Option<(SystemTime, u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}

/// Something that was made of files.
pub struct Made<T> {
    pub value: T,
    /// The files, so that it can be made anew when one of them changes.
    pub files: Vec<PathBuf>,
}

type Make<T> = Box<dyn Fn() -> Result<Made<T>, String> + Send + Sync>;

/// Something made of files for those who ask for it now and then: it is made anew when somebody asks after a file has
/// changed. What cannot be used is told, and what was in effect before stays.
pub struct Fresh<T> {
    make: Make<T>,
    state: Mutex<State<T>>,
}

struct State<T> {
    value: Arc<T>,
    files: Vec<PathBuf>,
    known: Vec<Option<(SystemTime, u64, u64)>>,
    looked: Instant,
}

impl<T> State<T> {
    fn of(made: Made<T>) -> Self {
        let known = made.files.iter().map(|file| mark(file)).collect();
        Self { value: Arc::new(made.value), files: made.files, known, looked: Instant::now() }
    }
}

impl<T> Fresh<T> {
    /// `first` was made by the same `make`.
    pub fn new(first: Made<T>, make: impl Fn() -> Result<Made<T>, String> + Send + Sync + 'static) -> Self {
        Self { make: Box::new(make), state: Mutex::new(State::of(first)) }
    }

    /// The present value. Looks at the files at most once a second.
    pub fn get(&self) -> Arc<T> {
        let mut state = self.state.lock();
        if state.looked.elapsed() < PAUSE {
            return state.value.clone();
        }
        state.looked = Instant::now();
        let now: Vec<_> = state.files.iter().map(|file| mark(file)).collect();
        if now != state.known {
            state.known = now;
            let names = state.files.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(", ");
            match (self.make)() {
                Ok(made) => {
                    *state = State::of(made);
                    tracing::info!(files = names, "the changed configuration is in effect");
                }
                Err(error) => {
                    tracing::error!(
                        files = names,
                        error,
                        "the changed files cannot be used: what they said stays in effect"
                    )
                }
            }
        }
        state.value.clone()
    }
}

/// Calls `apply` whenever one of the files has changed, until cancelled. What cannot be used is told, and what was in
/// effect before stays.
pub async fn follow<E: std::error::Error>(
    files: Vec<PathBuf>,
    metrics: ReloadMetrics,
    cancel: CancellationToken,
    mut apply: impl FnMut() -> Result<(), E>,
) {
    follow_with(files, metrics, cancel, || std::future::ready(apply())).await;
}

/// The same where taking over takes time.
pub async fn follow_with<E: std::error::Error, F: Future<Output = Result<(), E>>>(
    files: Vec<PathBuf>,
    metrics: ReloadMetrics,
    cancel: CancellationToken,
    mut apply: impl FnMut() -> F,
) {
    if files.is_empty() {
        return;
    }
    let look = || files.iter().map(|file| mark(file)).collect::<Vec<_>>();
    let mut known = look();
    let mut tick = tokio::time::interval(PAUSE);
    while cancel.run_until_cancelled(tick.tick()).await.is_some() {
        let now = look();
        if now == known {
            continue;
        }
        known = now;
        let result = apply().await;
        metrics.note(result.is_ok());
        let names = files.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(", ");
        match result {
            Ok(()) => tracing::info!(file = names, "the changed configuration is in effect"),
            Err(error) => {
                tracing::error!(file = names, %error, "the changed configuration cannot be used: the old one stays in effect")
            }
        }
    }
}
