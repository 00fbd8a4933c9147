//! Points in time and durations as Go reads and writes them.

use jiff::tz::{Offset, TimeZone};
use jiff::{Timestamp, Zoned, civil};

use super::value::Error;

const SECOND: i128 = 1_000_000_000;
/// Years 1 to 9999.
pub(super) const EARLIEST: i128 = -62_135_596_800 * SECOND;
pub(super) const LATEST: i128 = 253_402_300_799 * SECOND + SECOND - 1;

/// RFC 3339, in nanoseconds since 1970.
pub(super) fn read_timestamp(text: &str) -> Option<i128> {
    let bytes = text.as_bytes();
    let shape = bytes.len() >= 20 && bytes[10].eq_ignore_ascii_case(&b'T') && bytes[4] == b'-' && bytes[13] == b':';
    let at: Timestamp = shape.then(|| text.parse().ok()).flatten()?;
    Some(at.as_nanosecond())
}

pub(super) fn read_date(text: &str) -> Option<i128> {
    let date: civil::Date = (text.len() == 10).then(|| text.parse().ok()).flatten()?;
    Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp().as_nanosecond())
}

pub(super) fn show_timestamp(nanos: i128) -> String {
    Timestamp::from_nanosecond(nanos).map_or_else(|_| nanos.to_string(), |at| at.to_string())
}

/// The time on a wall clock; a zone is a name or an offset such as `-08:00`.
pub(super) fn zoned(nanos: i128, zone: Option<&str>) -> Result<Zoned, Error> {
    let at = Timestamp::from_nanosecond(nanos).map_err(Error::failed)?;
    let zone = match zone {
        None | Some("" | "UTC") => TimeZone::UTC,
        Some(name) => match name.split_once(':') {
            Some((hours, minutes)) => {
                let wrong = || Error::failed(format!("unknown time zone {name}"));
                let negative = hours.starts_with('-');
                let hours: i32 = hours.trim_start_matches(['+', '-']).parse().map_err(|_| wrong())?;
                let minutes: i32 = minutes.parse().map_err(|_| wrong())?;
                let seconds = (hours.checked_mul(60).and_then(|h| h.checked_add(minutes)).ok_or_else(wrong)?)
                    .checked_mul(if negative { -60 } else { 60 })
                    .ok_or_else(wrong)?;
                TimeZone::fixed(Offset::from_seconds(seconds).map_err(|_| wrong())?)
            }
            None => TimeZone::get(name).map_err(|_| Error::failed(format!("unknown time zone {name}")))?,
        },
    };
    Ok(at.to_zoned(zone))
}

const UNITS: [(&str, f64); 8] =
    [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("μs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)];

/// `1h30m`, `-1.5s`, `0`; in nanoseconds.
pub(super) fn read_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total: i128 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return None;
        }
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        let part: f64 = if fraction.is_empty() { 0.0 } else { format!("0.{fraction}").parse().ok()? };
        total = total.checked_add(whole.checked_mul(*factor as i128)?.checked_add((part * factor) as i128)?)?;
        rest = next;
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

/// Seconds with their fraction, as CEL writes durations.
pub(super) fn show_duration(nanos: i64) -> String {
    let (sign, nanos) = (if nanos < 0 { "-" } else { "" }, nanos.unsigned_abs());
    let (seconds, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    if rest == 0 {
        return format!("{sign}{seconds}s");
    }
    let fraction = format!("{rest:09}");
    format!("{sign}{seconds}.{}s", fraction.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_does() {
        for (text, nanos) in [
            ("1h30m", Some(5_400_000_000_000)),
            ("-1.5s", Some(-1_500_000_000)),
            ("0", Some(0)),
            ("1us500ns", Some(1500)),
            ("", None),
            ("1", None),
            ("1x", None),
            (".s", None),
            ("10000000h", None),
        ] {
            assert_eq!(read_duration(text), nanos, "{text}");
        }
        assert_eq!(show_duration(-1_500_000_000), "-1.5s");
        assert_eq!(read_timestamp("2020-01-01T00:00:00+01:00"), Some(1_577_833_200 * SECOND));
        assert_eq!(read_timestamp("2020-01-01 00:00:00Z"), None);
        assert_eq!(zoned(0, Some("-08:30")).map(|z| z.hour()), Ok(15));
    }
}
