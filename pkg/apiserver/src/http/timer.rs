//! The timer of one connection's requests.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::rt;
use parking_lot::Mutex;

/// Gives deadlines that move with every request over one entry in the runtime's own timer, which moves only when it
/// fires: that timer is shared by all connections, and moving an entry in it costs more than anything else here.
///
/// For one task, which waits for one deadline at a time.
#[derive(Clone, Default)]
pub struct ConnectionTimer {
    entry: Arc<Mutex<Option<Pin<Box<tokio::time::Sleep>>>>>,
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
        Box::pin(Waiting { deadline: deadline.into(), timer: self.clone() })
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }
}

impl Future for Waiting {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self.deadline;
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

    #[tokio::test(start_paused = true)]
    async fn each_deadline_is_kept_wherever_the_entry_stands() {
        let timer = ConnectionTimer::default();
        let begun = tokio::time::Instant::now();
        // Requests that come before their deadline move it on.
        for _ in 0..5 {
            let waiting = timer.sleep(Duration::from_secs(90));
            assert!(tokio::time::timeout(Duration::from_secs(40), waiting).await.is_err());
        }
        timer.sleep(Duration::from_secs(90)).await;
        assert_eq!(begun.elapsed().as_secs(), 5 * 40 + 90);
        // A nearer deadline than the entry's, and one that has passed.
        assert!(tokio::time::timeout(Duration::from_secs(1), timer.sleep(Duration::from_secs(90))).await.is_err());
        timer.sleep(Duration::from_secs(2)).await;
        timer.sleep_until(begun.into_std()).await;
        assert_eq!(begun.elapsed().as_secs(), 5 * 40 + 90 + 3);
    }
}
