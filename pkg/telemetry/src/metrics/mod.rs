//! Metrics in the text format of Prometheus, under upstream's names.

mod family;
mod shared;
mod text;

pub use family::{Asked, Counters, Gauge, Gauges, Held, Histograms, Names, Registrar, Values};
pub use prometheus_client::metrics::counter::Counter;
pub use prometheus_client::metrics::histogram::Histogram;
pub use shared::{look_when_read, render_shared, shared};

/// Buckets from `start`, each `factor` times the one before.
pub const fn exponential<const N: usize>(start: f64, factor: f64) -> [f64; N] {
    let mut buckets = [start; N];
    let mut index = 1;
    while index < N {
        buckets[index] = buckets[index - 1] * factor;
        index += 1;
    }
    buckets
}

#[cfg(test)]
mod tests {
    #[test]
    fn buckets_grow() {
        assert_eq!(super::exponential::<4>(0.5, 2.0), [0.5, 1.0, 2.0, 4.0]);
    }
}
