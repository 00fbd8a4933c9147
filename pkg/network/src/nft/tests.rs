#![allow(clippy::unwrap_used)]
//! What the kernel made of our messages, as `nft` shows it.

use std::process::Command;
use std::time::Duration;

use super::*;
use crate::netns;

fn listing() -> String {
    let output = Command::new("nft").args(["list", "ruleset"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Our encoding of `content`, and the same written in nft's own language, must look alike.
#[track_caller]
fn assert_listed(content: &Content, expected: &str) {
    let ours = netns::within_new(|| {
        Table::new("t").replace(content).unwrap_or_else(|error| panic!("{error:?}"));
        listing()
    });
    let theirs = netns::within_new(|| {
        use std::io::Write;
        let mut nft = Command::new("nft").args(["-f", "-"]).stdin(std::process::Stdio::piped()).spawn().unwrap();
        nft.stdin.take().unwrap().write_all(format!("table inet t {{\n{expected}\n}}").as_bytes()).unwrap();
        assert!(nft.wait().unwrap().success());
        listing()
    });
    assert_eq!(blocks(&ours.unwrap()), blocks(&theirs.unwrap()));
}

/// The chains and sets of a listing, in an order that does not depend on that of their definition.
fn blocks(listing: &str) -> Vec<&str> {
    let mut blocks: Vec<_> =
        listing.trim_end_matches("}\n").split("\n\n").flat_map(|b| b.split("table inet t {\n")).collect();
    blocks.iter_mut().for_each(|block| *block = block.trim_matches(['}', '\n', '\t']));
    blocks.sort_unstable();
    blocks
}

fn nat(point: HookPoint, priority: i32) -> Hook {
    Hook { kind: ChainType::Nat, point, priority }
}

fn ip(text: &str) -> std::net::IpAddr {
    text.parse().unwrap()
}

#[test]
fn verdict_map_of_services() {
    let mut content = Content::default();
    let key = [DataType::Ipv4Addr, DataType::InetProto, DataType::InetService];
    content.set("services", Set::verdict_map(&key));
    let fields = [Field::Daddr4, Field::L4Proto, Field::Dport];
    content.base_chain(
        "prerouting",
        nat(HookPoint::Prerouting, priority::DSTNAT),
        vec![Rule::new().v4().verdict_of(&fields, "services")],
    );
    content.chain("web_", vec![Rule::new().proto(6).balance(false, &[(ip("10.42.0.7"), 80), (ip("10.42.1.8"), 8080)])]);
    content.chain("one", vec![Rule::new().v4().proto(6).balance(false, &[(ip("10.42.0.7"), 80)])]);
    let key = Key::new().ip(ip("10.43.0.1")).proto(6).port(443);
    content.element("services", key, Element::Verdict(Verdict::Goto("web_".into())));
    assert_listed(
        &content,
        "map services { type ipv4_addr . inet_proto . inet_service : verdict
            elements = { 10.43.0.1 . tcp . 443 : goto web_ } }
        chain one { meta nfproto ipv4 meta l4proto tcp dnat ip to 10.42.0.7:80; }
        chain prerouting { type nat hook prerouting priority dstnat; policy accept;
            ip daddr . meta l4proto . th dport vmap @services; }
        chain web_ { meta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 10.42.0.7 . 80, 1 : 10.42.1.8 . 8080 }; }",
    );
}

#[test]
fn conditions_and_actions() {
    let mut content = Content::default();
    let filter = Hook { kind: ChainType::Filter, point: HookPoint::Forward, priority: priority::FILTER };
    content.set("nets", Set { interval: true, ..Set::of(&[DataType::Ipv4Addr]) });
    for (first, end) in ranges(&["10.0.0.0/9".parse().unwrap(), "10.128.0.0/9".parse().unwrap()]) {
        content.element("nets", Key::new().ip(first), Element::Member);
        content.element("nets", Key::new().ip(end.unwrap()), Element::RangeEnd);
    }
    content.base_chain(
        "forward",
        filter,
        vec![
            Rule::new().any_bit(Field::CtState, CT_ESTABLISHED | CT_RELATED).accept(),
            Rule::new()
                .interface(Field::IifName, "kube1")
                .v4()
                .network(Field::Saddr4, "10.42.0.0/16".parse().unwrap(), false)
                .deny(),
            Rule::new().v4().in_set(&[Field::Saddr4], "nets").proto(6).port(Field::Dport, 80).expr(Expr::Counter),
            Rule::new().proto(17).port_range(Field::Dport, 1000, 2000).reject(),
            Rule::new().to_this_host().mark(0x4000).jump("other_"),
            Rule::new().expr(Expr::Limit { per_second: 10, burst: 5 }).accept(),
            Rule::new().v6().network(Field::Daddr6, "fd00::/64".parse().unwrap(), true).accept(),
        ],
    );
    content.chain("other_", vec![Rule::new().verdict(Verdict::Return)]);
    content.base_chain(
        "post",
        nat(HookPoint::Postrouting, priority::SRCNAT),
        vec![Rule::new().any_bit(Field::Mark, 0x4000).unmark(0x4000).masquerade()],
    );
    assert_listed(
        &content,
        "set nets { type ipv4_addr; flags interval; elements = { 10.0.0.0/8 } }
        chain forward { type filter hook forward priority filter; policy accept;
            ct state established,related accept
            iifname kube1 ip saddr != 10.42.0.0/16 drop
            ip saddr @nets tcp dport 80 counter
            udp dport 1000-2000 reject
            fib daddr type local meta mark set meta mark or 0x4000 jump other_
            limit rate 10/second accept
            ip6 daddr fd00::/64 accept
        }
        chain post { type nat hook postrouting priority srcnat; policy accept;
            meta mark and 0x4000 != 0 meta mark set meta mark and 0xffffbfff masquerade fully-random; }
        chain other_ { return; }",
    );
}

#[test]
fn a_change_is_the_difference() {
    let mut old = Content::default();
    old.set("seen", Set { timeout: Some(Duration::from_secs(60)), ..Set::of(&[DataType::Ipv4Addr]) });
    old.set("jump", Set::verdict_map(&[DataType::InetService]));
    for (name, port) in [("kept", 1), ("gone", 2)] {
        old.chain(name, vec![Rule::new().accept()]);
        old.element("jump", Key::new().port(port), Element::Verdict(Verdict::Goto(name.into())));
    }
    let mut new = old.clone();
    new.chains.remove("gone");
    let remember = Expr::Remember { set: "seen".into(), key: 0, value: None, timeout: None };
    new.chain("added", vec![Rule::new().v4().load_all(&[Field::Saddr4]).expr(remember)]);
    new.element("jump", Key::new().port(2), Element::Verdict(Verdict::Goto("added".into())));
    let (changed, replaced) = netns::within_new(|| {
        let table = Table::new("t");
        table.replace(&old).unwrap();
        table.change(&[(&old, &new)]).unwrap_or_else(|error| panic!("{error:?}"));
        let changed = listing();
        table.replace(&new).unwrap();
        let refused = table.change(&[(&old, &Content::default()), (&old, &new)]).unwrap_err();
        assert!(refused.to_string().contains("gone"), "{refused}");
        assert_eq!(listing().lines().count(), changed.lines().count(), "a refused transaction changed the table");
        (changed, listing())
    })
    .unwrap();
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&changed), sorted(&replaced));
    assert!(changed.contains("goto added") && !changed.contains("gone"), "{changed}");
}

