//! Real nodes on this machine, each in a network and mount namespace of its own, joined by a bridge.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};

use tempfile::TempDir;

use crate::{Output, built, eventually, run, tool, try_run};

/// Tells the clusters of one test process apart.
static NEXT: AtomicU8 = AtomicU8::new(0);

/// A server with its worker and any number of agents. Dropped, it leaves nothing behind.
pub struct Cluster {
    id: String,
    subnet: String,
    dir: TempDir,
    nodes: Vec<Node>,
}

/// One node: its namespace, files and process.
pub struct Node {
    pub name: String,
    pub address: String,
    pub data_dir: PathBuf,
    namespace: String,
    log: PathBuf,
    args: Vec<String>,
    process: Option<Child>,
}

impl Cluster {
    /// Starts a server and waits until its node is Ready. `args` are added to `kube1 server`.
    pub fn start(args: &[&str]) -> Self {
        let mut cluster = Self::create();
        cluster.add_server(args);
        cluster
    }

    /// The network without nodes.
    pub fn create() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        let id = format!("k1t{:x}{number}", pid & 0xf_ffff);
        // 10.64.0.0/10 is split among processes; equal numbers need two live processes 4096 apart.
        let slot = (pid.wrapping_mul(4).wrapping_add(u32::from(number))) & 0x3fff;
        let subnet = format!("10.{}.{}", 64 + (slot >> 8), slot & 0xff);
        // A process of the same number that was killed may have left its bridge; no living one has this name.
        try_run(Command::new("ip").args(["link", "delete", &id]), "");
        ip(&["link", "add", &id, "type", "bridge"]);
        ip(&["addr", "add", &format!("{subnet}.1/24"), "dev", &id]);
        ip(&["link", "set", &id, "up"]);
        let dir = tempfile::Builder::new().prefix("kube1-test-").tempdir().expect("a temporary directory");
        Self { id, subnet, dir, nodes: Vec::new() }
    }

    fn add_server(&mut self, args: &[&str]) {
        let kubeconfig = self.kubeconfig();
        let mut words = vec!["server".to_owned(), "--write-kubeconfig".into(), kubeconfig.display().to_string()];
        words.extend(args.iter().map(|a| (*a).to_owned()));
        self.add_node(words);
    }

    /// Joins an agent with a new token and waits until it is Ready.
    pub fn join(&mut self, args: &[&str]) -> &Node {
        let token = self.kube1(&["token", "create"]);
        assert!(token.success, "{token}");
        let mut words = vec!["agent".to_owned(), "--join".into(), token.stdout.trim().to_owned()];
        words.extend(args.iter().map(|a| (*a).to_owned()));
        self.add_node(words);
        &self.nodes[self.nodes.len() - 1]
    }

    fn add_node(&mut self, args: Vec<String>) {
        let number = self.nodes.len() + 1;
        let namespace = format!("{}-{number}", self.id);
        let (host_end, address) = (format!("{}.{number}", self.id), format!("{}.{}", self.subnet, 10 + number));
        ip(&["netns", "add", &namespace]);
        ip(&["link", "add", &host_end, "type", "veth", "peer", "name", "eth0", "netns", &namespace]);
        ip(&["link", "set", &host_end, "master", &self.id, "up"]);
        for words in [
            &["link", "set", "lo", "up"][..],
            &["addr", "add", &format!("{address}/24"), "dev", "eth0"],
            &["link", "set", "eth0", "up"],
            &["route", "add", "default", "via", &format!("{}.1", self.subnet)],
        ] {
            run(in_namespace(&namespace, Path::new("ip")).args(words));
        }
        let data_dir = self.dir.path().join(number.to_string());
        let mut node = Node {
            name: format!("node-{number}"),
            log: self.dir.path().join(format!("{number}.log")),
            address,
            data_dir,
            namespace,
            args,
            process: None,
        };
        node.start();
        self.nodes.push(node);
        self.wait_api_ready();
        let node = &self.nodes[number - 1];
        if !node.args.iter().any(|a| a == "--disable-agent") {
            self.wait_node_ready(&node.name);
        }
    }

    /// Waits until the API answers and the default namespace has its service account, without which no pod is taken.
    pub fn wait_api_ready(&self) {
        eventually("the API ready", || {
            let output = self.kubectl(&["get", "serviceaccount", "default", "-n", "default"]);
            if output.success { Ok(()) } else { Err(format!("{output}\n{}", self.logs())) }
        });
    }

    /// Waits until the API says that a node is Ready.
    pub fn wait_node_ready(&self, name: &str) {
        let path = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
        eventually(&format!("node {name} Ready"), || {
            let output = self.kubectl(&["get", "node", name, "-o", path]);
            if output.stdout == "True" { Ok(()) } else { Err(format!("{output}\n{}", self.logs())) }
        });
    }

    pub fn node(&self, number: usize) -> &Node {
        &self.nodes[number - 1]
    }

    pub fn node_mut(&mut self, number: usize) -> &mut Node {
        &mut self.nodes[number - 1]
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig.yaml")
    }

    /// Runs kubectl 1.36 as the administrator, in the server's network.
    pub fn kubectl(&self, args: &[&str]) -> Output {
        self.kubectl_with(args, "")
    }

    /// [`Cluster::kubectl`] with standard input.
    pub fn kubectl_with(&self, args: &[&str], input: &str) -> Output {
        try_run(self.command(&tool("kubectl")).env("KUBECONFIG", self.kubeconfig()).args(args), input)
    }

    /// Runs Debian 12's kubectl 1.20, which streams over SPDY.
    pub fn old_kubectl(&self, args: &[&str]) -> Output {
        try_run(self.command(&tool("old/usr/bin/kubectl")).env("KUBECONFIG", self.kubeconfig()).args(args), "")
    }

    /// kubectl that must succeed; returns its output.
    pub fn k(&self, args: &[&str]) -> String {
        let output = self.kubectl(args);
        assert!(output.success, "{output}\n{}", self.logs());
        output.stdout
    }

    /// `kubectl apply -f -` that must succeed.
    pub fn apply(&self, manifest: &str) -> String {
        let output = self.kubectl_with(&["apply", "-f", "-"], manifest);
        assert!(output.success, "{output}");
        output.stdout
    }

    /// Runs the kube1 binary on the server's data directory.
    pub fn kube1(&self, args: &[&str]) -> Output {
        self.nodes[0].kube1(args)
    }

    /// A command in the network namespace of the server.
    pub fn command(&self, program: &Path) -> Command {
        self.nodes[0].command(program)
    }

    /// Imports the test images into a node.
    pub fn import_images(&self, number: usize) {
        let archive = self.dir.path().join("busybox.tar");
        if !archive.exists() {
            let busybox = tool("busybox");
            run(Command::new(built("kube1-image")).arg("busybox").arg(&busybox).arg(&archive));
        }
        let archive = archive.display().to_string();
        let output = self.node(number).kube1(&["images", "import", &archive]);
        assert!(output.success, "{output}");
    }

    /// The end of every node's log, for failures.
    pub fn logs(&self) -> String {
        self.nodes.iter().map(|node| format!("--- {}\n{}", node.name, node.log_tail())).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        for node in &mut self.nodes {
            node.kill();
            let reset = node.kube1(&["reset", "--yes", "--write-kubeconfig", "/nonexistent"]);
            if !reset.success {
                eprintln!("{reset}");
            }
            try_run(Command::new("ip").args(["netns", "delete", &node.namespace]), "");
        }
        try_run(Command::new("ip").args(["link", "delete", &self.id]), "");
    }
}

