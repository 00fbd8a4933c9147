//! Nodes and pods of tests.

#![allow(clippy::unwrap_used, dead_code)]

use std::io::Write;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};

use kube1_network::netns::Namespace;
use kube1_network::rtnl::{Mac, RouteSocket};
use kube1_network::{OverlayConfig, Peer, State, set_up};
use serde_json::Value;
use tempfile::TempDir;

pub struct Node {
    pub namespace: Namespace,
    pub config: OverlayConfig,
    pub state: State,
    _dir: TempDir,
}

pub struct Pod {
    pub namespace: Namespace,
    pub id: String,
    pub address: IpAddr,
}

impl Node {
    pub fn new(number: u8, peers: &[u8]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let peer = |number| Peer { subnet: subnet(number), node_ip: node_ip(number) };
        let state = State {
            node_ip: node_ip(number),
            subnet: subnet(number),
            peers: peers.iter().map(|number| peer(*number)).collect(),
        };
        let config = OverlayConfig {
            node_name: format!("node-{number}"),
            node_ip: node_ip(number),
            data_dir: dir.path().to_owned(),
            cluster_cidr: "10.42.0.0/16".parse().unwrap(),
            service_cidrs: vec!["10.43.0.0/16".parse().unwrap()],
            cni_bin_dir: dir.path().join("bin"),
            cni_conf_dir: dir.path().join("net.d"),
            executable: env!("CARGO_BIN_EXE_kube1-cni").into(),
        };
        Self { namespace: Namespace::new().unwrap(), config, state, _dir: dir }
    }

    /// Connects two nodes by a cable.
    pub fn pair() -> (Self, Self) {
        let (one, two) = (Self::new(1, &[2]), Self::new(2, &[1]));
        let other = std::fs::File::open(two.namespace.path()).unwrap();
        let connect = |socket: &mut RouteSocket, number: u8| {
            let link = socket.link("uplink").unwrap();
            socket.add_address(link.index, format!("192.0.2.{number}/24").parse().unwrap()).unwrap();
            socket.set_up(link.index).unwrap();
        };
        one.within(|| {
            let mut socket = RouteSocket::open().unwrap();
            let mac = Mac::of(9, node_ip(2));
            socket.create_veth("uplink", "uplink", mac, 1500, other.as_raw_fd()).unwrap();
            connect(&mut socket, 1);
        });
        two.within(|| connect(&mut RouteSocket::open().unwrap(), 2));
        for node in [&one, &two] {
            node.within(|| {
                let mut socket = RouteSocket::open().unwrap();
                let lo = socket.link("lo").unwrap();
                socket.set_up(lo.index).unwrap();
                set_up(&node.config, &node.state).unwrap();
                set_up(&node.config, &node.state).unwrap();
            });
        }
        (one, two)
    }

    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.namespace.run(work).unwrap()
    }

    /// Calls a plugin as the runtime does.
    pub fn plugin(&self, command: &str, pod: &Pod, runtime: Value) -> Result<Value, Value> {
        let list = std::fs::read(self.config.cni_conf_dir.join("10-kube1.conflist")).unwrap();
        let list: Value = serde_json::from_slice(&list).unwrap();
        let mut config = list["plugins"][0].clone();
        config["cniVersion"] = list["cniVersion"].clone();
        config["name"] = list["name"].clone();
        config["runtimeConfig"] = runtime;
        let program = self.config.cni_bin_dir.join(config["type"].as_str().unwrap());
        let output = self.within(|| {
            let mut child = Command::new(program)
                .envs([("CNI_COMMAND", command), ("CNI_CONTAINERID", &pod.id), ("CNI_IFNAME", "eth0")])
                .env("CNI_NETNS", pod.namespace.path())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
            child.wait_with_output().unwrap()
        });
        let answer = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        if output.status.success() { Ok(answer) } else { Err(answer) }
    }

    pub fn add(&self, id: &str, runtime: Value) -> Pod {
        let mut pod = Pod { namespace: Namespace::new().unwrap(), id: id.to_owned(), address: [0; 4].into() };
        pod.namespace
            .run(|| {
                let mut socket = RouteSocket::open().unwrap();
                let lo = socket.link("lo").unwrap();
                socket.set_up(lo.index).unwrap();
            })
            .unwrap();
        let result = self.plugin("ADD", &pod, runtime).unwrap();
        let address: ipnet::IpNet = result["ips"][0]["address"].as_str().unwrap().parse().unwrap();
        pod.address = address.addr();
        pod
    }
}

pub fn subnet(node: u8) -> ipnet::IpNet {
    format!("10.42.{node}.0/24").parse().unwrap()
}

pub fn node_ip(node: u8) -> IpAddr {
    [192, 0, 2, node].into()
}
