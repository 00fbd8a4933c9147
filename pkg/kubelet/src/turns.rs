//! How many sandboxes and containers the runtime makes at one time.
//!
//! Making one waits mostly for locks of the kernel that all share (the mount table, the network's). Measured with 100
//! pods at once, a few at a time are ready a quarter sooner than all at the same time, and the first ones much sooner.

use std::pin::Pin;
use std::time::Duration;

use tokio::sync::Semaphore;

/// Of each kind, for each processor.
const PER_PROCESSOR: usize = 2;
const MIN: usize = 4;
/// What takes longer hangs on something else, and no longer holds others up.
const HOLD: Duration = Duration::from_secs(3);

/// Gives turns, first come first served. Containers do not wait for the sandboxes of pods that came later.
pub struct Turns {
    sandboxes: Semaphore,
    containers: Semaphore,
}

impl Turns {
    pub fn new(processors: usize) -> Self {
        let at_once = (PER_PROCESSOR * processors).max(MIN);
        Self { sandboxes: Semaphore::new(at_once), containers: Semaphore::new(at_once) }
    }

    /// Makes a sandbox when it is its turn. Cancel-safe as far as `make` is.
    pub fn sandbox<T>(&self, make: impl Future<Output = T>) -> impl Future<Output = T> {
        in_turn(&self.sandboxes, Box::pin(make))
    }

    /// Makes and starts a container when it is its turn. Cancel-safe as far as `make` is.
    pub fn container<T>(&self, make: impl Future<Output = T>) -> impl Future<Output = T> {
        in_turn(&self.containers, Box::pin(make))
    }
}

/// Takes a pointer, as such a future is large and is kept by others that are moved.
async fn in_turn<T>(turns: &Semaphore, mut make: Pin<Box<impl Future<Output = T>>>) -> T {
    let turn = turns.acquire().await;
    if let Ok(made) = tokio::time::timeout(HOLD, &mut make).await {
        return made;
    }
    drop(turn);
    make.await
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn few_are_made_at_a_time_and_one_that_hangs_holds_nobody_up() {
        let (turns, now, most) = (Turns::new(3), AtomicUsize::new(0), AtomicUsize::new(0));
        let make = || async {
            most.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(100)).await;
            now.fetch_sub(1, Ordering::Relaxed);
        };
        join_all((0..50).map(|_| turns.sandbox(make()))).await;
        assert_eq!(most.load(Ordering::Relaxed), 6);

        let hanging = join_all((0..6).map(|_| turns.sandbox(pending::<()>())));
        let start = tokio::time::Instant::now();
        tokio::select! {
            _ = hanging => unreachable!("they hang"),
            () = async { tokio::task::yield_now().await; turns.sandbox(async {}).await } => {}
        }
        assert_eq!(start.elapsed().as_secs(), HOLD.as_secs());
        turns.container(async {}).await;
    }
}
