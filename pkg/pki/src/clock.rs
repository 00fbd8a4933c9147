//! The time certificates and tokens are checked against: the system clock with a floor.
//!
//! Boards without a battery-backed clock boot in 1970. The floor is the newest time this installation is known to have
//! seen, so that what was issued yesterday does not look "not yet valid" until the network brings the time.

use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// 2026-04-01, before any release of this program.
const RELEASE_FLOOR: i64 = 1_775_001_600;

static FLOOR: AtomicI64 = AtomicI64::new(RELEASE_FLOOR);

/// Seconds since 1970, never before the floor.
pub fn unix_now() -> i64 {
    let system =
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX));
    system.max(FLOOR.load(Ordering::Relaxed))
}

/// The same as [`SystemTime`].
pub fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(unix_now()).unwrap_or(0))
}

/// Raises the floor to the modification time of `path` when that is later; absent files are ignored.
pub fn raise_floor_from(path: &Path) {
    let modified = std::fs::metadata(path).and_then(|m| m.modified()).ok();
    if let Some(seconds) = modified.and_then(|t| t.duration_since(UNIX_EPOCH).ok()) {
        FLOOR.fetch_max(i64::try_from(seconds.as_secs()).unwrap_or(0), Ordering::Relaxed);
    }
}

/// rustls's view of the same clock, for client and server configurations.
#[derive(Debug, Clone, Copy, Default)]
pub struct FlooredTime;

impl rustls::time_provider::TimeProvider for FlooredTime {
    fn current_time(&self) -> Option<rustls_pki_types::UnixTime> {
        Some(rustls_pki_types::UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(unix_now()).ok()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_never_before_the_release() {
        assert!(unix_now() >= RELEASE_FLOOR);
    }

    #[test]
    #[allow(clippy::unwrap_used)]
    fn a_file_from_the_future_raises_the_floor() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let later = SystemTime::now() + Duration::from_secs(30);
        file.as_file().set_modified(later).unwrap();
        raise_floor_from(file.path());
        assert!(now() >= later - Duration::from_secs(1));
    }
}
