//! `key: value` lines.

use std::time::Duration;

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    More,
    Less,
}

/// One figure of one phase.
#[derive(Clone, Debug)]
pub struct Figure {
    pub key: String,
    pub value: f64,
    pub better: Better,
}

pub fn more(key: impl Into<String>, value: f64) -> Figure {
    Figure { key: key.into(), value, better: Better::More }
}

pub fn less(key: impl Into<String>, value: f64) -> Figure {
    Figure { key: key.into(), value, better: Better::Less }
}

/// Median and 99th percentile in milliseconds.
pub fn percentiles(key: &str, mut samples: Vec<Duration>) -> Vec<Figure> {
    samples.sort();
    let at = |part: f64| samples.get(((samples.len() as f64 * part) as usize).min(samples.len().saturating_sub(1)));
    let figure = |name, part| at(part).map(|s| less(format!("{key}_{name}_ms"), s.as_secs_f64() * 1e3));
    [figure("p50", 0.5), figure("p99", 0.99)].into_iter().flatten().collect()
}

/// Prints the median of each figure over a phase's rounds; for two servers both, and how many times better the first is.
///
/// `servers` holds, for each server, the figures of each round.
pub fn print(servers: &[Vec<Vec<Figure>>]) {
    let Some(first) = servers.first().and_then(|rounds| rounds.first()) else { return };
    for figure in first {
        let medians: Vec<f64> = servers.iter().filter_map(|rounds| median(rounds, &figure.key)).collect();
        println!("{}: {}", figure.key, digits(medians[0]));
        if let [one, other] = medians[..] {
            let ratio = if figure.better == Better::More { one / other } else { other / one };
            println!("{}_against: {}", figure.key, digits(other));
            println!("{}_ratio: {}", figure.key, digits(ratio));
        }
    }
}

fn median(rounds: &[Vec<Figure>], key: &str) -> Option<f64> {
    let mut values: Vec<f64> = rounds.iter().flatten().filter(|f| f.key == key).map(|f| f.value).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Three digits after the point for small numbers, none for large ones.
fn digits(value: f64) -> String {
    match value {
        v if v.abs() < 10.0 => format!("{v:.3}"),
        v if v.abs() < 1000.0 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    }
}
