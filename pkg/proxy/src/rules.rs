//! The nftables table of services.
//!
//! A packet finds its service by one lookup of address, protocol and port in a verdict map, so that its way does not
//! grow with the number of services; the service's chain picks an endpoint at random.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use kube1_network::nft::{
    CT_DNAT, CT_INVALID, CT_NEW, ChainType, Content, DataType, Element, Expr, Field, Hook, HookPoint, Key, Reg, Rule,
    Set, SetRef, Verdict, priority,
};
use sha2::{Digest, Sha256};

use crate::endpoints::Targets;
use crate::service::ServicePort;

/// Marks packets whose source must become this node's.
const MASQUERADE: u32 = 0x4000;
const REJECT: &str = "reject-connection";
/// `nft` shows names of at most this length.
const NAME_LENGTH: usize = 100;

/// What a service adds to the table: chains and sets that are its own, and elements of the shared maps, which
/// another service might claim too.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fragment {
    pub own: Content,
    pub shared: BTreeMap<(String, Key), Element>,
}

fn family(v6: bool) -> (&'static str, DataType, Field, Field) {
    if v6 {
        ("6", DataType::Ipv6Addr, Field::Saddr6, Field::Daddr6)
    } else {
        ("4", DataType::Ipv4Addr, Field::Saddr4, Field::Daddr4)
    }
}

fn of_family(v6: bool) -> Rule {
    if v6 { Rule::new().v6() } else { Rule::new().v4() }
}

/// The part of the table that is there without any service.
pub fn base(cluster_cidrs: &[IpNet]) -> Content {
    use DataType::{InetProto, InetService};
    let mut content = Content::default();
    let (mut services, mut rejected, mut sources) = (Vec::new(), Vec::new(), Vec::new());
    for v6 in [false, true] {
        let (digit, address, saddr, daddr) = family(v6);
        let name = |name: &str| format!("{name}{digit}");
        for map in ["services", "rejected"] {
            content.set(name(map), Set::verdict_map(&[address, InetProto, InetService]));
        }
        for map in ["node-ports", "rejected-node-ports"] {
            content.set(name(map), Set::verdict_map(&[InetProto, InetService]));
        }
        content.set(name("cluster-ips"), Set::of(&[address]));
        content.set(name("hairpins"), Set::of(&[address, address]));
        let (one, port) = ([daddr, Field::L4Proto, Field::Dport], [Field::L4Proto, Field::Dport]);
        if let Some(cidr) = cluster_cidrs.iter().find(|cidr| cidr.addr().is_ipv6() == v6) {
            // An endpoint on another node must answer through this one.
            let outside = of_family(v6).network(saddr, *cidr, false).in_set(&[daddr], name("cluster-ips"));
            services.push(outside.mark(MASQUERADE));
        }
        services.push(of_family(v6).verdict_of(&one, name("services")));
        services.push(of_family(v6).to_this_host().verdict_of(&port, name("node-ports")));
        rejected.push(of_family(v6).verdict_of(&one, name("rejected")));
        rejected.push(of_family(v6).to_this_host().verdict_of(&port, name("rejected-node-ports")));
        // A pod that reached itself would otherwise answer itself directly.
        let hairpin = of_family(v6).any_bit(Field::CtStatus, CT_DNAT).in_set(&[saddr, daddr], name("hairpins"));
        sources.push(hairpin.masquerade());
    }
    sources.push(Rule::new().any_bit(Field::Mark, MASQUERADE).unmark(MASQUERADE).masquerade());
    content.chain("services", services);
    content.chain("rejected", rejected);
    content.chain(REJECT, vec![Rule::new().reject()]);
    let hook = |kind, point, priority| Hook { kind, point, priority };
    for (point, name) in [(HookPoint::Prerouting, "prerouting"), (HookPoint::Output, "output")] {
        let rule = vec![Rule::new().jump("services")];
        content.base_chain(format!("nat-{name}"), hook(ChainType::Nat, point, priority::DSTNAT), rule);
        let rule = vec![Rule::new().any_bit(Field::CtState, CT_NEW).jump("rejected")];
        content.base_chain(format!("filter-{name}"), hook(ChainType::Filter, point, priority::DSTNAT - 10), rule);
    }
    // What the kernel cannot assign to a connection would reach the client with the endpoint's address, and the client
    // would reset its connection to the service.
    let forward = hook(ChainType::Filter, HookPoint::Forward, priority::FILTER);
    content.base_chain("filter-forward", forward, vec![Rule::new().any_bit(Field::CtState, CT_INVALID).deny()]);
    let post = hook(ChainType::Nat, HookPoint::Postrouting, priority::SRCNAT);
    content.base_chain("nat-postrouting", post, sources);
    content
}

