//! Pods that wait for a node: ready ones by priority, failed ones until their back-off ends or the cluster changes.

mod events;

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::metrics;
use crate::pod_info::PodInfo;
pub use events::Events;

/// What metrics call the return of a pod that was tried in vain.
const ATTEMPT_FAILED: &str = "ScheduleAttemptFailure";
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A pod is tried again after this long even if nothing seems to have changed.
const UNSCHEDULABLE_MAX: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Active(u64),
    Backoff(Instant),
    Unschedulable(Instant),
    /// Being scheduled since this many events.
    InFlight(u64),
    Gated,
}

struct Entry {
    pod: Arc<PodInfo>,
    place: Place,
    attempts: u32,
    /// When it was first queued.
    since: Instant,
    /// What may make it schedulable.
    wanted: Events,
    /// Whether its back-off must be waited for, because the last attempt ended in an error.
    failed: bool,
}

#[derive(Default)]
struct State {
    entries: HashMap<Arc<str>, Entry>,
    active: BTreeSet<(Reverse<i32>, u64, Arc<str>)>,
    backoff: BTreeSet<(Instant, Arc<str>)>,
    unschedulable: BTreeSet<(Instant, Arc<str>)>,
    sequence: u64,
    /// Events so far, and the number of the last one of each kind.
    events: u64,
    last_event: [u64; 16],
}

/// The scheduling queue. Every waiting pod is in exactly one of its parts.
#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    wake: Notify,
}

impl Queue {
    /// Adds a pod or takes its changed form. A change of what it asks for ends its wait for events.
    pub fn set(&self, pod: Arc<PodInfo>) {
        if self.state.lock().set(pod) {
            self.wake.notify_one();
        }
    }

    pub fn remove(&self, uid: &str) {
        let mut state = self.state.lock();
        state.unlist(uid);
        state.entries.remove(uid);
    }

    /// The newest form of a waiting pod.
    pub fn get(&self, uid: &str) -> Option<Arc<PodInfo>> {
        self.state.lock().entries.get(uid).map(|e| Arc::clone(&e.pod))
    }

    /// When a pod was first queued, and how often it was tried since.
    pub fn history(&self, uid: &str) -> Option<(Instant, u32)> {
        self.state.lock().entries.get(uid).map(|entry| (entry.since, entry.attempts))
    }

