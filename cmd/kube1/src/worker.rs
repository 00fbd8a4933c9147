//! The worker stack: containerd, kubelet, overlay network, Service proxy and DNS.

use std::sync::Arc;

use kube1_dns::{Dns, DnsConfig};
use kube1_images::PAUSE_IMAGE;
use kube1_kubelet::{Kubelet, KubeletConfig};
use kube1_network::{Overlay, OverlayConfig};
use kube1_pki::NodePki;
use kube1_proxy::{Proxy, ProxyConfig};
use kube1_supervisor::Supervisor;

use crate::check;
use crate::cli::{NodeArgs, Part};
use crate::containerd::{self, Programs};
use crate::node::Node;

/// How a worker reaches the API, and what its kubelet shows.
pub struct WorkerCredentials {
    pub client: kube::Client,
    pub pki: NodePki,
}

/// Everything that a worker is started from.
pub struct Worker<'a> {
    pub node: &'a Node,
    pub args: &'a NodeArgs,
    pub programs: &'a Programs,
    pub credentials: WorkerCredentials,
}

/// Finds the programs a worker needs. Fails with the full list of what the host lacks.
pub fn prepare_host(args: &NodeArgs) -> anyhow::Result<Programs> {
    let missing = check::missing_for_worker(args.containerd.as_deref(), args.runc.as_deref());
    let lines: Vec<String> = missing.iter().map(ToString::to_string).collect();
    anyhow::ensure!(lines.is_empty(), "this host cannot run a worker:\n{}", lines.join("\n"));
    Programs::find(args.containerd.as_deref(), args.runc.as_deref())
}