/// What one port of a service adds.
pub fn fragment(port: &ServicePort, targets: &Targets, cluster_cidrs: &[IpNet]) -> Fragment {
    let builder = Builder { port, targets, fragment: Fragment::default() };
    builder.build(cluster_cidrs)
}

struct Builder<'a> {
    port: &'a ServicePort,
    targets: &'a Targets,
    fragment: Fragment,
}

impl Builder<'_> {
    fn build(mut self, cluster_cidrs: &[IpNet]) -> Fragment {
        let (port, targets) = (self.port, self.targets);
        if targets.cluster.is_empty() && targets.local.is_empty() {
            self.reject();
            return self.fragment;
        }
        let cluster = self.balancer("service", &targets.cluster);
        let external = port.node_port.is_some() || !port.external_ips.is_empty() || !port.load_balancer_ips.is_empty();
        let needs_local = port.internal_local || (port.external_local && external);
        let local = if needs_local { self.balancer("local", &targets.local) } else { Verdict::Drop };
        self.share("cluster-ips", Key::new().ip(port.cluster_ip), Element::Member);
        self.address(port.cluster_ip, if port.internal_local { local.clone() } else { cluster.clone() });
        if external {
            self.external(cluster, local, cluster_cidrs);
        }
        for address in &targets.here {
            self.share("hairpins", Key::new().ip(*address).ip(*address), Element::Member);
        }
        self.fragment
    }

    /// A readable name that stays unique when it is cut.
    fn name(&self, kind: &str) -> String {
        let hash = hex::encode(&Sha256::digest(&self.port.id)[..5]);
        let mut name = format!("{kind}-{hash}-{}", self.port.id);
        name.truncate(NAME_LENGTH);
        name
    }

    fn share(&mut self, set: &str, key: Key, element: Element) {
        let set = format!("{set}{}", family(self.port.is_v6()).0);
        self.fragment.shared.insert((set, key), element);
    }

    fn address(&mut self, address: IpAddr, verdict: Verdict) {
        let key = Key::new().ip(address).proto(self.port.protocol).port(self.port.port);
        self.share("services", key, Element::Verdict(verdict));
    }

    fn reject(&mut self) {
        let port = self.port;
        let verdict = || Element::Verdict(Verdict::Goto(REJECT.to_owned()));
        let all = [port.cluster_ip].into_iter().chain(port.external_ips.iter().copied());
        for address in all.chain(port.load_balancer_ips.iter().copied()) {
            self.share("rejected", Key::new().ip(address).proto(port.protocol).port(port.port), verdict());
        }
        if let Some(node_port) = port.node_port {
            self.share("rejected-node-ports", Key::new().proto(port.protocol).port(node_port), verdict());
        }
    }

    /// Makes a chain that sends connections to one of `targets`; the verdict that leads there.
    fn balancer(&mut self, kind: &str, targets: &[(IpAddr, u16)]) -> Verdict {
        if targets.is_empty() {
            return Verdict::Drop;
        }
        let v6 = self.port.is_v6();
        // The transport header's ports are only looked at after the protocol is known.
        let start = || of_family(v6).proto(self.port.protocol);
        let name = self.name(kind);
        let rules = match self.port.affinity {
            None => vec![start().balance(v6, targets)],
            Some(timeout) => {
                let (_, address, ..) = family(v6);
                let map = Set::map(&[address], &[address, DataType::InetService]);
                let clients = self.name(&format!("{kind}-clients"));
                self.fragment.own.set(clients.clone(), Set { timeout: Some(timeout), ..map });
                sticky(v6, targets, &clients, start)
            }
        };
        self.fragment.own.chain(name.clone(), rules);
        Verdict::Goto(name)
    }

    /// Traffic from outside the cluster.
    fn external(&mut self, cluster: Verdict, local: Verdict, cluster_cidrs: &[IpNet]) {
        let (port, v6) = (self.port, self.port.is_v6());
        let (_, _, saddr, _) = family(v6);
        let mut rules = Vec::new();
        if port.external_local {
            // Pods and this node itself are not outside.
            for cidr in cluster_cidrs.iter().filter(|cidr| cidr.addr().is_ipv6() == v6) {
                rules.push(of_family(v6).network(saddr, *cidr, true).verdict(cluster.clone()));
            }
            rules.push(Rule::new().from_this_host().mark(MASQUERADE).verdict(cluster));
            rules.push(Rule::new().verdict(local));
        } else {
            rules.push(Rule::new().mark(MASQUERADE).verdict(cluster));
        }
        let external = self.name("external");
        self.fragment.own.chain(external.clone(), rules);
        let to_external = Verdict::Goto(external.clone());
        if let Some(node_port) = port.node_port {
            let key = Key::new().proto(port.protocol).port(node_port);
            self.share("node-ports", key, Element::Verdict(to_external.clone()));
        }
        port.external_ips.iter().for_each(|address| self.address(*address, to_external.clone()));
        let mut balanced = to_external;
        if !port.source_ranges.is_empty() {
            let allowed = |net: &IpNet| of_family(v6).network(saddr, *net, true).goto(&*external);
            let mut rules: Vec<Rule> = port.source_ranges.iter().map(allowed).collect();
            rules.push(Rule::new().deny());
            let firewall = self.name("firewall");
            self.fragment.own.chain(firewall.clone(), rules);
            balanced = Verdict::Goto(firewall);
        }
        port.load_balancer_ips.iter().for_each(|address| self.address(*address, balanced.clone()));
    }
}

