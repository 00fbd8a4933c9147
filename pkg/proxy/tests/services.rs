#![allow(clippy::unwrap_used)]
//! Services in real namespaces: a node, pods behind its bridge, and a client outside the cluster.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube1_client::ObjectKey;
use kube1_network::netns::Namespace;
use kube1_network::rtnl::{Mac, Route, RouteSocket};
use kube1_network::{OverlayConfig, State, set_up};
use kube1_proxy::{Fragment, Fronts, Place, TableState, ports_of, targets};
use serde_json::{Value, json};

const NODE: &str = "192.0.2.1";
const OUTSIDE: &str = "192.0.2.9";

struct World {
    node: Namespace,
    outside: Namespace,
    pods: HashMap<u8, Namespace>,
    table: TableState,
    _dir: tempfile::TempDir,
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn pod_ip(number: u8) -> IpAddr {
    [10, 42, 0, number].into()
}

impl World {
    fn new(pods: &[u8]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (node, outside) = (Namespace::new().unwrap(), Namespace::new().unwrap());
        let cluster_cidr = "10.42.0.0/16".parse().unwrap();
        let config = OverlayConfig {
            node_name: "here".into(),
            node_ip: ip(NODE),
            data_dir: dir.path().to_owned(),
            cluster_cidr,
            service_cidrs: vec!["10.43.0.0/16".parse().unwrap()],
            cni_bin_dir: dir.path().join("bin"),
            cni_conf_dir: dir.path().join("net.d"),
            executable: "/nowhere".into(),
        };
        let state = State { node_ip: ip(NODE), subnet: "10.42.0.0/24".parse().unwrap(), peers: Vec::new() };
        node.run(|| {
            let mut socket = RouteSocket::open().unwrap();
            let lo = socket.link("lo").unwrap();
            socket.set_up(lo.index).unwrap();
            plug(&mut socket, "uplink", "eth0", &outside);
            let uplink = socket.link("uplink").unwrap();
            socket.add_address(uplink.index, format!("{NODE}/24").parse().unwrap()).unwrap();
            set_up(&config, &state).unwrap();
        })
        .unwrap();
        configure(&outside, &format!("{OUTSIDE}/24"), &[("10.43.0.0/16", NODE), ("198.51.100.0/24", NODE)]);
        let mut world = Self {
            node,
            outside,
            pods: HashMap::new(),
            table: TableState::new("kube1-proxy", &[cluster_cidr]),
            _dir: dir,
        };
        pods.iter().for_each(|number| world.add_pod(*number));
        world.sync_all(&[]);
        let half_closed = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait";
        assert_eq!(world.node.run(|| std::fs::read_to_string(half_closed)).unwrap().unwrap(), "3600\n");
        world
    }

    fn add_pod(&mut self, number: u8) {
        let pod = Namespace::new().unwrap();
        self.node
            .run(|| {
                let mut socket = RouteSocket::open().unwrap();
                let name = format!("pod{number}");
                plug(&mut socket, &name, "eth0", &pod);
                let (port, bridge) = (socket.link(&name).unwrap(), socket.link("kube1").unwrap());
                socket.attach(port.index, bridge.index).unwrap();
            })
            .unwrap();
        configure(&pod, &format!("{}/32", pod_ip(number)), &[("10.42.0.1/32", ""), ("0.0.0.0/0", "10.42.0.1")]);
        let listener = pod.run(|| TcpListener::bind("0.0.0.0:8080").unwrap()).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let client = stream.peer_addr().unwrap().ip();
                let _ = stream.write_all(format!("{number} {client}").as_bytes());
            }
        });
        let socket = pod.run(|| UdpSocket::bind("0.0.0.0:8080").unwrap()).unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 100];
            while let Ok((_, client)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(number.to_string().as_bytes(), client);
            }
        });
        self.pods.insert(number, pod);
    }

    fn sync_all(&mut self, services: &[(&Service, &EndpointSlice)]) {
        let fragments = services.iter().map(|(service, slice)| compute(service, slice)).collect();
        let table = &mut self.table;
        self.node.run(|| table.replace(fragments).unwrap()).unwrap();
    }

    fn sync(&mut self, service: &Service, slice: &EndpointSlice) {
        let table = &mut self.table;
        self.node.run(|| table.update(vec![compute(service, slice)]).unwrap()).unwrap();
    }
}

