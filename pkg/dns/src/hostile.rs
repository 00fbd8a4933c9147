//! DNS packets as hostile clients send them.

use hickory_proto::op::Message;
use hickory_proto::rr::Name;

use crate::message::{Decision, Domain, decide, encode, objection, reply, udp_limit};
use crate::zone::Zone;

/// A packet of a client, all the way to the answer.
pub fn packet(bytes: &[u8]) {
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
    use kube1_mutate::{PER_BYTE, Target, run};

    use super::packet;

    #[test]
    fn packets_survive() {
        const QUERY: &[u8] = b"\x12\x34\x01\x20\x00\x01\x00\x00\x00\x00\x00\x01\x0akubernetes\x07default\x03svc\x07cluster\x05local\x00\x00\x01\x00\x01\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x0c\x00\x0a\x00\x08abcdefgh";
        const REVERSE: &[u8] = b"\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x011\x010\x0243\x0210\x07in-addr\x04arpa\x00\x00\x0c\x00\x01";
        let words = &[
            "\u{0}\u{1}",
            "\x03svc",
            "\x07cluster\x05local\x00",
            "\x3faaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        ];
        run(&[Target { name: "dns", run: packet, seeds: &[QUERY, REVERSE], words, per_byte: PER_BYTE }]);
    }
}
