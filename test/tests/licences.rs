//! Holds what the program is made of to licences that go with Apache-2.0.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Licences whose works may be linked into one that is under Apache-2.0. Those of MPL-2.0 stay under it file by file,
/// which holds for crates that are used unchanged.
const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MPL-2.0+",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Whether an SPDX expression (or an old one with slashes) leaves the choice of licences that are all allowed.
fn is_allowed(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    let allowed = either(&mut rest);
    allowed && rest.is_empty()
}

fn either(words: &mut &[&str]) -> bool {
    let mut allowed = both(words);
    while let ["OR", rest @ ..] = *words {
        *words = rest;
        allowed |= both(words);
    }
    allowed
}

fn both(words: &mut &[&str]) -> bool {
    let mut allowed = one(words);
    while let ["AND", rest @ ..] = *words {
        *words = rest;
        allowed &= one(words);
    }
    allowed
}

fn one(words: &mut &[&str]) -> bool {
    match *words {
        ["(", rest @ ..] => {
            *words = rest;
            let allowed = either(words);
            *words = words.strip_prefix(&[")"]).unwrap_or_default();
            allowed
        }
        [licence, "WITH", exception, rest @ ..] => {
            *words = rest;
            ALLOWED.contains(&format!("{licence} WITH {exception}").as_str())
        }
        [licence, rest @ ..] => {
            *words = rest;
            ALLOWED.contains(licence)
        }
        [] => false,
    }
}

#[test]
fn expressions_are_understood() {
    for (expression, allowed) in [
        ("MIT", true),
        ("GPL-3.0-only", false),
        ("MIT/Apache-2.0", true),
        ("MIT OR GPL-3.0-only", true),
        ("GPL-3.0-only OR MIT AND AGPL-3.0-only", false),
        ("(Apache-2.0 OR MIT) AND BSD-3-Clause", true),
        ("(GPL-2.0-only OR MIT) AND LGPL-2.1-or-later", false),
        ("Apache-2.0 WITH LLVM-exception OR MIT", true),
        ("GPL-2.0-only WITH Classpath-exception-2.0", false),
        ("", false),
    ] {
        assert_eq!(is_allowed(expression), allowed, "{expression}");
    }
}

/// Crates that the program is linked with, by their ids.
fn linked(metadata: &Value) -> BTreeSet<&str> {
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    let nodes: BTreeMap<&str, &Value> = nodes.iter().map(|node| (node["id"].as_str().unwrap(), node)).collect();
    let packages = metadata["packages"].as_array().unwrap();
    let program = packages.iter().find(|package| package["name"] == "kube1").unwrap();
    let (mut seen, mut next) = (BTreeSet::new(), vec![program["id"].as_str().unwrap()]);
    while let Some(id) = next.pop() {
        if !seen.insert(id) {
            continue;
        }
        let used = nodes[id]["deps"].as_array().unwrap().iter();
        let at_run_time = used.filter(|dep| dep["dep_kinds"].as_array().unwrap().iter().any(|k| k["kind"].is_null()));
        next.extend(at_run_time.map(|dep| dep["pkg"].as_str().unwrap()));
    }
    seen
}

#[test]
fn what_is_linked_goes_with_apache() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    // Without building or fetching anything: what is here was just built.
    let told = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--offline", "--locked"])
        .args(["--filter-platform", &format!("{}-unknown-linux-gnu", std::env::consts::ARCH)])
        .current_dir(root)
        .output()
        .unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let metadata: Value = serde_json::from_slice(&told.stdout).unwrap();
    let linked = linked(&metadata);
    assert!(linked.len() > 100, "only {} crates", linked.len());
    for package in metadata["packages"].as_array().unwrap() {
        let (name, licence) = (&package["name"], package["license"].as_str().unwrap_or_default());
        let ours = package["source"].is_null();
        assert!(!linked.contains(package["id"].as_str().unwrap()) || is_allowed(licence), "{name}: {licence:?}");
        assert!(!ours || licence == "Apache-2.0", "{name} is ours: {licence:?}");
    }
}
