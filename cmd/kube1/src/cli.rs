//! The command line. Flag names follow k3s where it has them; each flag is also `KUBE1_…` in the environment and a key
//! of the configuration file.

mod audit;
mod flags;
mod front;

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;

pub use flags::effective;
pub use front::FrontArgs;

/// The smallest complete Kubernetes: one binary, one command.
#[derive(Debug, Parser)]
#[command(name = "kube1", version = crate::version::LONG, propagate_version = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: GlobalArgs,
    #[command(subcommand)]
    pub command: Command,
}

/// Flags that every command takes.
#[derive(Clone, Debug, Args)]
pub struct GlobalArgs {
    /// Directory of everything that this node owns
    #[arg(long, global = true, env = "KUBE1_DATA_DIR", default_value = "/var/lib/kube1", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Configuration file; each key is the name of a flag
    #[arg(long, global = true, env = "KUBE1_CONFIG", default_value = "/etc/kube1/config.yaml", value_name = "FILE")]
    pub config: PathBuf,
    /// Format of the log on standard error
    #[arg(long, global = true, env = "KUBE1_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// More of the log: -v debug, -vv trace. RUST_LOG gives finer control
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

impl From<LogFormat> for kube1_telemetry::LogFormat {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Text => Self::Text,
            LogFormat::Json => Self::Json,
        }
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the control plane and, unless --disable-agent, a worker
    Server(Box<ServerArgs>),
    /// Run a worker that joins a cluster
    Agent(Box<AgentArgs>),
    /// Create, list and delete join tokens
    #[command(subcommand)]
    Token(TokenCommand),
    /// Show what this node's components are doing, and until when its certificates are valid
    Status(StatusArgs),
    /// Print the administrator's kubeconfig
    Kubeconfig(KubeconfigArgs),
    /// Save, list and restore backups of the cluster's state
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Import and list images of this node's container runtime
    #[command(subcommand)]
    Images(ImagesCommand),
    /// Name what this host lacks, before anything is started
    Check(CheckArgs),
    /// Stop everything this node runs and remove every trace of it
    Reset(ResetArgs),
    /// List which paths and verbs of the Kubernetes API are served, and which are not
    ApiCoverage(ApiCoverageArgs),
    /// Print the version
    Version,
    /// Print a shell's completion script
    Completion {
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

/// Flags of a worker, whether alone or within a server.
#[derive(Clone, Debug, Args)]
pub struct NodeArgs {
    /// Name of this node; the host's name if not given
    #[arg(long, env = "KUBE1_NODE_NAME", value_name = "NAME")]
    pub node_name: Option<String>,
    /// Address of this node; found from the routes and interfaces if not given
    #[arg(long, env = "KUBE1_NODE_IP", value_name = "IP")]
    pub node_ip: Option<IpAddr>,
    /// Label for the node object, KEY=VALUE; may be repeated
    #[arg(long = "node-label", env = "KUBE1_NODE_LABEL", value_delimiter = ',', value_name = "KEY=VALUE")]
    pub node_labels: Vec<String>,
    /// Taint for the node object at registration, KEY=VALUE:EFFECT; may be repeated
    #[arg(long = "node-taint", env = "KUBE1_NODE_TAINT", value_delimiter = ',', value_name = "KEY=VALUE:EFFECT")]
    pub node_taints: Vec<String>,
    /// Use this container runtime instead of starting containerd
    #[arg(long, env = "KUBE1_CONTAINER_RUNTIME_ENDPOINT", value_name = "SOCKET")]
    pub container_runtime_endpoint: Option<String>,
    /// containerd to start; found in PATH if not given
    #[arg(long, env = "KUBE1_CONTAINERD", value_name = "FILE")]
    pub containerd: Option<PathBuf>,
    /// runc for containerd; found in PATH if not given
    #[arg(long, env = "KUBE1_RUNC", value_name = "FILE")]
    pub runc: Option<PathBuf>,
    /// Range of pod addresses in the whole cluster
    #[arg(long, env = "KUBE1_CLUSTER_CIDR", default_value = "10.42.0.0/16", value_name = "CIDR")]
    pub cluster_cidr: IpNet,
    /// Range of Service addresses
    #[arg(long, env = "KUBE1_SERVICE_CIDR", default_value = "10.43.0.0/16", value_name = "CIDR")]
    pub service_cidr: IpNet,
    /// Address of the cluster DNS; must lie in the Service range
    #[arg(long, env = "KUBE1_CLUSTER_DNS", default_value_t = IpAddr::V4(Ipv4Addr::new(10, 43, 0, 10)), value_name = "IP")]
    pub cluster_dns: IpAddr,
    /// Domain of cluster DNS names
    #[arg(long, env = "KUBE1_CLUSTER_DOMAIN", default_value = "cluster.local", value_name = "DOMAIN")]
    pub cluster_domain: String,
    /// Leave out a part; may be repeated
    #[arg(long, env = "KUBE1_DISABLE", value_delimiter = ',', value_enum, value_name = "NAME")]
    pub disable: Vec<Part>,
    /// How little may be left before pods are evicted [default: memory.available<100Mi,nodefs.available<10%,nodefs.inodesFree<5%]
    #[arg(long, env = "KUBE1_EVICTION_HARD", value_name = "THRESHOLDS")]
    pub eviction_hard: Option<kube1_kubelet::EvictionThresholds>,
    /// TracingConfiguration: the collector that gets spans of requests to the API server and the kubelet, and of the
    /// synchronisation of pods, over OTLP, and how many of a million
    #[arg(long, env = "KUBE1_TRACING_CONFIG_FILE", value_name = "FILE")]
    pub tracing_config_file: Option<PathBuf>,
    /// Port of the kubelet's API
    #[arg(long, env = "KUBE1_KUBELET_PORT", default_value_t = 10250, value_name = "PORT")]
    pub kubelet_port: u16,
    /// KubeletConfiguration with settings of the node for which there is no flag
    #[arg(long, env = "KUBE1_KUBELET_CONFIG", value_name = "FILE")]
    pub kubelet_config: Option<PathBuf>,
    /// All flags with their values in effect.
    #[arg(skip)]
    pub flags: Vec<(String, String)>,
}

/// Parts that can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    Dns,
    Proxy,
    Network,
    NetworkPolicy,
    Servicelb,
    Scheduler,
    ControllerManager,
}

#[derive(Clone, Debug, Args)]
pub struct ServerArgs {
    /// Port of the API
    #[arg(long, env = "KUBE1_HTTPS_LISTEN_PORT", default_value_t = 6443, value_name = "PORT")]
    pub https_listen_port: u16,
    /// Address the API listens on
    #[arg(long, env = "KUBE1_BIND_ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED), value_name = "IP")]
    pub bind_address: IpAddr,
    /// Address that other nodes and pods use for the API; the node's address if not given
    #[arg(long, env = "KUBE1_ADVERTISE_ADDRESS", value_name = "IP")]
    pub advertise_address: Option<IpAddr>,
    /// Further name or address for the API's certificate; may be repeated
    #[arg(long, env = "KUBE1_TLS_SAN", value_delimiter = ',', value_name = "NAME")]
    pub tls_san: Vec<String>,
    /// Ports for NodePort Services
    #[arg(long, env = "KUBE1_SERVICE_NODE_PORT_RANGE", default_value = "30000-32767", value_name = "A-B")]
    pub service_node_port_range: PortRange,
    /// Run no worker on this server
    #[arg(long, env = "KUBE1_DISABLE_AGENT")]
    pub disable_agent: bool,
    /// Where to write the administrator's kubeconfig, mode 0600
    #[arg(long, env = "KUBE1_WRITE_KUBECONFIG", default_value = "/etc/kube1/kubeconfig.yaml", value_name = "FILE")]
    pub write_kubeconfig: PathBuf,
    #[command(flatten)]
    pub node: NodeArgs,
    #[command(flatten)]
    pub front: FrontArgs,
}

#[derive(Clone, Debug, Args)]
pub struct AgentArgs {
    /// What `kube1 token create` printed on a server. Needed once: a node that has joined starts without it
    #[arg(long, env = "KUBE1_JOIN", value_name = "TOKEN")]
    pub join: Option<String>,
    #[command(flatten)]
    pub node: NodeArgs,
}

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Print a new join token
    Create {
        /// How long the token can be used, such as 30m, 24h or 7d
        #[arg(long, default_value = "24h", value_parser = parse_duration, value_name = "TIME")]
        ttl: std::time::Duration,
        /// What the token is for
        #[arg(long, default_value = "", value_name = "TEXT")]
        description: String,
    },
    /// List the tokens; secrets are not shown
    List,
    /// Delete a token by its id
    Delete { id: String },
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Wait, up to two minutes, until every component is ready and so the node is Ready, and print nothing
    #[arg(long, conflicts_with = "json")]
    pub wait_node: bool,
}

