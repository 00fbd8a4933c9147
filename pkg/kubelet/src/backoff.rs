//! Delays that double with every failure: crashing containers and images that cannot be pulled.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

const FIRST: Duration = Duration::from_secs(10);
const MAX: Duration = Duration::from_secs(300);
/// Who worked for this long starts anew.
const FORGET: Duration = Duration::from_secs(600);

/// Back-off by name.
#[derive(Debug)]
pub struct Backoffs {
    entries: HashMap<String, Entry>,
    max: Duration,
}

impl Default for Backoffs {
    fn default() -> Self {
        Self::with_max(MAX)
    }
}

#[derive(Debug)]
struct Entry {
    delay: Duration,
    updated: Timestamp,
}

fn since(earlier: Timestamp, now: Timestamp) -> Duration {
    now.duration_since(earlier).unsigned_abs()
}

impl Backoffs {
    /// Delays that never become longer than `max`.
    pub fn with_max(max: Duration) -> Self {
        Self { entries: HashMap::new(), max }
    }

    /// What is left of the delay counted from `failed_at`, and the whole delay; `None` when it is over.
    pub fn remaining(&self, name: &str, failed_at: Timestamp, now: Timestamp) -> Option<(Duration, Duration)> {
        let entry = self.entries.get(name)?;
        if now > entry.updated && since(entry.updated, now) > FORGET {
            return None;
        }
        let elapsed = if now > failed_at { since(failed_at, now) } else { Duration::ZERO };
        entry.delay.checked_sub(elapsed).filter(|left| !left.is_zero()).map(|left| (left, entry.delay))
    }

    /// Counts an attempt after a failure; the next one waits longer.
    pub fn failed(&mut self, name: &str, now: Timestamp) {
        let fresh = Entry { delay: FIRST.min(self.max), updated: now };
        match self.entries.get_mut(name) {
            Some(entry) if since(entry.updated, now) <= FORGET => {
                entry.delay = (entry.delay * 2).min(self.max);
                entry.updated = now;
            }
            _ => {
                self.entries.insert(name.to_owned(), fresh);
            }
        }
    }

    /// Forgets a name's failures.
    pub fn reset(&mut self, name: &str) {
        self.entries.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn delays_double_up_to_five_minutes_and_are_forgotten() {
        let start = Timestamp::UNIX_EPOCH;
        let mut backoffs = Backoffs::default();
        assert_eq!(backoffs.remaining("c", start, start), None);
        let mut delays = Vec::new();
        for _ in 0..7 {
            backoffs.failed("c", start);
            delays.extend(backoffs.remaining("c", start, start).map(|(_, delay)| delay.as_secs()));
        }
        assert_eq!(delays, [10, 20, 40, 80, 160, 300, 300]);
        let soon = start + SignedDuration::from_secs(299);
        assert_eq!(backoffs.remaining("c", start, soon).map(|(left, _)| left.as_secs()), Some(1));
        assert_eq!(backoffs.remaining("c", start, soon + SignedDuration::from_secs(1)), None);
        let mut quick = Backoffs::with_max(Duration::from_secs(2));
        quick.failed("c", start);
        quick.failed("c", start);
        assert_eq!(quick.remaining("c", start, start).map(|(_, delay)| delay.as_secs()), Some(2));
        let later = start + SignedDuration::from_secs(700);
        backoffs.failed("c", later);
        assert_eq!(backoffs.remaining("c", later, later).map(|(left, _)| left.as_secs()), Some(10));
    }
}
