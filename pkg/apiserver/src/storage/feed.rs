//! What watchers who want to see the same share: the events that some of them are still to be told, in rounds.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::pacer::Pacer;
use super::watch::{Encoding, WatchEvent};

/// Events that may wait for one watcher.
const QUEUE: u64 = 4096;
/// Events that may be gathered for a round.
const UNTOLD: u64 = 1024;
/// A round is closed when its objects have so many bytes.
const ROUND: usize = 32 * 1024;
/// So few watchers are told of every event at once.
const FEW: usize = 32;
/// More are told in rounds, as waking one of them takes many times what another event does. They begin so long after each
/// other for each watcher ...
const EACH: Duration = Duration::from_micros(10);
/// ... and not before most have read the last one; when it was of several events, more are expected, and it pays to wait up
/// to so many times as long as the reading took ...
const SHARE: u32 = 4;
/// ... but never longer.
const LONGEST: Duration = Duration::from_millis(50);

/// Events that are told together.
#[derive(Debug)]
pub struct Round {
    events: SmallVec<[WatchEvent; 1]>,
    /// So many events were before it.
    before: u64,
    json: OnceLock<Bytes>,
    protobuf: OnceLock<Bytes>,
}

impl Round {
    /// At least one, in rising order of revision.
    pub fn events(&self) -> &[WatchEvent] {
        &self.events
    }

    /// All events in the storage version's wire form, encoded by the first watcher that asks and shared with the others.
    /// Every caller must pass the same function for the same encoding.
    pub fn encoded(&self, encoding: Encoding, encode: impl FnOnce(&[WatchEvent]) -> Bytes) -> Bytes {
        let slot = match encoding {
            Encoding::Json => &self.json,
            Encoding::Protobuf => &self.protobuf,
        };
        slot.get_or_init(|| encode(&self.events)).clone()
    }
}

/// What a watcher finds.
pub(super) enum Next {
    Round(Arc<Round>),
    /// Nothing yet; `complete` unless a round is being gathered. The task is woken.
    Wait {
        complete: bool,
    },
    /// The watcher fell behind, and was told the last events that were kept for it.
    Ended,
}

/// The events that equal watchers of a collection share. Each reads at its own pace.
#[derive(Debug, Default)]
pub(super) struct Feed {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Rounds that somebody has not read yet, the oldest first. Those that are gathered come last.
    rounds: VecDeque<Unread>,
    /// Number of the first of them.
    first: u64,
    /// Rounds below this number may be read.
    told: u64,
    open: SmallVec<[WatchEvent; 1]>,
    open_size: usize,
    /// Events that there ever were ...
    events: u64,
    /// ... and those of them that may not be read yet.
    untold: u64,
    readers: HashMap<u64, Place>,
    /// Readers that take part in rounds.
    live: usize,
    last_id: u64,
    /// The pacer knows of it.
    queued: bool,
    /// What a crowd was last told.
    crowd: Option<Crowd>,
}

/// A time when many readers were told of something.
#[derive(Debug)]
struct Crowd {
    at: Instant,
    events: u32,
    readers: u32,
    /// How long it took until most had read it.
    took: Option<Duration>,
}

#[derive(Debug)]
struct Unread {
    round: Arc<Round>,
    /// So many have not read it.
    left: usize,
}

/// Where a watcher is.
#[derive(Debug)]
struct Place {
    next: u64,
    waker: Option<Waker>,
    /// What is left for one that fell behind.
    rest: Option<VecDeque<Arc<Round>>>,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            rounds: VecDeque::new(),
            first: 0,
            told: 0,
            open: SmallVec::new(),
            open_size: 0,
            events: 0,
            untold: 0,
            readers: HashMap::new(),
            live: 0,
            last_id: 0,
            queued: false,
            crowd: None,
        }
    }
}

impl Feed {
    /// A reader of what comes from now on.
    pub fn join(self: &Arc<Self>) -> Reader {
        let mut inner = self.inner.lock();
        inner.close();
        inner.last_id += 1;
        inner.live += 1;
        let (id, next) = (inner.last_id, inner.end());
        inner.readers.insert(id, Place { next, waker: None, rest: None });
        Reader { feed: self.clone(), id }
    }

    pub fn is_empty(&self) -> bool {
        self.inner.lock().readers.is_empty()
    }

