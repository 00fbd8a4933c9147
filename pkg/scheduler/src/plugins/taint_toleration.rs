//! TaintToleration.

use k8s_openapi::api::core::v1::{Taint, Toleration};

use std::sync::Arc;

use kube1_client::node_match::tolerates;

use crate::cache::Snapshot;
use crate::framework::{Filter, Plugin, Rejection, Score, normalize_to_max};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::queue::Events;

/// Keeps pods off nodes with taints they do not tolerate, and prefers nodes with fewer discouraging ones.
pub struct TaintToleration;

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn events(&self) -> Events {
        Events::NODE_ADDED | Events::NODE_TAINTS
    }

    fn filter(&self, pod: &Arc<PodInfo>, _snapshot: &Snapshot) -> Result<Option<Box<dyn Filter>>, Rejection> {
        Ok(Some(Box::new(Tolerated(tolerations(pod)))))
    }

    fn score(&self, pod: &Arc<PodInfo>, _snapshot: &Snapshot, nodes: &[&NodeInfo]) -> Option<(Box<dyn Score>, i64)> {
        let discouraging = nodes.iter().any(|n| n.taints().iter().any(|t| t.effect == "PreferNoSchedule"));
        discouraging.then(|| {
            let mut tolerations = tolerations(pod);
            tolerations.retain(|t| matches!(t.effect.as_deref(), None | Some("" | "PreferNoSchedule")));
            (Box::new(Tolerated(tolerations)) as Box<dyn Score>, 3)
        })
    }
}

fn tolerations(pod: &PodInfo) -> Vec<Toleration> {
    pod.spec.tolerations.clone().unwrap_or_default()
}

#[derive(Clone)]
struct Tolerated(Vec<Toleration>);

impl Filter for Tolerated {
    fn check(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let repels = |t: &&Taint| t.effect != "PreferNoSchedule" && !tolerates(&self.0, t);
        if node.taints().iter().any(|t| repels(&t)) {
            return Err(Rejection::unresolvable("node(s) had untolerated taint(s)"));
        }
        Ok(())
    }

    fn boxed_clone(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
}

impl Score for Tolerated {
    fn score(&self, node: &NodeInfo) -> i64 {
        let untolerated = |t: &&Taint| t.effect == "PreferNoSchedule" && !tolerates(&self.0, t);
        i64::try_from(node.taints().iter().filter(untolerated).count()).unwrap_or(i64::MAX)
    }

    fn normalize(&self, scores: &mut [i64]) {
        normalize_to_max(scores, true);
    }
}
