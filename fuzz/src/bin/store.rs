#![no_main]

#[allow(dead_code)]
#[path = "../../../cmd/kube1/src/snapshot/archive.rs"]
mod archive;

use kube1_fuzz::{Target, dispatch};

const TARGETS: [Target; 2] = [("journal", kube1_store::hostile), ("snapshot", archive::hostile)];

libfuzzer_sys::fuzz_target!(|data: &[u8]| dispatch(&TARGETS, data));
