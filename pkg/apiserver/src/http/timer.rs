//! The timer of one HTTP/1 connection's requests.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::rt;
use parking_lot::Mutex;

/// Gives deadlines that move with every request over one entry in the runtime's own timer, which moves only when it
/// fires: that timer is shared by all connections, and moving an entry in it costs more than anything else here.
///
/// For one task, which waits for one deadline at a time: that of the next request's headers. The deadline that is asked
/// for holds while nothing of them has come, and a nearer one once they have begun.
#[derive(Clone)]
pub struct ConnectionTimer {
    entry: Arc<Mutex<Option<Pin<Box<tokio::time::Sleep>>>>>,
    arrival: Arc<Arrival>,
}

/// When the first byte of the headers that are waited for came.
pub struct Arrival {
    /// The clock that `at` counts by.
    started: tokio::time::Instant,
    /// Milliseconds; [`NOT_YET`] before.
    at: AtomicU64,
    /// From the first byte of headers to their last.
    headers: Duration,
}

const NOT_YET: u64 = u64::MAX;

impl Arrival {
    /// To be called whenever bytes have come.
    pub fn note(&self) {
        if self.at.load(Ordering::Relaxed) == NOT_YET {
            let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(NOT_YET - 1);
            self.at.store(now, Ordering::Relaxed);
        }
    }

    /// Until when the headers must be there, if they have begun.
    fn deadline(&self) -> Option<tokio::time::Instant> {
        let at = self.at.load(Ordering::Relaxed);
        (at != NOT_YET).then(|| self.started + Duration::from_millis(at) + self.headers)
    }
}

impl ConnectionTimer {
    /// For a connection that begins now; `headers` is how long one request's may take.
    pub fn new(headers: Duration) -> Self {
        let arrival = Arrival { started: tokio::time::Instant::now(), at: AtomicU64::new(NOT_YET), headers };
        Self { entry: Arc::default(), arrival: Arc::new(arrival) }
    }

    /// Where arriving bytes are to be noted.
    pub fn arrival(&self) -> Arc<Arrival> {
        self.arrival.clone()
    }
}

struct Waiting {
    deadline: tokio::time::Instant,
    timer: ConnectionTimer,
}

impl rt::Timer for ConnectionTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn rt::Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn rt::Sleep>> {
        self.arrival.at.store(NOT_YET, Ordering::Relaxed);
        Box::pin(Waiting { deadline: deadline.into(), timer: self.clone() })
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }
}

impl Future for Waiting {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self.timer.arrival.deadline().map_or(self.deadline, |nearer| nearer.min(self.deadline));
        let mut entry = self.timer.entry.lock();
        let entry = entry.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if entry.deadline() > deadline {
            entry.as_mut().reset(deadline);
        }
        while entry.deadline() < deadline {
            // Armed for an earlier request: it fires once for nothing, and then for this one.
            ready!(entry.as_mut().poll(cx));
            entry.as_mut().reset(deadline);
        }
        entry.as_mut().poll(cx)
    }
}

impl rt::Sleep for Waiting {}

#[cfg(test)]
mod tests {
    use hyper::rt::Timer;

    use super::*;

    const HEADERS: Duration = Duration::from_secs(32);

    #[tokio::test(start_paused = true)]
    async fn each_deadline_is_kept_wherever_the_entry_stands() {
        let timer = ConnectionTimer::new(HEADERS);
        let begun = tokio::time::Instant::now();
        assert!(tokio::time::timeout(Duration::from_secs(20), timer.sleep(Duration::from_secs(90))).await.is_err());
        // Requests that come before their deadline move it on.
        for _ in 0..5 {
            let waiting = timer.sleep(Duration::from_secs(90));
            assert!(tokio::time::timeout(Duration::from_secs(40), waiting).await.is_err());
        }
        timer.sleep(Duration::from_secs(90)).await;
        assert_eq!(begun.elapsed().as_secs(), 20 + 5 * 40 + 90);
        // A nearer deadline than the entry's, and one that has passed.
        assert!(tokio::time::timeout(Duration::from_secs(1), timer.sleep(Duration::from_secs(90))).await.is_err());
        timer.sleep(Duration::from_secs(2)).await;
        timer.sleep_until(begun.into_std()).await;
        assert_eq!(begun.elapsed().as_secs(), 20 + 5 * 40 + 90 + 3);
    }

    #[tokio::test(start_paused = true)]
    async fn headers_that_have_begun_have_less_time() {
        let timer = ConnectionTimer::new(HEADERS);
        let begun = tokio::time::Instant::now();
        let mut waiting = timer.sleep(Duration::from_secs(90));
        assert!(tokio::time::timeout(Duration::from_secs(50), &mut waiting).await.is_err(), "nothing has come");
        timer.arrival().note();
        assert!(tokio::time::timeout(Duration::from_secs(10), &mut waiting).await.is_err());
        timer.arrival().note();
        waiting.await;
        assert_eq!(begun.elapsed().as_secs(), 50 + 32, "from the first byte");
        let next = tokio::time::timeout(Duration::from_secs(89), timer.sleep(Duration::from_secs(90))).await;
        assert!(next.is_err(), "the next request has all its time again");
    }
}