    /// Adds an event, and tells of it: at once when there are few readers, with others when there are many. Readers that
    /// are too far behind are cut off.
    pub fn push(self: &Arc<Self>, event: WatchEvent, pacer: &Pacer) {
        let mut inner = self.inner.lock();
        let mut wakers = inner.cut();
        inner.open_size += event.object.json().len();
        inner.open.push(event);
        inner.events += 1;
        if inner.open_size >= ROUND {
            inner.close();
        }
        inner.untold += 1;
        if inner.readers.len() <= FEW || inner.untold >= UNTOLD || !pacer.is_running() {
            wakers.extend(inner.tell());
        } else if !std::mem::replace(&mut inner.queued, true) {
            pacer.enqueue(self.clone());
        }
        drop(inner);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Ends all readers, once they have read what there is.
    pub fn end(&self) {
        let mut inner = self.inner.lock();
        inner.close();
        let (first, end) = (inner.first, inner.end());
        let Inner { rounds, readers, .. } = &mut *inner;
        let mut wakers: SmallVec<[Waker; 4]> = SmallVec::new();
        for place in readers.values_mut().filter(|place| place.rest.is_none()) {
            let unread = rounds.range((place.next - first) as usize..);
            place.rest = Some(unread.map(|unread| unread.round.clone()).collect());
            wakers.extend(place.waker.take());
        }
        rounds.clear();
        (inner.first, inner.told, inner.live, inner.untold) = (end, end, 0, 0);
        drop(inner);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// When the next round may begin, as far as that is known `now`.
    pub fn due(&self, now: Instant) -> Instant {
        self.inner.lock().due(now)
    }

    /// Tells what was gathered.
    pub fn tell(&self) {
        let mut inner = self.inner.lock();
        inner.queued = false;
        let wakers = inner.tell();
        drop(inner);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Inner {
    fn end(&self) -> u64 {
        self.first + self.rounds.len() as u64
    }

    /// Makes a round of what was gathered.
    fn close(&mut self) {
        self.open_size = 0;
        let events = std::mem::take(&mut self.open);
        if events.is_empty() || self.live == 0 {
            return;
        }
        let before = self.events - events.len() as u64;
        let round = Round { events, before, json: OnceLock::new(), protobuf: OnceLock::new() };
        self.rounds.push_back(Unread { round: Arc::new(round), left: self.live });
    }

    fn due(&self, now: Instant) -> Instant {
        let Some(told) = &self.crowd else { return now };
        // While it is being read, it has taken at least so long.
        let took = told.took.unwrap_or_else(|| now - told.at);
        told.at + took.saturating_mul(told.events.min(SHARE)).max(EACH.saturating_mul(told.readers)).min(LONGEST)
    }

    /// Lets everything be read; gives those who wait for it.
    fn tell(&mut self) -> SmallVec<[Waker; 4]> {
        self.close();
        let events = std::mem::take(&mut self.untold);
        self.told = self.end();
        if events > 0 && self.readers.len() > FEW {
            let [events, readers] = [events, self.readers.len() as u64].map(|n| u32::try_from(n).unwrap_or(u32::MAX));
            self.crowd = Some(Crowd { at: Instant::now(), events, readers, took: None });
        }
        self.readers.values_mut().filter_map(|place| place.waker.take()).collect()
    }

    /// Ends the readers for which too much waits; gives those of them who wait.
    fn cut(&mut self) -> SmallVec<[Waker; 4]> {
        let mut wakers = SmallVec::new();
        while self.rounds.front().is_some_and(|oldest| self.events - oldest.round.before >= QUEUE) {
            self.close();
            let rest: VecDeque<_> = self.rounds.iter().map(|unread| unread.round.clone()).collect();
            for place in self.readers.values_mut().filter(|place| place.rest.is_none() && place.next == self.first) {
                place.rest = Some(rest.clone());
                wakers.extend(place.waker.take());
                self.live -= 1;
                self.rounds.iter_mut().for_each(|unread| unread.left -= 1);
            }
            self.trim();
        }
        wakers
    }

    /// Forgets the rounds that everybody has read.
    fn trim(&mut self) {
        while self.rounds.front().is_some_and(|oldest| oldest.left == 0) {
            self.rounds.pop_front();
            self.first += 1;
        }
        self.told = self.told.max(self.first);
    }

    fn read(&mut self, id: u64, cx: &Context<'_>) -> Next {
        let Some(place) = self.readers.get_mut(&id) else { return Next::Ended };
        if let Some(rest) = &mut place.rest {
            return rest.pop_front().map_or(Next::Ended, Next::Round);
        }
        if place.next >= self.told {
            if !place.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                place.waker = Some(cx.waker().clone());
            }
            return Next::Wait { complete: self.open.is_empty() && self.told == self.end() };
        }
        let unread = &mut self.rounds[(place.next - self.first) as usize];
        place.next += 1;
        unread.left -= 1;
        let round = unread.round.clone();
        let most_have_it = place.next == self.told && unread.left <= self.live / 8;
        if let Some(told) = self.crowd.as_mut().filter(|told| most_have_it && told.took.is_none()) {
            told.took = Some(told.at.elapsed());
        }
        self.trim();
        Next::Round(round)
    }

    fn leave(&mut self, id: u64) {
        let Some(place) = self.readers.remove(&id) else { return };
        if place.rest.is_none() {
            self.live -= 1;
            let read = (place.next - self.first) as usize;
            self.rounds.iter_mut().skip(read).for_each(|unread| unread.left -= 1);
            self.trim();
        }
    }
}

/// One watcher's place in a feed.
#[derive(Debug)]
pub(super) struct Reader {
    feed: Arc<Feed>,
    id: u64,
}

impl Reader {
    pub fn read(&self, cx: &Context<'_>) -> Next {
        self.feed.inner.lock().read(self.id, cx)
    }

    /// Lets what is being gathered be read now.
    pub fn hurry(&self) {
        let wakers = self.feed.inner.lock().tell();
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.feed.inner.lock().leave(self.id);
    }
}

#[cfg(test)]
mod tests;
