//! What version this is.

use kube1_telemetry::Build;

/// The Kubernetes version whose API is served, as `kubectl version` shows it.
pub const KUBERNETES: &str = "v1.36.2+kube1";

/// kube1's own version with the Kubernetes version.
pub const LONG: &str = concat!(env!("CARGO_PKG_VERSION"), " (Kubernetes v1.36.2)");

/// What `build.rs` found out.
pub fn build() -> Build {
    Build {
        git_commit: env!("KUBE1_GIT_COMMIT"),
        git_tree_state: env!("KUBE1_GIT_TREE_STATE"),
        epoch: env!("KUBE1_BUILD_EPOCH").parse().unwrap_or(0),
        compiler_version: env!("KUBE1_COMPILER"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_build_is_known() {
        let build = build();
        assert!(build.epoch > 1_700_000_000, "{build:?}");
        assert!(build.git_commit.is_empty() || build.git_commit.len() == 40, "{build:?}");
        assert!(build.compiler_version.starts_with(|c: char| c.is_ascii_digit()), "{build:?}");
    }
}
