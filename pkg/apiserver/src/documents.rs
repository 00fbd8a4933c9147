//! What the server says about itself: version, discovery, OpenAPI.

use std::sync::Arc;

use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, EXPIRES, HeaderValue, IF_NONE_MATCH, LOCATION, VARY};
use kube1_api::codec::{write_pretty_json, write_pretty_json_as};
use kube1_api::status::Status;
use kube1_api::{discovery, openapi};
use kube1_telemetry::Build;
use serde_json::{Value, json};
use sha2::{Digest, Sha512};

use crate::aggregate::discovery as remote;
use crate::call::Call;
use crate::encode;
use crate::http::health::Health;
use crate::http::respond::{self, JSON, Reply};
use crate::negotiate::{self, Accepted, Format};
use crate::server::Server;

const OPENAPI_V2: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// The release of Kubernetes whose API is served, and ours.
pub const GIT_VERSION: &str = concat!("v1.36.2+kube1-", env!("CARGO_PKG_VERSION"));

/// What [`version`] tells, in the order in which it does.
const VERSION_MEMBERS: [&str; 13] = [
    "major",
    "minor",
    "emulationMajor",
    "emulationMinor",
    "minCompatibilityMajor",
    "minCompatibilityMinor",
    "gitVersion",
    "gitCommit",
    "gitTreeState",
    "buildDate",
    "goVersion",
    "compiler",
    "platform",
];

/// `/version`: JSON, whatever the client accepts.
pub fn version() -> Reply {
    let build = Build::told();
    let version = json!({
        "major": "1", "minor": "36", "emulationMajor": "1", "emulationMinor": "36", "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "35", "gitVersion": GIT_VERSION, "gitCommit": build.git_commit,
        "gitTreeState": build.git_tree_state, "buildDate": build.date(), "goVersion": build.compiler(),
        "compiler": "rustc", "platform": kube1_telemetry::platform(),
    });
    let mut text = Vec::new();
    write_pretty_json_as(&mut text, &version, &VERSION_MEMBERS);
    respond::bytes(StatusCode::OK, JSON, text)
}

/// Discovery and OpenAPI documents; 404 for other paths.
pub async fn route(server: &Arc<Server>, call: &Call, path: &str) -> Result<Reply, Status> {
    let table = server.table.load_full();
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    if let (Some(format), [root @ ("api" | "apis")]) = (negotiate::aggregated_discovery(call.headers()), &parts[..]) {
        let mut list = discovery::aggregated_v2(&table, *root == "api");
        if *root == "apis" {
            remote::extend_aggregated(&mut list, &server.remote_discovery.versions(server).await, &table);
        }
        return aggregated_reply(call, format, &list);
    }
    let document = match parts[..] {
        ["api"] => {
            let address = std::net::SocketAddr::new(server.config.advertise_address, server.config.port);
            Some(discovery::api_versions(&address.to_string()))
        }
        ["apis"] => {
            let mut list = discovery::api_group_list(&table);
            remote::extend_groups(&mut list, &server.remote_discovery.versions(server).await, &table);
            Some(list)
        }
        ["api", version] => discovery::api_resource_list(&table, "", version),
        ["apis", group] => match discovery::api_group(&table, group) {
            Some(found) => Some(found),
            None => remote_group(server, group).await,
        },
        ["apis", group, version] => discovery::api_resource_list(&table, group, version),
        ["openapi", "v2"] => return openapi_v2(server, call).await,
        ["openapi", "v3"] => {
            let mut root = openapi::v3_root(&table);
            for (path, url) in server.remote_openapi.described(server).await.v3 {
                root["paths"][path] = json!({"serverRelativeURL": url});
            }
            return Ok(tagged(call, JSON, &root));
        }
        ["openapi", "v3", ref rest @ ..] => return openapi_v3(server, call, &rest.join("/")),
        [] => {
            let mut text = Vec::new();
            write_pretty_json(&mut text, &json!({"paths": root_paths(&table, &server.health)}));
            return Ok(respond::bytes(StatusCode::OK, JSON, text));
        }
        _ => None,
    };
    match document {
        Some(document) => encode::reply(call, StatusCode::OK, &document, true),
        // Below a built-in group what is not there is told by a Status.
        None if is_built_in(&table, &parts) => Err(Status::no_such_path()),
        None => Ok(respond::page_not_found()),
    }
}

fn is_built_in(table: &kube1_api::resource::ResourceTable, path: &[&str]) -> bool {
    match path {
        ["api", ..] => true,
        ["apis", group, _, ..] => table.iter().any(|row| row.group == *group && !row.is_custom()),
        _ => false,
    }
}

/// A group that only extension servers serve.
async fn remote_group(server: &Arc<Server>, name: &str) -> Option<Value> {
    let mut list = json!({"groups": []});
    remote::extend_groups(&mut list, &server.remote_discovery.versions(server).await, &server.table.load());
    let mut group = list["groups"].as_array()?.iter().find(|g| g["name"] == name)?.clone();
    group["kind"] = "APIGroup".into();
    group["apiVersion"] = "v1".into();
    Some(group)
}