impl Node {
    /// Starts kube1 (again) on the node's data directory.
    pub fn start(&mut self) {
        std::fs::create_dir_all(&self.data_dir).expect("the node's directory");
        let log = OpenOptions::new().create(true).append(true).open(&self.log).expect("the node's log");
        let errors = log.try_clone().expect("a second descriptor");
        let mut command = self.command(Path::new("unshare"));
        command.args(["--mount", "--propagation", "slave", "sh", "-c", "mount --make-rshared / && exec \"$@\"", "sh"]);
        command.arg(built("kube1")).arg("--data-dir").arg(&self.data_dir);
        command.args(&self.args).args(["--node-name", &self.name, "--node-ip", &self.address, "-v"]);
        // The disk of a machine that builds and tests is fuller than a node's should be.
        command.args(["--eviction-hard", "nodefs.available<100Mi"]);
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        self.process = Some(command.spawn().expect("kube1 starts"));
    }

    /// `kill -9` of kube1 itself; what it runs goes on.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may have ended already.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Runs the kube1 binary on this node's data directory, in its network.
    pub fn kube1(&self, args: &[&str]) -> Output {
        try_run(self.command(&built("kube1")).arg("--data-dir").arg(&self.data_dir).args(args), "")
    }

    /// A command in this node's network namespace.
    pub fn command(&self, program: &Path) -> Command {
        in_namespace(&self.namespace, program)
    }

    /// Runs a shell line in this node's network namespace.
    pub fn shell(&self, line: &str) -> Output {
        try_run(self.command(Path::new("sh")).args(["-c", line]), "")
    }

    /// The process id of the node's containerd.
    pub fn containerd_pid(&self) -> Option<u32> {
        std::fs::read_to_string(self.data_dir.join("run/containerd.pid")).ok()?.trim().parse().ok()
    }

    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    /// The node's log from the start.
    pub fn log(&self) -> File {
        File::open(&self.log).expect("the node's log")
    }
}

fn in_namespace(namespace: &str, program: &Path) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{namespace}")).arg(program);
    command
}

fn ip(args: &[&str]) {
    run(Command::new("ip").args(args));
}
