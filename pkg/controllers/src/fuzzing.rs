//! What hostile input is tried on: texts of objects that controllers read.

use jiff::Timestamp;
use kube1_mutate::Target;

use crate::cron_job::schedule::Schedule;
use crate::job::index::Indexes;

const SCHEDULES: &[&[u8]] = &[
    b"*/5 1-3,7 ? jan-mar/2 mon,7 Europe/Berlin",
    b"@yearly",
    b"0 0 30 2 * Etc/UTC",
    b"59 23 29 2 6 America/Santiago",
    b"CRON_TZ=UTC 0 0 31 4,6,9,11 *",
];

/// All that `fuzz/` runs.
pub fn targets() -> Vec<Target> {
    vec![
        Target::new("schedule", schedule, SCHEDULES, &["*", "*/", "-", ",", "?", "sun", "dec", "@hourly", " ", "TZ="]),
        Target::new("indexes", indexes, &[b"1,3-5,7-99", b"0-2147483646"], &["2147483647", "-1", ",", "-"]),
    ]
}

/// A schedule, after which the name of a time zone may follow; and when it is due.
fn schedule(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (fields, zone) = match text.rsplit_once(' ') {
        Some((fields, zone)) if zone.contains('/') => (fields, Some(zone)),
        _ => (&*text, None),
    };
    let Ok(schedule) = Schedule::parse(fields, zone) else { return };
    for second in [0, 1_767_225_599, 253_402_200_000] {
        let Ok(at) = Timestamp::from_second(second) else { continue };
        let next = schedule.next(at);
        assert!(next.is_none_or(|next| next > at), "due at {next:?}, which is not after {at}");
        let _ = schedule.last_due(Timestamp::UNIX_EPOCH, at);
    }
}

fn indexes(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let set = Indexes::parse(Some(&text), i32::MAX);
    assert_eq!(Indexes::parse(Some(&set.to_string()), i32::MAX), set);
    let absent = set.absent(i32::MAX).take(100).fold(Indexes::default(), |mut absent, index| {
        absent.insert(index);
        absent
    });
    assert_eq!((absent.without(&set), set.without(&absent)), (absent.clone(), set.clone()));
}

#[cfg(test)]
mod tests {
    #[test]
    fn decoders_survive() {
        kube1_mutate::run(&super::targets());
    }
}
