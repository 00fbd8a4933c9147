//! NodeDeclaredFeatures: a pod that needs a feature of the node agent goes where it is declared (KEP-5328).

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, PodSpec};

use crate::cache::Snapshot;
use crate::framework::{Filter, Plugin, Rejection};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::queue::Events;

/// A feature, and whether a specification needs it.
type Need = (&'static str, fn(&PodSpec) -> bool);

/// Features of 1.36 that a pod's specification may need.
const NEEDS: [Need; 1] = [("RestartAllContainersOnContainerExits", restarts_all)];

fn restarts_all(spec: &PodSpec) -> bool {
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    containers.flat_map(|c| c.restart_policy_rules.iter().flatten()).any(|rule| rule.action == "RestartAllContainers")
}

/// The features that a node declares.
pub fn declared(node: &Node) -> &[String] {
    node.status.as_ref().and_then(|status| status.declared_features.as_deref()).unwrap_or_default()
}

pub struct NodeDeclaredFeatures;

impl Plugin for NodeDeclaredFeatures {
    fn name(&self) -> &'static str {
        "NodeDeclaredFeatures"
    }

    fn events(&self) -> Events {
        Events::NODE_ADDED | Events::NODE_FEATURES
    }

    fn filter(&self, pod: &Arc<PodInfo>, _snapshot: &Snapshot) -> Result<Option<Box<dyn Filter>>, Rejection> {
        let needed: Vec<&str> = NEEDS.iter().filter(|(_, needs)| needs(&pod.spec)).map(|(name, _)| *name).collect();
        Ok((!needed.is_empty()).then(|| Box::new(Needed(needed)) as Box<dyn Filter>))
    }
}

#[derive(Clone)]
struct Needed(Vec<&'static str>);

impl Filter for Needed {
    fn check(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let declared = node.node.as_deref().map_or(&[][..], declared);
        if self.0.iter().all(|name| declared.iter().any(|has| has == name)) {
            return Ok(());
        }
        Err(Rejection::unresolvable("node(s) didn't match Pod's required features"))
    }

    fn boxed_clone(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing;

    #[test]
    fn a_pod_goes_where_its_features_are() {
        let rules = json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}]);
        let plain = testing::pod("plain", "1");
        let asks = testing::pod_with(
            "asks",
            "1",
            json!({}),
            json!({"containers": [{"name": "c", "restartPolicy": "Never", "restartPolicyRules": rules}]}),
        );
        let with = |features: serde_json::Value| {
            let mut info = NodeInfo::new("n");
            let node = json!({"metadata": {"name": "n"}, "status": {"declaredFeatures": features}});
            info.set_node(Some(Arc::new(serde_json::from_value(node).unwrap())));
            info
        };
        let (old, new) = (with(json!([])), with(json!(["A", "RestartAllContainersOnContainerExits"])));
        let snapshot = Snapshot::default();
        assert!(NodeDeclaredFeatures.filter(&plain, &snapshot).unwrap().is_none());
        let filter = NodeDeclaredFeatures.filter(&asks, &snapshot).unwrap().unwrap();
        assert!(filter.check(&old).is_err() && filter.check(&new).is_ok());
    }
}
