#![allow(clippy::unwrap_used)]
//! NetworkPolicies between real pods.

mod support;

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use kube1_network::netns::Namespace;
use kube1_network::nft::{Content, Table};
use kube1_network::{Member, POLICY_TABLE, World, policy_content};
use serde_json::{Value, json};

use support::{Node, Pod};

/// Two pods `a` and `b` in namespace `x`, `c` in namespace `y`, all on one node, and one `far` on another.
struct Cluster {
    node: Node,
    other: Node,
    pods: HashMap<&'static str, Pod>,
    world: World,
    current: Option<Content>,
}

const PORTS: [u16; 2] = [80, 81];

impl Cluster {
    fn new() -> Self {
        let (node, other) = Node::pair();
        let mut world = World::default();
        world.namespaces.insert("x".into(), [("team".to_owned(), "red".to_owned())].into());
        world.namespaces.insert("y".into(), [("team".to_owned(), "blue".to_owned())].into());
        let mut pods = HashMap::new();
        for (name, namespace, local) in [("a", "x", true), ("b", "x", true), ("c", "y", true), ("far", "y", false)] {
            let pod = if local { node.add(name, json!({})) } else { other.add(name, json!({})) };
            for port in PORTS {
                serve(pod.namespace.run(|| TcpListener::bind(("0.0.0.0", port)).unwrap()).unwrap());
            }
            world.members.push(Member {
                namespace: namespace.into(),
                labels: Arc::new([("pod".to_owned(), name.to_owned())].into()),
                addresses: vec![pod.address],
                ports: [("web".into(), 6, 80)].into(),
                local,
            });
            pods.insert(name, pod);
        }
        for port in PORTS {
            serve(node.within(|| TcpListener::bind(("0.0.0.0", port)).unwrap()));
        }
        Self { node, other, pods, world, current: None }
    }

    /// Enforces exactly these policies.
    fn enforce(&mut self, policies: &[Value]) {
        let parse = |policy: &Value| serde_json::from_value(policy.clone()).unwrap();
        self.world.policies = policies.iter().map(parse).collect();
        let wanted = policy_content(&self.world);
        let had = std::mem::replace(&mut self.current, wanted.clone());
        self.node.within(|| {
            let table = Table::new(POLICY_TABLE);
            match (&had, &wanted) {
                (Some(had), Some(wanted)) => table.change(&[(had, wanted)]).unwrap(),
                (None, Some(wanted)) => table.replace(wanted).unwrap(),
                (_, None) => table.delete().unwrap(),
            }
        });
    }

    fn namespace(&self, name: &str) -> &Namespace {
        if name == "node" { &self.node.namespace } else { &self.pods[name].namespace }
    }

    fn address(&self, name: &str) -> IpAddr {
        if name == "node" { "192.0.2.1".parse().unwrap() } else { self.pods[name].address }
    }

    /// Whether it does. What is expected to come about has time to; what is not is waited for a moment only.
    fn reaches(&self, from: &str, to: &str, port: u16, expected: bool) -> bool {
        let to = SocketAddr::new(self.address(to), port);
        let time = if expected { Duration::from_secs(20) } else { Duration::from_millis(250) };
        let connect = || TcpStream::connect_timeout(&to, time);
        match self.namespace(from).run(connect).unwrap() {
            Ok(_) => true,
            Err(error) if error.kind() == ErrorKind::TimedOut => false,
            Err(error) => panic!("{from} to {to}: {error}"),
        }
    }

    /// Whether it may connect to each of these is as expected.
    #[track_caller]
    fn assert_reaches<const N: usize>(&self, from: &str, targets: [(&str, u16); N], expected: [bool; N]) {
        let found = std::array::from_fn(|i| self.reaches(from, targets[i].0, targets[i].1, expected[i]));
        assert_eq!(found, expected, "where {from} reaches {targets:?}");
    }

    /// Exactly these may connect to port 80 of a pod, besides itself and its node.
    #[track_caller]
    fn assert_sources(&self, to: &str, expected: &[&str]) {
        let all = ["a", "b", "c", "far"].into_iter().filter(|from| *from != to);
        let found: Vec<&str> = all.filter(|from| self.reaches(from, to, 80, expected.contains(from))).collect();
        assert_eq!(found, expected, "who reaches {to}");
        assert!(self.reaches("node", to, 80, true) && self.reaches(to, to, 80, true));
    }
}

fn serve(listener: TcpListener) {
    std::thread::spawn(move || listener.incoming().for_each(drop));
}

fn policy(name: &str, spec: Value) -> Value {
    json!({"metadata": {"name": name, "namespace": "x"}, "spec": spec})
}

