//! One priority level: its seats, and the queues before them, served by fair queuing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::deal::deal;
use super::demand::{Bounds, Demand, Observed};
use super::limits::Limits;
use super::work::Work;
use super::{About, Seat, Taker};

/// What a request is taken to last before it has shown how long it does.
const GUESS: f64 = 0.003;
/// So many queues without requests may be kept.
const QUEUES_KEPT: usize = 64;

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
    /// Those that something is known of; a level may be given millions.
    queues: BTreeMap<usize, Queue>,
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
    /// By number; a queue that nobody used lately is left out.
    pub queues: Vec<(usize, QueueSnapshot)>,
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
        let load = |index: &usize| inner.queues.get(index).map_or(0, Queue::load);
        let Some(index) = deal(flow, queues, hand).min_by_key(load) else {
            return Entry::Full("queue-full");
        };
        inner.tidy();
        let virtual_now = inner.virtual_time;
        let queue = inner.queues.entry(index).or_default();
        if !queue.is_busy() {
            queue.next_start = queue.next_start.max(virtual_now);
        }
        let full = queue.waiters.len() >= places;
        if inner.waiting == 0 && inner.fits(work) {
            inner.occupy(Some(index), work, now);
            drop(inner);
            return Entry::Seat(Seat::taken(self.clone(), Some(index), work, taker.clone(), now));
        }
        if full {
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
        let of_place = |w: &Waiter| w.id == id;
        let left = inner.change(queue, |queue| queue.waiters.remove(queue.waiters.iter().position(of_place)?));
        if let Some(waiter) = left {
            waiter.about.taker.meters().waiting(-1.0);
            inner.waiting -= 1;
            inner.waiting_seats -= waiter.work.seats();
            inner.note(Instant::now());
        }
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
            let in_turn = inner.queues.range(inner.turn..).chain(inner.queues.range(..inner.turn));
            let next = in_turn.filter_map(|(index, queue)| {
                let work = queue.waiters.front()?.work;
                Some((*index, work, queue.next_start + f64::from(work.seats()) * GUESS))
            });
            let Some((index, work, _)) = next.min_by(|a, b| a.2.total_cmp(&b.2)) else { return };
            if !inner.fits(work) {
                // A wide request is not overtaken for ever by narrow ones.
                return;
            }
            inner.turn = index + 1;
            let Some(waiter) = inner.change(index, |queue| queue.waiters.pop_front()) else { return };
            let taker = &waiter.about.taker;
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
        let queues = inner.queues.iter().map(|(index, queue)| {
            let waiters = queue.waiters.iter().map(|w| (w.about.clone(), w.work, w.arrived)).collect();
            let Queue { executing, seats, next_start, .. } = *queue;
            (*index, QueueSnapshot { executing, seats, next_start, waiters })
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
        let queue = self.queues.entry(index).or_default();
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

    /// Forgets queues whose requests are over and have cost them nothing that still counts: to be asked for again they
    /// are as good as new ones. Done once they outnumber the busy ones, so that it costs a request next to nothing.
    fn tidy(&mut self) {
        if self.queues.len() > 2 * self.busy + QUEUES_KEPT {
            let virtual_now = self.virtual_time;
            self.queues.retain(|_, queue| queue.is_busy() || queue.next_start > virtual_now);
        }
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
    /// Seats of those that run and wait.
    fn load(&self) -> u32 {
        self.waiters.iter().map(|w| w.work.seats()).sum::<u32>() + self.seats
    }

    fn is_busy(&self) -> bool {
        self.executing > 0 || !self.waiters.is_empty()
    }
}
