//! One priority level: its seats and the queues before them.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::oneshot;

use super::Seat;

/// What a PriorityLevelConfiguration says.
#[derive(Clone, Debug)]
pub struct Limits {
    pub uid: String,
    pub exempt: bool,
    pub seats: usize,
    /// Number of queues, queues per flow, places per queue; `None` to reject at once.
    pub queuing: Option<(usize, usize, usize)>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { uid: String::new(), exempt: false, seats: 600, queuing: Some((64, 8, 50)) }
    }
}

/// The part of the server that a level asks for.
pub fn shares(config: &Value) -> u64 {
    let limited = &config["spec"]["limited"]["nominalConcurrencyShares"];
    let shares = limited.as_u64().or(config["spec"]["exempt"]["nominalConcurrencyShares"].as_u64());
    shares.unwrap_or(if config["spec"]["type"] == "Exempt" { 0 } else { 30 })
}

impl Limits {
    pub fn parse(config: &Value, total: u64, sum: u64) -> Self {
        let response = &config["spec"]["limited"]["limitResponse"];
        let queuing = &response["queuing"];
        let number = |key: &str, or: u64| usize::try_from(queuing[key].as_u64().unwrap_or(or)).unwrap_or(1).max(1);
        Self {
            uid: config["metadata"]["uid"].as_str().unwrap_or_default().into(),
            exempt: config["spec"]["type"] == "Exempt",
            seats: usize::try_from((total * shares(config)).div_ceil(sum)).unwrap_or(1).max(1),
            queuing: (response["type"] == "Queue")
                .then(|| (number("queues", 64), number("handSize", 8), number("queueLengthLimit", 50))),
        }
    }
}

/// How a request enters a level that is not exempt.
pub enum Entry {
    Seat(Seat),
    Wait(oneshot::Receiver<Seat>),
}

#[derive(Debug, Default)]
pub struct Level {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    limits: Limits,
    executing: usize,
    waiting: usize,
    queues: Vec<VecDeque<oneshot::Sender<Seat>>>,
    /// The queue that is served next.
    turn: usize,
}

impl Level {
    pub fn configure(self: &Arc<Self>, limits: Limits) {
        self.inner.lock().limits = limits;
        self.dispatch();
    }

    pub fn is_exempt(&self) -> bool {
        self.inner.lock().limits.exempt
    }

    pub fn uid(&self) -> String {
        self.inner.lock().limits.uid.clone()
    }

    /// Takes a seat or a place in the shortest of the flow's queues; `None` when all are taken.
    pub fn enter(self: &Arc<Self>, flow: u64) -> Option<Entry> {
        let mut inner = self.inner.lock();
        if inner.executing < inner.limits.seats && inner.waiting == 0 {
            inner.executing += 1;
            return Some(Entry::Seat(Seat::of(self)));
        }
        let (queues, hand, places) = inner.limits.queuing?;
        if inner.queues.len() < queues {
            inner.queues.resize_with(queues, VecDeque::new);
        }
        let index = deal(flow, queues, hand).min_by_key(|i| inner.queues[*i].len())?;
        // Those who gave up hold no place.
        let before = inner.queues[index].len();
        inner.queues[index].retain(|w| !w.is_closed());
        inner.waiting -= before - inner.queues[index].len();
        if inner.queues[index].len() >= places {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        inner.queues[index].push_back(sender);
        inner.waiting += 1;
        drop(inner);
        self.dispatch();
        Some(Entry::Wait(receiver))
    }

    pub fn release(self: &Arc<Self>) {
        self.inner.lock().executing -= 1;
        self.dispatch();
    }

    /// Hands free seats to those who wait, one queue after the other.
    fn dispatch(self: &Arc<Self>) {
        let mut inner = self.inner.lock();
        while inner.executing < inner.limits.seats && inner.waiting > 0 {
            let count = inner.queues.len();
            let Some(index) = (0..count).map(|i| (inner.turn + i) % count).find(|i| !inner.queues[*i].is_empty())
            else {
                return;
            };
            inner.turn = index + 1;
            let Some(waiter) = inner.queues[index].pop_front() else { return };
            inner.waiting -= 1;
            match waiter.send(Seat::of(self)) {
                Ok(()) => inner.executing += 1,
                Err(seat) => seat.forget(),
            }
        }
    }
}

/// The queues of a flow: `hand` different ones out of `queues`, decided by the flow's hash.
fn deal(flow: u64, queues: usize, hand: usize) -> impl Iterator<Item = usize> {
    let mut entropy = flow;
    let mut cards: Vec<usize> = (0..queues).collect();
    (0..hand.min(queues)).map(move |_| {
        let left = cards.len() as u64;
        let index = usize::try_from(entropy % left).unwrap_or(0);
        entropy = (entropy / left).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17) ^ flow;
        cards.swap_remove(index)
    })
}
