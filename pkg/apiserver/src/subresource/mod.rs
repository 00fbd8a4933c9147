//! Subresources.

mod binding;
mod body;
mod eviction;
mod kubelet;
mod proxy;
mod rewrite;
mod scale;

use http::StatusCode;
use kube1_api::status::Status;
use serde_json::Value;

pub use binding::legacy as legacy_binding;
pub use kubelet::target as kubelet_target;
#[cfg(any(test, fuzzing))]
pub(crate) use rewrite::rewrite_links;

use crate::admission::Operation;
use crate::call::Call;
use crate::http::respond::Reply;
use crate::options::WriteOptions;
use crate::registry::{self, Endpoint};
use crate::router::not_allowed;
use crate::{encode, review};

/// Answers a request for a subresource of one object.
pub async fn route(endpoint: &Endpoint, call: &mut Call) -> Result<Reply, Status> {
    let name = call.info.subresource.clone();
    let Some(found) = endpoint.row.subresource(&name) else {
        if endpoint.row.is_custom() {
            return Err(endpoint.not_found());
        }
        return Err(Status::no_such_path());
    };
    // What a proxy passes on may have any method, also one that is no verb.
    if name != "proxy" && !found.verbs.contains(&call.info.verb) {
        return Err(not_allowed(&endpoint.row, &call.info.verb));
    }
    match (name.as_str(), call.info.verb.as_str()) {
        ("status" | "ephemeralcontainers" | "resize" | "approval", "get") => endpoint.get(call).await,
        ("status" | "ephemeralcontainers" | "resize" | "approval" | "finalize", "update") => {
            endpoint.update(call, &name).await
        }
        ("status" | "ephemeralcontainers" | "resize" | "approval", "patch") => endpoint.patch(call, &name).await,
        ("scale", _) => scale::route(endpoint, call).await,
        ("binding", _) => binding::bind(endpoint, call).await,
        ("eviction", _) => eviction::evict(endpoint, call).await,
        ("token", _) => token(endpoint, call).await,
        ("log", _) => kubelet::log(endpoint, call).await,
        ("exec" | "attach" | "portforward", _) => kubelet::stream(endpoint, call, &name).await,
        ("proxy", _) => proxy::route(endpoint, call).await,
        _ => Err(not_allowed(&endpoint.row, &call.info.verb)),
    }
}

/// POST of a TokenRequest.
async fn token(endpoint: &Endpoint, call: &mut Call) -> Result<Reply, Status> {
    let options = registry::write_options(call, "CreateOptions")?;
    let request = body::decode(call, &endpoint.row, "authentication.k8s.io/v1", "TokenRequest").await?;
    let request = admitted(endpoint, call, request, &options).await?;
    let (context, namespace, name) = (&endpoint.server.reviews, &endpoint.namespace, &endpoint.name);
    let answer = review::token_request(context, &call.user, namespace, name, &request, &call.warnings).await?;
    encode::reply(call, StatusCode::CREATED, &answer, true)
}

/// What admission makes of a body that creates something through a subresource.
async fn admitted(endpoint: &Endpoint, call: &Call, body: Value, options: &WriteOptions) -> Result<Value, Status> {
    let json = options.to_json("CreateOptions");
    let mut attributes = endpoint.attributes(call, Operation::Create, json, options.dry_run);
    attributes.object = Some(body);
    registry::admit(&endpoint.server, call, attributes).await
}
