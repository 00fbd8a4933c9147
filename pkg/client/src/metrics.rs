//! What a process' clients, queues and elections tell, under upstream's names.

use std::sync::LazyLock;

use kube1_telemetry::metrics::{Counter, Counters, Gauge, Gauges, Histogram, Histograms, Names, exponential, shared};

/// From 10 ns to 10 s.
static QUEUE_TIMES: [f64; 10] = exponential(10e-9, 10.0);
const REQUEST_TIMES: &[f64] = &[0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0];
const NAME: Names = &["name"];

static QUEUES: LazyLock<Queues> = LazyLock::new(|| {
    shared(|r| Queues {
        adds: r.counters("workqueue_adds", "Total number of adds handled by workqueue", NAME),
        retries: r.counters("workqueue_retries", "Total number of retries handled by workqueue", NAME),
        depth: r.gauges("workqueue_depth", "Current depth of workqueue", NAME),
        unfinished: r.gauges(
            "workqueue_unfinished_work_seconds",
            "How long the work in progress has been going on, all of it added up",
            NAME,
        ),
        longest: r.gauges(
            "workqueue_longest_running_processor_seconds",
            "How long the longest running worker of the workqueue has been running",
            NAME,
        ),
        waited: r.histograms(
            "workqueue_queue_duration_seconds",
            "How long an item stays in workqueue before being requested",
            NAME,
            &QUEUE_TIMES,
        ),
        worked: r.histograms(
            "workqueue_work_duration_seconds",
            "How long processing an item from workqueue takes",
            NAME,
            &QUEUE_TIMES,
        ),
    })
});

static REQUESTS: LazyLock<Requests> = LazyLock::new(|| {
    shared(|r| Requests {
        counts: r.counters(
            "rest_client_requests",
            "Number of HTTP requests, partitioned by status code, method, and host",
            &["code", "method", "host"],
        ),
        times: r.histograms(
            "rest_client_request_duration_seconds",
            "Request latency in seconds. Broken down by verb, and host",
            &["verb", "host"],
            REQUEST_TIMES,
        ),
    })
});

static LEADS: LazyLock<Gauges> = LazyLock::new(|| {
    let help = "Whether the reporting process leads for the lease of the name: 1 if it does, 0 for a backup";
    shared(|r| r.gauges("leader_election_master_status", help, NAME))
});

struct Queues {
    adds: Counters,
    retries: Counters,
    depth: Gauges,
    unfinished: Gauges,
    longest: Gauges,
    waited: Histograms,
    worked: Histograms,
}

/// The metrics of one queue.
pub(crate) struct QueueMeters {
    pub adds: Counter,
    pub retries: Counter,
    pub depth: Gauge,
    pub unfinished: Gauge,
    pub longest: Gauge,
    pub waited: Histogram,
    pub worked: Histogram,
}

impl QueueMeters {
    pub fn of(name: &str) -> Self {
        let (queues, values) = (&*QUEUES, &[name]);
        Self {
            adds: queues.adds.at(values),
            retries: queues.retries.at(values),
            depth: queues.depth.at(values),
            unfinished: queues.unfinished.at(values),
            longest: queues.longest.at(values),
            waited: queues.waited.at(values),
            worked: queues.worked.at(values),
        }
    }
}

struct Requests {
    counts: Counters,
    times: Histograms,
}

/// Notes a request's answer; `code` is `<error>` where there was none.
pub(crate) fn answered(method: &str, host: &str, code: &str, took: std::time::Duration) {
    REQUESTS.counts.inc(&[code, method, host]);
    REQUESTS.times.observe(&[method, host], took.as_secs_f64());
}

/// Notes whether this process leads for a lease.
pub(crate) fn leads(lease: &str, leads: bool) {
    LEADS.set(&[lease], f64::from(u8::from(leads)));
}
