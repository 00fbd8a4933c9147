//! What comes along with writing certain resources.

use kube1_api::status::Status;
use serde_json::Value;

use super::{Endpoint, metadata};
use crate::allocator::Allocation;

impl Endpoint {
    /// Gives a Service the addresses and ports it lacks; they are kept when the allocation is committed.
    pub(super) fn allocate(&self, object: &mut Value, old: Option<&Value>) -> Result<Option<Allocation>, Status> {
        if !self.is_services() {
            return Ok(None);
        }
        self.server.allocator.allocate(object, old).map(Some)
    }

    /// To be called once an object is out of the store.
    pub(super) async fn removed(&self, object: &Value) {
        if !self.is_services() {
            return;
        }
        self.server.allocator.release(object).await;
        let Some(row) = self.server.table.load().stored("", "endpoints") else { return };
        let endpoints = self.server.storage.collection(&row);
        let (namespace, name) = (metadata::text(object, "namespace"), metadata::text(object, "name"));
        if let Some(held) = endpoints.get(namespace, name)
            && let Err(error) = endpoints.delete(namespace, name, held.revision()).await
        {
            tracing::debug!(namespace, name, %error, "the endpoints of a deleted service stay");
        }
    }

    fn is_services(&self) -> bool {
        self.row.group.is_empty() && self.row.plural == "services"
    }
}
