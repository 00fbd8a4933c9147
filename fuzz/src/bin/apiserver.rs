#![no_main]

use kube1_apiserver::fuzzing;
use kube1_fuzz::{Target, dispatch};

const TARGETS: [Target; 9] = [
    ("request", fuzzing::request),
    ("headers", fuzzing::headers),
    ("continue_token", fuzzing::continue_token),
    ("stored", fuzzing::stored),
    ("credentials", fuzzing::credentials),
    ("body", fuzzing::body),
    ("files", fuzzing::files),
    ("spdy", fuzzing::spdy),
    ("websocket", fuzzing::websocket),
];

libfuzzer_sys::fuzz_target!(|data: &[u8]| dispatch(&TARGETS, data));
