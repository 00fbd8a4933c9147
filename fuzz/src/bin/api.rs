#![no_main]

use kube1_api::fuzzing;
use kube1_fuzz::{Target, dispatch};

const TARGETS: [Target; 9] = [
    ("json", fuzzing::json),
    ("yaml", fuzzing::yaml),
    ("protobuf", fuzzing::protobuf),
    ("patch", fuzzing::patch),
    ("managed_fields", fuzzing::managed_fields),
    ("selectors", fuzzing::selectors),
    ("quantities", fuzzing::quantities),
    ("expressions", fuzzing::expressions),
    ("structural", fuzzing::structural),
];

libfuzzer_sys::fuzz_target!(|data: &[u8]| dispatch(&TARGETS, data));
