//! One priority level: its seats, and the queues before them, served by fair queuing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use smallvec::SmallVec;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::demand::{Bounds, Demand, Observed};
use super::work::Work;
use super::{About, Seat, Taker};

/// What a request is taken to last before it has shown how long it does.
const GUESS: f64 = 0.003;

/// What a PriorityLevelConfiguration says.
#[derive(Clone, Debug)]
pub struct Limits {
    pub name: String,
    pub uid: String,
    pub exempt: bool,
    pub bounds: Bounds,
    /// Number of queues, queues per flow, places per queue; `None` to reject at once.
    pub queuing: Option<(usize, usize, usize)>,
}

impl Default for Limits {
    fn default() -> Self {
        let bounds = Bounds { nominal: 600.0, least: 600.0, most: 600.0 };
        Self { name: String::new(), uid: String::new(), exempt: false, bounds, queuing: Some((64, 8, 50)) }
    }
}

/// The part of the server that a level asks for.
pub fn shares(config: &Value) -> u64 {
    let kind = if config["spec"]["type"] == "Exempt" { "exempt" } else { "limited" };
    let default = if kind == "exempt" { 0 } else { 30 };
    config["spec"][kind]["nominalConcurrencyShares"].as_u64().unwrap_or(default)
}

impl Limits {
    /// `total` seats are shared among levels that ask for `sum` shares.
    pub fn parse(config: &Value, total: u64, sum: u64) -> Self {
        let exempt = config["spec"]["type"] == "Exempt";
        let spec = &config["spec"][if exempt { "exempt" } else { "limited" }];
        let response = &spec["limitResponse"];
        let queuing = &response["queuing"];
        let number = |key: &str, or: u64| usize::try_from(queuing[key].as_u64().unwrap_or(or)).unwrap_or(1).max(1);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let nominal = total.saturating_mul(shares(config)).div_ceil(sum) as f64;
        let part = |percent: &Value| percent.as_f64().map(|percent| (nominal * percent / 100.0).round());
        Self {
            name: text(&config["metadata"]["name"]),
            uid: text(&config["metadata"]["uid"]),
            exempt,
            bounds: Bounds {
                nominal,
                least: nominal - part(&spec["lendablePercent"]).unwrap_or(0.0),
                most: nominal + part(&spec["borrowingLimitPercent"]).unwrap_or(f64::INFINITY),
            },
            queuing: (response["type"] == "Queue")
                .then(|| (number("queues", 64), number("handSize", 8), number("queueLengthLimit", 50))),
        }
    }
}

/// How a request enters a level.
pub enum Entry {
    Seat(Seat),
    Wait(Place),
    /// All places are taken; why, as metrics name it.
    Full(&'static str),
}

/// A place in a queue; dropping it gives it up.
pub struct Place {
    pub turn: oneshot::Receiver<Seat>,
    level: Arc<Level>,
    queue: usize,
    id: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.level.leave(self.queue, self.id);
    }
}

#[derive(Default)]
pub struct Level {
    /// Of its limits, what is asked for each request.
    nominal: AtomicU32,
    exempt: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    limits: Limits,
    /// Seats after lending and borrowing.
    current: u32,
    executing: u32,
    seats: u32,
    waiting: u32,
    waiting_seats: u32,
    queues: Vec<Queue>,
    /// Queues with requests that run or wait.
    busy: usize,
    /// The queue that is served next among equals.
    turn: usize,
    /// Virtual time: the seat-seconds that every busy queue would have been served by now.
    virtual_time: f64,
    advanced: Option<Instant>,
    demand: Demand,
    last_id: u64,
    tally: Tally,
}

/// What became of requests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub dispatched: u64,
    pub rejected: u64,
    pub timed_out: u64,
    pub cancelled: u64,
}

#[derive(Default)]
struct Queue {
    waiters: VecDeque<Waiter>,
    /// Virtual time at which its next request begins.
    next_start: f64,
    executing: u32,
    seats: u32,
}

struct Waiter {
    id: u64,
    work: Work,
    arrived: jiff::Timestamp,
    about: Arc<About>,
    sender: oneshot::Sender<Seat>,
}

/// A level as it is shown to people.
pub struct Snapshot {
    pub limits: Limits,
    pub executing: u32,
    pub waiting: u32,
    pub tally: Tally,
    pub queues: Vec<QueueSnapshot>,
}

#[derive(Default)]
pub struct QueueSnapshot {
    pub executing: u32,
    pub seats: u32,
    pub next_start: f64,
    pub waiters: Vec<(Arc<About>, Work, jiff::Timestamp)>,
}

impl Level {
    pub fn configure(self: &Arc<Self>, limits: Limits) {
        let mut inner = self.inner.lock();
        if limits.bounds != inner.limits.bounds || inner.current == 0 {
            inner.current = limits.bounds.nominal as u32;
        }
        self.nominal.store(limits.bounds.nominal as u32, Ordering::Relaxed);
        self.exempt.store(limits.exempt, Ordering::Relaxed);
        inner.limits = limits;
        self.dispatch(&mut inner, Instant::now());
    }

