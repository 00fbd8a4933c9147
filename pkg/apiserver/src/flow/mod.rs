//! API priority and fairness: which requests may run now, which wait, which are turned away.

mod deal;
mod demand;
mod dump;
mod level;
mod limits;
mod meters;
mod schema;
mod status;
mod work;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::StreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::time::DelayQueue;

use demand::Share;
use level::{Entry, Level, Snapshot};
use limits::Limits;
use meters::Meters;
use schema::Schema;

pub use meters::FlowMetrics;
pub use status::dangling;
pub use work::{Stats, Work, estimate};

use crate::http::respond::{self, Reply};
use crate::request_info::RequestInfo;
use crate::user::{MASTERS, UserInfo};

/// How often seats are lent and given back.
const ADJUSTMENT: Duration = Duration::from_secs(10);
/// Requests whose seats are held after their answer; more give them back at once.
const TAILS: usize = 4096;

const SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// Sorts requests into priority levels by the FlowSchemas of the cluster.
pub struct FlowControl {
    /// Seats of all levels together.
    total: u64,
    state: ArcSwap<State>,
    metrics: FlowMetrics,
    smoothed: Mutex<HashMap<String, f64>>,
    tails: mpsc::Sender<Tail>,
    waiting_tails: Mutex<Option<mpsc::Receiver<Tail>>>,
}

struct State {
    /// By rising precedence, then name.
    schemas: Vec<Schema>,
    levels: HashMap<String, Arc<Level>>,
    /// For requests that no schema matches, as at start before any is known.
    fallback: Arc<Level>,
    unsorted: Arc<SchemaRef>,
}

/// A schema as the requests it sorts know it.
pub struct SchemaRef {
    pub name: String,
    /// Empty if it has none.
    pub uid: HeaderValue,
    pub level_uid: HeaderValue,
    meters: Meters,
}

/// What a seat knows of the request that has it.
#[derive(Clone)]
struct Taker {
    schema: Arc<SchemaRef>,
    watch: bool,
}

impl Taker {
    fn meters(&self) -> &Meters {
        &self.schema.meters
    }
}

/// What is kept of a waiting request for those who look at queues.
pub struct About {
    taker: Taker,
    distinguisher: String,
    user: String,
    verb: String,
    path: String,
}

/// Seats that are held for a while after the answer.
struct Tail {
    level: Arc<Level>,
    queue: Option<usize>,
    work: Work,
    took: Duration,
    taker: Taker,
}

impl Tail {
    fn end(self) {
        self.taker.meters().ended(self.work);
        self.level.release(self.queue, self.work, self.took);
    }
}

/// Permission to run; dropping it lets the next request of the level run.
pub struct Seat {
    held: Option<Tail>,
    since: Instant,
    tails: Option<mpsc::Sender<Tail>>,
}

impl Seat {
    fn taken(level: Arc<Level>, queue: Option<usize>, work: Work, taker: Taker, since: Instant) -> Self {
        taker.meters().began(work);
        let held = Tail { level, queue, work, took: Duration::ZERO, taker };
        Self { held: Some(held), since, tails: None }
    }