/// Rules that keep a client at its endpoint, as long as the endpoint is one of `targets`.
fn sticky(v6: bool, targets: &[(IpAddr, u16)], clients: &str, start: impl Fn() -> Rule) -> Vec<Rule> {
    let (_, address, saddr, _) = family(v6);
    let words: Reg = if v6 { 4 } else { 1 };
    let (client, target) = (0, words);
    let remember = Expr::Remember { set: clients.to_owned(), key: client, value: Some(target), timeout: None };
    let forget = Expr::Forget { set: clients.to_owned(), key: client, value: Some(target) };
    let nat = Expr::DestinationNat { v6, address: target, port: Some(target + words) };
    let members = targets.iter().map(|(ip, port)| (Key::new().ip(*ip).port(*port), Element::Member)).collect();
    let current = SetRef::Own(Set::of(&[address, DataType::InetService]), members);
    let known = Expr::Lookup { set: clients.into(), key: client, to: Some(target), absent: false };
    let still_there = Expr::Lookup { set: current, key: target, to: None, absent: false };
    vec![
        start().load_all(&[saddr]).expr(known.clone()).expr(still_there).expr(remember.clone()).expr(nat.clone()),
        // Its endpoint is gone: forget it, as an existing entry would keep its value.
        start().load_all(&[saddr]).expr(known).expr(forget),
        start().load_all(&[saddr]).pick(v6, targets, target).expr(remember).expr(nat),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_of_no_connection_are_not_forwarded() {
        let content = base(&[]);
        let chain = &content.chains["filter-forward"];
        assert_eq!(chain.hook.map(|hook| (hook.kind, hook.point)), Some((ChainType::Filter, HookPoint::Forward)));
        assert_eq!(chain.rules, [Rule::new().any_bit(Field::CtState, CT_INVALID).verdict(Verdict::Drop)]);
    }
}
