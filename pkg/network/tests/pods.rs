#![allow(clippy::unwrap_used)]
//! Nodes and pods in network namespaces of their own, wired by the real plugin.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread::JoinHandle;
use std::time::Duration;

use kube1_network::netns::Namespace;
use kube1_network::rtnl::RouteSocket;
use kube1_network::{State, set_up};
use serde_json::json;

use support::{Node, Pod};

/// Answers one connection on port 80 with the client's address.
fn serve_once(pod: &Pod) -> JoinHandle<()> {
    let listener = pod.namespace.run(|| TcpListener::bind("0.0.0.0:80").unwrap()).unwrap();
    std::thread::spawn(move || {
        let (mut stream, client) = listener.accept().unwrap();
        stream.write_all(client.ip().to_string().as_bytes()).unwrap();
    })
}

/// Who the server says we are.
fn ask(from: &Namespace, to: SocketAddr) -> std::io::Result<String> {
    from.run(|| {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(20))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })
    .unwrap()
}

#[test]
fn pods_reach_pods_and_nodes() {
    let (one, two) = Node::pair();
    // As Docker leaves a host.
    one.within(|| {
        let firewall =
            "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }";
        assert!(Command::new("nft").arg(firewall).status().unwrap().success());
        set_up(&one.config, &one.state).unwrap();
    });
    let (a, b, c) = (one.add("a", json!({})), one.add("b", json!({})), two.add("c", json!({})));
    for (client, server) in [(&a, &b), (&b, &a), (&a, &c), (&c, &b)] {
        let server_thread = serve_once(server);
        let seen = ask(&client.namespace, (server.address, 80).into()).unwrap();
        assert_eq!(seen, client.address.to_string(), "pods see each other's own addresses");
        server_thread.join().unwrap();
    }
    // A node's own processes reach pods here and there, and answers come back.
    for (server, expected) in [(&a, "10.42.1.1"), (&c, "10.42.1.0")] {
        let server_thread = serve_once(server);
        assert_eq!(ask(&one.namespace, (server.address, 80).into()).unwrap(), expected);
        server_thread.join().unwrap();
    }
    // What leaves the cluster has the node's address.
    let listener = two.within(|| TcpListener::bind("192.0.2.2:8080").unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, client) = listener.accept().unwrap();
        stream.write_all(client.ip().to_string().as_bytes()).unwrap();
    });
    assert_eq!(ask(&a.namespace, "192.0.2.2:8080".parse().unwrap()).unwrap(), "192.0.2.1");
    server.join().unwrap();
}

#[test]
fn host_ports_lead_to_the_pod_until_it_is_deleted() {
    // The host's other software decides whether bridged packets are translated too.
    for bridged in ["0", "1"] {
        host_ports_work(bridged);
    }
}

fn host_ports_work(bridged: &str) {
    let (one, two) = Node::pair();
    let set = || std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", bridged);
    if let Err(error) = one.within(set) {
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    }
    // As containerd writes it, and as the specification does.
    let mapping = json!({"portMappings": [
        {"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""},
        {"hostPort": 8081, "containerPort": 80, "protocol": "tcp", "hostIP": "192.0.2.1"},
    ]});
    let (pod, other) = (one.add("a", mapping.clone()), one.add("b", json!({})));
    let hosts: [(&Namespace, &str); 5] = [
        (&two.namespace, "192.0.2.1:8081"),
        (&two.namespace, "192.0.2.1:8080"),
        (&one.namespace, "192.0.2.1:8080"),
        (&one.namespace, "127.0.0.1:8080"),
        (&other.namespace, "192.0.2.1:8080"),
    ];
    for (client, address) in hosts {
        let server = serve_once(&pod);
        ask(client, address.parse().unwrap()).unwrap_or_else(|error| panic!("{address}: {error}"));
        server.join().unwrap();
    }
    let server = serve_once(&pod);
    ask(&pod.namespace, "192.0.2.1:8080".parse().unwrap()).expect("a pod reaches itself through its host port");
    server.join().unwrap();
    // The table made anew still has what the plugin added.
    one.within(|| set_up(&one.config, &one.state)).unwrap();
    let server = serve_once(&pod);
    ask(&two.namespace, "192.0.2.1:8080".parse().unwrap()).unwrap();
    server.join().unwrap();
    for _ in 0..2 {
        one.plugin("DEL", &pod, mapping.clone()).unwrap();
    }
    assert!(ask(&two.namespace, "192.0.2.1:8080".parse().unwrap()).is_err());
}

#[test]
fn add_is_repeatable_and_del_leaves_nothing() {
    let (one, _two) = Node::pair();
    let pod = one.add("a", json!({}));
    let links = || one.within(|| RouteSocket::open().unwrap().links().unwrap().len());
    one.plugin("CHECK", &pod, json!({})).unwrap();
    let before = links();
    one.plugin("DEL", &pod, json!({})).unwrap();
    assert_eq!(links(), before - 1);
    assert!(one.plugin("CHECK", &pod, json!({})).is_err());
    let again = one.add("a", json!({}));
    assert_ne!(again.address, pod.address, "an address is not reused at once");
    let repeated = one.plugin("ADD", &Pod { namespace: Namespace::new().unwrap(), ..again }, json!({})).unwrap();
    assert_eq!(repeated["ips"][0]["address"], format!("{}/32", again.address));
    let error = one.plugin("ADD", &Pod { id: "../x".into(), ..pod }, json!({})).unwrap_err();
    assert_eq!(error["code"], 4);
}

#[test]
fn a_node_that_left_is_forgotten_and_cleanup_removes_everything() {
    let (one, _two) = Node::pair();
    let tunnel = |socket: &mut RouteSocket| socket.link("kube1-vx").unwrap().index;
    one.within(|| {
        let mut socket = RouteSocket::open().unwrap();
        let device = tunnel(&mut socket);
        assert_eq!(socket.neighbours(device).unwrap().len(), 2);
        let alone = State { peers: Vec::new(), ..one.state.clone() };
        set_up(&one.config, &alone).unwrap();
        assert_eq!(socket.neighbours(device).unwrap(), []);
        assert!(socket.routes(device).unwrap().iter().all(|route| route.gateway.is_none()));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(kube1_network::cleanup(&one.config.data_dir)).unwrap();
        let names: Vec<_> = socket.links().unwrap().into_iter().map(|link| link.name).collect();
        assert!(names.iter().all(|name| !name.starts_with("kube1")), "{names:?}");
        let ruleset = Command::new("nft").args(["list", "ruleset"]).output().unwrap().stdout;
        assert_eq!(String::from_utf8(ruleset).unwrap(), "");
        assert!(!one.config.data_dir.join("network").exists());
    });
}
