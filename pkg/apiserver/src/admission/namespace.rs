//! NamespaceLifecycle: no objects without their namespace, none into one that goes away.

use std::sync::Arc;

use async_trait::async_trait;
use kube1_api::name::GroupResource;
use kube1_api::status::Status;

use super::{Attributes, Operation, Plugin};
use crate::reader::StorageReader;

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub struct NamespaceLifecycle {
    reader: Arc<StorageReader>,
}

impl NamespaceLifecycle {
    pub fn new(reader: Arc<StorageReader>) -> Self {
        Self { reader }
    }

    fn check(&self, attributes: &Attributes) -> Result<(), Status> {
        if attributes.is("", "namespaces") {
            let deletes = attributes.operation == Operation::Delete && attributes.subresource.is_empty();
            if deletes && IMMORTAL.contains(&attributes.name.as_str()) {
                return Err(attributes.forbidden("this namespace may not be deleted"));
            }
            return Ok(());
        }
        let namespace = attributes.namespace.as_str();
        if namespace.is_empty() || attributes.operation == Operation::Delete {
            return Ok(());
        }
        // Asking about permissions in a namespace does not need it.
        if attributes.is("authorization.k8s.io", "localsubjectaccessreviews") {
            return Ok(());
        }
        let found = self.reader.collection("", "namespaces").and_then(|c| c.get("", namespace));
        let Some(found) = found else {
            return Err(Status::not_found(&GroupResource::new("", "namespaces"), namespace));
        };
        if attributes.operation == Operation::Create && found.field("status.phase") == "Terminating" {
            let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
            let cause = format!("namespace {namespace} is being terminated");
            let status = attributes.forbidden(why);
            return Err(status.with_cause("NamespaceTerminating", &cause, "metadata.namespace"));
        }
        Ok(())
    }
}

#[async_trait]
impl Plugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        attributes.operation != Operation::Connect
    }

    async fn mutate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        self.check(attributes)
    }
}