fn plug(socket: &mut RouteSocket, name: &str, peer: &str, namespace: &Namespace) {
    let file = std::fs::File::open(namespace.path()).unwrap();
    let mac = Mac([2, 0, 0, 0, name.len() as u8, name.as_bytes()[name.len() - 1]]);
    socket.create_veth(name, peer, mac, 1450, file.as_raw_fd()).unwrap();
    let link = socket.link(name).unwrap();
    socket.set_up(link.index).unwrap();
}

fn configure(namespace: &Namespace, address: &str, routes: &[(&str, &str)]) {
    namespace
        .run(|| {
            let mut socket = RouteSocket::open().unwrap();
            let link = socket.link("eth0").unwrap();
            socket.add_address(link.index, address.parse().unwrap()).unwrap();
            socket.set_up(link.index).unwrap();
            for (destination, gateway) in routes {
                let (destination, gateway) = (destination.parse().unwrap(), gateway.parse().ok());
                let route = Route { destination, gateway, device: link.index, onlink: false, source: None };
                socket.replace_route(&route).unwrap();
            }
        })
        .unwrap();
}

fn compute(service: &Service, slice: &EndpointSlice) -> (ObjectKey, Fragment) {
    let place = Place { node: "here".into(), zone: None };
    let mut whole = Fragment::default();
    for port in ports_of(service) {
        let targets = targets(&port, std::iter::once(slice), &place);
        let part = kube1_proxy::fragment(&port, &targets, &["10.42.0.0/16".parse().unwrap()]);
        whole.own.sets.extend(part.own.sets);
        whole.own.chains.extend(part.own.chains);
        whole.shared.extend(part.shared);
    }
    (ObjectKey::of(service), whole)
}

fn service(name: &str, cluster_ip: &str, more: Value) -> Service {
    let mut spec = json!({
        "type": "NodePort", "clusterIP": cluster_ip, "clusterIPs": [cluster_ip],
        "ports": [{"name": "web", "port": 80, "nodePort": 30080, "protocol": "TCP"},
                  {"name": "dns", "port": 80, "nodePort": 30080, "protocol": "UDP"}],
    });
    let mut status = json!({});
    for (key, value) in more.as_object().unwrap() {
        if key == "status" { status = value.clone() } else { spec[key] = value.clone() }
    }
    let service = json!({"metadata": {"name": name, "namespace": "ns"}, "spec": spec, "status": status});
    serde_json::from_value(service).unwrap()
}

/// Endpoints with the node that each is on.
fn slice(endpoints: &[(u8, &str)]) -> EndpointSlice {
    let endpoint = |(number, node): &(u8, &str)| json!({"addresses": [pod_ip(*number)], "nodeName": node, "conditions": {"ready": true}});
    serde_json::from_value(json!({
        "metadata": {"name": "s", "namespace": "ns"}, "addressType": "IPv4",
        "ports": [{"name": "web", "port": 8080, "protocol": "TCP"}, {"name": "dns", "port": 8080, "protocol": "UDP"}],
        "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
    }))
    .unwrap()
}

/// Which pod answers, and whom it sees.
fn ask(from: &Namespace, to: &str) -> io::Result<(u8, String)> {
    ask_within(from, to, Duration::from_secs(20))
}

fn ask_within(from: &Namespace, to: &str, time: Duration) -> io::Result<(u8, String)> {
    let to: SocketAddr = to.parse().unwrap();
    from.run(|| {
        let mut stream = TcpStream::connect_timeout(&to, time)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (pod, client) = answer.split_once(' ').unwrap();
        Ok((pod.parse().unwrap(), client.to_owned()))
    })
    .unwrap()
}

