//! Policies as an nftables table.
//!
//! Egress and ingress have base chains of their own: accepting a packet in one leaves it to the other. A pod that policies
//! select is found by its address in a verdict map, which leads to a chain that all pods with the same policies share;
//! what none of the policies' rules accepts is dropped there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sha2::{Digest, Sha256};

use super::direction::{Direction, FAMILIES, Family, PolicyRule};
use super::world::{Member, Select, World, protocol_number};
use crate::nft::{
    CT_ESTABLISHED, CT_RELATED, ChainType, Content, DataType, Element, Field, Hook, HookPoint, Key, Rule, Set, Verdict,
    priority, ranges,
};

const ICMPV6: u8 = 58;
/// Without these messages an IPv6 host is found by nobody.
const NEIGHBOUR_DISCOVERY: (u8, u8) = (133, 137);

/// The whole table; nothing if no policy selects a pod of this node.
pub fn content(world: &World) -> Option<Content> {
    let mut builder = Builder { world, content: Content::default(), policies: BTreeSet::new() };
    builder.base();
    let mut isolated = false;
    for direction in [Direction::Egress, Direction::Ingress] {
        for (group, members) in builder.groups(direction) {
            isolated = true;
            builder.group(direction, &group, &members);
        }
    }
    isolated.then_some(builder.content)
}

struct Builder<'a> {
    world: &'a World,
    content: Content,
    /// Those that have their chain.
    policies: BTreeSet<(Direction, usize)>,
}

impl<'a> Builder<'a> {
    fn base(&mut self) {
        for family in FAMILIES {
            self.content.set(format!("self{}", family.digit), Set::of(&[family.address, family.address]));
            for direction in [Direction::Egress, Direction::Ingress] {
                let map = Set::verdict_map(&[family.address]);
                self.content.set(format!("{}{}", direction.name(), family.digit), map);
            }
        }
        let hook = |point, priority| Hook { kind: ChainType::Filter, point, priority };
        let egress = Self::decide(Direction::Egress);
        self.content.base_chain("egress-forward", hook(HookPoint::Forward, priority::FILTER), egress.clone());
        // What goes to this node itself; what comes from it, such as probes, is always allowed.
        self.content.base_chain("egress-input", hook(HookPoint::Input, priority::FILTER), egress);
        let ingress = Self::decide(Direction::Ingress);
        self.content.base_chain("ingress-forward", hook(HookPoint::Forward, priority::FILTER + 1), ingress);
    }

    fn decide(direction: Direction) -> Vec<Rule> {
        let (first, last) = NEIGHBOUR_DISCOVERY;
        let mut rules = vec![
            Rule::new().any_bit(Field::CtState, CT_ESTABLISHED | CT_RELATED).accept(),
            Rule::new().proto(ICMPV6).byte_range(Field::IcmpType, first, last).accept(),
        ];
        for family in FAMILIES {
            let own_pair = [family.saddr, family.daddr];
            rules.push(family.rule().in_set(&own_pair, format!("self{}", family.digit)).accept());
            let (own, _) = family.own_and_peer(direction);
            rules.push(family.rule().verdict_of(&[own], format!("{}{}", direction.name(), family.digit)));
        }
        rules
    }

