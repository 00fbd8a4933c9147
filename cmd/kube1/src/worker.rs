//! The worker stack: containerd, kubelet, overlay network, Service proxy and DNS.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use k8s_openapi::api::core::v1::Taint;
use kube1_client::Informers;
use kube1_dns::{Dns, DnsConfig};
use kube1_images::PAUSE_IMAGE;
use kube1_kubelet::{Kubelet, KubeletConfig, Settings};
use kube1_network::{NetworkPolicies, Overlay, OverlayConfig};
use kube1_pki::ReloadingCertificate;
use kube1_proxy::{Proxy, ProxyConfig};
use kube1_supervisor::Supervisor;

use crate::cli::{NodeArgs, Part};
use crate::containerd::{self, Programs};
use crate::node::Node;
use crate::{check, version};

const PROXY_HEALTH: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 10256);
const PROXY_STATUS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 10249);
const DNS_METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 9153);
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// How a worker reaches the API, and what its kubelet shows.
pub struct WorkerCredentials {
    /// Acts as the node.
    pub client: kube::Client,
    pub serving: Arc<ReloadingCertificate>,
    pub ca_pem: String,
}

/// Everything that a worker is started from.
pub struct Worker<'a> {
    pub node: &'a Node,
    pub args: &'a NodeArgs,
    pub runtime: &'a Runtime,
    pub credentials: WorkerCredentials,
}

/// The container runtime of a worker.
pub enum Runtime {
    /// Started and kept by kube1.
    Ours(Programs),
    /// Somebody else's, by its CRI socket.
    Outside(PathBuf),
}

impl Runtime {
    /// Finds what the flags ask for. Fails with the full list of what the host lacks.
    pub fn prepare(args: &NodeArgs) -> anyhow::Result<Self> {
        settings(args)?;
        if let Some(endpoint) = &args.container_runtime_endpoint {
            let path = PathBuf::from(endpoint.strip_prefix("unix://").unwrap_or(endpoint));
            anyhow::ensure!(path.is_absolute(), "--container-runtime-endpoint {endpoint} is no path of a socket");
            return Ok(Self::Outside(path));
        }
        let missing = check::missing_for_worker(args.containerd.as_deref(), args.runc.as_deref());
        let lines: Vec<String> = missing.iter().map(ToString::to_string).collect();
        anyhow::ensure!(lines.is_empty(), "this host cannot run a worker:\n{}", lines.join("\n"));
        Ok(Self::Ours(Programs::find(args.containerd.as_deref(), args.runc.as_deref())?))
    }
}

