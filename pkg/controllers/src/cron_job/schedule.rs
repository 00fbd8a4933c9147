//! Cron schedules: when they are due, in the time zone they are meant for.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Zoned};

/// A parsed schedule: a bit for each value of each field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Days of month and of week both restrict, else either is enough.
    both_days: bool,
    zone: TimeZone,
}

/// Why a schedule cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    #[error("unparseable schedule {0:?}")]
    Schedule(String),
    #[error("unknown time zone {0:?}")]
    Zone(String),
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const MACROS: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];
/// A schedule that is not due within this many years never is, such as the 30th of February.
const YEARS_MAX: i16 = 5;

impl Schedule {
    /// Reads a schedule of five fields; without a zone it is meant in UTC.
    pub fn parse(text: &str, zone: Option<&str>) -> Result<Self, ScheduleError> {
        let zone = match zone {
            None => TimeZone::UTC,
            Some(name) => TimeZone::get(name).map_err(|_| ScheduleError::Zone(name.to_owned()))?,
        };
        let error = || ScheduleError::Schedule(text.to_owned());
        let expanded = MACROS.iter().find(|(name, _)| *name == text.trim()).map_or(text, |(_, fields)| fields);
        let fields: Vec<&str> = expanded.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else { return Err(error()) };
        let bits = |field: &str, min, max, names: &[&str]| parse_field(field, min, max, names).ok_or_else(error);
        let weekday_bits = bits(weekdays, 0, 7, &WEEKDAYS)?;
        let any = |field: &str| field.split(',').any(|p| p.starts_with(['*', '?']));
        Ok(Self {
            minutes: bits(minutes, 0, 59, &[])?,
            hours: bits(hours, 0, 23, &[])?,
            days: bits(days, 1, 31, &[])?,
            months: bits(months, 1, 12, &MONTHS)?,
            // Sunday is both 0 and 7.
            weekdays: (weekday_bits | weekday_bits >> 7) & 0x7f,
            both_days: any(days) || any(weekdays),
            zone,
        })
    }

    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// The first time after `after` at which the schedule is due; None if it never is.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let start = after.to_zoned(self.zone.clone()).datetime();
        let last_year = start.year() + YEARS_MAX;
        let mut at = floor_minute(start)?.checked_add(Span::new().minutes(1)).ok()?;
        while at.year() <= last_year {
            if !has(self.months, at.month()) {
                at = at.date().first_of_month().checked_add(Span::new().months(1)).ok()?.to_datetime(midnight());
            } else if !self.has_day(at) {
                at = at.date().tomorrow().ok()?.to_datetime(midnight());
            } else if !has(self.hours, at.hour()) {
                at = at.with().minute(0).build().ok()?.checked_add(Span::new().hours(1)).ok()?;
            } else if !has(self.minutes, at.minute()) {
                at = at.checked_add(Span::new().minutes(1)).ok()?;
            } else {
                // A time that a clock change skips is due right after it; one that comes twice is due once.
                let due: Zoned = self.zone.to_zoned(at).ok()?;
                if due.timestamp() > after {
                    return Some(due.timestamp());
                }
                at = at.checked_add(Span::new().minutes(1)).ok()?;
            }
        }
        None
    }

    /// The last time in (`earliest`, `now`] at which the schedule was due, and how many times it was, about.
    pub fn last_due(&self, earliest: Timestamp, now: Timestamp) -> Option<(Timestamp, usize)> {
        let windows = [1_i64, 24, 24 * 31, 24 * 366, 24 * 366 * 6];
        for hours in windows {
            let from = now.checked_sub(Span::new().hours(hours)).unwrap_or(earliest).max(earliest);
            let due: Vec<Timestamp> =
                std::iter::successors(self.next(from), |t| self.next(*t)).take_while(|t| *t <= now).collect();
            if let Some(last) = due.last() {
                return Some((*last, due.len()));
            }
            if from == earliest {
                break;
            }
        }
        None
    }

    fn has_day(&self, at: DateTime) -> bool {
        let (day, weekday) = (has(self.days, at.day()), has(self.weekdays, at.weekday().to_sunday_zero_offset()));
        if self.both_days { day && weekday } else { day || weekday }
    }
}

fn midnight() -> jiff::civil::Time {
    jiff::civil::Time::midnight()
}

fn floor_minute(at: DateTime) -> Option<DateTime> {
    at.with().second(0).subsec_nanosecond(0).build().ok()
}

