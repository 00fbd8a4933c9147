//! Waits for conditions with a deadline.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// Time after which a condition that should hold soon is a failure; long, as machines are slow and noisy.
const DEADLINE: Duration = Duration::from_secs(120);
/// Pause between two looks.
const PERIOD: Duration = Duration::from_millis(100);

/// Looks until `condition` gives a value and returns it.
///
/// # Panics
/// At the deadline, with the last state seen.
pub fn eventually<T, E: Display>(what: &str, condition: impl FnMut() -> Result<T, E>) -> T {
    eventually_within(DEADLINE, what, condition)
}

/// [`eventually`] with a deadline of its own.
///
/// # Panics
/// At the deadline, with the last state seen.
pub fn eventually_within<T, E: Display>(
    deadline: Duration,
    what: &str,
    mut condition: impl FnMut() -> Result<T, E>,
) -> T {
    let end = Instant::now() + deadline;
    loop {
        match condition() {
            Ok(value) => return value,
            Err(last) => assert!(Instant::now() < end, "{what}: not within {deadline:?}; last seen: {last}"),
        }
        std::thread::sleep(PERIOD);
    }
}
