//! Work queues: a key is worked on by one worker at a time, however often it is added.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt::Debug;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use kube1_telemetry::metrics::look_when_read;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::metrics::QueueMeters;

/// First retry delay; doubles with every failure.
const RETRY_MIN: Duration = Duration::from_millis(5);
/// Longest retry delay. Upstream's is 1000 s, too long for people who wait for a repaired cluster.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Longest delay: objects may ask for more than a clock can hold.
const DELAY_MAX: Duration = Duration::from_secs(365 * 86_400);

/// What a reconcile asks of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing more to do until the next event; forgets earlier failures.
    Done,
    /// Look again after this long; forgets earlier failures.
    RequeueAfter(Duration),
    /// Look again with exponential back-off.
    Retry,
}

/// A deduplicating queue of keys with delays and per-key back-off, as client-go's workqueue.
///
/// Cloning shares the queue. Its size is bounded by the number of distinct keys.
pub struct WorkQueue<T> {
    inner: Arc<Inner<T>>,
}

impl<T> Clone for WorkQueue<T> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

struct Inner<T> {
    state: Mutex<State<T>>,
    ready: Notify,
    delayed_changed: Notify,
}

struct State<T> {
    /// With the time of its adding.
    queue: VecDeque<(T, Instant)>,
    queued: HashSet<T>,
    /// With the time at which its work began.
    running: HashMap<T, Instant>,
    /// Added again while running: queued when the run ends.
    dirty: HashSet<T>,
    delayed: BTreeMap<(Instant, u64), T>,
    due: HashMap<T, (Instant, u64)>,
    failures: HashMap<T, u32>,
    sequence: u64,
    meters: Option<QueueMeters>,
}

impl<T: Clone + Eq + Hash> Default for WorkQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Clone + Eq + Hash> WorkQueue<T> {
    pub fn new() -> Self {
        let state = State {
            queue: VecDeque::new(),
            queued: HashSet::new(),
            running: HashMap::new(),
            dirty: HashSet::new(),
            delayed: BTreeMap::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
            sequence: 0,
            meters: None,
        };
        let inner = Inner { state: Mutex::new(state), ready: Notify::new(), delayed_changed: Notify::new() };
        Self { inner: Arc::new(inner) }
    }

    /// Adds a key to be worked on as soon as a worker is free.
    pub fn add(&self, key: T) {
        if self.inner.state.lock().add(key) {
            self.inner.ready.notify_one();
        }
    }

    /// Adds a key after a delay, of a year at most. Of several delays for one key the earliest counts.
    pub fn add_after(&self, key: T, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        self.inner.state.lock().add_at(key, Instant::now() + delay.min(DELAY_MAX));
        self.inner.delayed_changed.notify_one();
    }

    /// Adds a key after its back-off, which doubles with each call until [`WorkQueue::forget`].
    pub fn add_rate_limited(&self, key: T) {
        let delay = {
            let mut state = self.inner.state.lock();
            let failures = state.failures.entry(key.clone()).or_insert(0);
            let delay = RETRY_MIN.saturating_mul(1 << (*failures).min(16)).min(RETRY_MAX);
            *failures = failures.saturating_add(1);
            state.meter(|meters| {
                let _ = meters.retries.inc();
            });
            delay
        };
        self.add_after(key, delay);
    }

    /// Forgets a key's failures, so that its next back-off is the shortest.
    pub fn forget(&self, key: &T) {
        self.inner.state.lock().failures.remove(key);
    }

    /// Failures of the key since it was last forgotten.
    pub fn failures(&self, key: &T) -> u32 {
        self.inner.state.lock().failures.get(key).copied().unwrap_or(0)
    }

    /// Shows the queue in the metrics under a name. The first one counts; a queue made anew follows the one before it.
    pub fn metered(&self, name: &str)
    where
        T: Send + 'static,
    {
        let meters = QueueMeters::of(name);
        let mut state = self.inner.state.lock();
        if state.meters.is_some() {
            return;
        }
        meters.depth.set(state.queue.len() as f64);
        meters.adds.inc_by(state.queue.len() as u64);
        let (unfinished, longest) = (meters.unfinished.clone(), meters.longest.clone());
        state.meters = Some(meters);
        drop(state);
        let queue = Arc::downgrade(&self.inner);
        look_when_read(move || {
            let Some(queue) = queue.upgrade() else { return false };
            let running: Vec<f64> = queue.state.lock().running.values().map(|at| at.elapsed().as_secs_f64()).collect();
            unfinished.set(running.iter().sum());
            longest.set(running.iter().copied().fold(0.0, f64::max));
            true
        });
    }

