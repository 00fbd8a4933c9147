//! NodeAffinity, with `spec.nodeSelector`.

use k8s_openapi::api::core::v1::{NodeSelector, PodSpec, PreferredSchedulingTerm};

use std::sync::Arc;

use crate::cache::Snapshot;
use crate::framework::{Filter, Plugin, Rejection, Score, normalize_to_max};
use crate::labels::{Labels, node_selector_matches, node_term_matches};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::queue::Events;

/// Whether a node has what the pod's node selector and required node affinity ask for.
pub fn matches(spec: &PodSpec, node: &NodeInfo) -> bool {
    required(spec).is_none_or(|r| r.matches(node))
}

fn required(spec: &PodSpec) -> Option<Required> {
    let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let affinity = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.clone());
    let labels = spec.node_selector.clone().unwrap_or_default();
    (affinity.is_some() || !labels.is_empty()).then_some(Required { labels, affinity })
}

/// Places pods on the nodes they select, and prefers those that they prefer.
pub struct NodeAffinity;

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn events(&self) -> Events {
        Events::NODE_ADDED | Events::NODE_LABELS
    }

    fn filter(&self, pod: &Arc<PodInfo>, _snapshot: &Snapshot) -> Result<Option<Box<dyn Filter>>, Rejection> {
        Ok(pod.spec().and_then(required).map(|r| Box::new(r) as Box<dyn Filter>))
    }

    fn score(&self, pod: &Arc<PodInfo>, _snapshot: &Snapshot, _nodes: &[&NodeInfo]) -> Option<(Box<dyn Score>, i64)> {
        let affinity = pod.spec()?.affinity.as_ref()?.node_affinity.as_ref()?;
        let terms = affinity.preferred_during_scheduling_ignored_during_execution.clone()?;
        (!terms.is_empty()).then(|| (Box::new(Preferred(terms)) as Box<dyn Score>, 2))
    }
}

#[derive(Clone)]
struct Required {
    labels: Labels,
    affinity: Option<NodeSelector>,
}

impl Required {
    fn matches(&self, node: &NodeInfo) -> bool {
        let labels = node.labels();
        self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.affinity.as_ref().is_none_or(|s| node_selector_matches(s, labels, &node.name))
    }
}

impl Filter for Required {
    fn check(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if self.matches(node) {
            return Ok(());
        }
        Err(Rejection::unresolvable("node(s) didn't match Pod's node affinity/selector"))
    }

    fn boxed_clone(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
}

struct Preferred(Vec<PreferredSchedulingTerm>);

impl Score for Preferred {
    fn score(&self, node: &NodeInfo) -> i64 {
        let fits = |t: &&PreferredSchedulingTerm| node_term_matches(&t.preference, node.labels(), &node.name);
        self.0.iter().filter(fits).map(|t| i64::from(t.weight)).sum()
    }

    fn normalize(&self, scores: &mut [i64]) {
        normalize_to_max(scores, false);
    }
}
