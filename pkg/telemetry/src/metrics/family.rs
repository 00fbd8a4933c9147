//! Metrics with labels whose names are known at start.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use equivalent::Equivalent;
use hashbrown::HashMap;
use parking_lot::RwLock;
use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, LabelSetEncoder, MetricEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::{Metric, Registry};

use super::text::classic;

/// A number that goes up and down.
pub type Gauge = gauge::Gauge<f64, AtomicU64>;
/// Names of labels.
pub type Names = &'static [&'static str];

/// Takes metrics in. What has no labels is told from then on, the rest once it was counted.
#[derive(Default)]
pub struct Registrar {
    registry: Registry,
}

impl Registrar {
    fn register<M: Metric>(&mut self, name: &str, help: &str, metric: M) {
        self.registry.register(name, help.trim_end_matches('.'), metric);
    }

    /// A counter; `name` is without the ending `_total`, which it gets.
    pub fn counters(&mut self, name: &str, help: &str, names: Names) -> Counters {
        let counters = Counters(Family::new(names, Counter::default));
        if names.is_empty() {
            counters.at(&[]);
        }
        self.register(name, help, counters.0.clone());
        counters
    }

    pub fn gauges(&mut self, name: &str, help: &str, names: Names) -> Gauges {
        let gauges = Gauges(Family::new(names, Gauge::default));
        if names.is_empty() {
            gauges.at(&[]);
        }
        self.register(name, help, gauges.0.clone());
        gauges
    }

    pub fn histograms(&mut self, name: &str, help: &str, names: Names, buckets: &'static [f64]) -> Histograms {
        let family = Family::new(names, move || Histogram::new(buckets.iter().copied()));
        if names.is_empty() {
            family.with(&[], |_| ());
        }
        self.register(name, help, family.clone());
        Histograms(family)
    }

    /// The text that Prometheus reads, in its classic format.
    pub fn render(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        // Metrics that have no labels.
        Ok(classic(&text.replace("{} ", " ")))
    }
}

/// Counters that differ in their labels' values. Cheap to clone.
#[derive(Clone)]
pub struct Counters(Family<Counter>);

impl Counters {
    /// The one of these values, to be kept by who counts often.
    pub fn at(&self, values: &[&str]) -> Counter {
        self.0.with(values, Counter::clone)
    }

    pub fn inc(&self, values: &[&str]) {
        self.add(values, 1);
    }

    pub fn add(&self, values: &[&str], count: u64) {
        self.0.with(values, |counter| counter.inc_by(count));
    }

    pub fn remove(&self, values: &[&str]) {
        self.0.metrics.write().remove(&Asked(values));
    }
}

/// Gauges that differ in their labels' values. Cheap to clone.
#[derive(Clone)]
pub struct Gauges(Family<Gauge>);

impl Gauges {
    /// The one of these values, to be kept by who sets it often.
    pub fn at(&self, values: &[&str]) -> Gauge {
        self.0.with(values, Gauge::clone)
    }

    pub fn set(&self, values: &[&str], value: f64) {
        self.0.with(values, |gauge| gauge.set(value));
    }

    pub fn add(&self, values: &[&str], value: f64) {
        self.0.with(values, |gauge| gauge.inc_by(value));
    }

    pub fn remove(&self, values: &[&str]) {
        self.0.metrics.write().remove(&Asked(values));
    }

    /// Counts one up until the guard is dropped.
    pub fn hold(&self, values: &[&str]) -> Held {
        Held::new(self.at(values))
    }
}

/// One in a gauge; dropping it takes it out.
pub struct Held(Gauge);

impl Held {
    pub fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Histograms that differ in their labels' values. Cheap to clone.
#[derive(Clone)]
pub struct Histograms(Family<Histogram>);

impl Histograms {
    /// The one of these values, to be kept by who observes often.
    pub fn at(&self, values: &[&str]) -> Histogram {
        self.0.with(values, Histogram::clone)
    }

    pub fn observe(&self, values: &[&str], value: f64) {
        self.0.with(values, |histogram| histogram.observe(value));
    }
}

/// Metrics of one name. One that exists is found without making its labels anew, since every request looks for several.
struct Family<M> {
    names: Names,
    make: Arc<dyn Fn() -> M + Send + Sync>,
    metrics: Arc<RwLock<HashMap<Values, M>>>,
}

/// The values of a metric's labels, in the order of their names.
pub type Values = Box<[Box<str>]>;

/// Values that are looked for in a map whose keys are [`Values`].
#[derive(Debug)]
pub struct Asked<'a>(pub &'a [&'a str]);

impl Hash for Asked<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl Equivalent<Values> for Asked<'_> {
    fn equivalent(&self, values: &Values) -> bool {
        self.0.iter().copied().eq(values.iter().map(|value| &**value))
    }
}

impl<M> Family<M> {
    fn new(names: Names, make: impl Fn() -> M + Send + Sync + 'static) -> Self {
        Self { names, make: Arc::new(make), metrics: Arc::default() }
    }

    /// Hands the metric of these values to `work`, which may not ask for another of the family.
    fn with<T>(&self, values: &[&str], work: impl FnOnce(&M) -> T) -> T {
        debug_assert_eq!(self.names.len(), values.len());
        if let Some(found) = self.metrics.read().get(&Asked(values)) {
            return work(found);
        }
        let owned = values.iter().map(|value| (*value).into()).collect();
        work(self.metrics.write().entry(owned).or_insert_with(|| (self.make)()))
    }
}

impl<M> Clone for Family<M> {
    fn clone(&self) -> Self {
        Self { names: self.names, make: self.make.clone(), metrics: self.metrics.clone() }
    }
}

impl<M> fmt::Debug for Family<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Family").field("names", &self.names).finish_non_exhaustive()
    }
}

/// Labels as the registry writes them.
struct Labels<'a>(Names, &'a Values);

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let pairs: Vec<(&str, &str)> = self.0.iter().copied().zip(self.1.iter().map(|value| &**value)).collect();
        pairs.encode(encoder)
    }
}

impl<M: EncodeMetric + TypedMetric> EncodeMetric for Family<M> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (values, metric) in self.metrics.read().iter() {
            metric.encode(encoder.encode_family(&Labels(self.names, values))?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }

    fn is_empty(&self) -> bool {
        self.metrics.read().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_found_again_by_its_values_alone() {
        let mut registrar = Registrar::default();
        let counters = registrar.counters("x", "Things", &["a", "b"]);
        for (a, b) in [("1", "23"), ("12", "3"), ("1", "23"), ("", "")] {
            counters.inc(&[a, b]);
        }
        let gauges = registrar.gauges("y", "Things", &[]);
        gauges.add(&[], 2.0);
        let held = gauges.hold(&[]);
        assert_eq!(counters.at(&["1", "23"]).get(), 2);
        assert_eq!(counters.at(&["12", "3"]).get(), 1);
        assert_eq!(gauges.at(&[]).get(), 3.0);
        drop(held);
        gauges.remove(&[]);
        let text = registrar.render().unwrap_or_default();
        assert!(
            text.contains("x_total{a=\"12\",b=\"3\"} 1\n") && text.contains("x_total{a=\"1\",b=\"23\"} 2\n"),
            "{text}"
        );
        assert!(!text.contains('y'), "{text}");
    }
}
