//! NodeAffinity, with `spec.nodeSelector`.

use k8s_openapi::api::core::v1::PreferredSchedulingTerm;
use kube1_client::node_match::{node_term_matches, pod_selects_node};

use std::sync::Arc;

use crate::cache::Snapshot;
use crate::framework::{Filter, Plugin, Rejection, Score, normalize_to_max};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::queue::Events;

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
        let affinity = pod.spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
        let selects = pod.spec.node_selector.as_ref().is_some_and(|s| !s.is_empty())
            || affinity.is_some_and(|a| a.required_during_scheduling_ignored_during_execution.is_some());
        Ok(selects.then(|| Box::new(Required(Arc::clone(pod))) as Box<dyn Filter>))
    }

    fn score(&self, pod: &Arc<PodInfo>, _snapshot: &Snapshot, _nodes: &[&NodeInfo]) -> Option<(Box<dyn Score>, i64)> {
        let affinity = pod.spec.affinity.as_ref()?.node_affinity.as_ref()?;
        let terms = affinity.preferred_during_scheduling_ignored_during_execution.clone()?;
        (!terms.is_empty()).then(|| (Box::new(Preferred(terms)) as Box<dyn Score>, 2))
    }
}

#[derive(Clone)]
struct Required(Arc<PodInfo>);

impl Filter for Required {
    fn check(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if pod_selects_node(&self.0.spec, node.labels(), &node.name) {
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
