//! Binding pods to nodes.

use std::sync::Arc;

use http::StatusCode;
use kube1_api::field::{FieldError, FieldPath};
use kube1_api::name::GroupKind;
use kube1_api::resource::Resource;
use kube1_api::status::Status;
use serde_json::{Value, json};

use super::{admitted, body};
use crate::call::Call;
use crate::encode;
use crate::http::respond::Reply;
use crate::options::WriteOptions;
use crate::registry::{self, Endpoint};
use crate::server::Server;
use crate::storage::StorageError;
use crate::strategy;

const ATTEMPTS: usize = 5;

/// POST of a Binding to a pod.
pub async fn bind(endpoint: &Endpoint, call: &mut Call) -> Result<Reply, Status> {
    let options = registry::write_options(call, "CreateOptions")?;
    let binding = body::decode(call, &endpoint.row, "v1", "Binding").await?;
    let given = binding["metadata"]["name"].as_str().unwrap_or_default();
    if !given.is_empty() && given != endpoint.name {
        return Err(Status::bad_request("name in URL does not match name in Binding object"));
    }
    check_target(&binding)?;
    let binding = admitted(endpoint, call, binding, &options).await?;
    bind_to(endpoint, call, &binding, &options).await
}

/// POST of a Binding to the namespace, which names its pod.
pub async fn legacy(server: &Arc<Server>, bindings: &Arc<Resource>, call: &mut Call) -> Result<Reply, Status> {
    let options = registry::write_options(call, "CreateOptions")?;
    let Some(row) = server.table.load().get("", "v1", "pods") else {
        return Err(Status::internal("pods are not in the resource table"));
    };
    let binding = body::decode(call, &row, "v1", "Binding").await?;
    let name = binding["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let collection = server.storage.collection(&row);
    let namespace = call.info.namespace.clone();
    check_target(&binding)?;
    let binding = registry::admitted(server, call, bindings, binding, &options).await?;
    let endpoint = Endpoint { server: server.clone(), row, collection, namespace, name };
    bind_to(&endpoint, call, &binding, &options).await
}

async fn bind_to(endpoint: &Endpoint, call: &Call, binding: &Value, options: &WriteOptions) -> Result<Reply, Status> {
    for _ in 0..ATTEMPTS {
        let stored = endpoint.stored()?;
        let mut pod = stored.value();
        check_pod(endpoint, &pod, binding)?;
        strategy::bind_pod(&mut pod, binding, &endpoint.context(call));
        if options.dry_run {
            return success(call);
        }
        match endpoint.collection.update(pod, stored.revision()).await {
            Ok(_) => return success(call),
            Err(StorageError::Conflict { .. }) => {}
            Err(error) => return Err(error.to_status(&endpoint.group_resource(), &endpoint.name)),
        }
    }
    Err(endpoint.conflict("the pod is being changed too often"))
}

fn success(call: &Call) -> Result<Reply, Status> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    encode::reply(call, StatusCode::CREATED, &status, true)
}

fn check_target(binding: &Value) -> Result<(), Status> {
    let target = FieldPath::new("target");
    let mut errors = Vec::new();
    let kind = binding["target"]["kind"].as_str().unwrap_or_default();
    if !matches!(kind, "" | "Node") {
        errors.push(FieldError::not_supported(&target.child("kind"), kind, &["Node", "<empty>"]));
    }
    if binding["target"]["name"].as_str().unwrap_or_default().is_empty() {
        errors.push(FieldError::required(&target.child("name"), ""));
    }
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid(&GroupKind::new("", "Binding"), "", errors)) }
}

fn check_pod(endpoint: &Endpoint, pod: &Value, binding: &Value) -> Result<(), Status> {
    for (label, member) in [("UID", "uid"), ("ResourceVersion", "resourceVersion")] {
        let asked = binding["metadata"][member].as_str().unwrap_or_default();
        let found = pod["metadata"][member].as_str().unwrap_or_default();
        if !asked.is_empty() && asked != found {
            return Err(endpoint.conflict(&format!(
                "Precondition failed: {label} in precondition: {asked}, {label} in object meta: {found}"
            )));
        }
    }
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        return Err(endpoint.conflict(&format!("pod {} is being deleted, cannot be assigned to a host", endpoint.name)));
    }
    if let Some(node) = pod["spec"]["nodeName"].as_str().filter(|n| !n.is_empty()) {
        return Err(endpoint.conflict(&format!("pod {} is already assigned to node {node:?}", endpoint.name)));
    }
    if pod["spec"]["schedulingGates"].as_array().is_some_and(|g| !g.is_empty()) {
        return Err(endpoint.conflict(&format!("pod {} has non-empty .spec.schedulingGates", endpoint.name)));
    }
    Ok(())
}
