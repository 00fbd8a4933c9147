//! Workers of a queue.

use std::fmt::Debug;
use std::hash::Hash;

use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::{Outcome, WorkQueue};

/// Runs `reconcile` for every key of the queue, at most `workers` at a time and one per key, until `shutdown`.
///
/// Runs in progress at shutdown are finished. A reconcile that fails is logged and retried with back-off; one that panics
/// ends the whole call, which the caller's supervisor sees.
pub async fn reconcile_all<T, F, Fut, E>(
    name: &'static str,
    queue: &WorkQueue<T>,
    workers: usize,
    shutdown: &CancellationToken,
    reconcile: F,
) where
    T: Clone + Eq + Hash + Debug + Send + Sync + 'static,
    F: Fn(T) -> Fut,
    Fut: Future<Output = Result<Outcome, E>> + Send + 'static,
    E: std::error::Error + Send + 'static,
{
    queue.metered(name);
    let mut running: JoinSet<(T, Result<Outcome, E>)> = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            key = queue.get(), if running.len() < workers => {
                let run = reconcile(key.clone());
                running.spawn(async move { (key, run.await) });
            }
            Some(ended) = running.join_next() => finish(name, queue, ended),
        }
    }
    while let Some(ended) = running.join_next().await {
        finish(name, queue, ended);
    }
}

fn finish<T, E>(name: &'static str, queue: &WorkQueue<T>, ended: Result<(T, Result<Outcome, E>), JoinError>)
where
    T: Clone + Eq + Hash + Debug,
    E: std::error::Error,
{
    let (key, result) = match ended {
        Ok(ended) => ended,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => return,
    };
    match result {
        Ok(Outcome::Done) => queue.forget(&key),
        Ok(Outcome::RequeueAfter(delay)) => {
            queue.forget(&key);
            queue.add_after(key.clone(), delay);
        }
        Ok(Outcome::Retry) => queue.add_rate_limited(key.clone()),
        Err(error) => {
            if queue.failures(&key) < 4 {
                tracing::debug!(controller = name, ?key, error = %Chain(&error), "reconcile failed, will retry");
            } else {
                tracing::warn!(controller = name, ?key, error = %Chain(&error), "reconcile keeps failing, will retry");
            }
            queue.add_rate_limited(key.clone());
        }
    }
    queue.done(&key);
}

/// Prints an error with its sources.
struct Chain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}