#[derive(Debug, Args)]
pub struct KubeconfigArgs {
    /// Write to this file (mode 0600) instead of standard output
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Address of the server in the kubeconfig, such as https://192.168.1.10:6443
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Save one self-contained file
    Save {
        /// Name of the snapshot; the time if not given
        name: Option<String>,
    },
    /// List the snapshots of this server
    List,
    /// Put a snapshot in place of this server's state; the server must be stopped
    Restore { file: PathBuf },
}

#[derive(Debug, Subcommand)]
pub enum ImagesCommand {
    /// Import OCI or Docker archives; imported images are never removed to free disk space
    Import {
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// List images
    List,
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The port the API would listen on
    #[arg(long, default_value_t = 6443, value_name = "PORT")]
    pub https_listen_port: u16,
    /// containerd to use; found in PATH if not given
    #[arg(long, env = "KUBE1_CONTAINERD", value_name = "FILE")]
    pub containerd: Option<PathBuf>,
    /// runc to use; found in PATH if not given
    #[arg(long, env = "KUBE1_RUNC", value_name = "FILE")]
    pub runc: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ResetArgs {
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
    /// The kubeconfig that the server wrote, to be removed too
    #[arg(long, env = "KUBE1_WRITE_KUBECONFIG", default_value = "/etc/kube1/kubeconfig.yaml", value_name = "FILE")]
    pub write_kubeconfig: PathBuf,
}

#[derive(Debug, Args)]
pub struct ApiCoverageArgs {
    /// OpenAPI document to compare with, as a server has it at /openapi/v2; this program's own if not given
    #[arg(long, value_name = "FILE")]
    pub document: Option<PathBuf>,
    /// Ask the running server of this kubeconfig for each operation, with requests that change nothing, instead of
    /// looking into this program's own table
    #[arg(long, value_name = "KUBECONFIG")]
    pub server: Option<PathBuf>,
}

/// An inclusive range of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

impl std::str::FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').ok_or("expected FIRST-LAST, such as 30000-32767")?;
        let port = |text: &str| text.trim().parse::<u16>().map_err(|e| format!("{text}: {e}"));
        let range = Self { first: port(first)?, last: port(last)? };
        if range.first == 0 || range.first > range.last {
            return Err(format!("{text} is an empty range"));
        }
        Ok(range)
    }
}

/// Parses `90s`, `30m`, `24h`, `7d`.
fn parse_duration(text: &str) -> Result<std::time::Duration, String> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).ok_or("a unit is missing: s, m, h or d")?;
    let (number, unit) = text.split_at(unit_at);
    let number: u64 = number.parse().map_err(|e| format!("{number:?}: {e}"))?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => return Err(format!("{unit:?} is no unit of time: s, m, h or d")),
    };
    let seconds = number.checked_mul(seconds).filter(|s| *s > 0).ok_or("the time is zero or too long")?;
    Ok(std::time::Duration::from_secs(seconds))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_and_port_ranges() {
        assert_eq!(parse_duration("24h").unwrap().as_secs(), 86400);
        for bad in ["24", "h", "0s", "1w", "99999999999999999999d", ""] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        assert_eq!("30000-32767".parse::<PortRange>().unwrap(), PortRange { first: 30000, last: 32767 });
        for bad in ["1", "2-1", "0-5", "a-b", "1-70000"] {
            assert!(bad.parse::<PortRange>().is_err(), "{bad}");
        }
    }
}