fn refused(result: io::Result<(u8, String)>) -> bool {
    result.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

fn unanswered(from: &Namespace, to: &str) -> bool {
    ask_within(from, to, Duration::from_millis(700)).is_err_and(|error| error.kind() == io::ErrorKind::TimedOut)
}

#[test]
fn cluster_ip_reaches_every_endpoint_from_everywhere() {
    let mut world = World::new(&[2, 3, 4]);
    for bridged in ["0", "1"] {
        let _ = world.node.run(|| std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", bridged)).unwrap();
        let service = service("web", "10.43.0.5", json!({}));
        world.sync(&service, &slice(&[(2, "here"), (3, "here")]));
        for client in [2, 3, 4] {
            let answers: BTreeSet<_> = (0..40).map(|_| ask(&world.pods[&client], "10.43.0.5:80").unwrap()).collect();
            let pods: BTreeSet<u8> = answers.iter().map(|(pod, _)| *pod).collect();
            assert_eq!(pods, [2, 3].into(), "not every endpoint was used by {client}");
            let own = pod_ip(client).to_string();
            assert!(answers.iter().all(|(pod, seen)| *seen == own || *pod == client), "{answers:?}");
        }
        ask(&world.node, "10.43.0.5:80").unwrap();
        ask(&world.outside, "10.43.0.5:80").unwrap();
        world.sync(&service, &slice(&[]));
        for from in [&world.pods[&4], &world.node, &world.outside] {
            assert!(refused(ask(from, "10.43.0.5:80")));
        }
        assert!(refused(ask(&world.outside, "192.0.2.1:30080")));
        world.sync(&service, &slice(&[(3, "here")]));
        assert_eq!(ask(&world.pods[&4], "10.43.0.5:80").unwrap().0, 3);
    }
}

#[test]
fn node_ports_follow_the_traffic_policy() {
    let mut world = World::new(&[2, 3]);
    let cluster = service("web", "10.43.0.5", json!({}));
    world.sync(&cluster, &slice(&[(2, "here")]));
    assert_eq!(ask(&world.outside, "192.0.2.1:30080").unwrap(), (2, "10.42.0.1".into()));
    for address in ["127.0.0.1:30080", "192.0.2.1:30080", "10.42.0.1:30080"] {
        assert_eq!(ask(&world.node, address).unwrap_or_else(|error| panic!("{address}: {error}")).0, 2);
    }
    assert_eq!(ask(&world.pods[&3], "192.0.2.1:30080").unwrap().0, 2);
    assert_eq!(ask(&world.pods[&2], "192.0.2.1:30080").unwrap().0, 2);

    let local = service("web", "10.43.0.5", json!({"externalTrafficPolicy": "Local"}));
    world.sync(&local, &slice(&[(2, "elsewhere"), (3, "here")]));
    for _ in 0..10 {
        assert_eq!(ask(&world.outside, "192.0.2.1:30080").unwrap(), (3, OUTSIDE.into()));
    }
    world.sync(&local, &slice(&[(2, "elsewhere")]));
    assert!(unanswered(&world.outside, "192.0.2.1:30080"));
    assert_eq!(ask(&world.pods[&3], "192.0.2.1:30080").unwrap(), (2, pod_ip(3).to_string()));
    ask(&world.node, "192.0.2.1:30080").unwrap();

    let internal = service("web", "10.43.0.5", json!({"internalTrafficPolicy": "Local"}));
    world.sync(&internal, &slice(&[(2, "elsewhere"), (3, "here")]));
    assert!((0..10).all(|_| ask(&world.pods[&2], "10.43.0.5:80").unwrap().0 == 3));
    world.sync(&internal, &slice(&[(2, "elsewhere")]));
    assert!(unanswered(&world.pods[&3], "10.43.0.5:80"));
}

#[test]
fn load_balancer_and_external_addresses() {
    let mut world = World::new(&[2, 3]);
    let balanced = |more: Value| {
        let mut all = json!({"type": "LoadBalancer", "externalIPs": ["198.51.100.7"],
            "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.8", "ipMode": "VIP"}]}}});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        service("web", "10.43.0.5", all)
    };
    world.sync(&balanced(json!({})), &slice(&[(2, "here")]));
    for address in ["198.51.100.7:80", "198.51.100.8:80"] {
        assert_eq!(ask(&world.outside, address).unwrap().0, 2);
        assert_eq!(ask(&world.pods[&3], address).unwrap().0, 2);
    }
    world.sync(&balanced(json!({"loadBalancerSourceRanges": ["203.0.113.0/24"]})), &slice(&[(2, "here")]));
    assert!(unanswered(&world.outside, "198.51.100.8:80"));
    world.sync(
        &balanced(json!({"loadBalancerSourceRanges": ["203.0.113.0/24", "192.0.2.9/32"]})),
        &slice(&[(2, "here")]),
    );
    assert_eq!(ask(&world.outside, "198.51.100.8:80").unwrap().0, 2);
    // Two services with the same external address: when one goes, the other has it.
    let second =
        service("zweb", "10.43.0.6", json!({"externalIPs": ["198.51.100.7"], "ports": [{"name": "web", "port": 80}]}));
    world.sync(&second, &slice(&[(3, "here")]));
    assert_eq!(ask(&world.outside, "198.51.100.7:80").unwrap().0, 2);
    let table = &mut world.table;
    world.node.run(|| table.update(vec![(ObjectKey::new("ns", "web"), Fragment::default())]).unwrap()).unwrap();
    assert_eq!(ask(&world.outside, "198.51.100.7:80").unwrap().0, 3);
    assert_eq!(ask(&world.pods[&3], "10.43.0.6:80").unwrap().0, 3);
}