    /// Sets the seats that lending and borrowing leave to the level.
    pub fn resize(self: &Arc<Self>, seats: u32) {
        let mut inner = self.inner.lock();
        inner.current = seats;
        self.dispatch(&mut inner, Instant::now());
    }

    pub fn observe(&self) -> (Bounds, Observed) {
        let mut inner = self.inner.lock();
        (inner.limits.bounds, inner.demand.take(Instant::now()))
    }

    pub fn nominal(&self) -> u32 {
        self.nominal.load(Ordering::Relaxed)
    }

    /// Whether its requests run whatever else does.
    pub fn is_exempt(&self) -> bool {
        self.exempt.load(Ordering::Relaxed)
    }

    pub fn uid(&self) -> String {
        self.inner.lock().limits.uid.clone()
    }

    /// Takes seats or a place in the shortest of the flow's queues.
    pub(super) fn enter(
        self: &Arc<Self>,
        flow: u64,
        work: Work,
        taker: &Taker,
        now: Instant,
        about: impl FnOnce() -> About,
    ) -> Entry {
        let mut inner = self.inner.lock();
        inner.advance(now);
        if inner.limits.exempt || (inner.waiting == 0 && inner.limits.queuing.is_none() && inner.fits(work)) {
            inner.occupy(None, work, now);
            drop(inner);
            return Entry::Seat(Seat::taken(self.clone(), None, work, taker.clone(), now));
        }
        let Some((queues, hand, places)) = inner.limits.queuing else {
            inner.tally.rejected += 1;
            return Entry::Full("concurrency-limit");
        };
        if inner.queues.len() < queues {
            inner.queues.resize_with(queues, Queue::default);
        }
        let load = |queue: &Queue| queue.waiters.iter().map(|w| w.work.seats()).sum::<u32>() + queue.seats;
        let Some(index) = deal(flow, queues, hand).min_by_key(|i| load(&inner.queues[*i])) else {
            return Entry::Full("queue-full");
        };
        let virtual_now = inner.virtual_time;
        let queue = &mut inner.queues[index];
        if !queue.is_busy() {
            queue.next_start = queue.next_start.max(virtual_now);
        }
        if inner.waiting == 0 && inner.fits(work) {
            inner.occupy(Some(index), work, now);
            drop(inner);
            return Entry::Seat(Seat::taken(self.clone(), Some(index), work, taker.clone(), now));
        }
        if inner.queues[index].waiters.len() >= places {
            inner.tally.rejected += 1;
            return Entry::Full("queue-full");
        }
        let (sender, turn) = oneshot::channel();
        inner.last_id += 1;
        let id = inner.last_id;
        let waiter = Waiter { id, work, arrived: jiff::Timestamp::now(), about: Arc::new(about()), sender };
        inner.change(index, |queue| queue.waiters.push_back(waiter));
        inner.waiting += 1;
        inner.waiting_seats += work.seats();
        inner.note(now);
        taker.meters().waiting(1.0);
        self.dispatch(&mut inner, now);
        Entry::Wait(Place { turn, level: self.clone(), queue: index, id })
    }

    /// Counts a request that waited for too long, or whose client did.
    pub fn gave_up(&self, timed_out: bool) {
        let tally = &mut self.inner.lock().tally;
        if timed_out { tally.timed_out += 1 } else { tally.cancelled += 1 }
    }

    fn leave(&self, queue: usize, id: u64) {
        let mut inner = self.inner.lock();
        let Some(at) = inner.queues[queue].waiters.iter().position(|w| w.id == id) else { return };
        if let Some(waiter) = inner.change(queue, |queue| queue.waiters.remove(at)) {
            waiter.about.taker.meters().waiting(-1.0);
            inner.waiting -= 1;
            inner.waiting_seats -= waiter.work.seats();
        }
        inner.note(Instant::now());
    }

    /// Gives seats back; `took` is how long the request had them.
    pub(super) fn release(self: &Arc<Self>, queue: Option<usize>, work: Work, took: Duration) {
        let now = Instant::now();
        let mut inner = self.inner.lock();
        inner.advance(now);
        // The guess is made good by what the request really took.
        let more = (took.as_secs_f64() - GUESS) * f64::from(work.initial_seats);
        inner.vacate(queue, work, more, now);
        self.dispatch(&mut inner, now);
    }

