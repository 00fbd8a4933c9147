//! Tells crowds of watchers in rounds: at once after a quiet time, then of several events together, so that telling all of
//! them takes only a part of the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::feed::Feed;

/// The feeds that have something to tell.
#[derive(Default)]
pub(super) struct Pacer {
    fresh: Mutex<Vec<Arc<Feed>>>,
    woken: Notify,
    running: AtomicBool,
}

impl Pacer {
    /// Whether feeds are told by [`Self::run`]; otherwise they must do it themselves.
    pub fn is_running(&self) -> bool {
        self.running.load(Ordering::Acquire)
    }

    /// Has the feed told as soon as its next round may begin. A feed must not be queued twice.
    pub fn enqueue(&self, feed: Arc<Feed>) {
        self.fresh.lock().push(feed);
        self.woken.notify_one();
    }

    /// Runs until cancelled.
    pub async fn run(&self, cancel: &CancellationToken) {
        self.running.store(true, Ordering::Release);
        let mut waiting: Vec<(Instant, Arc<Feed>)> = Vec::new();
        loop {
            let next = waiting.iter().map(|(due, _)| *due).min();
            tokio::select! {
                () = cancel.cancelled() => break,
                () = self.woken.notified() => {}
                () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            }
            let fresh = std::mem::take(&mut *self.fresh.lock());
            let now = Instant::now();
            waiting.extend(fresh.into_iter().map(|feed| (now, feed)));
            waiting.retain_mut(|(due, feed)| {
                if *due <= now {
                    // It may be later than was known.
                    *due = feed.due(now);
                }
                let later = *due > now;
                if !later {
                    feed.tell();
                }
                later
            });
        }
        self.running.store(false, Ordering::Release);
        let fresh = std::mem::take(&mut *self.fresh.lock());
        waiting.into_iter().map(|(_, feed)| feed).chain(fresh).for_each(|feed| feed.tell());
    }
}