    /// The pods of this node that policies select, by the policies that do.
    fn groups(&self, direction: Direction) -> BTreeMap<Vec<usize>, Vec<&'a Member>> {
        let world = self.world;
        let policies: Vec<(usize, &NetworkPolicy, Select)> = world
            .policies
            .iter()
            .enumerate()
            .filter(|(_, policy)| direction.is_in(policy))
            .map(|(index, policy)| {
                let selector = policy.spec.as_ref().and_then(|spec| spec.pod_selector.as_ref());
                (index, policy, Select::new(selector))
            })
            .collect();
        let mut groups: BTreeMap<Vec<usize>, Vec<&Member>> = BTreeMap::new();
        for member in world.members.iter().filter(|member| member.local) {
            let selected = |(_, policy, selector): &&(usize, &NetworkPolicy, Select)| {
                policy.metadata.namespace.as_deref() == Some(&*member.namespace) && selector.matches(&member.labels)
            };
            let chosen: Vec<usize> = policies.iter().filter(selected).map(|(index, ..)| *index).collect();
            if !chosen.is_empty() {
                groups.entry(chosen).or_default().push(member);
            }
        }
        groups
    }

    fn group(&mut self, direction: Direction, policies: &[usize], members: &[&Member]) {
        let names: Vec<String> = policies.iter().map(|index| self.policy(direction, *index)).collect();
        let name = format!("{}-pods-{}", direction.name(), digest(&names.join(" ")));
        let mut rules: Vec<Rule> = names.iter().map(|policy| Rule::new().jump(policy)).collect();
        rules.push(Rule::new().deny());
        self.content.chain(&*name, rules);
        for address in members.iter().flat_map(|member| &member.addresses) {
            let digit = if address.is_ipv4() { '4' } else { '6' };
            let verdict = Element::Verdict(Verdict::Goto(name.clone()));
            self.content.element(format!("{}{digit}", direction.name()), Key::new().ip(*address), verdict);
            self.content.element(format!("self{digit}"), Key::new().ip(*address).ip(*address), Element::Member);
        }
    }

    /// The name of a policy's chain, which is made at the first call.
    fn policy(&mut self, direction: Direction, index: usize) -> String {
        let policy = &self.world.policies[index];
        let namespace = policy.metadata.namespace.as_deref().unwrap_or_default();
        let full = format!("{namespace}/{}", policy.metadata.name.as_deref().unwrap_or_default());
        let mut name = format!("{}-{}-{full}", direction.name(), digest(&full));
        name.truncate(100);
        if self.policies.insert((direction, index)) {
            let mut rules = Vec::new();
            for (number, rule) in direction.rules(policy).iter().enumerate() {
                for family in FAMILIES {
                    let id = format!("{}-{}-{number}-{}", direction.name(), digest(&full), family.digit);
                    self.rule(direction, namespace, rule, family, &id, &mut rules);
                }
            }
            self.content.chain(&*name, rules);
        }
        name
    }

    /// Adds the rules that accept what one rule of a policy allows in one IP family.
    fn rule(
        &mut self,
        direction: Direction,
        namespace: &str,
        rule: &PolicyRule<'_>,
        family: Family,
        id: &str,
        out: &mut Vec<Rule>,
    ) {
        let (_, peer_field) = family.own_and_peer(direction);
        let peers: Vec<&Member> = self.peers(namespace, rule.peers);
        let mut starts = Vec::new();
        if rule.peers.is_empty() {
            starts.push(family.rule());
        }
        let addresses = peers.iter().flat_map(|peer| &peer.addresses).filter(|address| family.has(address));
        let addresses: BTreeSet<IpAddr> = addresses.copied().collect();
        if !addresses.is_empty() {
            let set = format!("{id}-pods");
            self.content.set(&*set, Set::of(&[family.address]));
            for address in addresses {
                self.content.element(&*set, Key::new().ip(address), Element::Member);
            }
            starts.push(family.rule().in_set(&[peer_field], set));
        }
        if let Some(set) = self.blocks(rule.peers, family, id) {
            starts.push(family.rule().in_set(&[peer_field], set));
        }
        // Named ports are those of the pods that are connected to.
        let destinations: Vec<&Member> = match direction {
            Direction::Ingress => {
                self.world.members.iter().filter(|one| one.local && *one.namespace == *namespace).collect()
            }
            Direction::Egress if rule.peers.is_empty() => self.world.members.iter().collect(),
            Direction::Egress => peers,
        };
        for start in starts {
            if rule.ports.is_empty() {
                out.push(start.accept());
                continue;
            }
            for (number, port) in rule.ports.iter().enumerate() {
                let set = format!("{id}-port{number}");
                out.extend(self.port(start.clone(), port, family, &destinations, set));
            }
        }
    }

    fn port(
        &mut self,
        start: Rule,
        port: &NetworkPolicyPort,
        family: Family,
        destinations: &[&Member],
        set: String,
    ) -> Option<Rule> {
        let protocol = protocol_number(port.protocol.as_deref())?;
        let name = match &port.port {
            None => return Some(start.proto(protocol).accept()),
            Some(IntOrString::Int(first)) => {
                let first = u16::try_from(*first).ok()?;
                let last = port.end_port.map_or(Some(first), |end| u16::try_from(end).ok())?;
                let rule = start.proto(protocol);
                let one = first == last;
                let rule =
                    if one { rule.port(Field::Dport, first) } else { rule.port_range(Field::Dport, first, last) };
                return Some(rule.accept());
            }
            Some(IntOrString::String(name)) => name,
        };
        self.content.set(&*set, Set::of(&[family.address, DataType::InetProto, DataType::InetService]));
        for member in destinations {
            let numbers = member.ports.iter().filter(|(found, over, _)| found == name && *over == protocol);
            for (_, _, number) in numbers {
                for address in member.addresses.iter().filter(|address| family.has(address)) {
                    let key = Key::new().ip(*address).proto(protocol).port(*number);
                    self.content.element(&*set, key, Element::Member);
                }
            }
        }
        Some(start.in_set(&[family.daddr, Field::L4Proto, Field::Dport], set).accept())
    }

    /// The pods that a rule's peers select.
    fn peers(&self, namespace: &str, peers: &[NetworkPolicyPeer]) -> Vec<&'a Member> {
        let selectors: Vec<(Option<Select>, Select)> = peers
            .iter()
            .filter(|peer| peer.ip_block.is_none())
            .map(|peer| {
                let namespaces = peer.namespace_selector.as_ref().map(|selector| Select::new(Some(selector)));
                (namespaces, Select::new(peer.pod_selector.as_ref()))
            })
            .collect();
        let world = self.world;
        let selected = |member: &&Member| {
            selectors.iter().any(|(namespaces, pods)| {
                let there = match namespaces {
                    None => *member.namespace == *namespace,
                    Some(selector) => {
                        world.namespaces.get(&*member.namespace).is_some_and(|labels| selector.matches(labels))
                    }
                };
                there && pods.matches(&member.labels)
            })
        };
        world.members.iter().filter(selected).collect()
    }

    /// Makes the set of what a rule's address blocks allow; none if it has no blocks.
    fn blocks(&mut self, peers: &[NetworkPolicyPeer], family: Family, id: &str) -> Option<String> {
        let mut nets = Vec::new();
        for block in peers.iter().filter_map(|peer| peer.ip_block.as_ref()) {
            let Ok(net) = block.cidr.parse::<IpNet>() else { continue };
            let excepted = block.except.iter().flatten().filter_map(|text| text.parse().ok());
            nets.extend(without(net.trunc(), &excepted.collect::<Vec<_>>()));
        }
        nets.retain(|net| family.has(&net.addr()));
        if nets.is_empty() {
            return None;
        }
        nets.sort_unstable();
        // Ranges are not changed in place, as they might overlap on the way: other ranges are another set.
        let set = format!("{id}-blocks-{}", digest(&format!("{nets:?}")));
        self.content.set(&*set, Set { interval: true, ..Set::of(&[family.address]) });
        for (first, end) in ranges(&nets) {
            self.content.element(&*set, Key::new().ip(first), Element::Member);
            if let Some(end) = end {
                self.content.element(&*set, Key::new().ip(end), Element::RangeEnd);
            }
        }
        Some(set)
    }
}

/// The networks that make up `net` without those that are excepted.
fn without(net: IpNet, excepted: &[IpNet]) -> Vec<IpNet> {
    if excepted.iter().any(|except| except.contains(&net)) {
        return Vec::new();
    }
    if !excepted.iter().any(|except| net.contains(except)) {
        return vec![net];
    }
    // The excepted network is smaller, so this one has halves.
    let halves = net.subnets(net.prefix_len() + 1).into_iter().flatten();
    halves.flat_map(|half| without(half, excepted)).collect()
}

fn digest(text: &str) -> String {
    hex::encode(&Sha256::digest(text)[..6])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_cut() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let cut = without(net("10.0.0.0/22"), &[net("10.0.1.0/24"), net("10.0.3.128/25")]);
        assert_eq!(cut, ["10.0.0.0/24", "10.0.2.0/24", "10.0.3.0/25"].map(net));
        assert_eq!(without(net("10.0.0.0/24"), &[net("10.0.0.0/16")]), []);
        assert_eq!(without(net("10.0.0.0/24"), &[net("10.1.0.0/16")]), [net("10.0.0.0/24")]);
    }
}
