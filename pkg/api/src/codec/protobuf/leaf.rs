//! Times and durations between their JSON text and their numbers.

use std::ops::Range;

use jiff::Timestamp;

/// Seconds and nanoseconds of a JSON time.
pub(super) fn time_parts(text: &str) -> Option<(i64, i32)> {
    if let Some(seconds) = utc_seconds(text.as_bytes()) {
        return Some((seconds, 0));
    }
    let time: Timestamp = text.parse().ok()?;
    let nanos = time.as_nanosecond();
    let seconds = i64::try_from(nanos.div_euclid(1_000_000_000)).ok()?;
    Some((seconds, i32::try_from(nanos.rem_euclid(1_000_000_000)).ok()?))
}

/// The usual form, `2026-01-02T03:04:05Z`, from 1970 on.
fn utc_seconds(text: &[u8]) -> Option<i64> {
    let text: &[u8; 20] = text.try_into().ok()?;
    let number = |at: Range<usize>| {
        let digits = &text[at];
        digits.iter().all(u8::is_ascii_digit).then(|| digits.iter().fold(0, |n, d| n * 10 + i64::from(d - b'0')))
    };
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let marks = [text[4], text[7], text[10], text[13], text[16], text[19]] == *b"--T::Z";
    // Days at the end of a month, and leap seconds, are left to those who know calendars.
    if !(marks && year >= 1970 && (1..=12).contains(&month) && (1..=28).contains(&day)) {
        return None;
    }
    // Years begin in March, so that the leap day is their last one.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    (hour < 24 && minute < 60 && second < 60).then_some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

/// The JSON time, with six digits of fraction when `micro`.
pub(super) fn time_text(seconds: i64, nanos: i32, micro: bool) -> Option<String> {
    let time = Timestamp::new(seconds, nanos).ok()?;
    let format = if micro { "%Y-%m-%dT%H:%M:%S.%6fZ" } else { "%Y-%m-%dT%H:%M:%SZ" };
    Some(time.strftime(format).to_string())
}

const UNITS: [(&str, i64); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Nanoseconds of a text such as `1h2m3.5s`.
pub(super) fn duration_nanos(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0_i64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let amount: f64 = rest[..digits].parse().ok()?;
        let unit_end =
            rest[digits..].find(|c: char| c.is_ascii_digit() || c == '.').map_or(rest.len(), |end| digits + end);
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == &rest[digits..unit_end])?;
        total = total.checked_add((amount * *unit as f64) as i64)?;
        rest = &rest[unit_end..];
    }
    Some(if negative { -total } else { total })
}

/// The text of a duration: hours, minutes and seconds with a fraction; short ones in smaller units.
pub(super) fn duration_text(nanos: i64) -> String {
    if nanos == 0 {
        return "0s".to_owned();
    }
    let sign = if nanos < 0 { "-" } else { "" };
    let amount = nanos.unsigned_abs();
    let fraction = |value: u64, unit: u64, name: &str| {
        let digits = format!("{:0width$}", value % unit, width = unit.ilog10() as usize);
        let digits = digits.trim_end_matches('0');
        let dot = if digits.is_empty() { "" } else { "." };
        format!("{}{dot}{digits}{name}", value / unit)
    };
    match amount {
        ..1_000 => format!("{sign}{amount}ns"),
        1_000..1_000_000 => format!("{sign}{}", fraction(amount, 1_000, "µs")),
        1_000_000..1_000_000_000 => format!("{sign}{}", fraction(amount, 1_000_000, "ms")),
        _ => {
            let seconds = fraction(amount % 60_000_000_000, 1_000_000_000, "s");
            let minutes = amount / 60_000_000_000;
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{sign}{seconds}"),
                (0, minutes) => format!("{sign}{minutes}m{seconds}"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_go_both_ways() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (20_000_000, "20ms"),
            (1_000_000_000, "1s"),
            (90_500_000_000, "1m30.5s"),
            (3_600_000_000_000, "1h0m0s"),
            (-5_000_000_000, "-5s"),
        ] {
            assert_eq!(duration_text(nanos), text);
            assert_eq!(duration_nanos(text), Some(nanos), "{text}");
        }
        assert_eq!(duration_nanos(""), None);
        assert_eq!(duration_nanos("5"), None);
        assert_eq!(duration_nanos("1x"), None);
    }

    #[test]
    fn usual_times_are_those_of_the_calendar() {
        let mut tried = 0;
        for seconds in (0..4_102_444_800).step_by(86_400 * 9 + 12_345) {
            let text = time_text(seconds, 0, false).unwrap_or_default();
            let usual = utc_seconds(text.as_bytes());
            tried += usize::from(usual.is_some());
            assert!(usual.is_none_or(|usual| usual == seconds), "{text}: {usual:?}");
            assert_eq!(time_parts(&text), Some((seconds, 0)), "{text}");
        }
        assert!(tried > 4000, "{tried}");
        for other in
            ["2026-13-02T03:04:05Z", "2026-01-02 03:04:05Z", "2026-01-02T24:04:05Z", "2026-01-02T03:04:05+", ""]
        {
            assert_eq!(utc_seconds(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn times_before_1970_have_positive_nanoseconds() {
        assert_eq!(time_parts("1969-12-31T23:59:59.5Z"), Some((-1, 500_000_000)));
        assert_eq!(time_text(-1, 500_000_000, true).as_deref(), Some("1969-12-31T23:59:59.500000Z"));
        assert_eq!(time_text(i64::MAX, 0, false), None);
    }
}
