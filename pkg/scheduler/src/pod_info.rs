//! A pod with everything scheduling needs of it read once.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodAffinityTerm, PodSpec};
use kube::core::{Selector, SelectorExt};
use kube1_client::ObjectKey;

use crate::labels::{Labels, selector};
use crate::resources::{Resources, pod_requests, scoring_requests};

/// A pod as the scheduler sees it. Immutable; a changed pod gets a new one.
#[derive(Clone, Debug)]
pub struct PodInfo {
    pub pod: Arc<Pod>,
    pub key: ObjectKey,
    pub uid: String,
    pub priority: i32,
    pub requests: Resources,
    /// CPU and memory with a default for containers that state none.
    pub scoring_requests: (i64, i64),
    pub host_ports: BTreeSet<HostPort>,
    pub affinity: Vec<AffinityTerm>,
    pub anti_affinity: Vec<AffinityTerm>,
    pub preferred_affinity: Vec<(i64, AffinityTerm)>,
    pub preferred_anti_affinity: Vec<(i64, AffinityTerm)>,
}

/// A port that a pod takes on its node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    pub ip: String,
    pub protocol: String,
    pub port: i32,
}

impl HostPort {
    /// Whether both cannot be on one node. An unspecified address takes the port on all addresses.
    pub fn conflicts_with(&self, other: &Self) -> bool {
        let any = |ip: &str| ip.is_empty() || ip == "0.0.0.0" || ip == "::";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || any(&self.ip) || any(&other.ip))
    }
}

/// A parsed pod affinity term.
#[derive(Clone, Debug)]
pub struct AffinityTerm {
    pub topology_key: String,
    selector: Option<Selector>,
    namespaces: BTreeSet<String>,
    /// None: no namespace by label.
    namespace_selector: Option<Selector>,
}

impl AffinityTerm {
    fn new(term: &PodAffinityTerm, own_namespace: &str) -> Self {
        let mut namespaces: BTreeSet<String> = term.namespaces.iter().flatten().cloned().collect();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.insert(own_namespace.to_owned());
        }
        Self {
            topology_key: term.topology_key.clone(),
            selector: selector(term.label_selector.as_ref()),
            namespaces,
            namespace_selector: selector(term.namespace_selector.as_ref()),
        }
    }

    /// Whether the term selects `pod`, whose namespace has `namespace_labels`.
    pub fn selects(&self, pod: &PodInfo, namespace_labels: &Labels) -> bool {
        let by_labels = || self.namespace_selector.as_ref().is_some_and(|s| s.matches(namespace_labels));
        self.selector.as_ref().is_some_and(|s| s.matches(pod.labels()))
            && (self.namespaces.contains(&pod.key.namespace) || by_labels())
    }
}

impl PodInfo {
    pub fn new(pod: Arc<Pod>) -> Self {
        let key = ObjectKey::of(&*pod);
        let spec = pod.spec.as_ref();
        let affinity = spec.and_then(|s| s.affinity.as_ref());
        let (near, far) =
            (affinity.and_then(|a| a.pod_affinity.as_ref()), affinity.and_then(|a| a.pod_anti_affinity.as_ref()));
        let term = |t: &PodAffinityTerm| AffinityTerm::new(t, &key.namespace);
        let required = |terms: Option<&Vec<PodAffinityTerm>>| terms.into_iter().flatten().map(term).collect();
        let affinity = required(near.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()));
        let anti_affinity = required(far.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()));
        let near = near.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
        let far = far.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
        let preferred = |terms: Option<&Vec<k8s_openapi::api::core::v1::WeightedPodAffinityTerm>>| {
            terms.into_iter().flatten().map(|t| (i64::from(t.weight), term(&t.pod_affinity_term))).collect()
        };
        Self {
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            priority: spec.and_then(|s| s.priority).unwrap_or(0),
            requests: pod_requests(&pod),
            scoring_requests: scoring_requests(&pod),
            host_ports: spec.map(host_ports).unwrap_or_default(),
            affinity,
            anti_affinity,
            preferred_affinity: preferred(near),
            preferred_anti_affinity: preferred(far),
            key,
            pod,
        }
    }

    pub fn labels(&self) -> &Labels {
        crate::labels::of(&self.pod.metadata)
    }

    pub fn spec(&self) -> Option<&PodSpec> {
        self.pod.spec.as_ref()
    }

    /// The node the pod is bound to.
    pub fn node_name(&self) -> Option<&str> {
        self.spec()?.node_name.as_deref().filter(|n| !n.is_empty())
    }

    pub fn nominated_node(&self) -> Option<&str> {
        self.pod.status.as_ref()?.nominated_node_name.as_deref().filter(|n| !n.is_empty())
    }

    pub fn is_terminating(&self) -> bool {
        self.pod.metadata.deletion_timestamp.is_some()
    }

    pub fn has_affinity(&self) -> bool {
        !(self.affinity.is_empty()
            && self.anti_affinity.is_empty()
            && self.preferred_affinity.is_empty()
            && self.preferred_anti_affinity.is_empty())
    }

    pub fn is_gated(&self) -> bool {
        self.spec().and_then(|s| s.scheduling_gates.as_ref()).is_some_and(|g| !g.is_empty())
    }
}

fn host_ports(spec: &PodSpec) -> BTreeSet<HostPort> {
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    ports
        .filter_map(|p| {
            let port = p.host_port.filter(|port| *port > 0)?;
            Some(HostPort {
                ip: p.host_ip.clone().unwrap_or_default(),
                protocol: p.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                port,
            })
        })
        .collect()
}
