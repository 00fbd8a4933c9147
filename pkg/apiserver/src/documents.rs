//! What the server says about itself: version, discovery, OpenAPI.

use std::sync::Arc;

use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, VARY};
use kube1_api::discovery;
use kube1_api::status::Status;
use serde_json::{Value, json};
use sha2::{Digest, Sha512};

use crate::call::Call;
use crate::encode;
use crate::http::body::ResponseBody;
use crate::http::respond::{self, JSON, Reply};
use crate::negotiate;
use crate::server::Server;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// `/version`.
pub fn version(call: &Call) -> Result<Reply, Status> {
    let version = json!({
        "major": "1", "minor": "36", "emulationMajor": "1", "emulationMinor": "36", "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "35", "gitVersion": concat!("v1.36.2+kube1-", env!("CARGO_PKG_VERSION")),
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "none",
        "compiler": "rustc", "platform": concat!("linux/", "amd64"),
    });
    encode::reply(call, StatusCode::OK, &version, false)
}

/// Discovery and OpenAPI documents; 404 for other paths.
pub fn route(server: &Arc<Server>, call: &Call, path: &str) -> Result<Reply, Status> {
    let table = server.table.load();
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let aggregated = negotiate::wants_aggregated_discovery(call.headers());
    let document = match parts[..] {
        ["api"] if aggregated => return Ok(tagged(call, AGGREGATED, &discovery::aggregated_v2(&table, true))),
        ["apis"] if aggregated => return Ok(tagged(call, AGGREGATED, &discovery::aggregated_v2(&table, false))),
        ["api"] => {
            let address = std::net::SocketAddr::new(server.config.advertise_address, server.config.port);
            Some(discovery::api_versions(&address.to_string()))
        }
        ["apis"] => Some(discovery::api_group_list(&table)),
        ["api", version] => discovery::api_resource_list(&table, "", version),
        ["apis", group] => discovery::api_group(&table, group),
        ["apis", group, version] => discovery::api_resource_list(&table, group, version),
        [""] => Some(json!({"paths": root_paths(&table)})),
        _ => None,
    };
    match document {
        Some(document) => encode::reply(call, StatusCode::OK, &document, true),
        None => Ok(respond::page_not_found()),
    }
}

fn root_paths(table: &kube1_api::resource::ResourceTable) -> Vec<String> {
    let mut paths: Vec<String> = [
        "/.well-known/openid-configuration",
        "/api",
        "/api/v1",
        "/apis",
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/openid/v1/jwks",
        "/readyz",
        "/version",
    ]
    .map(str::to_owned)
    .to_vec();
    for row in table.iter().filter(|r| !r.group.is_empty()) {
        paths.push(format!("/apis/{}", row.group));
        paths.push(format!("/apis/{}/{}", row.group, row.version));
    }
    paths.sort();
    paths.dedup();
    paths
}

/// A document with an ETag; 304 when the client has it already.
pub fn tagged(call: &Call, media: &'static str, document: &Value) -> Reply {
    let text = document.to_string();
    let tag = format!("\"{}\"", hex::encode_upper(Sha512::digest(text.as_bytes())));
    let known = call.headers().get(IF_NONE_MATCH).and_then(|v| v.to_str().ok()) == Some(tag.as_str());
    let mut reply = respond::bytes(StatusCode::OK, JSON, text);
    if known {
        *reply.status_mut() = StatusCode::NOT_MODIFIED;
        *reply.body_mut() = ResponseBody::empty();
    }
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(ETAG, tag);
    }
    reply
}
