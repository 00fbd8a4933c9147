//! Pods, namespaces and policies, reduced to what decides about traffic.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube1_client::kube::core::{Selector, SelectorExt};

pub(super) type Labels = BTreeMap<String, String>;

/// A pod with addresses of its own, or what stands for one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    pub namespace: String,
    pub labels: Labels,
    pub addresses: Vec<IpAddr>,
    /// Name, IP protocol and number of its named ports.
    pub ports: Vec<(String, u8, u16)>,
    /// Whether it is on this node, whose policies are enforced here.
    pub local: bool,
}

/// Everything that decides which traffic may pass.
#[derive(Clone, Debug, Default)]
pub struct World {
    pub members: Vec<Member>,
    /// Labels of each namespace.
    pub namespaces: HashMap<String, Labels>,
    pub policies: Vec<NetworkPolicy>,
}

impl Member {
    /// Nothing for a pod that uses its node's network, has no address yet, or has ended.
    pub fn of(pod: &Pod, node: &str) -> Option<Self> {
        let (spec, status) = (pod.spec.as_ref()?, pod.status.as_ref()?);
        let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        if ended || spec.host_network == Some(true) {
            return None;
        }
        let mut addresses: Vec<IpAddr> = status.pod_ips.iter().flatten().filter_map(|ip| ip.ip.parse().ok()).collect();
        if addresses.is_empty() {
            addresses.push(status.pod_ip.as_ref()?.parse().ok()?);
        }
        let sidecars =
            spec.init_containers.iter().flatten().filter(|one| one.restart_policy.as_deref() == Some("Always"));
        let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
        let ports = ports.filter_map(|port| {
            let protocol = protocol_number(port.protocol.as_deref())?;
            Some((port.name.clone()?, protocol, u16::try_from(port.container_port).ok()?))
        });
        Some(Self {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            labels: pod.metadata.labels.clone().unwrap_or_default(),
            addresses,
            ports: ports.collect(),
            local: spec.node_name.as_deref() == Some(node),
        })
    }

    /// Stands for this node's DNS server, which policies select as the pods of the cluster's DNS elsewhere.
    pub fn dns(address: IpAddr) -> Self {
        let port = |name: &str, protocol| (name.to_owned(), protocol, 53);
        Self {
            namespace: "kube-system".to_owned(),
            labels: Labels::from([("k8s-app".to_owned(), "kube-dns".to_owned())]),
            addresses: vec![address],
            ports: vec![port("dns", 17), port("dns-tcp", 6)],
            local: false,
        }
    }
}

pub(super) fn protocol_number(name: Option<&str>) -> Option<u8> {
    match name.unwrap_or("TCP") {
        "TCP" => Some(6),
        "UDP" => Some(17),
        "SCTP" => Some(132),
        _ => None,
    }
}

/// A selector that is ready for use; one that cannot be understood selects nothing.
pub(super) struct Select(Option<Selector>);

impl Select {
    pub(super) fn new(selector: Option<&LabelSelector>) -> Self {
        Self(Selector::try_from(selector.cloned().unwrap_or_default()).ok())
    }

    pub(super) fn matches(&self, labels: &Labels) -> bool {
        self.0.as_ref().is_some_and(|selector| selector.matches(labels))
    }
}