/// Group and version of a path `/apis/GROUP/VERSION`.
pub fn group_version(path: &str) -> Option<(&str, &str)> {
    let (group, version) = path.strip_prefix("/apis/")?.split_once('/')?;
    (!version.contains('/')).then_some((group, version))
}

fn root_paths(table: &kube1_api::resource::ResourceTable, health: &Health) -> Vec<String> {
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
    paths.extend(health.paths());
    paths.sort();
    paths.dedup();
    paths
}

/// Discovery in its aggregated form, whose media type tells what it is.
fn aggregated_reply(call: &Call, format: Format, list: &Value) -> Result<Reply, Status> {
    let body = encode::write(Accepted::plain(format), list)?;
    let mut reply = tagged_bytes(call, format.media_type(), list.to_string().as_bytes(), body);
    if reply.status() == StatusCode::OK {
        let media = format!("{};g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", format.media_type());
        reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::try_from(media).map_err(Status::internal)?);
    }
    Ok(reply)
}

/// A document with an ETag; 304 when the client has it already.
fn tagged(call: &Call, media: &'static str, document: &Value) -> Reply {
    let text = document.to_string();
    tagged_bytes(call, media, text.as_bytes(), text.clone().into_bytes())
}

/// As [`tagged`], for bytes whose tag is that of `hashed`.
fn tagged_bytes(call: &Call, media: &'static str, hashed: &[u8], text: Vec<u8>) -> Reply {
    let tag = format!("\"{}\"", hex::encode_upper(Sha512::digest(hashed)));
    let mut reply = known(call, &tag).unwrap_or_else(|| with_tag(respond::bytes(StatusCode::OK, media, text), &tag));
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public"));
    reply
}

/// `/openapi/v2`, as JSON or protobuf. The document is made anew for each request that does not have it yet, and not kept.
async fn openapi_v2(server: &Arc<Server>, call: &Call) -> Result<Reply, Status> {
    let clauses = negotiate::clauses(call.headers());
    let media = clauses.iter().find_map(|c| match c.media {
        media if media.starts_with("application/com.github.proto-openapi.spec.v2") => Some(OPENAPI_V2),
        "application/json" | "application/*" | "*/*" => Some(JSON),
        _ => None,
    });
    let media = media.or(clauses.is_empty().then_some(JSON));
    let media = media.ok_or_else(|| Status::not_acceptable(&[JSON, OPENAPI_V2]))?;
    let others = server.remote_openapi.described(server).await;
    let table = server.table.load();
    let tag = format!("\"{}\"", openapi::v2_hash(&table, &others.hash));
    let document = || match media {
        JSON => openapi::v2(&table, &others.v2),
        _ => openapi::v2_protobuf(&table, &others.v2),
    };
    Ok(known(call, &tag).unwrap_or_else(|| with_tag(respond::bytes(StatusCode::OK, media, document()), &tag)))
}

/// `/openapi/v3/PATH`. With the right `hash` the answer never changes.
fn openapi_v3(server: &Server, call: &Call, path: &str) -> Result<Reply, Status> {
    accept_json(call)?;
    let table = server.table.load();
    let hash = openapi::v3_hash(&table, path);
    let asked = call.query.text("hash");
    let tag = format!("\"{hash}\"");
    if let Some(reply) = known(call, &tag) {
        return Ok(reply);
    }
    let Some(document) = openapi::v3_document(&table, path) else { return Ok(respond::page_not_found()) };
    if asked.is_some_and(|asked| asked != hash) {
        let mut reply = respond::bytes(StatusCode::MOVED_PERMANENTLY, JSON, "");
        if let Ok(url) = HeaderValue::from_str(&format!("/openapi/v3/{path}?hash={hash}")) {
            reply.headers_mut().insert(LOCATION, url);
        }
        return Ok(reply);
    }
    let mut reply = with_tag(respond::bytes(StatusCode::OK, JSON, document), &tag);
    if asked.is_some() {
        reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
        let year = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * 365);
        if let Ok(expires) = HeaderValue::from_str(&year.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()) {
            reply.headers_mut().insert(EXPIRES, expires);
        }
    }
    Ok(reply)
}

fn accept_json(call: &Call) -> Result<(), Status> {
    let clauses = negotiate::clauses(call.headers());
    let fits = |media: &str| matches!(media, "application/json" | "application/*" | "*/*");
    if clauses.is_empty() || clauses.iter().any(|c| fits(c.media)) {
        Ok(())
    } else {
        Err(Status::not_acceptable(&["application/json"]))
    }
}

/// 304 when the client has the tagged document.
fn known(call: &Call, tag: &str) -> Option<Reply> {
    let held = call.headers().get(IF_NONE_MATCH)?.to_str().ok()?;
    held.split(',').any(|t| t.trim().trim_start_matches("W/") == tag).then(|| {
        let mut reply = respond::bytes(StatusCode::NOT_MODIFIED, JSON, "");
        reply.headers_mut().remove(CONTENT_TYPE);
        with_tag(reply, tag)
    })
}

fn with_tag(mut reply: Reply, tag: &str) -> Reply {
    let headers = reply.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    if let Ok(tag) = HeaderValue::from_str(tag) {
        headers.insert(ETAG, tag);
    }
    reply
}
