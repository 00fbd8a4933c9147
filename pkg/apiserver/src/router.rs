//! Which handler answers a path.

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, StatusCode};
use kube1_api::name::GroupResource;
use kube1_api::resource::{Resource, ResourceTable};
use kube1_api::status::Status;

use crate::call::Call;
use crate::http::respond::{self, Reply};
use crate::registry::Endpoint;
use crate::server::Server;
use crate::{aggregate, documents, subresource, virtual_resource};

/// Members of `/.well-known/openid-configuration`.
const OPENID_MEMBERS: [&str; 5] = [
    "issuer",
    "jwks_uri",
    "response_types_supported",
    "subject_types_supported",
    "id_token_signing_alg_values_supported",
];
/// Members of the keys of `/openid/v1/jwks`.
const KEY_MEMBERS: [&str; 9] = ["use", "kty", "kid", "crv", "alg", "x", "y", "n", "e"];
const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What needs no credential and no permission.
pub fn public(server: &Server, call: &Call) -> Option<Reply> {
    (call.info.path == "/cacerts").then(|| {
        let pem = Bytes::copy_from_slice(server.config.pki.ca.certificate_pem().as_bytes());
        respond::bytes(StatusCode::OK, "application/x-pem-file", pem)
    })
}

/// Answers an authorized request.
pub fn route<'a>(server: &'a Arc<Server>, call: &'a mut Call) -> BoxFuture<'a, Result<Reply, Status>> {
    if call.info.is_resource { resource(server, call).boxed() } else { path(server, call).boxed() }
}

/// Answers a request for one stored object, if nothing has to be waited for: the most frequent request passes no
/// future that is as large as those of all others.
pub fn read(server: &Arc<Server>, call: &Call) -> Option<Result<Reply, Status>> {
    let info = &call.info;
    let one = info.is_resource
        && call.parts.method == Method::GET
        && info.verb == "get"
        && !info.name.is_empty()
        && info.subresource.is_empty();
    if !one || call.query.get("resourceVersion").is_some() {
        return None;
    }
    let row = server.table.load().get(&info.group, &info.version, &info.resource)?;
    let special = row.deprecation_warning.is_some() || row.conversion.is_some() || !row.is_stored();
    if special || row.namespaced == info.namespace.is_empty() || !row.verbs.contains(&info.verb) {
        return None;
    }
    let collection = server.storage.collection(&row);
    if collection.is_locked() {
        return None;
    }
    let (namespace, name) = (info.namespace.clone(), info.name.clone());
    Some(Endpoint { server: server.clone(), collection, row, namespace, name }.read(call))
}

async fn resource(server: &Arc<Server>, call: &mut Call) -> Result<Reply, Status> {
    let info = &call.info;
    let Some(row) = server.table.load().get(&info.group, &info.version, &info.resource) else {
        return match aggregate::route::find(server, &info.group, &info.version) {
            Some(remote) => aggregate::route::route(server, call, remote).boxed().await,
            None => unknown(&server.table.load(), &info.group, &info.version),
        };
    };
    if call.parts.method == Method::HEAD && info.subresource != "proxy" {
        return Err(Status::method_not_allowed());
    }
    if let Some(warning) = row.deprecation_warning.clone() {
        call.trail.annotate("k8s.io/deprecated", "true");
        let release = warning.split("unavailable in v").nth(1).map(|r| r.split(['+', ';']).next().unwrap_or_default());
        if let Some(release) = release {
            call.trail.annotate("k8s.io/removed-release", release);
        }
        server.metrics.deprecated(&call.info, release.unwrap_or_default());
        call.warnings.add(warning);
    }
    let namespace = if row.namespaced { info.namespace.clone() } else { String::new() };
    if !row.namespaced && !info.namespace.is_empty() && row.plural != "namespaces" {
        return Err(Status::no_such_path());
    }
    if !row.is_stored() {
        // An APIService that names a Service replaces what the server itself answers.
        return match aggregate::route::find(server, &row.group, &row.version) {
            Some(remote) => aggregate::route::route(server, call, remote).boxed().await,
            None => virtual_resource::route(server, &row, call).boxed().await,
        };
    }
    // A selector's name is for authorizers only.
    let collection = info.is_collection();
    let name = if collection { String::new() } else { info.name.clone() };
    if row.namespaced && namespace.is_empty() && !matches!(info.verb.as_str(), "list" | "watch") {
        if row.is_custom() {
            return Ok(respond::page_not_found());
        }
        return Err(not_allowed(&row, &info.verb));
    }
    if name.is_empty() && row.is_custom() && matches!(info.verb.as_str(), "update" | "patch") {
        return Err(Status::bad_request("name must be provided"));
    }
    if name.is_empty() && matches!(info.verb.as_str(), "get" | "update" | "patch" | "delete") {
        return Err(not_allowed(&row, &info.verb));
    }
    let endpoint =
        Endpoint { server: server.clone(), collection: server.storage.collection(&row), row, namespace, name };
    endpoint.collection.readable().await?;
    if !call.info.subresource.is_empty() {
        return subresource::route(&endpoint, call).boxed().await;
    }
    if !endpoint.row.verbs.contains(&call.info.verb) {
        return Err(not_allowed(&endpoint.row, &call.info.verb));
    }
    // Each by itself in memory: together they would all take as much as the largest.
    match (call.info.verb.as_str(), collection) {
        ("get", false) => endpoint.get(call).await,
        ("list", _) => endpoint.list(call).boxed().await,
        ("watch", _) => endpoint.watch(call).boxed().await,
        ("create", collection) if collection || endpoint.row.is_custom() => endpoint.create(call).boxed().await,
        ("update", false) => endpoint.update(call, "").boxed().await,
        ("patch", false) => endpoint.patch(call, "").boxed().await,
        ("delete", false) => endpoint.delete(call).boxed().await,
        ("deletecollection", _) => endpoint.delete_collection(call).boxed().await,
        _ => Err(not_allowed(&endpoint.row, &call.info.verb)),
    }
}

