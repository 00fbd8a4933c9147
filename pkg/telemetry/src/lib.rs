//! Tracing set-up and the metrics registry.