fn has(bits: u64, value: i8) -> bool {
    bits >> value & 1 == 1
}

fn parse_field(field: &str, min: u32, max: u32, names: &[&str]) -> Option<u64> {
    field.split(',').try_fold(0, |bits, part| Some(bits | parse_part(part, min, max, names)?))
}

/// `*`, `N`, `N-M`, each perhaps with `/STEP`.
fn parse_part(part: &str, min: u32, max: u32, names: &[&str]) -> Option<u64> {
    let (range, step) = match part.split_once('/') {
        Some((range, step)) => (range, step.parse::<u32>().ok().filter(|s| *s > 0)?),
        None => (part, 1),
    };
    let value = |text: &str| {
        let named = names.iter().position(|n| n.eq_ignore_ascii_case(text));
        let offset = u32::from(names.len() == MONTHS.len());
        named.and_then(|n| u32::try_from(n).ok()).map(|n| n + offset).or_else(|| text.parse().ok())
    };
    let (first, last) = match range.split_once('-') {
        _ if matches!(range, "*" | "?") => (min, max),
        Some((first, last)) => (value(first)?, value(last)?),
        // A step from a number goes on to the end.
        None if part.contains('/') => (value(range)?, max),
        None => (value(range)?, value(range)?),
    };
    (min <= first && first <= last && last <= max)
        .then(|| (first..=last).step_by(step as usize).fold(0, |b, n| b | 1 << n))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn next(schedule: &str, zone: Option<&str>, after: &str) -> String {
        let schedule = Schedule::parse(schedule, zone).unwrap();
        schedule.next(after.parse().unwrap()).map(|t| t.to_string()).unwrap_or_default()
    }

    #[test]
    fn schedules_are_due_when_they_say() {
        let cases = [
            ("* * * * *", "2026-01-01T00:00:30Z", "2026-01-01T00:01:00Z"),
            ("*/15 * * * *", "2026-01-01T00:15:00Z", "2026-01-01T00:30:00Z"),
            ("5 4 * * sun", "2026-01-01T00:00:00Z", "2026-01-04T04:05:00Z"),
            ("0 0 * * 7", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"),
            ("0 22 * * 1-5", "2026-01-02T23:00:00Z", "2026-01-05T22:00:00Z"),
            ("0 0 13 * 5", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
            ("0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("0 0 1 JAN-MAR/2 *", "2026-01-15T00:00:00Z", "2026-03-01T00:00:00Z"),
            ("@hourly", "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"),
            ("0 0 30 2 *", "2026-01-01T00:00:00Z", ""),
        ];
        for (schedule, after, want) in cases {
            assert_eq!(next(schedule, None, after), want, "{schedule}");
        }
        for bad in ["", "* * * *", "60 * * * *", "* * * * * *", "5-1 * * * *", "*/0 * * * *", "x * * * *"] {
            assert!(Schedule::parse(bad, None).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn zones_count_and_unknown_ones_are_refused() {
        let berlin = Some("Europe/Berlin");
        assert_eq!(next("0 12 * * *", berlin, "2026-07-01T00:00:00Z"), "2026-07-01T10:00:00Z");
        assert_eq!(next("30 2 * * *", berlin, "2026-03-29T00:00:00Z"), "2026-03-29T01:30:00Z", "a skipped hour");
        assert!(matches!(Schedule::parse("* * * * *", Some("Nowhere/X")), Err(ScheduleError::Zone(_))));
    }

    #[test]
    fn the_last_due_time_is_found_over_any_gap() {
        let due = |schedule: &str, earliest: &str, now: &str| {
            let schedule = Schedule::parse(schedule, None).unwrap();
            schedule.last_due(earliest.parse().unwrap(), now.parse().unwrap()).map(|(t, n)| (t.to_string(), n))
        };
        let minute = due("* * * * *", "2020-01-01T00:00:00Z", "2026-01-01T00:00:30Z");
        assert_eq!(minute, Some(("2026-01-01T00:00:00Z".into(), 60)));
        let yearly = due("@yearly", "2020-06-01T00:00:00Z", "2026-06-01T00:00:00Z");
        assert_eq!(yearly.unwrap().0, "2026-01-01T00:00:00Z");
        assert_eq!(due("@yearly", "2026-02-01T00:00:00Z", "2026-06-01T00:00:00Z"), None);
    }
}
