//! Counters and histograms in Prometheus' text format, by their labels.

use std::collections::BTreeMap;
use std::fmt::Write;

use parking_lot::Mutex;

/// Bounds for what takes milliseconds to seconds, as Prometheus' own clients have them.
pub const SECONDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Counters of one name.
#[derive(Debug)]
pub struct Counters {
    name: &'static str,
    help: &'static str,
    series: Mutex<BTreeMap<String, f64>>,
}

impl Counters {
    pub const fn new(name: &'static str, help: &'static str) -> Self {
        Self { name, help, series: Mutex::new(BTreeMap::new()) }
    }

    /// Adds to the counter with these labels, such as `a="b",c="d"`.
    pub fn add(&self, labels: &str, amount: f64) {
        let mut series = self.series.lock();
        match series.get_mut(labels) {
            Some(count) => *count += amount,
            None => drop(series.insert(labels.to_owned(), amount)),
        }
    }

    /// Keeps only the counters whose labels fulfil a condition.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.series.lock().retain(|labels, _| keep(labels));
    }

    pub fn write(&self, out: &mut String) {
        let Self { name, help, .. } = self;
        // Writing to a string cannot fail.
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter");
        for (labels, count) in &*self.series.lock() {
            let _ = writeln!(out, "{name}{} {count}", braces(labels));
        }
    }
}

/// Histograms of one name.
#[derive(Debug)]
pub struct Histograms {
    name: &'static str,
    help: &'static str,
    bounds: &'static [f64],
    series: Mutex<BTreeMap<String, Histogram>>,
}

/// How often something was in each range, and its sum.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    /// One for each bound; what is above the last is in the count only.
    buckets: Vec<u64>,
    count: u64,
    sum: f64,
}

impl Histogram {
    pub fn observe(&mut self, bounds: &[f64], value: f64) {
        self.buckets.resize(bounds.len(), 0);
        if let Some(at) = bounds.iter().position(|bound| value <= *bound) {
            self.buckets[at] += 1;
        }
        self.count += 1;
        self.sum += value;
    }

    /// From what was counted elsewhere; `buckets` are not cumulative.
    pub fn of(buckets: &[u64], count: u64, sum: f64) -> Self {
        Self { buckets: buckets.to_vec(), count, sum }
    }
}

impl Histograms {
    pub const fn new(name: &'static str, help: &'static str, bounds: &'static [f64]) -> Self {
        Self { name, help, bounds, series: Mutex::new(BTreeMap::new()) }
    }

    pub fn observe(&self, labels: &str, value: f64) {
        let mut series = self.series.lock();
        match series.get_mut(labels) {
            Some(histogram) => histogram.observe(self.bounds, value),
            None => series.entry(labels.to_owned()).or_default().observe(self.bounds, value),
        }
    }

    /// Keeps only the histograms whose labels fulfil a condition.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.series.lock().retain(|labels, _| keep(labels));
    }

    pub fn write(&self, out: &mut String) {
        write_histograms(out, self.name, self.help, self.bounds, &*self.series.lock());
    }
}

/// One family of histograms.
pub fn write_histograms<'a>(
    out: &mut String,
    name: &str,
    help: &str,
    bounds: &[f64],
    series: impl IntoIterator<Item = (&'a String, &'a Histogram)>,
) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} histogram");
    for (labels, Histogram { buckets, count, sum }) in series {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut below = 0;
        for (bound, bucket) in bounds.iter().zip(buckets) {
            below += bucket;
            let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {below}");
        }
        let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}");
        let _ = writeln!(out, "{name}_sum{} {sum}\n{name}_count{} {count}", braces(labels), braces(labels));
    }
}

fn braces(labels: &str) -> String {
    if labels.is_empty() { String::new() } else { format!("{{{labels}}}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_series_are_forgotten() {
        let times = Histograms::new("t_seconds", "Times.", &[0.5, 1.0]);
        for value in [0.2, 0.5, 0.7, 3.0] {
            times.observe("a=\"b\"", value);
        }
        times.observe("", 1.0);
        let mut out = String::new();
        times.write(&mut out);
        let expected = "# HELP t_seconds Times.\n# TYPE t_seconds histogram\n\
            t_seconds_bucket{le=\"0.5\"} 0\nt_seconds_bucket{le=\"1\"} 1\nt_seconds_bucket{le=\"+Inf\"} 1\n\
            t_seconds_sum 1\nt_seconds_count 1\n\
            t_seconds_bucket{a=\"b\",le=\"0.5\"} 2\nt_seconds_bucket{a=\"b\",le=\"1\"} 3\n\
            t_seconds_bucket{a=\"b\",le=\"+Inf\"} 4\nt_seconds_sum{a=\"b\"} 4.4\nt_seconds_count{a=\"b\"} 4\n";
        assert_eq!(out, expected);
        let counters = Counters::new("c_total", "Counts.");
        counters.add("pod=\"x\"", 1.0);
        counters.add("pod=\"y\"", 2.0);
        counters.retain(|labels| labels.contains('y'));
        let mut out = String::new();
        counters.write(&mut out);
        assert_eq!(out, "# HELP c_total Counts.\n# TYPE c_total counter\nc_total{pod=\"y\"} 2\n");
    }
}
