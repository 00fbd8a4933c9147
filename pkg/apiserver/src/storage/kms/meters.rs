//! Metrics of key management services, under upstream's names.

use std::collections::VecDeque;
use std::sync::LazyLock;
use std::time::Duration;

use kube1_telemetry::metrics::{Counters, Gauges, Histograms, exponential, shared};
use parking_lot::Mutex;

use super::envelope::hash_of;

/// Ids of keys that are told at a time: each is a label of its own.
const TOLD: usize = 100;

static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    const USED: &[&str] = &["transformation_type", "provider_name", "key_id_hash", "apiserver_id_hash"];
    const STATUS: &[&str] = &["provider_name", "key_id_hash", "apiserver_id_hash"];
    const MADE: &[f64] = &exponential::<14>(5e-6, 2.0);
    const CALLS: &[f64] = &exponential::<20>(0.0001, 2.0);
    let name = |rest: &str| format!("apiserver_envelope_encryption_{rest}");
    shared(|r| {
        Metrics {
        calls: r.histograms(
            &name("kms_operations_latency_seconds"),
            "KMS operation duration with gRPC error code status total.",
            &["provider_name", "method_name", "grpc_status_code"],
            CALLS,
        ),
        used: r.counters(
            &name("key_id_hash"),
            "Number of times a keyID is used split by transformation type, provider, and apiserver identity.",
            USED,
        ),
        used_at: r.gauges(
            &name("key_id_hash_last_timestamp_seconds"),
            "The last time in seconds when a keyID was used.",
            USED,
        ),
        status_at: r.gauges(
            &name("key_id_hash_status_last_timestamp_seconds"),
            "The last time in seconds when a keyID was returned by the Status RPC call.",
            STATUS,
        ),
        invalid: r.counters(
            &name("invalid_key_id_from_status"),
            "Number of times an invalid keyID is returned by the Status RPC call split by error.",
            &["provider_name", "error"],
        ),
        cached: r.gauges(
            &name("dek_source_cache_size"),
            "Number of records in data encryption key (DEK) source cache. On a restart, this value is an approximation of the number of decrypt RPC calls the server will make to the KMS plugin.",
            &["provider_name"],
        ),
        missed: r.counters(
            "apiserver_storage_envelope_transformation_cache_misses",
            "Total number of cache misses while accessing key decryption key(KEK).",
            &[],
        ),
        generated: r.histograms(
            "apiserver_storage_data_key_generation_duration_seconds",
            "Latencies in seconds of data encryption key(DEK) generation operations.",
            &[],
            MADE,
        ),
        server: crate::reload::server_hash(),
        told_used: Mutex::default(),
        told_status: Mutex::default(),
    }
    })
});

struct Metrics {
    calls: Histograms,
    used: Counters,
    used_at: Gauges,
    status_at: Gauges,
    invalid: Counters,
    cached: Gauges,
    missed: Counters,
    generated: Histograms,
    server: String,
    told_used: Mutex<VecDeque<[String; 3]>>,
    told_status: Mutex<VecDeque<[String; 2]>>,
}

/// Moves `labels` to the end, and gives what fell out at the beginning for that.
fn told<T: PartialEq>(queue: &Mutex<VecDeque<T>>, labels: T) -> Option<T> {
    let mut queue = queue.lock();
    if queue.back() == Some(&labels) {
        return None;
    }
    queue.retain(|known| *known != labels);
    queue.push_back(labels);
    if queue.len() > TOLD { queue.pop_front() } else { None }
}

fn now() -> f64 {
    kube1_pki::clock::unix_now() as f64
}

/// A call to the service, by the code of its answer.
pub fn called(provider: &str, method: &str, code: &str, took: Duration) {
    METRICS.calls.observe(&[provider, method, code], took.as_secs_f64());
}

/// The key `id` served a value that was written (`to_storage`) or read (`from_storage`).
pub fn used(direction: &str, provider: &str, id: &str) {
    let m = &*METRICS;
    let hash = hash_of(id);
    if let Some([direction, provider, hash]) =
        told(&m.told_used, [direction.to_owned(), provider.to_owned(), hash.clone()])
    {
        m.used.remove(&[&direction, &provider, &hash, &m.server]);
        m.used_at.remove(&[&direction, &provider, &hash, &m.server]);
    }
    m.used.inc(&[direction, provider, &hash, &m.server]);
    m.used_at.set(&[direction, provider, &hash, &m.server], now());
}

/// The service says that it encrypts with the key `id`.
pub fn status(provider: &str, id: &str) {
    let m = &*METRICS;
    let hash = hash_of(id);
    if let Some([provider, hash]) = told(&m.told_status, [provider.to_owned(), hash.clone()]) {
        m.status_at.remove(&[&provider, &hash, &m.server]);
    }
    m.status_at.set(&[provider, &hash, &m.server], now());
}

/// The service names its key in a way that cannot be used.
pub fn invalid(provider: &str, error: &str) {
    METRICS.invalid.inc(&[provider, error]);
}

pub fn cached(provider: &str, count: usize) {
    METRICS.cached.set(&[provider], count as f64);
}

/// The service had to be asked for a key.
pub fn missed() {
    METRICS.missed.inc(&[]);
}

/// A seed was made.
pub fn generated(took: Duration) {
    METRICS.generated.observe(&[], took.as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_labels_that_are_told_are_bounded() {
        let queue = Mutex::default();
        assert!((0..TOLD).all(|id| told(&queue, id).is_none()));
        assert_eq!(told(&queue, 0), None, "known, and now the newest");
        assert_eq!(told(&queue, TOLD), Some(1));
    }
}
