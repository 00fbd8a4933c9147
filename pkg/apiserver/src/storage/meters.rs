//! Metrics of collections, under upstream's names: those of a watch cache and of the datastore below.

use std::sync::LazyLock;
use std::time::Duration;

use kube1_telemetry::metrics::{Counter, Counters, Gauges, Histograms, Names, shared};

const RESOURCE: Names = &["group", "resource"];
const INDEXED: Names = &["group", "resource", "index"];
const OPERATION: Names = &["operation", "group", "resource"];
const TIMES: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];

static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    shared(|r| Metrics {
        received: r.counters(
            "apiserver_storage_events_received",
            "Number of etcd events received, split by resource",
            RESOURCE,
        ),
        cached: r.counters(
            "apiserver_watch_cache_events_received",
            "Counter of events received in watch cache, by resource",
            RESOURCE,
        ),
        dispatched: r.counters(
            "apiserver_watch_cache_events_dispatched",
            "Counter of events dispatched in watch cache, by resource",
            RESOURCE,
        ),
        initialized: r.counters(
            "apiserver_watch_cache_initializations",
            "Counter of watch cache initializations, by resource",
            RESOURCE,
        ),
        initial: r.counters("apiserver_init_events", "Counter of init events processed in watch cache", RESOURCE),
        lists: r.counters("apiserver_cache_list", "Number of LIST requests served from watch cache", INDEXED),
        fetched: r.counters(
            "apiserver_cache_list_fetched_objects",
            "Number of objects read from watch cache in the course of serving a LIST request",
            INDEXED,
        ),
        requests: r.counters("etcd_requests", "Requests to the datastore, by operation and resource", OPERATION),
        failures: r.counters(
            "etcd_request_errors",
            "Failed requests to the datastore, by operation and resource",
            OPERATION,
        ),
        times: r.histograms(
            "etcd_request_duration_seconds",
            "Request latency of the datastore in seconds, by operation and resource",
            OPERATION,
            TIMES,
        ),
        revision: r.gauges(
            "apiserver_watch_cache_resource_version",
            "Current resource version of watch cache, by resource",
            RESOURCE,
        ),
    })
});

struct Metrics {
    received: Counters,
    cached: Counters,
    dispatched: Counters,
    initialized: Counters,
    initial: Counters,
    lists: Counters,
    fetched: Counters,
    requests: Counters,
    failures: Counters,
    times: Histograms,
    revision: Gauges,
}

/// Those of one collection.
pub(super) struct Meters {
    group: String,
    resource: String,
    received: Counter,
    cached: Counter,
    dispatched: Counter,
    initial: Counter,
}

impl Meters {
    /// `prefix` is what the collection's keys begin with: root, group and resource.
    pub fn new(prefix: &str) -> Self {
        let mut parts = prefix.trim_matches('/').split('/').skip(1);
        let group = parts.next().filter(|group| *group != "core").unwrap_or_default();
        let resource = parts.next().unwrap_or_default();
        let (metrics, names) = (&*METRICS, [group, resource]);
        metrics.initialized.inc(&names);
        Self {
            group: group.to_owned(),
            resource: resource.to_owned(),
            received: metrics.received.at(&names),
            cached: metrics.cached.at(&names),
            dispatched: metrics.dispatched.at(&names),
            initial: metrics.initial.at(&names),
        }
    }

    /// Notes objects of the first state.
    pub fn loaded(&self) {
        self.initial.inc();
    }

    /// Notes a change.
    pub fn changed(&self) {
        self.received.inc();
        self.cached.inc();
        self.dispatched.inc();
    }

    /// Notes a list, and how many objects it has to look at.
    pub fn listed(&self, index: &str, fetched: usize) {
        let names = [self.group.as_str(), &self.resource, index];
        METRICS.lists.inc(&names);
        METRICS.fetched.add(&names, fetched as u64);
    }

    /// Notes a request to the datastore. That somebody else was faster is no failure of it.
    pub fn requested(&self, operation: &str, failed: bool, took: Duration) {
        let names = [operation, self.group.as_str(), &self.resource];
        METRICS.requests.inc(&names);
        METRICS.times.observe(&names, took.as_secs_f64());
        if failed {
            METRICS.failures.inc(&names);
        }
    }

    /// Tells the revision of the last change, when the metrics are read.
    pub fn show(&self, revision: u64) {
        METRICS.revision.set(&[&self.group, &self.resource], revision as f64);
    }
}
