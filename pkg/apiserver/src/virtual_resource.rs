//! Resources that are answered and not stored: reviews, measurements, the state of components.

use std::sync::Arc;

use http::StatusCode;
use kube1_api::resource::{METRICS_GROUP, Resource};
use kube1_api::status::Status;

use crate::call::Call;
use crate::http::respond::Reply;
use crate::server::Server;
use crate::{component_status, encode, registry, resource_metrics, review, router, subresource};

/// A request for a resource that is not stored.
pub async fn route(server: &Arc<Server>, row: &Arc<Resource>, call: &mut Call) -> Result<Reply, Status> {
    match (row.group.as_str(), row.plural.as_str()) {
        (METRICS_GROUP, _) => resource_metrics::answer(server, row, call).await,
        ("", "componentstatuses") => component_status::answer(server, row, call).await,
        _ => create(server, row, call).await,
    }
}

async fn create(server: &Arc<Server>, row: &Arc<Resource>, call: &mut Call) -> Result<Reply, Status> {
    if !call.info.name.is_empty() {
        // There is nothing that could have a name.
        return Err(Status::no_such_path());
    }
    if call.info.verb != "create" {
        return Err(router::not_allowed(row, &call.info.verb));
    }
    if (row.group.as_str(), row.plural.as_str()) == ("", "bindings") {
        return subresource::legacy_binding(server, row, call).await;
    }
    let options = registry::write_options(call, "CreateOptions")?;
    let body = registry::decode(call, row, options.field_validation).await?;
    let body = registry::admitted(server, call, row, body, &options).await?;
    let (context, user) = (&server.reviews, &call.user);
    let answer = match row.plural.as_str() {
        "tokenreviews" => review::token_review(context, user, &body).await,
        "subjectaccessreviews" => review::subject_access_review(context, user, &body).await,
        "localsubjectaccessreviews" => {
            review::local_subject_access_review(context, user, &call.info.namespace, &body).await
        }
        "selfsubjectaccessreviews" => review::self_subject_access_review(context, user, &body).await,
        "selfsubjectrulesreviews" => review::self_subject_rules_review(context, user, &body).await,
        "selfsubjectreviews" => review::self_subject_review(context, user, &body).await,
        _ => Err(router::not_allowed(row, "create")),
    }?;
    encode::reply(call, StatusCode::CREATED, &answer, row.has_protobuf())
}