#[test]
fn ten_thousand_services_in_one_transaction() {
    let mut content = Content::default();
    let key = [DataType::Ipv4Addr, DataType::InetProto, DataType::InetService];
    content.set("services", Set::verdict_map(&key));
    for number in 0..10_000u32 {
        let address = std::net::IpAddr::from((0x0a2b_0000 + number).to_be_bytes());
        content.chain(format!("s{number}"), vec![Rule::new().accept()]);
        let verdict = Verdict::Goto(format!("s{number}"));
        content.element("services", Key::new().ip(address).proto(6).port(80), Element::Verdict(verdict));
    }
    let chains = netns::within_new(|| {
        Table::new("t").replace(&content).unwrap();
        listing().matches("chain s").count()
    });
    assert_eq!(chains.unwrap(), 10_000);
}

#[test]
fn other_software_s_chain_gets_our_rules_once_and_loses_them() {
    let forward = ForeignChain { v6: false, table: "filter", chain: "FORWARD" };
    let rules = || vec![Rule::new().network(Field::Saddr4, "10.42.0.0/16".parse().unwrap(), true).accept()];
    netns::within_new(|| {
        forward.precede("OURS", rules()).unwrap();
        assert_eq!(listing(), "", "nothing is made where nobody has such a chain");
        let theirs = "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }; \
                      add rule ip filter FORWARD counter";
        assert!(Command::new("nft").arg(theirs).status().unwrap().success());
        let before = listing();
        for _ in 0..2 {
            forward.precede("OURS", rules()).unwrap();
        }
        let text = listing();
        assert_eq!(text.matches("jump OURS").count(), 1);
        assert!(text.find("jump OURS") < text.find("counter") && text.contains("ip saddr 10.42.0.0/16 accept"), "{text}");
        for _ in 0..2 {
            forward.withdraw("OURS").unwrap();
        }
        assert_eq!(listing(), before);
    })
    .unwrap();
}
