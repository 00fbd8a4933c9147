//! One APIService per group version that this server serves itself.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube1_api::resource::ResourceTable;
use kube1_api::status::Status;
use serde_json::{Value, json};

use super::api_services;
use crate::bootstrap::{StorageWriter, Writer};
use crate::storage::Storage;
use crate::strategy::time_text;

const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";

/// Makes the APIServices of the table's group versions and removes those of custom group versions that are gone.
/// An APIService that names a Service is somebody's own and is left alone.
pub async fn sync_local(storage: &Storage, table: &ResourceTable) -> Result<(), Status> {
    let writer = StorageWriter::new(storage, table);
    let wanted = wanted(table);
    for (name, object) in &wanted {
        if writer.get(&api_services(), "", name).await?.is_none() {
            match writer.create(&api_services(), object.clone()).await {
                Err(status) if status.code() != 409 => return Err(status),
                _ => {}
            }
        }
    }
    let Some(row) = table.stored("apiregistration.k8s.io", "apiservices") else { return Ok(()) };
    let collection = storage.collection(&row);
    let ours = collection.all(None).into_iter().filter(|o| o.label(MANAGED).is_some());
    for object in ours.filter(|o| !wanted.contains_key(o.name())) {
        // Somebody else may be removing it too.
        let _ = collection.delete("", object.name(), object.revision()).await;
    }
    Ok(())
}

fn wanted(table: &ResourceTable) -> BTreeMap<String, Value> {
    let now = time_text(Timestamp::now());
    let object = |group: &str, version: &str, custom: bool, priority: (i64, i64)| {
        json!({
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {
                "name": format!("{version}.{group}"),
                "labels": {MANAGED: if custom { "true" } else { "onstart" }},
            },
            "spec": {"group": group, "version": version, "groupPriorityMinimum": priority.0, "versionPriority": priority.1},
            "status": {"conditions": [{
                "type": "Available", "status": "True", "reason": "Local", "lastTransitionTime": now,
                "message": "Local APIServices are always available",
            }]},
        })
    };
    let rows = table.iter().map(|row| {
        let priority = (row.group_priority, row.version_priority);
        (format!("{}.{}", row.version, row.group), object(&row.group, &row.version, row.is_custom(), priority))
    });
    rows.collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use kube1_api::resource::{CustomResource, Resource};

    use super::*;

    #[tokio::test]
    async fn every_served_group_version_has_an_api_service_while_it_is_served() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(kube1_store::EmbeddedStore::open(dir.path()).unwrap());
        let builtin = ResourceTable::builtin();
        let storage = Storage::open(store, &builtin, None).await.unwrap();
        let mut table = builtin.clone();
        let widgets = CustomResource {
            group: "x.io".into(),
            version: "v1".into(),
            plural: "widgets".into(),
            ..Default::default()
        };
        table.insert(Resource::from(widgets));
        sync_local(&storage, &table).await.unwrap();
        let services = storage.collection(&builtin.stored("apiregistration.k8s.io", "apiservices").unwrap());
        assert!(services.get("", "v1.").is_some() && services.get("", "v1.apps").is_some());
        assert!(services.get("", "v1.x.io").is_some());
        sync_local(&storage, &builtin).await.unwrap();
        assert!(services.get("", "v1.x.io").is_none() && services.get("", "v1.apps").is_some());
    }
}
