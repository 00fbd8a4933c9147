//! What version this is.

/// The Kubernetes version whose API is served, as `kubectl version` shows it.
pub const KUBERNETES: &str = "v1.36.2+kube1";

/// kube1's own version with the Kubernetes version.
pub const LONG: &str = concat!(env!("CARGO_PKG_VERSION"), " (Kubernetes v1.36.2)");
