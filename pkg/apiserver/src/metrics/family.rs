//! Metrics with labels whose names are known at start.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

type Labels = Vec<(&'static str, String)>;
/// A number that goes up and down.
pub type Gauge = gauge::Gauge<f64, AtomicU64>;
/// Names of labels.
pub type Names = &'static [&'static str];

fn labels(names: Names, values: &[&str]) -> Labels {
    debug_assert_eq!(names.len(), values.len());
    names.iter().zip(values).map(|(name, value)| (*name, (*value).to_owned())).collect()
}

/// Takes metrics in before the first request.
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
        let counters = Counters { names, family: Family::default() };
        self.register(name, help, counters.family.clone());
        counters
    }

    pub fn gauges(&mut self, name: &str, help: &str, names: Names) -> Gauges {
        let gauges = Gauges { names, family: Family::default() };
        self.register(name, help, gauges.family.clone());
        gauges
    }

    pub fn histograms(&mut self, name: &str, help: &str, names: Names, buckets: &'static [f64]) -> Histograms {
        let family = Family::new_with_constructor(Buckets(buckets));
        self.register(name, help, family.clone());
        Histograms { names, family }
    }

    pub fn finish(self) -> Registry {
        self.registry
    }
}

/// Counters that differ in their labels' values. Cheap to clone.
#[derive(Clone)]
pub struct Counters {
    names: Names,
    family: Family<Labels, Counter>,
}

impl Counters {
    /// The one of these values, to be kept by who counts often.
    pub fn at(&self, values: &[&str]) -> Counter {
        self.family.get_or_create(&labels(self.names, values)).clone()
    }

    pub fn inc(&self, values: &[&str]) {
        self.add(values, 1);
    }

    pub fn add(&self, values: &[&str], count: u64) {
        self.family.get_or_create(&labels(self.names, values)).inc_by(count);
    }
}

/// Gauges that differ in their labels' values. Cheap to clone.
#[derive(Clone)]
pub struct Gauges {
    names: Names,
    family: Family<Labels, Gauge>,
}

impl Gauges {
    /// The one of these values, to be kept by who sets it often.
    pub fn at(&self, values: &[&str]) -> Gauge {
        self.family.get_or_create(&labels(self.names, values)).clone()
    }

    pub fn set(&self, values: &[&str], value: f64) {
        self.family.get_or_create(&labels(self.names, values)).set(value);
    }

    pub fn add(&self, values: &[&str], value: f64) {
        self.family.get_or_create(&labels(self.names, values)).inc_by(value);
    }

    pub fn remove(&self, values: &[&str]) {
        self.family.remove(&labels(self.names, values));
    }

    /// Counts one up until the guard is dropped.
    pub fn hold(&self, values: &[&str]) -> Held {
        let gauge = self.family.get_or_create(&labels(self.names, values)).clone();
        gauge.inc();
        Held(gauge)
    }
}

/// One in a gauge; dropping it takes it out.
pub struct Held(Gauge);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Histograms that differ in their labels' values. Cheap to clone.
#[derive(Clone)]
pub struct Histograms {
    names: Names,
    family: Family<Labels, Histogram, Buckets>,
}

impl Histograms {
    /// The one of these values, to be kept by who observes often.
    pub fn at(&self, values: &[&str]) -> Histogram {
        self.family.get_or_create(&labels(self.names, values)).clone()
    }

    pub fn observe(&self, values: &[&str], value: f64) {
        self.family.get_or_create(&labels(self.names, values)).observe(value);
    }
}

#[derive(Clone)]
struct Buckets(&'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}
