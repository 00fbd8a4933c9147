//! Keeps the resource table in step with the CustomResourceDefinitions, and their status and objects with them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::StreamExt;
use jiff::Timestamp;
use kube1_api::apply;
use kube1_api::resource::{Resource, ResourceTable};
use parking_lot::Mutex;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{
    CLEANUP_FINALIZER, Termination, is_established, is_terminating, rows, set_terminating, status, stored_row,
};
use crate::options::ListOptions;
use crate::storage::{Collection, Object, Storage, StorageError};
use crate::strategy::time_text;

/// Who owns the status of definitions.
const MANAGER: &str = "kube-apiserver";

/// The pause after a failed write to the store; a watch wakes the controller for everything else.
const RETRY: Duration = Duration::from_secs(1);

/// The part of the API server that serves custom resources.
pub struct DefinitionController {
    storage: Storage,
    /// Of definitions.
    row: Arc<Resource>,
    definitions: Arc<Collection>,
    builtin: ResourceTable,
    table: Arc<ArcSwap<ResourceTable>>,
    /// What is served, by the definition's name.
    served: Mutex<HashMap<String, Served>>,
}

/// The rows of a definition, and what they were made of.
struct Served {
    uid: String,
    spec: Value,
    names: Value,
    terminating: bool,
    rows: Vec<Arc<Resource>>,
}

impl Served {
    fn new(object: &Object, definition: &Value) -> Self {
        Self {
            uid: object.uid().to_owned(),
            spec: definition["spec"].clone(),
            names: definition["status"]["acceptedNames"].clone(),
            terminating: is_terminating(definition),
            rows: rows(definition).into_iter().map(Arc::new).collect(),
        }
    }

    /// Whether objects look as before.
    fn shows(&self, object: &Object, definition: &Value) -> bool {
        self.uid == object.uid()
            && self.spec == definition["spec"]
            && self.names == definition["status"]["acceptedNames"]
    }
}

impl DefinitionController {
    /// `table` is replaced whole whenever what is served changes. None if definitions themselves are not served.
    pub fn new(storage: Storage, table: Arc<ArcSwap<ResourceTable>>) -> Option<Self> {
        let builtin = ResourceTable::clone(&table.load());
        let row = builtin.stored("apiextensions.k8s.io", "customresourcedefinitions")?;
        let definitions = storage.collection(&row);
        Some(Self { storage, row, definitions, builtin, table, served: Mutex::default() })
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
                settled &= self.write_status(object, definition, changed).await;
            }
        }
        self.serve(&self.current());
        for (object, definition) in definitions.iter().filter(|(object, _)| object.is_deleting()) {
            settled &= self.clean_up(object, definition).await;
        }
        settled
    }

    /// Puts the rows of all established definitions in place, and ends the watches of those that changed.
    fn serve(&self, definitions: &[(Arc<Object>, Value)]) {
        let mut served = self.served.lock();
        let mut before = std::mem::take(&mut *served);
        let mut table = self.builtin.clone();
        let mut changed = Vec::new();
        for (object, definition) in definitions.iter().filter(|(_, d)| is_established(d)) {
            let old = before.remove(object.name());
            let same = old.as_ref().is_some_and(|old| old.shows(object, definition));
            let current = match old {
                Some(old) if same && old.terminating == is_terminating(definition) => old,
                old => {
                    if !same {
                        changed.extend(old);
                    }
                    Served::new(object, definition)
                }
            };
            for row in &current.rows {
                // A group version of the server itself cannot be taken over.
                if self.builtin.get(&row.group, &row.version, &row.plural).is_none() {
                    table.insert(row.clone());
                }
            }
            served.insert(object.name().to_owned(), current);
        }
        self.table.store(Arc::new(table));
        changed.extend(before.into_values());
        for row in changed.iter().filter_map(|old| old.rows.first()) {
            self.storage.collection(row).end_watches();
        }
    }

    /// Writes a status, of which the server owns what it changes.
    async fn write_status(&self, object: &Object, old: &Value, mut new: Value) -> bool {
        apply::track_update(&self.row, Some(old), &mut new, MANAGER, "status", &now());
        self.write(object, new).await
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
        let mut changed = definition.clone();
        let state = self.termination(definition).await;
        set_terminating(&mut changed, &state, &now());
        if state == Termination::InProgress {
            // Objects with finalizers go when their owners let them: looked at again after the pause.
            if changed != *definition {
                self.write_status(object, definition, changed).await;
            }
            return false;
        }
        let rest: Vec<Value> = finalizers.into_iter().filter(|f| f != CLEANUP_FINALIZER).collect();
        if rest.is_empty() {
            return self.remove(object).await;
        }
        changed["metadata"]["finalizers"] = rest.into();
        self.write_status(object, definition, changed).await
    }

    /// Deletes the objects of a definition as far as they can be.
    async fn termination(&self, definition: &Value) -> Termination {
        let Some(row) = stored_row(definition).filter(|_| is_established(definition)) else {
            return Termination::NeverEstablished;
        };
        if self.builtin.iter().any(|builtin| builtin.group == row.group && builtin.plural == row.plural) {
            return Termination::OverlappingBuiltIn;
        }
        if self.delete_objects(&row).await == 0 { Termination::Completed } else { Termination::InProgress }
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
