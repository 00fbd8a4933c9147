//! Requests for group versions that extension API servers serve.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use kube1_api::status::Status;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::RemoteService;
use crate::call::Call;
use crate::dial::Resolver;
use crate::http::forward::{Backend, Forwarded, forward};
use crate::http::respond::{self, Reply};
use crate::server::Server;
use crate::user::UserInfo;

/// What header names may hold as it is.
const TOKEN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The extension API server of a group version, and whether it is known to answer.
pub fn find(server: &Server, group: &str, version: &str) -> Option<(RemoteService, bool)> {
    let row = server.table.load().stored("apiregistration.k8s.io", "apiservices")?;
    let object = server.storage.collection(&row).get("", &format!("{version}.{group}"))?;
    let value = object.value();
    Some((RemoteService::read(&value)?, is_available(&value)))
}

/// All group versions that are served elsewhere, with their APIServices.
pub fn all(server: &Server) -> Vec<(RemoteService, Value)> {
    let Some(row) = server.table.load().stored("apiregistration.k8s.io", "apiservices") else { return Vec::new() };
    let objects = server.storage.collection(&row).all(None);
    objects.iter().filter_map(|o| RemoteService::read(&o.value()).map(|r| (r, o.value()))).collect()
}

pub fn is_available(api_service: &Value) -> bool {
    let conditions = api_service["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|c| c["type"] == "Available" && c["status"] == "True")
}

/// Sends the request to the extension API server, with the user in headers.
pub async fn route(server: &Arc<Server>, call: &mut Call, to: (RemoteService, bool)) -> Result<Reply, Status> {
    let (service, available) = to;
    if !available {
        return Ok(respond::text(StatusCode::SERVICE_UNAVAILABLE, "service unavailable\n"));
    }
    let resolver = Resolver::new(&server.storage, &server.table.load());
    let resolver = resolver.ok_or_else(|| Status::internal("services are not in the resource table"))?;
    let identity = server.config.pki.proxy_client.clone();
    let target = service
        .target(&resolver, Some(identity))
        .map_err(|error| Status::service_unavailable(format!("service unavailable: {error}")))?;
    let uri = call.parts.uri.path_and_query().map_or("/", |p| p.as_str());
    let forwarded = Forwarded {
        path: uri.to_owned(),
        host: target.server_name.clone(),
        backend: Backend::Tls(Box::new(target)),
        headers: identity_headers(&call.user)?,
    };
    forward(server, call, forwarded).await
}

/// The user as extension servers expect it of a front proxy.
pub fn identity_headers(user: &UserInfo) -> Result<HeaderMap, Status> {
    let mut headers = HeaderMap::new();
    let value = |text: &str| HeaderValue::from_str(text).map_err(Status::internal);
    headers.insert("x-remote-user", value(&user.name)?);
    if !user.uid.is_empty() {
        headers.insert("x-remote-uid", value(&user.uid)?);
    }
    for group in &user.groups {
        headers.append("x-remote-group", value(group)?);
    }
    for (key, values) in &user.extra {
        let name = format!("x-remote-extra-{}", utf8_percent_encode(key, TOKEN)).to_lowercase();
        let name = HeaderName::try_from(name).map_err(Status::internal)?;
        for text in values {
            headers.append(name.clone(), value(text)?);
        }
    }
    Ok(headers)
}
