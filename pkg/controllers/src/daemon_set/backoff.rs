//! Delays between replacements of pods that fail again and again on one node.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

const MIN: Duration = Duration::from_secs(1);
const MAX: Duration = Duration::from_secs(900);

/// By DaemonSet UID and node.
#[derive(Default)]
pub struct Backoff {
    entries: Mutex<HashMap<(String, String), (Duration, Instant)>>,
}

impl Backoff {
    /// Counts a replacement, or says how long it must wait.
    pub fn replace(&self, set: &str, node: &str) -> Result<(), Duration> {
        let now = Instant::now();
        let mut entries = self.entries.lock();
        // What has been quiet for long starts afresh.
        entries.retain(|_, (delay, since)| now.duration_since(*since) < *delay * 2 + MIN);
        let key = (set.to_owned(), node.to_owned());
        let delay = match entries.get(&key) {
            Some((delay, since)) => match delay.checked_sub(now.duration_since(*since)).filter(|l| !l.is_zero()) {
                Some(left) => return Err(left),
                None => (*delay * 2).min(MAX),
            },
            None => MIN,
        };
        entries.insert(key, (delay, now));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn delays_double_until_it_is_quiet() {
        let backoff = Backoff::default();
        assert_eq!(backoff.replace("s", "n"), Ok(()));
        assert_eq!(backoff.replace("s", "n"), Err(MIN));
        assert_eq!(backoff.replace("s", "m"), Ok(()));
        tokio::time::advance(MIN).await;
        assert_eq!(backoff.replace("s", "n"), Ok(()));
        assert_eq!(backoff.replace("s", "n"), Err(MIN * 2));
        tokio::time::advance(MIN * 60).await;
        assert_eq!(backoff.replace("s", "n"), Ok(()));
        assert_eq!(backoff.replace("s", "n"), Err(MIN));
    }
}
