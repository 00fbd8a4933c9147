//! Writing start objects straight into storage.

use async_trait::async_trait;
use kube1_api::default::apply_defaults;
use kube1_api::name::GroupResource;
use kube1_api::resource::{Resource, ResourceTable};
use kube1_api::status::Status;
use serde_json::{Value, json};
use std::sync::Arc;

use super::Writer;
use crate::storage::Storage;

/// Writes to storage without the request pipeline, which cannot work before these objects exist.
pub struct StorageWriter<'a> {
    storage: &'a Storage,
    table: &'a ResourceTable,
}

impl<'a> StorageWriter<'a> {
    pub fn new(storage: &'a Storage, table: &'a ResourceTable) -> Self {
        Self { storage, table }
    }

    fn row(&self, resource: &GroupResource) -> Result<Arc<Resource>, Status> {
        let found = self.table.stored(&resource.group, &resource.resource);
        found.ok_or_else(|| Status::internal(format!("{resource} is not in the resource table")))
    }
}

#[async_trait]
impl Writer for StorageWriter<'_> {
    async fn get(&self, resource: &GroupResource, namespace: &str, name: &str) -> Result<Option<Value>, Status> {
        let row = self.row(resource)?;
        Ok(self.storage.collection(&row).get(namespace, name).map(|object| object.value()))
    }

    async fn create(&self, resource: &GroupResource, mut object: Value) -> Result<(), Status> {
        let row = self.row(resource)?;
        let now = jiff::Timestamp::from_second(kube1_pki::clock::unix_now()).unwrap_or_default();
        object["metadata"]["uid"] = uuid::Uuid::new_v4().to_string().into();
        object["metadata"]["creationTimestamp"] = now.to_string().into();
        if matches!(resource.resource.as_str(), "flowschemas" | "prioritylevelconfigurations" | "priorityclasses") {
            object["metadata"]["generation"] = 1.into();
        }
        if row.has_status() && object["status"].is_null() {
            object["status"] = json!({});
        }
        apply_defaults(&row, &mut object);
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let created = self.storage.collection(&row).create(object).await;
        created.map(|_| ()).map_err(|e| e.to_status(resource, &name))
    }

    async fn update(&self, resource: &GroupResource, mut object: Value) -> Result<(), Status> {
        let row = self.row(resource)?;
        apply_defaults(&row, &mut object);
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let version = object["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse().ok()).unwrap_or(0);
        let updated = self.storage.collection(&row).update(object, version).await;
        updated.map(|_| ()).map_err(|e| e.to_status(resource, &name))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::bootstrap::{objects, reconcile};

    #[tokio::test]
    async fn a_new_storage_is_filled_once() {
        let dir = tempfile::tempdir().unwrap();
        let table = ResourceTable::builtin();
        let store = Arc::new(kube1_store::EmbeddedStore::open(dir.path()).unwrap());
        let storage = Storage::open(store, &table, None).await.unwrap();
        let writer = StorageWriter::new(&storage, &table);
        reconcile(&writer, objects()).await.unwrap();
        let revision = storage.revision();
        reconcile(&writer, objects()).await.unwrap();
        assert_eq!(storage.revision(), revision, "defaulting does not make a difference");
        let namespaces = storage.collection(&table.stored("", "namespaces").unwrap());
        let value = namespaces.get("", "kube-system").unwrap().value();
        assert_eq!(value["status"]["phase"], "Active");
        assert!(value["metadata"]["uid"].is_string() && value["metadata"]["creationTimestamp"].is_string());
    }
}
