//! Pods, namespaces and policies, reduced to what decides about traffic.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube1_client::kube::core::{Selector, SelectorExt};
use kube1_client::{Keep, Pool};

pub(super) type Labels = BTreeMap<String, String>;

/// A pod with addresses of its own, or what stands for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub namespace: Arc<str>,
    pub labels: Arc<Labels>,
    pub addresses: Vec<IpAddr>,
    /// Name, IP protocol and number of its named ports.
    pub ports: Arc<[(String, u8, u16)]>,
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

/// What is kept of a pod: thousands of them are followed once there is a policy, and those of one template have the
/// most in common.
#[derive(Clone, Debug)]
pub(super) struct PolicyPod {
    namespace: Arc<str>,
    name: Box<str>,
    version: u64,
    node: Arc<str>,
    /// Not on this node, as far as it is concerned.
    member: Option<Member>,
}

impl PolicyPod {
    /// What the pod is to `node`. Nothing if it uses its node's network, has no address yet, or has ended.
    pub(super) fn on(&self, node: &str) -> Option<Member> {
        Some(Member { local: *self.node == *node, ..self.member.clone()? })
    }
}

impl Keep for PolicyPod {
    type Object = Pod;

    fn keep(pod: Pod) -> Self {
        static TEXTS: LazyLock<Pool<str>> = LazyLock::new(Pool::default);
        let namespace = TEXTS.share(pod.metadata.namespace.clone().unwrap_or_default());
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
        Self {
            member: Member::of(&pod, &namespace),
            namespace,
            version: Keep::version(&pod),
            name: pod.metadata.name.unwrap_or_default().into(),
            node: TEXTS.share(node),
        }
    }

    fn full_name(&self) -> (&str, &str) {
        (&self.namespace, &self.name)
    }

    fn version(&self) -> u64 {
        self.version
    }
}

impl Member {
    fn of(pod: &Pod, namespace: &Arc<str>) -> Option<Self> {
        static LABELS: LazyLock<Pool<Labels>> = LazyLock::new(Pool::default);
        static PORTS: LazyLock<Pool<[(String, u8, u16)]>> = LazyLock::new(Pool::default);
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
            namespace: Arc::clone(namespace),
            labels: LABELS.share(pod.metadata.labels.clone().unwrap_or_default()),
            addresses,
            ports: PORTS.share(ports.collect::<Vec<_>>()),
            local: false,
        })
    }

    /// Stands for this node's DNS server, which policies select as the pods of the cluster's DNS elsewhere.
    pub fn dns(address: IpAddr) -> Self {
        let port = |name: &str, protocol| (name.to_owned(), protocol, 53);
        Self {
            namespace: "kube-system".into(),
            labels: Arc::new(Labels::from([("k8s-app".to_owned(), "kube-dns".to_owned())])),
            addresses: vec![address],
            ports: [port("dns", 17), port("dns-tcp", 6)].into(),
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
