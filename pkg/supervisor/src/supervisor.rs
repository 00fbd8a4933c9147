//! The supervision tree's root.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use rand::Rng;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::component::{Component, Context};
use crate::status::{ComponentState, StatusBoard};

const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// A run this long makes the next failure start from the shortest back-off.
const STABLE: Duration = Duration::from_secs(60);
/// How long each component may take to stop before its task is aborted.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// Owns the tasks of all components of this process.
pub struct Supervisor {
    board: StatusBoard,
    running: Vec<Running>,
}

struct Running {
    name: String,
    stop: CancellationToken,
    /// True while the component is ready.
    ready: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

impl Default for Supervisor {
    fn default() -> Self {
        Self::new()
    }
}

impl Supervisor {
    pub fn new() -> Self {
        Self { board: StatusBoard::default(), running: Vec::new() }
    }

    /// The states of all components, current at any time.
    pub fn board(&self) -> StatusBoard {
        self.board.clone()
    }

    /// Starts a component now, and again with back-off whenever it ends before it was told to.
    pub fn start(&mut self, component: Arc<dyn Component>) {
        let name = component.name().to_owned();
        self.board.add(&name);
        let stop = CancellationToken::new();
        let (ready_sender, ready) = watch::channel(false);
        let keeper = Keeper { component, board: self.board.clone(), stop: stop.clone(), ready: ready_sender };
        let task = tokio::spawn(keeper.run());
        self.running.push(Running { name, stop, ready, task });
    }

    /// Waits until the named component is ready. Returns false if there is no such component or it was stopped.
    ///
    /// Cancel-safe.
    pub async fn ready(&self, name: &str) -> bool {
        let Some(running) = self.running.iter().find(|r| r.name == name) else { return false };
        running.ready.clone().wait_for(|ready| *ready).await.is_ok()
    }

    /// Stops all components, the last started first, each under a deadline.
    pub async fn stop(mut self) {
        while let Some(mut running) = self.running.pop() {
            running.stop.cancel();
            if tokio::time::timeout(STOP_TIMEOUT, &mut running.task).await.is_err() {
                tracing::warn!(component = running.name, "did not stop in time, aborted");
                running.task.abort();
            }
            self.board.set(&running.name, ComponentState::Stopped, None);
        }
    }
}

/// Keeps one component running.
struct Keeper {
    component: Arc<dyn Component>,
    board: StatusBoard,
    stop: CancellationToken,
    ready: watch::Sender<bool>,
}

impl Keeper {
    async fn run(self) {
        let name = self.component.name().to_owned();
        let mut failures = 0u32;
        loop {
            let started = Instant::now();
            self.board.set(&name, ComponentState::Starting, None);
            let ended = self.run_once(&name).await;
            self.ready.send_replace(false);
            if self.stop.is_cancelled() {
                if let Err(error) = ended {
                    tracing::warn!(component = name, error, "failed while stopping");
                }
                return;
            }
            failures = if started.elapsed() > STABLE { 0 } else { failures };
            let error = ended.err().unwrap_or_else(|| "ended without being told to".to_owned());
            let delay = backoff(failures);
            failures = failures.saturating_add(1);
            tracing::error!(component = name, error, retry_in = ?delay, "component failed");
            self.board.set(&name, ComponentState::Backoff, Some(error));
            if self.stop.run_until_cancelled(tokio::time::sleep(delay)).await.is_none() {
                return;
            }
        }
    }

    /// Runs the component once, turning failures and panics into text.
    async fn run_once(&self, name: &str) -> Result<(), String> {
        let (context, mut became_ready) = Context::new(self.stop.child_token());
        let shutdown = context.shutdown.clone();
        let mut run = std::pin::pin!(AssertUnwindSafe(self.component.run(context)).catch_unwind());
        let ended = loop {
            tokio::select! {
                ended = &mut run => break ended,
                became = wait_ready(&mut became_ready), if !*self.ready.borrow() => {
                    if became {
                        tracing::info!(component = name, "ready");
                        self.board.set(name, ComponentState::Ready, None);
                        self.ready.send_replace(true);
                    } else {
                        // The context was dropped unready: only the run itself can end this.
                        break run.await;
                    }
                }
            }
        };
        // Whatever the run left behind hears that it is over.
        shutdown.cancel();
        match ended {
            Ok(result) => result.map_err(|error| chain(error.as_ref())),
            Err(panic) => Err(format!("panicked: {}", panic_message(panic.as_ref()))),
        }
    }
}

/// False if the run can no longer become ready.
async fn wait_ready(ready: &mut watch::Receiver<bool>) -> bool {
    ready.wait_for(|ready| *ready).await.is_ok()
}

fn backoff(failures: u32) -> Duration {
    let delay = BACKOFF_MIN.saturating_mul(1 << failures.min(10)).min(BACKOFF_MAX);
    // Jitter keeps components that fail together from coming back together.
    delay.mul_f64(rand::rng().random_range(0.75..1.0))
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

/// An error and its sources in one line, outermost first.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.running.iter().map(|r| &r.name)).finish()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use async_trait::async_trait;

    use super::*;
    use crate::component::BoxError;

    struct Flaky {
        runs: AtomicU32,
        panics: bool,
    }

    #[async_trait]
    impl Component for Flaky {
        fn name(&self) -> &str {
            "flaky"
        }

        async fn run(&self, ctx: Context) -> Result<(), BoxError> {
            if self.runs.fetch_add(1, Ordering::SeqCst) < 2 {
                if self.panics {
                    panic!("broken {}", "invariant");
                }
                return Err(std::io::Error::other("disk gone").into());
            }
            ctx.ready();
            ctx.shutdown.cancelled().await;
            Ok(())
        }
    }

    async fn recovers(panics: bool, expected: &str) {
        let mut supervisor = Supervisor::new();
        let board = supervisor.board();
        supervisor.start(Arc::new(Flaky { runs: AtomicU32::new(0), panics }));
        assert!(supervisor.ready("flaky").await);
        let status = board.snapshot().remove(0);
        assert_eq!((status.state, status.restarts), (ComponentState::Ready, 2));
        assert_eq!(status.last_error.as_deref(), Some(expected));
        supervisor.stop().await;
        assert_eq!(board.snapshot()[0].state, ComponentState::Stopped);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failing_component_is_restarted_and_its_error_kept() {
        recovers(false, "disk gone").await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_panicking_component_is_restarted() {
        recovers(true, "panicked: broken invariant").await;
    }

    #[tokio::test]
    async fn an_unknown_component_is_never_ready() {
        assert!(!Supervisor::new().ready("nobody").await);
    }
}