#[test]
fn a_client_stays_with_its_endpoint_while_it_exists() {
    let mut world = World::new(&[2, 3, 4]);
    let sticky = service(
        "web",
        "10.43.0.5",
        json!({"sessionAffinity": "ClientIP",
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 100}}}),
    );
    world.sync(&sticky, &slice(&[(2, "here"), (3, "here")]));
    let chosen = ask(&world.pods[&4], "10.43.0.5:80").unwrap().0;
    assert!((0..20).all(|_| ask(&world.pods[&4], "10.43.0.5:80").unwrap().0 == chosen));
    // Another endpoint comes: the client stays.
    world.sync(&sticky, &slice(&[(2, "here"), (3, "here"), (4, "here")]));
    assert!((0..20).all(|_| ask(&world.pods[&4], "10.43.0.5:80").unwrap().0 == chosen));
    let other = 5 - chosen;
    world.sync(&sticky, &slice(&[(other, "here")]));
    assert!((0..5).all(|_| ask(&world.pods[&4], "10.43.0.5:80").unwrap().0 == other));
    world.sync(&sticky, &slice(&[(2, "here"), (3, "here")]));
    assert!((0..20).all(|_| ask(&world.pods[&4], "10.43.0.5:80").unwrap().0 == other));
}

#[test]
fn a_udp_flow_moves_when_its_endpoint_goes() {
    let mut world = World::new(&[2, 3, 4]);
    let service = service("dns", "10.43.0.5", json!({}));
    world.sync(&service, &slice(&[(2, "here")]));
    let socket = world.pods[&4].run(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let ask = || {
        socket.send_to(b"who", "10.43.0.5:80").unwrap();
        let mut buffer = [0; 10];
        let (length, from) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!(from.to_string(), "10.43.0.5:80");
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    assert_eq!(ask(), "2");
    let only_three = slice(&[(3, "here")]);
    world.sync(&service, &only_three);
    let mut fronts = Fronts::default();
    for port in ports_of(&service) {
        fronts.add(&port, &targets(&port, std::iter::once(&only_three), &Place::default()));
    }
    let forgotten = world.node.run(|| fronts.forget_stale()).unwrap();
    assert_eq!(forgotten.unwrap(), 1);
    assert_eq!(ask(), "3");
}
