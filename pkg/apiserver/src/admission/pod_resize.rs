//! PodResizeValidator: a running pod may only grow to what its node could ever give it.

use std::sync::Arc;

use async_trait::async_trait;
use kube1_api::amounts;
use kube1_api::status::Status;

use super::{Attributes, Operation, Plugin};
use crate::reader::StorageReader;

const OS_LABEL: &str = "kubernetes.io/os";

pub struct PodResizeValidator {
    reader: Arc<StorageReader>,
}

impl PodResizeValidator {
    pub fn new(reader: Arc<StorageReader>) -> Self {
        Self { reader }
    }
}

#[async_trait]
impl Plugin for PodResizeValidator {
    fn name(&self) -> &'static str {
        "PodResizeValidator"
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        attributes.is("", "pods") && attributes.subresource == "resize" && attributes.operation == Operation::Update
    }

    async fn validate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        let Some(pod) = &attributes.object else { return Ok(()) };
        let node = pod["spec"]["nodeName"].as_str().filter(|n| !n.is_empty());
        let Some(node) = node.and_then(|n| self.reader.collection("", "nodes")?.get("", n)) else { return Ok(()) };
        let refuse = |why: &str, cause: &str| Err(attributes.forbidden(why).with_cause(cause, why, ""));
        if node.label(OS_LABEL).is_some_and(|os| os != "linux") {
            return refuse("pod resize is only supported on linux nodes", "UnsupportedPlatform");
        }
        let allocatable = amounts::read(&node.value()["status"]["allocatable"]);
        for (name, wanted) in amounts::of_pod(&pod["spec"], "requests") {
            if let Some(most) = allocatable.get(&name).filter(|most| wanted > **most) {
                let why =
                    format!("node didn't have enough allocatable: {name}, requested: {wanted}, allocatable: {most}");
                return refuse(&why, "NodeCapacity");
            }
        }
        Ok(())
    }
}
