//! Parts of points in time and of durations.

use jiff::Zoned;

use super::Row;
use crate::cel::call::Call;
use crate::cel::time::zoned;
use crate::cel::value::{Error, Evaluated, Value};

pub(super) const ROWS: &[Row] = &[
    ("getFullYear", "timestamp_to_year", "timestamp.() -> int", year),
    ("getFullYear", "timestamp_to_year_with_tz", "timestamp.(string) -> int", year),
    ("getMonth", "timestamp_to_month", "timestamp.() -> int", month),
    ("getMonth", "timestamp_to_month_with_tz", "timestamp.(string) -> int", month),
    ("getDayOfYear", "timestamp_to_day_of_year", "timestamp.() -> int", day_of_year),
    ("getDayOfYear", "timestamp_to_day_of_year_with_tz", "timestamp.(string) -> int", day_of_year),
    ("getDayOfMonth", "timestamp_to_day_of_month", "timestamp.() -> int", day_of_month),
    ("getDayOfMonth", "timestamp_to_day_of_month_with_tz", "timestamp.(string) -> int", day_of_month),
    ("getDate", "timestamp_to_day_of_month_1_based", "timestamp.() -> int", date),
    ("getDate", "timestamp_to_day_of_month_1_based_with_tz", "timestamp.(string) -> int", date),
    ("getDayOfWeek", "timestamp_to_day_of_week", "timestamp.() -> int", weekday),
    ("getDayOfWeek", "timestamp_to_day_of_week_with_tz", "timestamp.(string) -> int", weekday),
    ("getHours", "timestamp_to_hours", "timestamp.() -> int", hours),
    ("getHours", "timestamp_to_hours_with_tz", "timestamp.(string) -> int", hours),
    ("getHours", "duration_to_hours", "duration.() -> int", hours),
    ("getMinutes", "timestamp_to_minutes", "timestamp.() -> int", minutes),
    ("getMinutes", "timestamp_to_minutes_with_tz", "timestamp.(string) -> int", minutes),
    ("getMinutes", "duration_to_minutes", "duration.() -> int", minutes),
    ("getSeconds", "timestamp_to_seconds", "timestamp.() -> int", seconds),
    ("getSeconds", "timestamp_to_seconds_tz", "timestamp.(string) -> int", seconds),
    ("getSeconds", "duration_to_seconds", "duration.() -> int", seconds),
    ("getMilliseconds", "timestamp_to_milliseconds", "timestamp.() -> int", milliseconds),
    ("getMilliseconds", "timestamp_to_milliseconds_with_tz", "timestamp.(string) -> int", milliseconds),
    ("getMilliseconds", "duration_to_milliseconds", "duration.() -> int", milliseconds),
];

/// What the clock says, or how many of the unit a duration has.
fn part<'a>(call: &mut Call<'a, '_>, of_clock: fn(&Zoned) -> i64, unit: Option<i64>) -> Evaluated<'a> {
    match (call.arg(0), unit) {
        (Value::Duration(nanos), Some(unit)) => Ok(Value::Int(nanos / unit)),
        (Value::Timestamp(nanos), _) => {
            let zone = if call.args.len() > 1 { Some(call.text(1)?) } else { None };
            Ok(Value::Int(of_clock(&zoned(*nanos, zone.as_deref())?)))
        }
        _ => Err(Error::no_overload()),
    }
}

fn year<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    part(call, |z| z.year().into(), None)
}

fn month<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    part(call, |z| i64::from(z.month()) - 1, None)
}

fn day_of_year<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    part(call, |z| i64::from(z.day_of_year()) - 1, None)
}

fn day_of_month<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    part(call, |z| i64::from(z.day()) - 1, None)
}

fn date<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    part(call, |z| z.day().into(), None)
}

fn weekday<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    part(call, |z| z.weekday().to_sunday_zero_offset().into(), None)
}

fn hours<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    part(call, |z| z.hour().into(), Some(3_600_000_000_000))
}

fn minutes<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    part(call, |z| z.minute().into(), Some(60_000_000_000))
}

fn seconds<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    part(call, |z| z.second().into(), Some(1_000_000_000))
}

fn milliseconds<'a>(call: &mut Call<'a, '_>) -> Evaluated<'a> {
    part(call, |z| z.millisecond().into(), Some(1_000_000))
}