    /// Hands free seats to those who wait: to the queue whose next request would end first if all were served evenly.
    fn dispatch(self: &Arc<Self>, inner: &mut Inner, now: Instant) {
        if inner.waiting == 0 {
            return;
        }
        inner.advance(now);
        while inner.waiting > 0 {
            let count = inner.queues.len();
            let end = |index: usize| {
                let queue = &inner.queues[index];
                let seats = queue.waiters.front().map(|w| w.work.seats())?;
                Some(queue.next_start + f64::from(seats) * GUESS)
            };
            let busy = (0..count).map(|i| (inner.turn + i) % count).filter_map(|i| end(i).map(|end| (i, end)));
            let Some((index, _)) = busy.min_by(|a, b| a.1.total_cmp(&b.1)) else { return };
            let fits = inner.queues[index].waiters.front().is_some_and(|w| inner.fits(w.work));
            if !fits {
                // A wide request is not overtaken for ever by narrow ones.
                return;
            }
            inner.turn = index + 1;
            let Some(waiter) = inner.change(index, |queue| queue.waiters.pop_front()) else { return };
            let (work, taker) = (waiter.work, &waiter.about.taker);
            inner.waiting -= 1;
            inner.waiting_seats -= work.seats();
            taker.meters().waiting(-1.0);
            inner.occupy(Some(index), work, now);
            let seat = Seat::taken(self.clone(), Some(index), work, taker.clone(), now);
            if let Err(seat) = waiter.sender.send(seat) {
                // Nobody was there to take it.
                inner.tally.dispatched -= 1;
                inner.vacate(Some(index), work, -GUESS * f64::from(work.initial_seats), now);
                seat.forget();
            }
        }
    }

    pub fn snapshot(&self) -> Snapshot {
        let inner = self.inner.lock();
        let queues = inner.queues.iter().map(|queue| QueueSnapshot {
            executing: queue.executing,
            seats: queue.seats,
            next_start: queue.next_start,
            waiters: queue.waiters.iter().map(|w| (w.about.clone(), w.work, w.arrived)).collect(),
        });
        Snapshot {
            limits: inner.limits.clone(),
            executing: inner.executing,
            waiting: inner.waiting,
            tally: inner.tally,
            queues: queues.collect(),
        }
    }
}

impl Inner {
    /// A request wider than the level runs when nothing else does.
    fn fits(&self, work: Work) -> bool {
        let limit = self.current.max(1);
        if work.seats() > limit { self.executing == 0 } else { self.seats + work.seats() <= limit }
    }

    /// Changes a queue, and notes whether it is busy.
    fn change<T>(&mut self, index: usize, work: impl FnOnce(&mut Queue) -> T) -> T {
        let queue = &mut self.queues[index];
        let before = queue.is_busy();
        let done = work(queue);
        match (before, queue.is_busy()) {
            (false, true) => self.busy += 1,
            (true, false) => self.busy -= 1,
            _ => {}
        }
        done
    }

    fn occupy(&mut self, queue: Option<usize>, work: Work, now: Instant) {
        self.executing += 1;
        self.seats += work.seats();
        self.tally.dispatched += 1;
        if let Some(index) = queue {
            self.change(index, |queue| {
                queue.executing += 1;
                queue.seats += work.seats();
                let after = work.additional_latency.as_secs_f64() * f64::from(work.final_seats);
                queue.next_start += GUESS * f64::from(work.initial_seats) + after;
            });
        }
        self.note(now);
    }

    /// Frees seats; `more` is how much later the queue's next request begins for what this one took.
    fn vacate(&mut self, queue: Option<usize>, work: Work, more: f64, now: Instant) {
        self.executing -= 1;
        self.seats -= work.seats();
        if let Some(index) = queue {
            self.change(index, |queue| {
                queue.executing -= 1;
                queue.seats -= work.seats();
                queue.next_start += more;
            });
        }
        self.note(now);
    }

    fn note(&mut self, now: Instant) {
        self.demand.set(f64::from(self.seats + self.waiting_seats), now);
    }

    /// Virtual time goes on as fast as busy queues are served.
    fn advance(&mut self, now: Instant) {
        // Another request may have come between taking the time and the lock.
        let passed = self.advanced.map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        self.advanced = self.advanced.max(Some(now));
        if self.busy > 0 {
            let seats = (self.seats + self.waiting_seats).min(self.current.max(1));
            self.virtual_time += passed * f64::from(seats) / self.busy as f64;
        }
    }
}

impl Queue {
    fn is_busy(&self) -> bool {
        self.executing > 0 || !self.waiters.is_empty()
    }
}

/// The queues of a flow: `hand` different ones out of `queues`, decided by the flow's hash.
fn deal(flow: u64, queues: usize, hand: usize) -> impl Iterator<Item = usize> {
    let mut entropy = flow;
    let mut cards: SmallVec<[usize; 64]> = (0..queues).collect();
    (0..hand.min(queues)).map(move |_| {
        let left = cards.len() as u64;
        let index = usize::try_from(entropy % left).unwrap_or(0);
        entropy = (entropy / left).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17) ^ flow;
        cards.swap_remove(index)
    })
}
