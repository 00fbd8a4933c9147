//! Cron schedules: five fields, or a name such as `@daily`.

const NAMES: [&str; 7] = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];
const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

struct Bounds {
    low: u32,
    high: u32,
    names: &'static [&'static str],
}

const FIELDS: [Bounds; 5] = [
    Bounds { low: 0, high: 59, names: &[] },
    Bounds { low: 0, high: 23, names: &[] },
    Bounds { low: 1, high: 31, names: &[] },
    Bounds { low: 1, high: 12, names: &MONTHS },
    Bounds { low: 0, high: 6, names: &DAYS },
];

/// What is wrong with a schedule.
pub(super) fn check(schedule: &str) -> Result<(), String> {
    let text = match schedule.strip_prefix("TZ=").or_else(|| schedule.strip_prefix("CRON_TZ=")) {
        Some(rest) => rest.split_once(' ').map_or("", |(_, rest)| rest).trim(),
        None => schedule,
    };
    if text.is_empty() {
        return Err("empty spec string".into());
    }
    if let Some(every) = text.strip_prefix("@every ") {
        return if is_duration(every) { Ok(()) } else { Err(format!("failed to parse duration {text}")) };
    }
    if text.starts_with('@') {
        return if NAMES.contains(&text) { Ok(()) } else { Err(format!("unrecognized descriptor: {text}")) };
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    }
    fields.iter().zip(&FIELDS).try_for_each(|(field, bounds)| field.split(',').try_for_each(|part| range(part, bounds)))
}

/// `*`, `a`, `a-b`, each with `/step`.
fn range(text: &str, bounds: &Bounds) -> Result<(), String> {
    let mut steps = text.split('/');
    let (span, step, extra) = (steps.next().unwrap_or_default(), steps.next(), steps.next());
    if extra.is_some() {
        return Err(format!("too many slashes: {text}"));
    }
    let (mut low, mut high) = (bounds.low, bounds.high);
    if !matches!(span, "*" | "?") {
        let mut ends = span.split('-');
        low = number(ends.next().unwrap_or_default(), bounds)?;
        high = match ends.next() {
            Some(end) => number(end, bounds)?,
            None if step.is_some() => bounds.high,
            None => low,
        };
        if ends.next().is_some() {
            return Err(format!("too many hyphens: {text}"));
        }
    }
    if let Some(step) = step {
        let step: u32 = step.parse().map_err(|_| format!("failed to parse int from {step}"))?;
        if step == 0 {
            return Err(format!("step of range should be a positive number: {text}"));
        }
    }
    if low < bounds.low {
        return Err(format!("beginning of range ({low}) below minimum ({}): {text}", bounds.low));
    }
    if high > bounds.high {
        return Err(format!("end of range ({high}) above maximum ({}): {text}", bounds.high));
    }
    if low > high {
        return Err(format!("beginning of range ({low}) beyond end of range ({high}): {text}"));
    }
    Ok(())
}

fn number(text: &str, bounds: &Bounds) -> Result<u32, String> {
    if let Some(index) = bounds.names.iter().position(|name| text.eq_ignore_ascii_case(name)) {
        return Ok(bounds.low + u32::try_from(index).unwrap_or(u32::MAX));
    }
    text.parse().map_err(|_| format!("failed to parse int from {text}"))
}

/// A duration such as `1h30m`.
fn is_duration(text: &str) -> bool {
    let mut rest = text.trim();
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let unit = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |n| digits + n);
        if digits == 0 || !matches!(&rest[digits..unit], "ns" | "us" | "µs" | "ms" | "s" | "m" | "h") {
            return false;
        }
        rest = &rest[unit..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_understood() {
        for good in
            ["* * * * *", "*/5 0-6 1,15 JAN-mar mon", "0 12 ? * 1-5/2", "@hourly", "@every 1h30m", "TZ=UTC 0 0 * * *"]
        {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in
            ["", "* * * *", "60 * * * *", "* * 0 * *", "5-1 * * * *", "*/0 * * * *", "a * * * *", "@often", "@every x"]
        {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
