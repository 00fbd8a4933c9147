//! Holds the direction in which crates may depend on each other: the last column of the rooms table in ARCHITECTURE.md.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Crate, and the crates of this workspace that it may use in its product code.
const ALLOWED: &[(&str, &[&str])] = &[
    ("kube1-api", &[]),
    ("kube1-store", &[]),
    ("kube1-pki", &[]),
    ("kube1-supervisor", &[]),
    ("kube1-telemetry", &[]),
    ("kube1-images", &[]),
    ("kube1-grpc", &[]),
    ("kube1-cri", &["kube1-grpc", "kube1-trace"]),
    ("kube1-trace", &["kube1-grpc", "kube1-telemetry"]),
    ("kube1-streaming", &["kube1-api"]),
    ("kube1-client", &["kube1-telemetry"]),
    (
        "kube1-apiserver",
        &[
            "kube1-api",
            "kube1-grpc",
            "kube1-store",
            "kube1-pki",
            "kube1-streaming",
            "kube1-supervisor",
            "kube1-telemetry",
            "kube1-trace",
        ],
    ),
    ("kube1-controllers", &["kube1-api", "kube1-client", "kube1-pki", "kube1-supervisor", "kube1-telemetry"]),
    ("kube1-scheduler", &["kube1-api", "kube1-client", "kube1-supervisor", "kube1-telemetry"]),
    (
        "kube1-kubelet",
        &[
            "kube1-api",
            "kube1-client",
            "kube1-cri",
            "kube1-pki",
            "kube1-streaming",
            "kube1-supervisor",
            "kube1-telemetry",
            "kube1-trace",
        ],
    ),
    ("kube1-network", &["kube1-client", "kube1-supervisor"]),
    ("kube1-proxy", &["kube1-client", "kube1-network", "kube1-supervisor", "kube1-telemetry"]),
    ("kube1-dns", &["kube1-client", "kube1-network", "kube1-supervisor", "kube1-telemetry"]),
    ("kube1-join", &["kube1-client", "kube1-pki", "kube1-supervisor"]),
];

/// Crates without I/O: no runtime, no sockets.
const PURE: &[(&str, &[&str])] = &[("kube1-api", &["tokio", "hyper", "hyper-util", "kube", "tonic"])];

fn dependencies(manifest: &Path) -> (String, BTreeSet<String>) {
    let text = std::fs::read_to_string(manifest).unwrap();
    let manifest: toml::Table = toml::from_str(&text).unwrap();
    let name = manifest["package"]["name"].as_str().unwrap().to_owned();
    let table = manifest.get("dependencies").and_then(toml::Value::as_table).cloned().unwrap_or_default();
    (name, table.keys().cloned().collect())
}

fn crates() -> BTreeMap<String, BTreeSet<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut manifests: Vec<_> =
        std::fs::read_dir(root.join("pkg")).unwrap().map(|entry| entry.unwrap().path().join("Cargo.toml")).collect();
    manifests.push(root.join("images/Cargo.toml"));
    manifests.iter().map(|manifest| dependencies(manifest)).collect()
}

#[test]
fn crates_depend_only_downwards() {
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    for (name, uses) in crates() {
        let may = allowed.get(name.as_str()).unwrap_or_else(|| panic!("{name} is missing from the table"));
        for used in uses.iter().filter(|used| used.starts_with("kube1")) {
            assert!(may.contains(&used.as_str()), "{name} must not depend on {used}");
        }
    }
}

#[test]
fn pure_crates_do_no_io() {
    let crates = crates();
    for (name, forbidden) in PURE {
        for dependency in *forbidden {
            assert!(!crates[*name].contains(*dependency), "{name} must not depend on {dependency}");
        }
    }
}

#[test]
fn the_table_names_no_crate_that_is_gone() {
    let crates = crates();
    for (name, _) in ALLOWED {
        assert!(crates.contains_key(*name), "{name} does not exist");
    }
}