impl Worker<'_> {
    /// Starts the components. They find each other through the API and the file system, in any order.
    pub fn start(self, supervisor: &mut Supervisor) -> anyhow::Result<()> {
        let layout = &self.node.layout;
        let socket = match self.runtime {
            Runtime::Ours(programs) => {
                supervisor.start(Arc::new(containerd::component(layout, programs)?));
                layout.containerd_socket()
            }
            Runtime::Outside(path) => path.clone(),
        };
        let informers = Informers::new(self.credentials.client.clone(), self.node.stop.clone());
        if !self.args.disable.contains(&Part::Network) {
            supervisor.start(Arc::new(Overlay::new(informers.clone(), self.overlay()?)));
        }
        if !self.args.disable.contains(&Part::NetworkPolicy) {
            let policies = NetworkPolicies::new(informers.clone(), self.node.name.clone(), self.own_dns());
            supervisor.start(Arc::new(policies));
        }
        if !self.args.disable.contains(&Part::Proxy) {
            supervisor.start(Arc::new(Proxy::new(informers.clone(), self.proxy())));
        }
        if !self.args.disable.contains(&Part::Dns) {
            supervisor.start(Arc::new(Dns::new(informers, self.dns())));
        }
        supervisor.start(Arc::new(Kubelet::new(self.kubelet(socket)?)));
        Ok(())
    }

    fn overlay(&self) -> anyhow::Result<OverlayConfig> {
        let layout = &self.node.layout;
        Ok(OverlayConfig {
            node_name: self.node.name.clone(),
            node_ip: self.node.address,
            data_dir: layout.root().to_owned(),
            cluster_cidr: self.args.cluster_cidr,
            service_cidrs: vec![self.args.service_cidr],
            cni_bin_dir: layout.cni_bin(),
            cni_conf_dir: layout.cni_conf(),
            executable: std::env::current_exe().context("cannot find the kube1 binary")?,
        })
    }

    /// The DNS address that this node answers at by itself.
    fn own_dns(&self) -> Option<IpAddr> {
        (!self.args.disable.contains(&Part::Dns)).then_some(self.args.cluster_dns)
    }

    fn proxy(&self) -> ProxyConfig {
        ProxyConfig {
            node_name: self.node.name.clone(),
            cluster_cidrs: vec![self.args.cluster_cidr],
            served_here: self.own_dns().into_iter().collect(),
            healthz: Some(PROXY_HEALTH),
            status: Some(PROXY_STATUS),
            data_dir: self.node.layout.root().to_owned(),
        }
    }

    fn dns(&self) -> DnsConfig {
        DnsConfig {
            address: self.args.cluster_dns,
            domain: self.args.cluster_domain.clone(),
            metrics: Some(DNS_METRICS),
            resolv_conf: RESOLV_CONF.into(),
            data_dir: self.node.layout.root().to_owned(),
        }
    }

    fn kubelet(&self, socket: PathBuf) -> anyhow::Result<KubeletConfig> {
        let layout = &self.node.layout;
        let labels = self.args.node_labels.iter().map(|text| parse_label(text)).collect::<anyhow::Result<_>>()?;
        let taints = self.args.node_taints.iter().map(|text| parse_taint(text)).collect::<anyhow::Result<_>>()?;
        let settings = settings(self.args)?;
        let eviction = match (&self.args.eviction_hard, &settings.eviction_hard) {
            (None, Some(text)) => Some(text.parse()?),
            (flag, _) => flag.clone(),
        };
        Ok(KubeletConfig {
            settings,
            node_labels: labels,
            node_taints: taints,
            cgroup_root: layout.cgroup_name(),
            cluster_dns: vec![self.args.cluster_dns],
            cluster_domain: self.args.cluster_domain.clone(),
            port: self.args.kubelet_port,
            serving: Some(self.credentials.serving.clone()),
            client_ca_pem: self.credentials.ca_pem.clone(),
            pause_image: PAUSE_IMAGE.to_owned(),
            eviction: eviction.unwrap_or_default(),
            version: version::KUBERNETES,
            flags: self.args.flags.clone(),
            tracing: self.args.tracing_config_file.as_deref().map(kube1_trace::Settings::read).transpose()?,
            ..KubeletConfig::new(
                self.credentials.client.clone(),
                &self.node.name,
                self.node.address,
                &socket,
                layout.root(),
            )
        })
    }
}

/// The settings of the file that the flags name.
fn settings(args: &NodeArgs) -> anyhow::Result<Settings> {
    let Some(path) = &args.kubelet_config else { return Ok(Settings::default()) };
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read --kubelet-config {}", path.display()))?;
    Settings::parse(&text).with_context(|| format!("--kubelet-config {}", path.display()))
}

type Label = (String, String);

fn parse_label(text: &str) -> anyhow::Result<Label> {
    let (key, value) = text.split_once('=').with_context(|| format!("--node-label {text}: expected KEY=VALUE"))?;
    anyhow::ensure!(!key.is_empty(), "--node-label {text}: the key is empty");
    Ok((key.to_owned(), value.to_owned()))
}

fn parse_taint(text: &str) -> anyhow::Result<Taint> {
    let wrong = || format!("--node-taint {text}: expected KEY=VALUE:EFFECT, such as dedicated=db:NoSchedule");
    let (pair, effect) = text.rsplit_once(':').with_context(wrong)?;
    anyhow::ensure!(matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute"), wrong());
    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
    anyhow::ensure!(!key.is_empty(), wrong());
    let value = (!value.is_empty()).then(|| value.to_owned());
    Ok(Taint { key: key.to_owned(), value, effect: effect.to_owned(), time_added: None })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_taints_are_parsed() {
        assert_eq!(parse_label("a=b=c").unwrap(), ("a".to_owned(), "b=c".to_owned()));
        let taint = parse_taint("a=b:NoSchedule").unwrap();
        assert_eq!((taint.key.as_str(), taint.value.as_deref(), taint.effect.as_str()), ("a", Some("b"), "NoSchedule"));
        assert_eq!(parse_taint("a:NoExecute").unwrap().value, None);
        for bad in ["a", "a=b", "a=b:Never", "=b:NoSchedule"] {
            assert!(parse_taint(bad).is_err(), "{bad}");
        }
        assert!(parse_label("a").is_err());
    }
}