    /// Keys that wait for a worker; delayed ones are not counted.
    pub fn len(&self) -> usize {
        self.inner.state.lock().queue.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes the next key. The caller must give it back with [`WorkQueue::done`].
    ///
    /// Cancel-safe: a key is taken only when the future completes.
    pub async fn get(&self) -> T {
        loop {
            let notified = self.inner.ready.notified();
            let next_due = {
                let mut state = self.inner.state.lock();
                state.promote(Instant::now());
                if let Some(key) = state.take() {
                    if !state.queue.is_empty() {
                        self.inner.ready.notify_one();
                    }
                    return key;
                }
                state.delayed.keys().next().map(|(at, _)| *at)
            };
            let sleep = async {
                match next_due {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = notified => {}
                () = self.inner.delayed_changed.notified() => {}
                () = sleep => {}
            }
        }
    }

    /// Ends the work on a key; it is queued again if it was added meanwhile.
    pub fn done(&self, key: &T) {
        let again = {
            let mut state = self.inner.state.lock();
            if let Some(since) = state.running.remove(key) {
                state.meter(|meters| meters.worked.observe(since.elapsed().as_secs_f64()));
            }
            match state.dirty.take(key) {
                Some(key) => state.add(key),
                None => false,
            }
        };
        if again {
            self.inner.ready.notify_one();
        }
    }
}

impl<T: Clone + Eq + Hash> State<T> {
    /// True if the key became ready to be taken.
    fn add(&mut self, key: T) -> bool {
        if let Some(at) = self.due.remove(&key) {
            self.delayed.remove(&at);
        }
        if self.running.contains_key(&key) {
            if self.dirty.insert(key) {
                self.meter(|meters| {
                    let _ = meters.adds.inc();
                });
            }
            return false;
        }
        if !self.queued.insert(key.clone()) {
            return false;
        }
        self.queue.push_back((key, Instant::now()));
        self.meter(|meters| {
            meters.adds.inc();
            meters.depth.inc();
        });
        true
    }

    fn add_at(&mut self, key: T, at: Instant) {
        match self.due.get(&key) {
            Some(due) if due.0 <= at => return,
            Some(due) => {
                self.delayed.remove(due);
            }
            None => {}
        }
        self.sequence += 1;
        let due = (at, self.sequence);
        self.delayed.insert(due, key.clone());
        self.due.insert(key, due);
    }

    fn promote(&mut self, now: Instant) {
        while let Some(entry) = self.delayed.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let key = entry.remove();
            self.add(key);
        }
    }

    fn take(&mut self) -> Option<T> {
        let (key, since) = self.queue.pop_front()?;
        self.queued.remove(&key);
        self.running.insert(key.clone(), Instant::now());
        self.meter(|meters| {
            meters.depth.dec();
            meters.waited.observe(since.elapsed().as_secs_f64());
        });
        Some(key)
    }

    fn meter(&self, note: impl FnOnce(&QueueMeters)) {
        if let Some(meters) = &self.meters {
            note(meters);
        }
    }
}

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

fn finish<T, E>(
    name: &'static str,
    queue: &WorkQueue<T>,
    ended: Result<(T, Result<Outcome, E>), tokio::task::JoinError>,
) where
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_added_while_running_runs_once_more() {
        let queue = WorkQueue::new();
        queue.add("a");
        queue.add("a");
        let key = queue.get().await;
        queue.add("a");
        queue.add("a");
        assert!(queue.is_empty());
        queue.done(&key);
        assert_eq!(queue.len(), 1);
        let key = queue.get().await;
        queue.done(&key);
        assert!(queue.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_is_shown_in_the_metrics() {
        let queue = WorkQueue::new();
        queue.add("a");
        queue.metered("shown");
        queue.add("b");
        let key = queue.get().await;
        tokio::time::advance(Duration::from_secs(3)).await;
        let shown = |name: &str| {
            let text = kube1_telemetry::metrics::render_shared().unwrap();
            let start = format!("workqueue_{name}{{name=\"shown\"}} ");
            text.lines().find_map(|l| l.strip_prefix(&start)?.parse::<f64>().ok())
        };
        assert_eq!((shown("depth"), shown("adds_total")), (Some(1.0), Some(2.0)));
        assert_eq!(
            (shown("longest_running_processor_seconds"), shown("unfinished_work_seconds")),
            (Some(3.0), Some(3.0))
        );
        queue.add_rate_limited("a");
        queue.done(&key);
        assert_eq!((shown("retries_total"), shown("work_duration_seconds_count")), (Some(1.0), Some(1.0)));
        assert_eq!((shown("unfinished_work_seconds"), shown("queue_duration_seconds_count")), (Some(0.0), Some(1.0)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_delay_counts_and_keys_come_when_due() {
        let queue = WorkQueue::new();
        let start = Instant::now();
        queue.add_after("late", Duration::from_secs(9));
        queue.add_after("soon", Duration::from_secs(5));
        queue.add_after("soon", Duration::from_secs(2));
        queue.add_after("soon", Duration::from_secs(7));
        assert_eq!(queue.get().await, "soon");
        assert_eq!(start.elapsed().as_secs(), 2);
        assert_eq!(queue.get().await, "late");
        assert_eq!(start.elapsed().as_secs(), 9);
        queue.add_after("never", Duration::MAX);
        queue.add_after("a year on", Duration::from_secs(300 * 86_400));
        assert_eq!(queue.get().await, "a year on");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_back_off_until_success() {
        let queue = WorkQueue::new();
        queue.add(1);
        let shutdown = CancellationToken::new();
        let runs = Arc::new(Mutex::new(Vec::new()));
        let (seen, stop, start) = (Arc::clone(&runs), shutdown.clone(), Instant::now());
        reconcile_all("test", &queue, 2, &shutdown, move |_key| {
            let (seen, stop) = (Arc::clone(&seen), stop.clone());
            async move {
                let mut seen = seen.lock();
                seen.push(start.elapsed());
                if seen.len() < 4 {
                    return Err(std::io::Error::other("no"));
                }
                stop.cancel();
                Ok(Outcome::Done)
            }
        })
        .await;
        let times = runs.lock().clone();
        assert_eq!(times.len(), 4);
        assert!(times[3] - times[2] > times[2] - times[1]);
        assert_eq!(queue.failures(&1), 0);
    }
}
