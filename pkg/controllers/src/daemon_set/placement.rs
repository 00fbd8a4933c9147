//! Which nodes a DaemonSet's pods belong on.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Pod, PodTemplateSpec, Taint, Toleration};
use kube1_client::node_match::{pod_selects_node, tolerates};

use super::pod::tolerations;

/// What a node is to a DaemonSet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Should have a pod.
    Runs,
    /// Gets no new pod; one that is there may stay.
    MayStay,
    Not,
}

impl Placement {
    pub fn of(template: &PodTemplateSpec, node: &Node) -> Self {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        let Some(spec) = &template.spec else { return Self::Not };
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let labels = node.metadata.labels.as_ref().unwrap_or(&NONE);
        let elsewhere = spec.node_name.as_deref().is_some_and(|n| !n.is_empty() && n != name);
        if elsewhere || !pod_selects_node(spec, labels, name) {
            return Self::Not;
        }
        let taints = node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or(&[]);
        let tolerations: Vec<Toleration> = tolerations(spec);
        let repelled = |t: &&Taint| t.effect != "PreferNoSchedule" && !tolerates(&tolerations, t);
        match taints.iter().find(repelled) {
            None => Self::Runs,
            Some(_) if taints.iter().filter(repelled).all(|t| t.effect != "NoExecute") => Self::MayStay,
            Some(_) => Self::Not,
        }
    }
}

/// The node a pod is on or, before it is scheduled, the one it is made for.
pub fn target_node(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    if let Some(name) = spec.node_name.as_deref().filter(|n| !n.is_empty()) {
        return Some(name);
    }
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    let fields = required.node_selector_terms.iter().flat_map(|t| t.match_fields.iter().flatten());
    let mut named = fields.filter(|f| f.key == "metadata.name" && f.operator == "In");
    named.find_map(|f| f.values.as_ref()?.first().map(String::as_str))
}