/// The answer for a resource that no row is of: below a built-in group it is a Status, elsewhere there is nothing.
fn unknown(table: &ResourceTable, group: &str, version: &str) -> Result<Reply, Status> {
    let known =
        |row: &Arc<Resource>| row.group == group && (group.is_empty() || row.version == version || !row.is_custom());
    if table.iter().any(known) && !table.iter().any(|row| row.group == group && row.is_custom()) {
        return Err(Status::no_such_path());
    }
    Ok(respond::page_not_found())
}

/// 405 for a verb that the resource does not have.
pub fn not_allowed(row: &Resource, verb: &str) -> Status {
    if !row.is_custom() {
        return Status::method_not_allowed();
    }
    Status::method_not_supported(&GroupResource::new(&row.group, &row.plural), verb)
}

async fn path(server: &Arc<Server>, call: &mut Call) -> Result<Reply, Status> {
    let path = call.info.path.trim_end_matches('/').to_owned();
    // Extension servers also describe what they serve.
    let described = path.strip_prefix("/openapi/v3").unwrap_or(&path);
    if let Some((group, version)) = documents::group_version(described)
        && let Some(remote) = aggregate::route::find(server, group, version)
    {
        return aggregate::route::route(server, call, remote).await;
    }
    if !matches!(call.info.verb.as_str(), "get" | "head") {
        return Err(Status::method_not_supported(&GroupResource::default(), &call.info.verb));
    }
    if let Some(reply) = server.health.answer(&path, &call.query, &server.metrics).await {
        return Ok(reply);
    }
    if let Some(rest) = path.strip_prefix("/logs").filter(|rest| rest.is_empty() || rest.starts_with('/')) {
        return crate::http::logs::answer(&crate::query::decode(rest)).await;
    }
    if let Some(page) = server.pages.answer(&path, call.headers()) {
        return page;
    }
    if let Some(what) = path.strip_prefix("/debug/api_priority_and_fairness/") {
        let table = server.flow.dump(what, &call.query);
        return Ok(table.map_or_else(respond::page_not_found, |text| respond::text(StatusCode::OK, text)));
    }
    let pki = &server.config.pki;
    match path.as_str() {
        "/version" => Ok(documents::version()),
        "/metrics" => metrics(server),
        "/metrics/slis" => Ok(respond::bytes(StatusCode::OK, CLASSIC, server.metrics.render_checks()?)),
        "/.well-known/openid-configuration" => {
            let config = crate::review::openid_configuration(&server.reviews);
            Ok(cached(respond::json_as(&config, &OPENID_MEMBERS), "application/json", KEPT))
        }
        "/openid/v1/jwks" => {
            let kept = server.reviews.signer.as_ref().map_or(KEPT, |signer| signer.fresh_for().as_secs());
            let keys = pki.service_account_keys.jwks();
            Ok(cached(respond::json_as(&keys, &KEY_MEMBERS), "application/jwk-set+json", kept))
        }
        path => documents::route(server, call, path).await,
    }
}

/// In the classic text format, also for clients that would take OpenMetrics, as upstream does: counters are named
/// alike for every client.
fn metrics(server: &Server) -> Result<Reply, Status> {
    for row in server.table.load().iter().filter(|row| row.is_stored() && row.is_storage_version()) {
        let (count, size, _) = server.storage.collection(row).stats();
        server.metrics.stored(&row.group, &row.plural, count, count * size);
    }
    server.storage.show_metrics();
    server.metrics.store_size(server.storage.store().size());
    Ok(respond::bytes(StatusCode::OK, CLASSIC, server.metrics.render()?))
}

/// Seconds that clients may keep documents.
const KEPT: u64 = 3600;

fn cached(mut reply: Reply, media: &'static str, seconds: u64) -> Reply {
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    if let Ok(kept) = HeaderValue::try_from(format!("public, max-age={seconds}")) {
        reply.headers_mut().insert(CACHE_CONTROL, kept);
    }
    reply
}
