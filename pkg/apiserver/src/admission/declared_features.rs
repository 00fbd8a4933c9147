//! NodeDeclaredFeatureValidator: a pod on a node is only changed in ways that its node declares to know (KEP-5328).

use std::sync::Arc;

use async_trait::async_trait;
use kube1_api::amounts;
use kube1_api::status::Status;
use serde_json::Value;

use super::pod_defaults::items;
use super::{Attributes, Operation, Plugin};
use crate::reader::StorageReader;

/// A feature, and whether changing the one specification to the other needs it.
type Need = (&'static str, fn(&Value, &Value) -> bool);

/// Features of 1.36 that a change may need, in the order of their names.
const NEEDS: [Need; 2] = [
    ("InPlacePodLevelResourcesVerticalScaling", |old, new| differ(&old["resources"], &new["resources"])),
    ("InPlacePodVerticalScalingInitContainers", |old, new| {
        let both = items(&old["initContainers"]).zip(items(&new["initContainers"]));
        both.into_iter()
            .any(|(old, new)| old["restartPolicy"] != "Always" && differ(&old["resources"], &new["resources"]))
    }),
];

/// Whether other amounts are asked for, however they are written.
fn differ(old: &Value, new: &Value) -> bool {
    ["requests", "limits"].iter().any(|kind| amounts::read(&old[*kind]) != amounts::read(&new[*kind]))
        || old["claims"] != new["claims"]
}

pub struct NodeDeclaredFeatureValidator {
    reader: Arc<StorageReader>,
}

impl NodeDeclaredFeatureValidator {
    pub fn new(reader: Arc<StorageReader>) -> Self {
        Self { reader }
    }
}

#[async_trait]
impl Plugin for NodeDeclaredFeatureValidator {
    fn name(&self) -> &'static str {
        "NodeDeclaredFeatureValidator"
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        attributes.is("", "pods")
            && matches!(&*attributes.subresource, "" | "resize")
            && attributes.operation == Operation::Update
    }

    async fn validate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        let (Some(new), Some(old)) = (&attributes.object, &attributes.old) else { return Ok(()) };
        let Some(name) = new["spec"]["nodeName"].as_str().filter(|name| !name.is_empty()) else { return Ok(()) };
        let needed: Vec<&str> =
            NEEDS.iter().filter(|(_, needs)| needs(&old["spec"], &new["spec"])).map(|(name, _)| *name).collect();
        if needed.is_empty() {
            return Ok(());
        }
        let Some(node) = self.reader.collection("", "nodes").and_then(|nodes| nodes.get("", name)) else {
            return Err(attributes.forbidden(format!("node {name:?} not found")));
        };
        let node = node.value();
        let declared: Vec<&str> = items(&node["status"]["declaredFeatures"]).filter_map(Value::as_str).collect();
        let missing: Vec<&str> = needed.into_iter().filter(|feature| !declared.contains(feature)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let missing = missing.join(", ");
        Err(attributes
            .forbidden(format!("pod update requires features {missing} which are not available on node {name:?}")))
    }
}
