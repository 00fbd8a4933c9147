//! What a kubelet is told about itself.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Taint;
use kube1_pki::ReloadingCertificate;

use crate::eviction::EvictionThresholds;
use crate::settings::Settings;

/// Everything a kubelet needs to know. What is on the host derives from `data_dir` and `cgroup_root`, so that several
/// nodes fit on one machine.
#[derive(Clone)]
pub struct KubeletConfig {
    /// Acts as the node (`system:node:NAME`).
    pub client: kube::Client,
    pub node_name: String,
    pub node_ip: IpAddr,
    /// Labels besides those that every node has.
    pub node_labels: BTreeMap<String, String>,
    /// Set only when the node registers itself for the first time.
    pub node_taints: Vec<Taint>,
    /// The CRI socket.
    pub runtime_endpoint: PathBuf,
    /// Holds pods, logs and static pods.
    pub data_dir: PathBuf,
    /// Name of the cgroup that holds this node's pods, the same in every hierarchy.
    pub cgroup_root: String,
    pub cluster_dns: Vec<IpAddr>,
    pub cluster_domain: String,
    /// Where the HTTPS API listens; port 0 takes a free one.
    pub listen: IpAddr,
    pub port: u16,
    /// The HTTPS API's certificate; it may be replaced at any time.
    pub serving: Option<Arc<ReloadingCertificate>>,
    /// The authority of clients of the HTTPS API.
    pub client_ca_pem: String,
    /// The sandbox image, kept from collection.
    pub pause_image: String,
    pub static_pod_dir: PathBuf,
    /// The host's resolver configuration, which pods inherit.
    pub resolv_conf: PathBuf,
    pub settings: Settings,
    /// How little may be left of the node's resources.
    pub eviction: EvictionThresholds,
    /// Version to report, such as `v1.36.0`.
    pub version: &'static str,
    /// The flags in effect, for `/flagz`.
    pub flags: Vec<(String, String)>,
    /// Who gets spans of requests and of the synchronisation of pods; nobody without.
    pub tracing: Option<kube1_trace::Settings>,
    /// Made of these when the kubelet runs.
    pub tracer: Option<kube1_trace::Tracer>,
}

impl KubeletConfig {
    /// A configuration with the usual values; only the arguments have no default.
    pub fn new(client: kube::Client, node_name: &str, node_ip: IpAddr, runtime: &Path, data_dir: &Path) -> Self {
        Self {
            client,
            node_name: node_name.to_owned(),
            node_ip,
            node_labels: BTreeMap::new(),
            node_taints: Vec::new(),
            runtime_endpoint: runtime.to_owned(),
            data_dir: data_dir.to_owned(),
            cgroup_root: "kube1".to_owned(),
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".to_owned(),
            listen: IpAddr::from([0, 0, 0, 0]),
            port: 10250,
            serving: None,
            client_ca_pem: String::new(),
            pause_image: "kube1.local/pause:1".to_owned(),
            static_pod_dir: data_dir.join("manifests"),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            settings: Settings::default(),
            eviction: EvictionThresholds::default(),
            version: "v1.36.0",
            flags: Vec::new(),
            tracing: None,
            tracer: None,
        }
    }

    pub(crate) fn pods_dir(&self) -> PathBuf {
        self.data_dir.join("pods")
    }

    pub(crate) fn pod_dir(&self, uid: &str) -> PathBuf {
        self.pods_dir().join(uid)
    }

    pub(crate) fn logs_dir(&self) -> PathBuf {
        self.data_dir.join("log/pods")
    }

    /// Where a pod's containers log; the name is what log collectors expect.
    pub(crate) fn pod_log_dir(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.logs_dir().join(format!("{namespace}_{name}_{uid}"))
    }
}
