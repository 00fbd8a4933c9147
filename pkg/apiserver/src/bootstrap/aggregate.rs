//! Roles whose rules are the union of other roles' rules.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube1_api::resource::ResourceTable;
use kube1_api::selector::LabelSelector;
use kube1_api::status::Status;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::options::ListOptions;
use crate::storage::{Collection, Object, Storage, StorageError};

/// The rules that `role`'s aggregationRule selects from `roles`, in the order of the roles' names and without repeats.
/// `None` when the role has no aggregationRule.
pub fn aggregated_rules<'a>(role: &Value, roles: impl Iterator<Item = &'a Value>) -> Option<Value> {
    let selectors = role["aggregationRule"]["clusterRoleSelectors"].as_array()?;
    // A selector that does not parse selects nothing; validation refuses it anyway.
    let selectors: Vec<LabelSelector> = selectors.iter().filter_map(|s| LabelSelector::from_value(s).ok()).collect();
    let name = |role: &Value| role["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let own = name(role);
    let mut chosen: Vec<&Value> = roles
        .filter(|r| name(r) != own && selectors.iter().any(|s| s.matches_value(&r["metadata"]["labels"])))
        .collect();
    chosen.sort_by_key(|r| name(r));
    let mut rules: Vec<Value> = Vec::new();
    for rule in chosen.into_iter().flat_map(|r| r["rules"].as_array().into_iter().flatten()) {
        if !rules.contains(rule) {
            rules.push(rule.clone());
        }
    }
    Some(rules.into())
}

/// A failed write of the storage is tried again after this.
const RETRY: Duration = Duration::from_secs(5);

/// Keeps the rules of aggregated ClusterRoles up to date, until cancelled.
pub async fn keep_aggregated(storage: &Storage, table: &ResourceTable, cancel: &CancellationToken) {
    let row = table.stored(crate::authz::RBAC_GROUP, "clusterroles");
    let roles = storage.collection(&row.expect("cluster roles are a built-in resource"));
    while !cancel.is_cancelled() {
        if let Err(error) = follow(&roles, cancel).await {
            tracing::warn!(%error, "rules of aggregated cluster roles were not written; trying again");
            cancel.run_until_cancelled(tokio::time::sleep(RETRY)).await;
        }
    }
}

/// Returns when the watch ends.
async fn follow(roles: &Arc<Collection>, cancel: &CancellationToken) -> Result<(), Status> {
    // The watch is there before the state is looked at, so that no change is missed.
    let mut changes = roles.watch(None, &ListOptions::default()).await?;
    update_aggregated(roles).await?;
    while let Some(Some(_)) = cancel.run_until_cancelled(changes.next()).await {
        // Changes come in bursts, above all at start; one look at the newest state serves all that wait.
        while let Some(Some(_)) = futures::FutureExt::now_or_never(changes.next()) {}
        update_aggregated(roles).await?;
    }
    Ok(())
}

/// Writes the rules of every aggregated role whose rules are not what they should be.
async fn update_aggregated(roles: &Arc<Collection>) -> Result<(), Status> {
    let all: Vec<(Arc<Object>, Value)> = roles.all(None).into_iter().map(|o| (o.clone(), o.value())).collect();
    for (object, role) in &all {
        let Some(rules) = aggregated_rules(role, all.iter().map(|(_, role)| role)) else { continue };
        let same = match role["rules"].as_array() {
            Some(held) => rules.as_array() == Some(held),
            None => rules.as_array().is_some_and(Vec::is_empty),
        };
        if same || object.is_deleting() {
            continue;
        }
        let mut changed = role.clone();
        changed["rules"] = rules;
        match roles.update(changed, object.revision()).await {
            // Whoever was faster has caused another event.
            Ok(_) | Err(StorageError::Conflict { .. } | StorageError::NotFound) => {}
            Err(error) => return Err(Status::internal(error)),
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::bootstrap::{StorageWriter, objects, reconcile};

    #[tokio::test]
    async fn a_labelled_role_reaches_all_roles_that_select_it() {
        let dir = tempfile::tempdir().unwrap();
        let table = ResourceTable::builtin();
        let store = Arc::new(kube1_store::EmbeddedStore::open(dir.path()).unwrap());
        let storage = Storage::open(store, &table, None).await.unwrap();
        reconcile(&StorageWriter::new(&storage, &table), objects()).await.unwrap();
        let roles = storage.collection(&table.stored(crate::authz::RBAC_GROUP, "clusterroles").unwrap());
        let cancel = CancellationToken::new();
        let rule = json!({"apiGroups": ["example.com"], "resources": ["things"], "verbs": ["get"]});
        let label = "rbac.authorization.k8s.io/aggregate-to-view";
        let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": "things", "labels": {label: "true"}}, "rules": [rule]});
        let test = async {
            roles.create(role).await.unwrap();
            let mut changes = roles.watch(None, &ListOptions::default()).await.unwrap();
            // The admin role selects edit, which selects view, which selects this one.
            while !roles.get("", "admin").unwrap().value()["rules"].as_array().unwrap().contains(&rule) {
                changes.next().await.unwrap();
            }
            cancel.cancel();
        };
        let both = async { tokio::join!(keep_aggregated(&storage, &table, &cancel), test) };
        tokio::time::timeout(Duration::from_secs(10), both).await.unwrap();
    }
}
