//! Pod ranges: every node gets its own part of the cluster's network.

use std::collections::HashMap;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube1_client::{Event, EventType, ObjectKey, Outcome, WorkQueue};
use kube1_supervisor::BoxError;
use parking_lot::Mutex;
use serde_json::json;

use crate::controller::{Controller, SyncResult, cluster, unless_gone};

/// Runs the controller that assigns pod ranges.
pub async fn run(controller: Controller) -> Result<(), BoxError> {
    let nodes = controller.informers.all::<Node>();
    if !controller.synced(&[&nodes]).await {
        return Ok(());
    }
    let ranges = Arc::new(Mutex::new(Ranges::new(controller.config.cluster_cidr)));
    let queue = WorkQueue::new();
    let known = Arc::clone(&ranges);
    controller.watch(&nodes, &queue, move |event| {
        let node = event.object();
        let name = node.metadata.name.clone().unwrap_or_default();
        let own = ranges_of(node);
        match event {
            Event::Deleted(_) => {
                known.lock().release(&name);
                // Its range may be what another node waits for.
                known.lock().waiting.drain(..).collect()
            }
            _ if own.is_empty() => vec![name],
            _ => {
                known.lock().occupy(&name, own);
                Vec::new()
            }
        }
    });
    let sync = |name: String| {
        let (controller, nodes, ranges) = (controller.clone(), nodes.clone(), Arc::clone(&ranges));
        async move {
            let Some(node) = nodes.get(&ObjectKey::new("", name.clone())) else { return Ok(Outcome::Done) };
            if !ranges_of(&node).is_empty() {
                return Ok(Outcome::Done);
            }
            let Some(range) = ranges.lock().allocate(&name) else {
                let message = format!("Node {name} status is now: CIDRNotAvailable");
                controller.recorder.event(&*node, EventType::Normal, "CIDRNotAvailable", message);
                return Ok(Outcome::Done);
            };
            let patch =
                json!({"metadata": {"uid": node.metadata.uid}, "spec": {"podCIDR": range, "podCIDRs": [range]}});
            let api = cluster::<Node>(&controller.client);
            unless_gone(api.patch(&name, &PatchParams::default(), &Patch::Strategic(patch)).await)?;
            SyncResult::Ok(Outcome::Done)
        }
    };
    controller.work(&queue, 1, sync).await;
    Ok(())
}

fn ranges_of(node: &Node) -> Vec<IpNet> {
    let Some(spec) = &node.spec else { return Vec::new() };
    let ranges = spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr);
    ranges.filter_map(|text| text.parse().ok()).collect()
}

/// Which parts of the cluster's network nodes have.
struct Ranges {
    network: IpNet,
    /// Prefix length of a node's range.
    prefix: u8,
    by_node: HashMap<String, Vec<IpNet>>,
    /// Nodes that got none.
    waiting: Vec<String>,
}

impl Ranges {
    fn new(network: IpNet) -> Self {
        let wanted = if matches!(network, IpNet::V4(_)) { 24 } else { 64 };
        let prefix = wanted.max(network.prefix_len());
        Self { network, prefix, by_node: HashMap::new(), waiting: Vec::new() }
    }

    fn occupy(&mut self, node: &str, ranges: Vec<IpNet>) {
        self.by_node.insert(node.to_owned(), ranges);
    }

    fn release(&mut self, node: &str) {
        self.by_node.remove(node);
        self.waiting.retain(|n| n != node);
    }

    /// The node's range, or the first free one.
    fn allocate(&mut self, node: &str) -> Option<IpNet> {
        if let Some(own) = self.by_node.get(node).and_then(|r| r.first()) {
            return Some(*own);
        }
        let taken: Vec<IpNet> = self.by_node.values().flatten().copied().collect();
        let overlaps = |range: &IpNet| taken.iter().any(|t| t.contains(range) || range.contains(t));
        let free = self.network.subnets(self.prefix).ok()?.find(|range| !overlaps(range));
        match free {
            Some(range) => self.occupy(node, vec![range]),
            None => self.waiting.push(node.to_owned()),
        }
        free
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn ranges_do_not_overlap_and_are_used_again() {
        let mut ranges = Ranges::new("10.42.0.0/22".parse().unwrap());
        ranges.occupy("old", vec!["10.42.1.0/24".parse().unwrap()]);
        let mut got: Vec<String> = ["a", "b", "c", "d"]
            .iter()
            .map(|n| ranges.allocate(n).map(|r| r.to_string()).unwrap_or_default())
            .collect();
        assert_eq!(got, ["10.42.0.0/24", "10.42.2.0/24", "10.42.3.0/24", ""]);
        assert_eq!(ranges.waiting, ["d"]);
        ranges.release("b");
        got = vec![ranges.allocate("d").unwrap().to_string(), ranges.allocate("a").unwrap().to_string()];
        assert_eq!(got, ["10.42.2.0/24", "10.42.0.0/24"]);
    }
}
