//! A pod with everything scheduling needs of it read once.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use k8s_openapi::api::core::v1::{
    Affinity, Container, ObjectReference, Pod, PodAffinityTerm, PodCondition, PodSpec, Volume, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use kube::core::{Selector, SelectorExt};
use kube1_client::{Keep, ObjectKey, Pool};

use crate::labels::{Labels, selector};
use crate::resources::{Resources, pod_requests, scoring_requests};

/// A pod as the scheduler sees it, all that is kept of it. Immutable; a changed pod gets a new one.
///
/// What pods of one template have in common is kept once for all of them, and of pods that have their node only what
/// matters to others.
#[derive(Clone, Debug)]
pub struct PodInfo {
    pub key: ObjectKey,
    pub uid: Arc<str>,
    version: u64,
    pub generation: Option<i64>,
    labels: Arc<Labels>,
    /// Where a pod without a node may and wants to go; nothing for one that has it.
    pub spec: Arc<PodSpec>,
    /// The reference to the controller of a pod without a node.
    pub owner: Option<Arc<OwnerReference>>,
    node: Arc<str>,
    nominated: Arc<str>,
    terminating: bool,
    /// Evicted to make room for another.
    pub preempted: bool,
    pub started: Option<Time>,
    /// What was last said about the scheduling of a pod without a node.
    pub verdict: Option<Box<PodCondition>>,
    pub claims: Box<[Claim]>,
    pub priority: i32,
    pub requests: Resources,
    /// CPU and memory with a default for containers that state none.
    pub scoring_requests: (i64, i64),
    pub host_ports: BTreeSet<HostPort>,
    terms: Option<Box<Terms>>,
}

/// A pod's wishes for the pods near it.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    pub affinity: Vec<AffinityTerm>,
    pub anti_affinity: Vec<AffinityTerm>,
    pub preferred_affinity: Vec<(i64, AffinityTerm)>,
    pub preferred_anti_affinity: Vec<(i64, AffinityTerm)>,
}

/// A claim that a pod uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub name: String,
    /// Made for this pod alone.
    pub ephemeral: bool,
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

static NO_TERMS: Terms = Terms {
    affinity: Vec::new(),
    anti_affinity: Vec::new(),
    preferred_affinity: Vec::new(),
    preferred_anti_affinity: Vec::new(),
};

impl Terms {
    fn of(affinity: &Affinity, namespace: &str) -> Self {
        let (near, far) = (affinity.pod_affinity.as_ref(), affinity.pod_anti_affinity.as_ref());
        let term = |t: &PodAffinityTerm| AffinityTerm::new(t, namespace);
        let required = |terms: Option<&Vec<PodAffinityTerm>>| terms.into_iter().flatten().map(term).collect();
        let preferred = |terms: Option<&Vec<WeightedPodAffinityTerm>>| {
            terms.into_iter().flatten().map(|t| (i64::from(t.weight), term(&t.pod_affinity_term))).collect()
        };
        Self {
            affinity: required(near.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())),
            anti_affinity: required(far.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())),
            preferred_affinity: preferred(
                near.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()),
            ),
            preferred_anti_affinity: preferred(
                far.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()),
            ),
        }
    }

    fn is_empty(&self) -> bool {
        self.affinity.is_empty()
            && self.anti_affinity.is_empty()
            && self.preferred_affinity.is_empty()
            && self.preferred_anti_affinity.is_empty()
    }
}

impl PodInfo {
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// The node the pod is bound to.
    pub fn node_name(&self) -> Option<&str> {
        Some(&*self.node).filter(|node| !node.is_empty())
    }

    pub fn nominated_node(&self) -> Option<&str> {
        Some(&*self.nominated).filter(|node| !node.is_empty())
    }

    pub fn is_terminating(&self) -> bool {
        self.terminating
    }

    pub fn terms(&self) -> &Terms {
        self.terms.as_deref().unwrap_or(&NO_TERMS)
    }

    pub fn has_affinity(&self) -> bool {
        self.terms.is_some()
    }

