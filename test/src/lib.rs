//! What the suites in `tests/` share: real kube1 nodes in network namespaces of their own, and kubectl against them.
//!
//! Everything a test starts is ended by its process id and its own data directory, so that several tests, and an
//! operator's own cluster, can live on one machine.

mod cluster;
mod command;
mod wait;

pub use cluster::{Cluster, Node};
pub use command::{Output, run, try_run};
pub use wait::{eventually, eventually_within};

use std::path::PathBuf;

/// A program of this workspace, built next to the running test.
pub fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap_or_default();
    let target = test.ancestors().find(|dir| dir.join(name).is_file());
    target.map_or_else(|| PathBuf::from(name), |dir| dir.join(name))
}

/// A program that `hack/tools` unpacked, such as kubectl or another containerd.
pub fn tool(name: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../.cache/tools");
    let tools = std::env::var_os("KUBE1_TEST_TOOLS").map_or(root, PathBuf::from);
    ["usr/bin", "bin", "."]
        .iter()
        .map(|dir| tools.join(dir).join(name))
        .find(|p| p.is_file())
        .unwrap_or_else(|| name.into())
}
