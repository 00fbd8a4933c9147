#![no_main]

use kube1_fuzz::{Target, dispatch};

const TARGETS: [Target; 4] = [
    ("dns", kube1_dns::hostile::packet),
    ("texts", kube1_kubelet::hostile::texts),
    ("cni", kube1_network::cni::hostile),
    ("join", kube1_join::hostile),
];

libfuzzer_sys::fuzz_target!(|data: &[u8]| dispatch(&TARGETS, data));
