//! DNS packets as hostile clients and servers send them.

use hickory_proto::op::Message;
use hickory_proto::rr::Name;
use kube1_mutate::Target;

use crate::forward;
use crate::message::{Decision, Domain, decide, encode, objection, reply, udp_limit};
use crate::zone::Zone;

const QUERY: &[u8] = b"\x12\x34\x01\x20\x00\x01\x00\x00\x00\x00\x00\x01\x0akubernetes\x07default\x03svc\x07cluster\x05local\x00\x00\x01\x00\x01\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x0c\x00\x0a\x00\x08abcdefgh";
const REVERSE: &[u8] =
    b"\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x011\x010\x0243\x0210\x07in-addr\x04arpa\x00\x00\x0c\x00\x01";
const ANSWER: &[u8] = b"\x12\x34\x81\x80\x00\x01\x00\x01\x00\x01\x00\x00\x01a\x07example\x00\x00\x01\x00\x01\xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x05\x00\x04\x01b\xc0\x0e\xc0\x0e\x00\x06\x00\x01\xff\xff\xff\xff\x00\x18\xc0\x0e\xc0\x0e\x00\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00\x03\x00\x00\x00\x04\x00\x00\x00\x05";
/// Words of packets.
const WORDS: &[&str] = &[
    "\u{0}\u{1}",
    "\x03svc",
    "\x07cluster\x05local\x00",
    "\x3faaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
];

/// All that `fuzz/` runs.
pub fn targets() -> Vec<Target> {
    vec![
        Target::new("dns", packet, &[QUERY, REVERSE], WORDS),
        Target::new("dns_answer", forward::hostile, &[ANSWER, QUERY], WORDS),
    ]
}

/// A packet of a client, all the way to the answer.
fn packet(bytes: &[u8]) {
    let _ = crate::server::malformed(bytes);
    let Ok(query) = Message::from_vec(bytes) else { return };
    let limit = udp_limit(&query);
    if let Some(code) = objection(&query) {
        let _ = encode(reply(&query, code), limit);
        return;
    }
    let domain =
        Domain { name: Name::from_ascii("cluster.local.").unwrap_or_default(), server: [10, 43, 0, 10].into() };
    for zone in [None, Some(&Zone::default())] {
        if let Decision::Answer(answer) | Decision::Follow(answer, _) = decide(zone, &domain, &query) {
            assert!(encode(answer, limit).is_none_or(|bytes| bytes.len() <= limit), "an answer that is too long");
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn decoders_survive() {
        kube1_mutate::run(&super::targets());
    }
}
