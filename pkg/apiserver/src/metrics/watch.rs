//! Metrics of watches.

use std::sync::LazyLock;
use std::time::Instant;

use super::{Counters, Histograms, Names};
use kube1_telemetry::metrics::{Counter, Histogram, exponential, shared};

const RESOURCE: Names = &["group", "version", "resource"];
const SCOPED: Names = &["group", "version", "resource", "scope"];
const LIST_TIMES: &[f64] =
    &[0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0];
static SIZES: [f64; 8] = exponential(1024.0, 2.0);

static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    shared(|r| Metrics {
        events: r.counters("apiserver_watch_events", "Number of events sent in watch clients", RESOURCE),
        sizes: r.histograms("apiserver_watch_events_sizes", "Watch event size distribution in bytes", RESOURCE, &SIZES),
        lists: r.histograms(
            "apiserver_watch_list_duration_seconds",
            "Response latency of watch lists in seconds, until the end of the initial events",
            SCOPED,
            LIST_TIMES,
        ),
    })
});

struct Metrics {
    events: Counters,
    sizes: Histograms,
    lists: Histograms,
}

/// Those of one watch, found once.
pub struct WatchMeters {
    events: Counter,
    sizes: Histogram,
    target: [String; 4],
    began: Instant,
}

impl WatchMeters {
    /// `scope` is `namespace` or `cluster`.
    pub fn of(group: &str, version: &str, resource: &str, scope: &str) -> Self {
        let names = [group, version, resource];
        Self {
            events: METRICS.events.at(&names),
            sizes: METRICS.sizes.at(&names),
            target: [group, version, resource, scope].map(str::to_owned),
            began: Instant::now(),
        }
    }

    /// Notes events that were sent as one, with so many bytes in all. Of their sizes only the mean is noted, once, since all
    /// watchers of a resource note theirs in one place.
    pub fn sent_together(&self, events: usize, bytes: usize) {
        self.events.inc_by(events as u64);
        self.sizes.observe(bytes as f64 / events.max(1) as f64);
    }

    /// Notes an event of so many bytes, which may be the one that ends the initial events.
    pub fn sent(&self, bytes: usize, ends_initial: bool) {
        self.events.inc();
        self.sizes.observe(bytes as f64);
        if ends_initial {
            let target = self.target.each_ref().map(String::as_str);
            METRICS.lists.observe(&target, self.began.elapsed().as_secs_f64());
        }
    }
}
