//! Metrics of values that are kept otherwise than as they are, under upstream's names.

use std::sync::LazyLock;
use std::time::Duration;

use kube1_telemetry::metrics::{Counters, Histograms, exponential, shared};

struct Metrics {
    operations: Counters,
    times: Histograms,
}

const TIMES: &[f64] = &exponential::<25>(5e-6, 2.0);

static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    shared(|r| {
        Metrics {
        operations: r.counters(
            "apiserver_storage_transformation_operations",
            "Total number of transformations. Successful transformation will have a status 'OK' and a varied status string when the transformation fails.",
            &["resource", "transformation_type", "transformer_prefix", "status"],
        ),
        times: r.histograms(
            "apiserver_storage_transformation_duration_seconds",
            "Latencies in seconds of value transformation operations.",
            &["transformation_type", "transformer_prefix"],
            TIMES,
        ),
    }
    })
});

/// Notes a value that was written (`to_storage`) or read (`from_storage`).
pub fn transformed(resource: &str, direction: &str, prefix: &str, fine: bool, took: Duration) {
    let status = if fine { "OK" } else { "unknown-non-grpc" };
    METRICS.operations.inc(&[resource, direction, prefix, status]);
    if fine {
        METRICS.times.observe(&[direction, prefix], took.as_secs_f64());
    }
}
