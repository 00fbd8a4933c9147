//! Keeps the resource table in step with the CustomResourceDefinitions, and their status and objects with them.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::StreamExt;
use jiff::Timestamp;
use kube1_api::resource::{Resource, ResourceTable};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::condition::{self, Condition};
use super::{CLEANUP_FINALIZER, is_established, rows, status};
use crate::options::ListOptions;
use crate::storage::{Collection, Object, Storage, StorageError};
use crate::strategy::time_text;

/// The pause after a failed write to the store; a watch wakes the controller for everything else.
const RETRY: Duration = Duration::from_secs(1);

/// The part of the API server that serves custom resources.
pub struct DefinitionController {
    storage: Storage,
    definitions: Arc<Collection>,
    builtin: ResourceTable,
    table: Arc<ArcSwap<ResourceTable>>,
}

impl DefinitionController {
    /// `table` is replaced whole whenever what is served changes. None if definitions themselves are not served.
    pub fn new(storage: Storage, table: Arc<ArcSwap<ResourceTable>>) -> Option<Self> {
        let builtin = ResourceTable::clone(&table.load());
        let definitions = storage.collection(&*builtin.stored("apiextensions.k8s.io", "customresourcedefinitions")?);
        Some(Self { storage, definitions, builtin, table })
    }

    /// Serves what was established before: to be called once before the first request is answered.
    pub fn load(&self) {
        let definitions = self.current();
        self.serve(&definitions);
    }

    /// Follows the definitions until cancelled.
    pub async fn run(&self, cancel: CancellationToken) {
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                () = self.follow() => {}
            }
        }
    }

    /// Runs until the watch ends, which only asks for a new one.
    async fn follow(&self) {
        let Ok(mut changes) = self.definitions.watch(None, &ListOptions::default()).await else {
            return tokio::time::sleep(RETRY).await;
        };
        loop {
            let settled = self.reconcile().await;
            let change = changes.next();
            let change =
                if settled { change.await } else { tokio::time::timeout(RETRY, change).await.unwrap_or_default() };
            if settled && change.is_none() {
                return;
            }
        }
    }

    fn current(&self) -> Vec<(Arc<Object>, Value)> {
        self.definitions.all(None).into_iter().map(|object| (object.clone(), object.value())).collect()
    }

    /// Brings status, table and objects in step. False if something has to be tried again.
    async fn reconcile(&self) -> bool {
        let definitions = self.current();
        let mut settled = true;
        for (object, definition) in &definitions {
            let others: Vec<&Value> = definitions.iter().map(|(_, other)| other).collect();
            let wanted = status(definition, &others, &now());
            if wanted != definition["status"] {
                let mut changed = definition.clone();
                changed["status"] = wanted;
                // The watch shows the new status, and with it the next round.
                settled &= self.write(object, changed).await;
            }
        }
        self.serve(&self.current());
        for (object, definition) in definitions.iter().filter(|(object, _)| object.is_deleting()) {
            settled &= self.clean_up(object, definition).await;
        }
        settled
    }

    /// Puts the rows of all established definitions in place.
    fn serve(&self, definitions: &[(Arc<Object>, Value)]) {
        let mut table = self.builtin.clone();
        for row in definitions.iter().map(|(_, d)| d).filter(|d| is_established(d)).flat_map(rows) {
            // A group version of the server itself cannot be taken over.
            if self.builtin.get(&row.group, &row.version, &row.plural).is_none() {
                table.insert(row);
            }
        }
        self.table.store(Arc::new(table));
    }

    async fn write(&self, object: &Object, value: Value) -> bool {
        match self.definitions.update(value, object.revision()).await {
            // Whoever was faster wakes the watch.
            Ok(_) | Err(StorageError::Conflict { .. } | StorageError::NotFound) => true,
            Err(error) => {
                tracing::warn!(name = object.name(), %error, "cannot write the status of a CustomResourceDefinition");
                false
            }
        }
    }

    /// Deletes the objects of a definition on its way out, then lets it go.
    async fn clean_up(&self, object: &Object, definition: &Value) -> bool {
        let finalizers = definition["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
        if !finalizers.iter().any(|f| f == CLEANUP_FINALIZER) {
            return true;
        }
        let left = match rows(definition).first() {
            Some(row) => self.delete_objects(row).await,
            None => 0,
        };
        let mut changed = definition.clone();
        if left == 0 {
            let rest: Vec<Value> = finalizers.into_iter().filter(|f| f != CLEANUP_FINALIZER).collect();
            if rest.is_empty() && definition["metadata"]["finalizers"].is_array() {
                return self.remove(object).await;
            }
            changed["metadata"]["finalizers"] = rest.into();
        } else {
            let generation = definition["metadata"]["generation"].as_i64();
            let mut conditions = definition["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let text = "CustomResource deletion is in progress";
            let terminating = Condition::new("Terminating", true, "InstanceDeletionInProgress", text);
            condition::set(&mut conditions, &terminating, generation, &now());
            changed["status"]["conditions"] = conditions.into();
        }
        // Objects with finalizers go when their owners let them: looked at again after the pause.
        (changed == *definition || self.write(object, changed).await) && left == 0
    }

    async fn remove(&self, object: &Object) -> bool {
        match self.definitions.delete("", object.name(), object.revision()).await {
            Ok(_) | Err(StorageError::Conflict { .. } | StorageError::NotFound) => true,
            Err(error) => {
                tracing::warn!(name = object.name(), %error, "cannot remove a CustomResourceDefinition");
                false
            }
        }
    }

    /// Deletes what has no finalizers and marks the rest as deleted; gives how many are left.
    async fn delete_objects(&self, row: &Resource) -> usize {
        let collection = self.storage.collection(row);
        for object in collection.all(None) {
            let mut value = object.value();
            let held = value["metadata"]["finalizers"].as_array().is_some_and(|f| !f.is_empty());
            let done = if !held {
                collection.delete(object.namespace(), object.name(), object.revision()).await.map(drop)
            } else if !object.is_deleting() {
                value["metadata"]["deletionTimestamp"] = now().into();
                value["metadata"]["deletionGracePeriodSeconds"] = 0.into();
                collection.update(value, object.revision()).await.map(drop)
            } else {
                Ok(())
            };
            if let Err(error) = done {
                tracing::debug!(name = object.name(), %error, "cannot delete a custom object yet");
            }
        }
        collection.len()
    }
}

fn now() -> String {
    time_text(Timestamp::now())
}
