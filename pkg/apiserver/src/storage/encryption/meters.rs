//! Metrics of values that are kept otherwise than as they are, under upstream's names.

use std::sync::LazyLock;
use std::time::Duration;

use kube1_telemetry::metrics::{Counters, Gauges, Histograms, exponential, shared};

struct Metrics {
    operations: Counters,
    times: Histograms,
    config: Gauges,
}

const TIMES: &[f64] = &exponential::<25>(5e-6, 2.0);

static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    const OPERATIONS: &str = "Total number of transformations. Successful transformation will have a status 'OK' and a \
        varied status string when the transformation fails.";
    const CONFIG: &str = "Information about the last applied encryption configuration with hash as label, split by \
        apiserver identity.";
    let name = |rest: &str| format!("apiserver_{rest}");
    shared(|r| Metrics {
        operations: r.counters(
            &name("storage_transformation_operations"),
            OPERATIONS,
            &["resource", "transformation_type", "transformer_prefix", "status"],
        ),
        times: r.histograms(
            &name("storage_transformation_duration_seconds"),
            "Latencies in seconds of value transformation operations.",
            &["transformation_type", "transformer_prefix"],
            TIMES,
        ),
        config: r.gauges(
            &name("encryption_config_controller_last_config_info"),
            CONFIG,
            &["apiserver_id_hash", "hash"],
        ),
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

/// Notes which configuration is in effect, and which was before.
pub fn applied(before: &str, hash: &str) {
    let server = crate::reload::server_hash();
    METRICS.config.remove(&[&server, before]);
    METRICS.config.set(&[&server, hash], 1.0);
}