    /// How many pods are in each part, by upstream's names of the parts; those in flight are in none.
    pub fn counts(&self) -> [(&'static str, usize); 4] {
        let state = self.state.lock();
        let gated = state.entries.values().filter(|entry| entry.place == Place::Gated).count();
        [
            ("active", state.active.len()),
            ("backoff", state.backoff.len()),
            ("unschedulable", state.unschedulable.len()),
            ("gated", gated),
        ]
    }

    /// Takes the pod to schedule next; it stays known as in flight. Cancel-safe.
    pub async fn pop(&self) -> Arc<PodInfo> {
        loop {
            let notified = self.wake.notified();
            let due = {
                let mut state = self.state.lock();
                state.promote(Instant::now());
                if let Some(pod) = state.take() {
                    return pod;
                }
                state.next_due()
            };
            let sleep = async {
                match due {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = notified => {}
                () = sleep => {}
            }
        }
    }

    /// Gives back a pod that fits nowhere until one of `wanted` happens.
    pub fn unschedulable(&self, uid: &str, wanted: Events) {
        let mut state = self.state.lock();
        let Some(entry) = state.entries.get(uid) else { return };
        let Place::InFlight(since) = entry.place else { return };
        let missed = (0..16).any(|bit| Events(1 << bit).intersects(wanted) && state.last_event[bit] > since);
        if let Some(entry) = state.entries.get_mut(uid) {
            (entry.wanted, entry.failed) = (wanted, false);
        }
        if missed {
            state.back_off(uid, ATTEMPT_FAILED);
        } else {
            metrics::incoming("unschedulable", ATTEMPT_FAILED);
            state.put(uid, Place::Unschedulable(Instant::now() + UNSCHEDULABLE_MAX));
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Gives back a pod whose scheduling met an error.
    pub fn failed(&self, uid: &str) {
        let mut state = self.state.lock();
        if let Some(entry) = state.entries.get_mut(uid) {
            entry.failed = true;
            state.back_off(uid, ATTEMPT_FAILED);
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Tells of a change in the cluster: pods that waited for it are tried again.
    pub fn happened(&self, events: Events) {
        let mut state = self.state.lock();
        state.events += 1;
        let number = state.events;
        for bit in (0..16).filter(|bit| Events(1 << bit).intersects(events)) {
            state.last_event[bit] = number;
        }
        let waiting = state.unschedulable.iter().map(|(_, uid)| uid);
        let woken: Vec<Arc<str>> = waiting
            .filter(|uid| state.entries.get(*uid).is_some_and(|e| e.wanted.intersects(events)))
            .cloned()
            .collect();
        for uid in &woken {
            state.back_off(uid, events.name());
        }
        drop(state);
        if !woken.is_empty() {
            self.wake.notify_one();
        }
    }
}

impl State {
    fn set(&mut self, pod: Arc<PodInfo>) -> bool {
        let uid = Arc::clone(&pod.uid);
        let gated = pod.is_gated();
        let Some(entry) = self.entries.get_mut(&uid) else {
            let place = Place::Gated;
            let since = Instant::now();
            let entry = Entry { pod, place, attempts: 0, since, wanted: Events::NONE, failed: false };
            self.entries.insert(Arc::clone(&uid), entry);
            if gated {
                metrics::incoming("gated", "PodAdd");
            } else {
                self.activate(&uid, "PodAdd");
            }
            return !gated;
        };
        let changed = entry.pod.asks_differently(&pod);
        let place = entry.place;
        entry.pod = pod;
        match place {
            Place::Gated if !gated => self.activate(&uid, "PodUpdate"),
            Place::Unschedulable(_) if changed => self.back_off(&uid, "PodUpdate"),
            _ => return false,
        }
        true
    }

    fn unlist(&mut self, uid: &str) {
        let Some(entry) = self.entries.get(uid) else { return };
        match entry.place {
            Place::Active(sequence) => {
                self.active.remove(&(Reverse(entry.pod.priority), sequence, Arc::clone(&entry.pod.uid)));
            }
            Place::Backoff(at) => {
                self.backoff.remove(&(at, Arc::clone(&entry.pod.uid)));
            }
            Place::Unschedulable(at) => {
                self.unschedulable.remove(&(at, Arc::clone(&entry.pod.uid)));
            }
            Place::InFlight(_) | Place::Gated => {}
        }
    }

    fn put(&mut self, uid: &str, place: Place) {
        self.unlist(uid);
        let Some(entry) = self.entries.get_mut(uid) else { return };
        entry.place = place;
        match place {
            Place::Active(sequence) => {
                self.active.insert((Reverse(entry.pod.priority), sequence, Arc::clone(&entry.pod.uid)));
            }
            Place::Backoff(at) => {
                self.backoff.insert((at, Arc::clone(&entry.pod.uid)));
            }
            Place::Unschedulable(at) => {
                self.unschedulable.insert((at, Arc::clone(&entry.pod.uid)));
            }
            Place::InFlight(_) | Place::Gated => {}
        }
    }

    fn activate(&mut self, uid: &str, event: &str) {
        metrics::incoming("active", event);
        self.sequence += 1;
        self.put(uid, Place::Active(self.sequence));
    }

    fn back_off(&mut self, uid: &str, event: &str) {
        let Some(entry) = self.entries.get(uid) else { return };
        metrics::incoming("backoff", event);
        let delay = BACKOFF_MIN.saturating_mul(1 << entry.attempts.saturating_sub(1).min(8)).min(BACKOFF_MAX);
        self.put(uid, Place::Backoff(Instant::now() + delay));
    }

    /// Activates pods whose wait is over.
    fn promote(&mut self, now: Instant) {
        while let Some((_, uid)) = self.backoff.first().filter(|(at, _)| *at <= now).cloned() {
            self.activate(&uid, "BackoffComplete");
        }
        while let Some((_, uid)) = self.unschedulable.first().filter(|(at, _)| *at <= now).cloned() {
            self.activate(&uid, "UnschedulableTimeout");
        }
    }

    fn take(&mut self) -> Option<Arc<PodInfo>> {
        // While nothing else is to do, pods that an event woke need not sit out their back-off.
        let uid = match self.active.first() {
            Some((_, _, uid)) => uid.clone(),
            None => {
                let ready = |uid: &Arc<str>| self.entries.get(uid).is_some_and(|e| !e.failed);
                self.backoff.iter().map(|(_, uid)| uid).find(|uid| ready(uid))?.clone()
            }
        };
        self.put(&uid, Place::InFlight(self.events));
        let entry = self.entries.get_mut(&uid)?;
        entry.attempts = entry.attempts.saturating_add(1);
        Some(Arc::clone(&entry.pod))
    }

    fn next_due(&self) -> Option<Instant> {
        let first = |set: &BTreeSet<(Instant, Arc<str>)>| set.first().map(|(at, _)| *at);
        [first(&self.backoff), first(&self.unschedulable)].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests;