    pub fn is_gated(&self) -> bool {
        self.spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty())
    }

    /// Whether this form of a pod may fit where `other` does not, or the other way round.
    pub fn asks_differently(&self, other: &Self) -> bool {
        (&self.spec, &self.labels, &self.claims, &self.requests)
            != (&other.spec, &other.labels, &other.claims, &other.requests)
    }

    pub fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            namespace: Some(self.key.namespace.clone()),
            name: Some(self.key.name.clone()),
            uid: Some(self.uid.to_string()),
            resource_version: (self.version != 0).then(|| self.version.to_string()),
            ..ObjectReference::default()
        }
    }
}

impl Keep for PodInfo {
    type Object = Pod;

    fn keep(pod: Pod) -> Self {
        static TEXTS: LazyLock<Pool<str>> = LazyLock::new(Pool::default);
        static LABELS: LazyLock<Pool<Labels>> = LazyLock::new(Pool::default);
        static OWNERS: LazyLock<Pool<OwnerReference>> = LazyLock::new(Pool::default);
        static SPECS: LazyLock<Pool<PodSpec>> = LazyLock::new(Pool::default);
        let (key, version) = (Keep::key(&pod), Keep::version(&pod));
        let (requests, scoring_requests) = (pod_requests(&pod), scoring_requests(&pod));
        let claims = claims(&pod).into();
        let (spec, status) = (pod.spec.unwrap_or_default(), pod.status.unwrap_or_default());
        let terms = spec.affinity.as_ref().map(|affinity| Terms::of(affinity, &key.namespace));
        let node = spec.node_name.clone().unwrap_or_default();
        let waits = node.is_empty();
        let mut conditions = status.conditions.unwrap_or_default();
        let owners = pod.metadata.owner_references.into_iter().flatten();
        let owner = owners.filter(|_| waits).find(|owner| owner.controller == Some(true));
        Self {
            key,
            uid: pod.metadata.uid.unwrap_or_default().into(),
            version,
            generation: pod.metadata.generation,
            labels: LABELS.share(pod.metadata.labels.unwrap_or_default()),
            owner: owner.map(|owner| OWNERS.share(owner)),
            node: TEXTS.share(node),
            nominated: TEXTS.share(status.nominated_node_name.unwrap_or_default()),
            terminating: pod.metadata.deletion_timestamp.is_some(),
            preempted: conditions.iter().any(is_preemption),
            started: status.start_time,
            verdict: conditions.extract_if(.., |c| waits && c.type_ == "PodScheduled").next().map(Box::new),
            claims,
            priority: spec.priority.unwrap_or(0),
            requests,
            scoring_requests,
            host_ports: host_ports(&spec),
            terms: terms.filter(|terms| !terms.is_empty()).map(Box::new),
            spec: SPECS.share(if waits { read_of(spec) } else { PodSpec::default() }),
        }
    }

    fn full_name(&self) -> (&str, &str) {
        (&self.key.namespace, &self.key.name)
    }

    fn version(&self) -> u64 {
        self.version
    }
}

/// Of a specification what says where the pod may go.
fn read_of(spec: PodSpec) -> PodSpec {
    let image = |c: Container| Container {
        image: c.image,
        restart_policy_rules: c.restart_policy_rules,
        ..Container::default()
    };
    PodSpec {
        containers: spec.containers.into_iter().map(image).collect(),
        init_containers: spec.init_containers.map(|all| all.into_iter().map(image).collect()),
        affinity: spec.affinity,
        node_selector: spec.node_selector,
        preemption_policy: spec.preemption_policy,
        scheduler_name: spec.scheduler_name,
        scheduling_gates: spec.scheduling_gates,
        tolerations: spec.tolerations,
        topology_spread_constraints: spec.topology_spread_constraints,
        ..PodSpec::default()
    }
}

fn is_preemption(condition: &PodCondition) -> bool {
    condition.type_ == "DisruptionTarget"
        && condition.status == "True"
        && condition.reason.as_deref() == Some("PreemptionByScheduler")
}

/// The claims that a pod uses, with those made for its ephemeral volumes.
fn claims(pod: &Pod) -> Vec<Claim> {
    let claim = |v: &Volume| match (&v.persistent_volume_claim, &v.ephemeral) {
        (Some(claim), _) => Some(Claim { name: claim.claim_name.clone(), ephemeral: false }),
        (None, Some(_)) => {
            let pod = pod.metadata.name.as_deref().unwrap_or_default();
            Some(Claim { name: format!("{pod}-{}", v.name), ephemeral: true })
        }
        (None, None) => None,
    };
    pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()).filter_map(claim).collect()
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
