//! `key: value` lines.

use std::fmt::Display;
use std::time::Duration;

pub fn line(key: &str, value: impl Display) {
    println!("{key}: {value}");
}

/// Milliseconds with three digits.
pub fn milliseconds(duration: Duration) -> String {
    format!("{:.3}", duration.as_secs_f64() * 1e3)
}

pub fn per_second(count: usize, duration: Duration) -> String {
    format!("{:.1}", count as f64 / duration.as_secs_f64())
}

/// Prints median and 99th percentile.
pub fn percentiles(key: &str, mut samples: Vec<Duration>) {
    samples.sort();
    let at = |part: f64| samples.get(((samples.len() as f64 * part) as usize).min(samples.len().saturating_sub(1)));
    for (name, part) in [("p50", 0.5), ("p99", 0.99)] {
        if let Some(sample) = at(part) {
            line(&format!("{key}_{name}_ms"), milliseconds(*sample));
        }
    }
}

/// Memory of a process in MB (PSS), if it can be read.
pub fn memory(key: &str, pid: Option<u32>) {
    let Some(pid) = pid else { return };
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let kilobytes = text.lines().find_map(|l| l.strip_prefix("Pss:")?.trim().split(' ').next()?.parse::<f64>().ok());
    if let Some(kilobytes) = kilobytes {
        line(key, format!("{:.1}", kilobytes / 1024.0));
    }
}
