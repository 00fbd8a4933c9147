//! Subresources.

use std::sync::Arc;

use kube1_api::status::Status;

use crate::call::Call;
use crate::http::respond::Reply;
use crate::registry::Endpoint;
use crate::router::not_allowed;
use crate::server::Server;

/// Answers a request for a subresource of one object.
pub async fn route(endpoint: &Endpoint, call: &mut Call) -> Result<Reply, Status> {
    let name = call.info.subresource.clone();
    let Some(found) = endpoint.row.subresource(&name) else {
        return Ok(crate::http::respond::page_not_found());
    };
    if !found.verbs.contains(&call.info.verb) {
        return Err(not_allowed(&endpoint.row, &call.info.verb));
    }
    match (name.as_str(), call.info.verb.as_str()) {
        ("status" | "ephemeralcontainers" | "resize" | "approval", "get") => endpoint.get(call).await,
        ("status" | "ephemeralcontainers" | "resize" | "approval" | "finalize", "update") => {
            endpoint.update(call, &name).await
        }
        ("status" | "ephemeralcontainers" | "resize" | "approval", "patch") => endpoint.patch(call, &name).await,
        _ => Err(Status::service_unavailable(format!("subresource {name} is not served yet"))),
    }
}

/// POST of a Binding outside its pod.
pub async fn legacy_binding(_: &Arc<Server>, _: &mut Call) -> Result<Reply, Status> {
    Err(Status::service_unavailable("bindings are not served yet"))
}