    /// Gives the seat up without telling its level.
    fn forget(mut self) {
        if let Some(held) = self.held.take() {
            held.taker.meters().ended(held.work);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Some(mut tail) = self.held.take() else { return };
        tail.took = self.since.elapsed();
        tail.taker.meters().answered(tail.took, tail.taker.watch);
        match &self.tails {
            Some(tails) if tail.work.additional_latency > Duration::ZERO => {
                if let Err(error) = tails.try_send(tail) {
                    error.into_inner().end();
                }
            }
            _ => tail.end(),
        }
    }
}

/// How a request was sorted, for the headers of its answer.
#[derive(Clone)]
pub struct Sorted(Arc<SchemaRef>);

impl Sorted {
    pub fn label(&self, headers: &mut HeaderMap) {
        for (name, uid) in [(SCHEMA_UID, &self.0.uid), (LEVEL_UID, &self.0.level_uid)] {
            if !uid.is_empty() {
                headers.insert(name, uid.clone());
            }
        }
    }
}

/// The answer to a request for which there is no place.
pub fn turned_away() -> Reply {
    let text = "Too many requests, please try again later.\n";
    let mut reply = respond::text(StatusCode::TOO_MANY_REQUESTS, text);
    let headers = reply.headers_mut();
    headers.insert(http::header::RETRY_AFTER, HeaderValue::from_static("1"));
    headers.insert(http::header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    reply
}

impl FlowControl {
    /// `total` seats are shared by all levels.
    pub fn new(total: u32, metrics: FlowMetrics) -> Self {
        let (tails, waiting) = mpsc::channel(TAILS);
        let unsorted = Arc::new(SchemaRef {
            name: String::new(),
            uid: HeaderValue::from_static(""),
            level_uid: HeaderValue::from_static(""),
            meters: metrics.of("", ""),
        });
        let fallback = Arc::new(Level::default());
        fallback.configure(Limits::default());
        let state = State { schemas: Vec::new(), levels: HashMap::new(), fallback, unsorted };
        Self {
            total: u64::from(total.max(1)),
            state: ArcSwap::from_pointee(state),
            metrics,
            smoothed: Mutex::default(),
            tails,
            waiting_tails: Mutex::new(Some(waiting)),
        }
    }

    /// Takes over the cluster's FlowSchemas and PriorityLevelConfigurations; waiting requests keep their places.
    pub fn load(&self, schemas: &[Value], levels: &[Value]) {
        let old = self.state.load();
        let sum: u64 = levels.iter().map(limits::shares).sum::<u64>().max(1);
        let mut new = HashMap::new();
        for config in levels {
            let name = config["metadata"]["name"].as_str().unwrap_or_default();
            let level = old.levels.get(name).cloned().unwrap_or_default();
            let limits = Limits::parse(config, self.total, sum);
            let share = Share { bounds: limits.bounds, current: limits.bounds.nominal, ..Share::default() };
            self.metrics.level(name, &share);
            level.configure(limits);
            new.insert(name.to_owned(), level);
        }
        let mut sorted: Vec<Schema> = schemas
            .iter()
            .map(|object| {
                let level_name = object["spec"]["priorityLevelConfiguration"]["name"].as_str().unwrap_or_default();
                let level_uid = new.get(level_name).map(|l| l.uid()).unwrap_or_default();
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                let meters = self.metrics.of(level_name, name);
                Schema::parse(object, level_uid, meters)
            })
            .collect();
        sorted.sort_by(|a, b| (a.precedence, &a.about.name).cmp(&(b.precedence, &b.about.name)));
        let (fallback, unsorted) = (old.fallback.clone(), old.unsorted.clone());
        self.state.store(Arc::new(State { schemas: sorted, levels: new, fallback, unsorted }));
    }

    /// Waits for the request's turn, at most for `patience`; without a seat there is no place for it. `work` is told
    /// the seats of the request's level.
    pub async fn admit(
        &self,
        user: &UserInfo,
        info: &RequestInfo,
        patience: Duration,
        work: impl FnOnce(u32) -> Work,
    ) -> (Sorted, Option<Seat>) {
        let arrived = Instant::now();
        let (taker, level, entered) = {
            let state = self.state.load();
            let matched = state.schemas.iter().find(|s| s.matches(user, info));
            let level = matched.and_then(|s| state.levels.get(&s.level)).unwrap_or(&state.fallback);
            let schema = matched.map_or(&state.unsorted, |s| &s.about);
            let taker = Taker { schema: schema.clone(), watch: info.verb == "watch" };
            if user.in_group(MASTERS) && !level.is_exempt() {
                // Whatever the schemas say, the cluster can be repaired.
                return (Sorted(taker.schema), Some(Seat { held: None, since: arrived, tails: None }));
            }
            let (flow, distinguisher) = matched.map(|s| s.flow(user, info)).unwrap_or_default();
            let about = || About {
                taker: taker.clone(),
                distinguisher: distinguisher.to_owned(),
                user: user.name.clone(),
                verb: info.verb.clone(),
                path: info.path.clone(),
            };
            let entered = level.enter(flow, work(level.nominal()), &taker, arrived, about);
            (taker, level.clone(), entered)
        };
        let meters = taker.meters();
        let seat = match entered {
            Entry::Seat(seat) => Ok(seat),
            Entry::Full(reason) => Err(reason),
            Entry::Wait(mut place) => {
                let mut left = Left { level: level.clone(), taker: taker.clone(), armed: true };
                let turn = tokio::time::timeout(patience, &mut place.turn).await;
                left.armed = false;
                turn.ok().and_then(Result::ok).ok_or_else(|| {
                    level.gave_up(true);
                    "time-out"
                })
            }
        };
        meters.waited(arrived.elapsed(), seat.is_ok());
        let sorted = Sorted(taker.schema.clone());
        match seat {
            Ok(mut seat) => {
                seat.tails = Some(self.tails.clone());
                (sorted, Some(seat))
            }
            Err(reason) => {
                meters.rejected(reason);
                (sorted, None)
            }
        }
    }

    fn snapshots(&self) -> Vec<Snapshot> {
        let state = self.state.load();
        let mut all: Vec<Snapshot> = state.levels.values().map(|level| level.snapshot()).collect();
        all.sort_by(|a, b| a.limits.name.cmp(&b.limits.name));
        all
    }

    /// Lends seats to where they are wanted, and gives back those that were held after an answer. Runs until cancelled.
    pub async fn run(&self, cancel: CancellationToken) {
        let Some(mut tails) = self.waiting_tails.lock().take() else { return };
        let mut held = DelayQueue::new();
        let mut tick = tokio::time::interval(ADJUSTMENT);
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                _ = tick.tick() => self.adjust(),
                Some(tail) = tails.recv() => {
                    let latency = tail.work.additional_latency;
                    held.insert(tail, latency);
                }
                Some(ended) = held.next(), if !held.is_empty() => ended.into_inner().end(),
            }
        }
    }

    fn adjust(&self) {
        let state = self.state.load();
        let mut smoothed = self.smoothed.lock();
        let (mut names, mut shares) = (Vec::new(), Vec::new());
        for (name, level) in &state.levels {
            let (bounds, observed) = level.observe();
            let before = smoothed.get(name).copied().unwrap_or(0.0);
            shares.push(Share { bounds, observed, smoothed: before, ..Share::default() });
            names.push((name, level));
        }
        let fraction = demand::share(&mut shares, self.total as f64);
        smoothed.clear();
        for ((name, level), share) in names.into_iter().zip(&shares) {
            level.resize(share.current as u32);
            smoothed.insert(name.clone(), share.smoothed);
            self.metrics.level(name, share);
        }
        self.metrics.fraction(fraction);
    }
}

/// Notes a request whose client went away while it waited.
struct Left {
    level: Arc<Level>,
    taker: Taker,
    armed: bool,
}

impl Drop for Left {
    fn drop(&mut self) {
        if self.armed {
            self.level.gave_up(false);
            self.taker.meters().rejected("cancelled");
        }
    }
}

/// What hostile input is tried on: the configuration of a level.
#[cfg(any(test, fuzzing))]
pub(crate) fn hostile(object: &Value) {
    let limits = Limits::parse(object, 600, limits::shares(object).max(1));
    assert!(!limits.bounds.nominal.is_nan(), "a level of no size");
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