#[test]
fn ingress() {
    let mut cluster = Cluster::new();
    cluster.assert_sources("a", &["b", "c", "far"]);
    let deny = policy("deny", json!({"podSelector": {"matchLabels": {"pod": "a"}}, "policyTypes": ["Ingress"]}));
    cluster.enforce(std::slice::from_ref(&deny));
    cluster.assert_sources("a", &[]);
    cluster.assert_sources("b", &["a", "c", "far"]);
    // Policies add up; selectors of namespaces and pods in one peer are both needed, in two peers either is.
    let allow = |peers: Value| policy("allow", json!({"podSelector": {}, "ingress": [{"from": peers}]}));
    cluster.enforce(&[deny.clone(), allow(json!([{"podSelector": {}}]))]);
    cluster.assert_sources("a", &["b"]);
    let blue = json!({"matchLabels": {"team": "blue"}});
    cluster.enforce(&[deny.clone(), allow(json!([{"namespaceSelector": blue}]))]);
    cluster.assert_sources("a", &["c", "far"]);
    cluster.assert_sources("b", &["c", "far"]);
    let only_far = json!({"matchExpressions": [{"key": "pod", "operator": "In", "values": ["far"]}]});
    cluster.enforce(&[deny.clone(), allow(json!([{"namespaceSelector": blue, "podSelector": only_far}]))]);
    cluster.assert_sources("a", &["far"]);
    let far = cluster.address("far");
    let block = json!([{"ipBlock": {"cidr": "10.42.0.0/16", "except": [format!("{far}/32")]}}]);
    cluster.enforce(&[deny.clone(), allow(block)]);
    cluster.assert_sources("a", &["b", "c"]);
    cluster.enforce(&[deny, allow(json!([{"ipBlock": {"cidr": "0.0.0.0/0"}}]))]);
    cluster.assert_sources("a", &["b", "c", "far"]);
    cluster.enforce(&[]);
    cluster.assert_sources("a", &["b", "c", "far"]);
    cluster.node.within(|| assert!(!Table::new(POLICY_TABLE).exists().unwrap()));
}

#[test]
fn ports() {
    let mut cluster = Cluster::new();
    let ports = |ports: Value| policy("ports", json!({"podSelector": {}, "ingress": [{"ports": ports}]}));
    let cases = [
        (json!([{"port": 80}]), [true, false]),
        (json!([{"port": "web"}]), [true, false]),
        (json!([{"port": 81, "endPort": 90}]), [false, true]),
        (json!([{"port": 80, "endPort": 81, "protocol": "TCP"}]), [true, true]),
        (json!([{"protocol": "TCP"}]), [true, true]),
        (json!([{"port": 80, "protocol": "UDP"}]), [false, false]),
        (json!([{"port": "other"}]), [false, false]),
    ];
    for (allowed, expected) in cases {
        cluster.enforce(&[ports(allowed.clone())]);
        println!("{allowed}");
        for from in ["c", "far"] {
            cluster.assert_reaches(from, PORTS.map(|port| ("a", port)), expected);
        }
    }
}

#[test]
fn egress() {
    let mut cluster = Cluster::new();
    cluster.assert_reaches("a", [("node", 80)], [true]);
    let deny = policy("deny", json!({"podSelector": {"matchLabels": {"pod": "a"}}, "policyTypes": ["Egress"]}));
    cluster.enforce(std::slice::from_ref(&deny));
    let all = ["b", "c", "far", "node"].map(|to| (to, 80));
    cluster.assert_reaches("a", all, [false; 4]);
    // It may answer, and others are not concerned.
    cluster.assert_sources("a", &["b", "c", "far"]);
    cluster.assert_reaches("b", [("far", 80)], [true]);
    let allow = |to: Value, ports: Value| {
        let rule = json!({"to": to, "ports": ports});
        policy("allow", json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [rule]}))
    };
    let blue = json!([{"namespaceSelector": {"matchLabels": {"team": "blue"}}}]);
    cluster.enforce(&[deny.clone(), allow(blue, json!([{"port": "web"}]))]);
    cluster.assert_reaches("a", all, [false, true, true, false]);
    cluster.assert_reaches("a", [("far", 81)], [false]);
    cluster.enforce(&[deny.clone(), allow(json!([{"ipBlock": {"cidr": "192.0.2.1/32"}}]), json!([]))]);
    cluster.assert_reaches("a", all, [false, false, false, true]);
    // The node's DNS server is selected as the cluster's DNS pods are elsewhere.
    let address: IpAddr = "192.0.2.1".parse().unwrap();
    cluster.world.members.push(Member { ports: [("dns-tcp".into(), 6, 80)].into(), ..Member::dns(address) });
    cluster.world.namespaces.insert("kube-system".into(), Default::default());
    let dns = json!([{"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}]);
    cluster.enforce(&[deny, allow(dns, json!([{"port": "dns-tcp"}]))]);
    cluster.assert_reaches("a", [("b", 80), ("node", 80), ("node", 81)], [false, true, false]);
    cluster.assert_reaches("far", [("a", 80)], [true]);
    assert_eq!(cluster.other.state.peers.len(), 1);
}
