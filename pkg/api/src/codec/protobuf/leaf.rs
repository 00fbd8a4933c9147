//! Times and durations between their JSON text and their numbers.

use jiff::Timestamp;

/// Seconds and nanoseconds of a JSON time.
pub(super) fn time_parts(text: &str) -> Option<(i64, i32)> {
    let time: Timestamp = text.parse().ok()?;
    let nanos = time.as_nanosecond();
    let seconds = i64::try_from(nanos.div_euclid(1_000_000_000)).ok()?;
    Some((seconds, i32::try_from(nanos.rem_euclid(1_000_000_000)).ok()?))
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
    fn times_before_1970_have_positive_nanoseconds() {
        assert_eq!(time_parts("1969-12-31T23:59:59.5Z"), Some((-1, 500_000_000)));
        assert_eq!(time_text(-1, 500_000_000, true).as_deref(), Some("1969-12-31T23:59:59.500000Z"));
        assert_eq!(time_text(i64::MAX, 0, false), None);
    }
}
