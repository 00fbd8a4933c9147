//! NodeResourcesFit with the least-allocated score, and NodeResourcesBalancedAllocation.

use std::sync::Arc;

use crate::cache::Snapshot;
use crate::framework::{Filter, MAX_SCORE, Plugin, Rejection, Score};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::queue::Events;
use crate::resources::Resources;

/// Pods fit where their requests fit into what is left; emptier nodes are preferred.
pub struct Fit;

impl Plugin for Fit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn events(&self) -> Events {
        Events::NODE_ADDED | Events::NODE_ALLOCATABLE | Events::POD_GONE
    }

    fn filter(&self, pod: &Arc<PodInfo>, _snapshot: &Snapshot) -> Result<Option<Box<dyn Filter>>, Rejection> {
        Ok(Some(Box::new(Requests(pod.requests.clone()))))
    }

    fn score(&self, pod: &Arc<PodInfo>, _snapshot: &Snapshot, _nodes: &[&NodeInfo]) -> Option<(Box<dyn Score>, i64)> {
        Some((Box::new(LeastAllocated(pod.scoring_requests)), 1))
    }
}

#[derive(Clone)]
struct Requests(Resources);

impl Filter for Requests {
    fn check(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let (wanted, have, used) = (&self.0, &node.allocatable, &node.requested);
        let mut reasons = Vec::new();
        let mut unresolvable = false;
        if used.pods + 1 > have.pods {
            reasons.push("Too many pods".to_owned());
        }
        let mut check = |name: &str| {
            let amount = wanted.get(name);
            if amount > 0 && amount > have.get(name) - used.get(name) {
                reasons.push(format!("Insufficient {name}"));
                unresolvable |= amount > have.get(name);
            }
        };
        for name in ["cpu", "memory", "ephemeral-storage"] {
            check(name);
        }
        for name in wanted.other.keys() {
            check(name);
        }
        if reasons.is_empty() { Ok(()) } else { Err(Rejection { reasons, unresolvable }) }
    }

    fn boxed_clone(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
}

/// CPU and memory: (requested with the pod, allocatable).
fn shares(pod: (i64, i64), node: &NodeInfo) -> [(i64, i64); 2] {
    [
        (pod.0 + node.scoring_requested.0, node.allocatable.cpu),
        (pod.1 + node.scoring_requested.1, node.allocatable.memory),
    ]
}

struct LeastAllocated((i64, i64));

impl Score for LeastAllocated {
    fn score(&self, node: &NodeInfo) -> i64 {
        let free = |(requested, capacity): (i64, i64)| {
            if capacity <= 0 || requested > capacity { 0 } else { (capacity - requested) * MAX_SCORE / capacity }
        };
        shares(self.0, node).map(free).iter().sum::<i64>() / 2
    }
}

/// Prefers nodes on which CPU and memory are used in equal shares.
pub struct BalancedAllocation;

impl Plugin for BalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn events(&self) -> Events {
        Events::NONE
    }

    fn score(&self, pod: &Arc<PodInfo>, _snapshot: &Snapshot, _nodes: &[&NodeInfo]) -> Option<(Box<dyn Score>, i64)> {
        // A pod that asks for nothing disturbs no balance.
        let asks = pod.requests.cpu > 0 || pod.requests.memory > 0;
        asks.then(|| (Box::new(Balanced((pod.requests.cpu, pod.requests.memory))) as Box<dyn Score>, 1))
    }
}

struct Balanced((i64, i64));

impl Score for Balanced {
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
    fn score(&self, node: &NodeInfo) -> i64 {
        let used = |requested: i64, capacity: i64| {
            if capacity <= 0 { 0.0 } else { (requested as f64 / capacity as f64).min(1.0) }
        };
        let cpu = used(self.0.0 + node.requested.cpu, node.allocatable.cpu);
        let memory = used(self.0.1 + node.requested.memory, node.allocatable.memory);
        // The standard deviation of two shares.
        let deviation = (cpu - memory).abs() / 2.0;
        ((1.0 - deviation) * MAX_SCORE as f64) as i64
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::testing::{node, pod};

    #[test]
    fn a_pod_fits_only_what_is_left() {
        let mut info = NodeInfo::new("n");
        info.set_node(Some(node("n", "2")));
        info.add_pod(pod("a", "1500m"));
        let check = |cpu: &str, info: &NodeInfo| Requests(pod("p", cpu).requests.clone()).check(info);
        assert_eq!(check("500m", &info), Ok(()));
        assert_eq!(check("501m", &info), Err(Rejection::resolvable("Insufficient cpu")));
        assert_eq!(check("3", &info), Err(Rejection::unresolvable("Insufficient cpu")), "evictions cannot help");
        info.allocatable.pods = 1;
        let rejected = check("1", &info).unwrap_err();
        assert_eq!(rejected.reasons, ["Too many pods", "Insufficient cpu"]);
    }

    #[test]
    fn emptier_and_balanced_nodes_score_higher() {
        let mut empty = NodeInfo::new("e");
        empty.set_node(Some(node("e", "4")));
        let mut half = NodeInfo::new("h");
        half.set_node(Some(node("h", "4")));
        half.add_pod(pod("a", "2"));
        let p = pod("p", "1");
        let least = LeastAllocated(p.scoring_requests);
        assert!(least.score(&empty) > least.score(&half));
        let balanced = Balanced((p.requests.cpu, p.requests.memory));
        assert!(balanced.score(&empty) > balanced.score(&half));
    }
}
