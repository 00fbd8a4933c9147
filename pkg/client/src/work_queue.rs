//! Work queues: a key is worked on by one worker at a time, however often it is added.

mod reconcile;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use kube1_telemetry::metrics::look_when_read;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::metrics::QueueMeters;
pub use reconcile::reconcile_all;

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

#[cfg(test)]
mod tests;
