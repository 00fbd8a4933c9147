//! Evicting pods as far as disruption budgets allow it.

use std::sync::Arc;

use http::StatusCode;
use jiff::Timestamp;
use kube1_api::selector::LabelSelector;
use kube1_api::status::Status;
use serde_json::{Value, json};

use super::{admitted, body};
use crate::call::Call;
use crate::encode;
use crate::http::respond::Reply;
use crate::options::DeleteOptions;
use crate::registry::{self, Endpoint};
use crate::storage::{Collection, Object, StorageError};
use crate::strategy::time_text;

const ATTEMPTS: usize = 10;
/// Pods that may be marked as disrupted in one budget.
const DISRUPTED_MAX: usize = 2000;
const RETRY_SECONDS: u32 = 10;

/// POST of an Eviction to a pod.
pub async fn evict(endpoint: &Endpoint, call: &mut Call) -> Result<Reply, Status> {
    let options = registry::write_options(call, "CreateOptions")?;
    let eviction = body::decode(call, &endpoint.row, "policy/v1", "Eviction").await?;
    let given = eviction["metadata"]["name"].as_str().unwrap_or_default();
    if !given.is_empty() && given != endpoint.name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    endpoint.stored()?;
    let eviction = admitted(endpoint, call, eviction, &options).await?;
    let mut deletion = DeleteOptions::parse(&call.query, Some(&eviction["deleteOptions"]).filter(|o| o.is_object()))?;
    if eviction["deleteOptions"].is_object() && deletion.dry_run != options.dry_run {
        return Err(Status::bad_request("the dryRun of the body and of the query do not agree"));
    }
    deletion.dry_run = options.dry_run;
    let pod = endpoint.stored()?.value();
    if needs_no_budget(&pod) {
        endpoint.delete_admitted(&deletion).await?;
        return success(call);
    }
    if let Some(budget) = budget_of(endpoint, &pod)? {
        take_from(endpoint, &budget, &pod, options.dry_run).await?;
    }
    mark(endpoint, options.dry_run).await?;
    endpoint.delete_admitted(&deletion).await?;
    success(call)
}

fn success(call: &Call) -> Result<Reply, Status> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    encode::reply(call, StatusCode::CREATED, &status, true)
}

/// Pods that do no work, and those on their way out, disturb no budget.
fn needs_no_budget(pod: &Value) -> bool {
    let phase = pod["status"]["phase"].as_str().unwrap_or_default();
    matches!(phase, "Pending" | "Succeeded" | "Failed") || !pod["metadata"]["deletionTimestamp"].is_null()
}

/// A budget, and where it is kept.
struct Budget {
    collection: Arc<Collection>,
    object: Arc<Object>,
}

/// The one budget that selects the pod.
fn budget_of(endpoint: &Endpoint, pod: &Value) -> Result<Option<Budget>, Status> {
    let Some(row) = endpoint.server.table.load().stored("policy", "poddisruptionbudgets") else { return Ok(None) };
    let collection = endpoint.server.storage.collection(&row);
    let selects = |object: &Arc<Object>| {
        let selector = LabelSelector::from_value(&object.value()["spec"]["selector"]);
        !object.value()["spec"]["selector"].is_null()
            && selector.is_ok_and(|s| s.matches_value(&pod["metadata"]["labels"]))
    };
    let mut found = collection.all(Some(&endpoint.namespace)).into_iter().filter(selects);
    let Some(object) = found.next() else { return Ok(None) };
    if found.next().is_some() {
        return Err(Status::internal(
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
        ));
    }
    Ok(Some(Budget { collection, object }))
}

/// Takes one disruption from the budget; 429 when none is left.
async fn take_from(endpoint: &Endpoint, budget: &Budget, pod: &Value, dry_run: bool) -> Result<(), Status> {
    for _ in 0..ATTEMPTS {
        let name = budget.object.name();
        let Some(stored) = budget.collection.get(&endpoint.namespace, name) else { return Ok(()) };
        let mut value = stored.value();
        if !is_ready(pod) && lets_unready_go(&value) {
            return Ok(());
        }
        disrupt(endpoint, &mut value, name)?;
        if dry_run {
            return Ok(());
        }
        match budget.collection.update(value, stored.revision()).await {
            Ok(_) => return Ok(()),
            Err(StorageError::Conflict { .. }) => {}
            Err(error) => return Err(Status::internal(error)),
        }
    }
    Err(too_many(endpoint, "the disruption budget is being changed too often", 0))
}

fn too_many(endpoint: &Endpoint, why: &str, seconds: u32) -> Status {
    let about = "Cannot evict pod as it would violate the pod's disruption budget.";
    tracing::debug!(pod = endpoint.name, why, "eviction refused");
    Status::too_many_requests(about, seconds).with_cause("DisruptionBudget", why, "")
}

/// Counts the pod as disrupted in the budget's status.
fn disrupt(endpoint: &Endpoint, budget: &mut Value, name: &str) -> Result<(), Status> {
    let number = |value: &Value| value.as_i64().unwrap_or(0);
    if number(&budget["status"]["observedGeneration"]) < number(&budget["metadata"]["generation"]) {
        let why = format!("The disruption budget {name} is still being processed by the server.");
        return Err(too_many(endpoint, &why, RETRY_SECONDS));
    }
    let allowed = number(&budget["status"]["disruptionsAllowed"]);
    let disrupted = budget["status"]["disruptedPods"].as_object().map_or(0, serde_json::Map::len);
    if allowed < 0 {
        let resource = kube1_api::name::GroupResource::new("policy", "poddisruptionbudgets");
        return Err(Status::forbidden(&resource, name, "pdb disruptions allowed is negative"));
    }
    if disrupted > DISRUPTED_MAX {
        let resource = kube1_api::name::GroupResource::new("policy", "poddisruptionbudgets");
        return Err(Status::forbidden(
            &resource,
            name,
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
        ));
    }
    if allowed == 0 {
        let (needed, healthy) =
            (number(&budget["status"]["desiredHealthy"]), number(&budget["status"]["currentHealthy"]));
        let why = format!("The disruption budget {name} needs {needed} healthy pods and has {healthy} currently");
        return Err(too_many(endpoint, &why, 0));
    }
    budget["status"]["disruptionsAllowed"] = (allowed - 1).into();
    budget["status"]["disruptedPods"][endpoint.name.as_str()] = time_text(Timestamp::now()).into();
    Ok(())
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// Whether pods that are not ready may go whatever is allowed.
fn lets_unready_go(budget: &Value) -> bool {
    let number = |key: &str| budget["status"][key].as_i64().unwrap_or(0);
    budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
        || (number("currentHealthy") >= number("desiredHealthy") && number("desiredHealthy") > 0)
}

/// Notes on the pod why it goes.
async fn mark(endpoint: &Endpoint, dry_run: bool) -> Result<(), Status> {
    for _ in 0..ATTEMPTS {
        let stored = endpoint.stored()?;
        let mut pod = stored.value();
        let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting", "lastProbeTime": null, "lastTransitionTime": time_text(Timestamp::now())});
        let mut conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.retain(|c| c["type"] != "DisruptionTarget");
        conditions.push(condition);
        pod["status"]["conditions"] = conditions.into();
        if dry_run {
            return Ok(());
        }
        match endpoint.collection.update(pod, stored.revision()).await {
            Ok(_) => return Ok(()),
            Err(StorageError::Conflict { .. }) => {}
            Err(error) => return Err(error.to_status(&endpoint.group_resource(), &endpoint.name)),
        }
    }
    Err(endpoint.conflict("the pod is being changed too often"))
}
