//! Time as the API writes it.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

/// The current time, in whole seconds as the API keeps it.
pub fn now() -> Time {
    let now = Timestamp::now();
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// Time from `earlier` to `later`; zero when it is the other way round.
pub fn between(earlier: &Time, later: &Time) -> Duration {
    Duration::try_from(later.0.duration_since(earlier.0)).unwrap_or_default()
}

/// How long ago `time` was.
pub fn since(time: &Time) -> Duration {
    between(time, &Time(Timestamp::now()))
}

/// How long until `seconds` after `time`; None when that has passed.
pub fn until(time: &Time, seconds: i64) -> Option<Duration> {
    let wait = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    wait.checked_sub(since(time)).filter(|left| !left.is_zero())
}
