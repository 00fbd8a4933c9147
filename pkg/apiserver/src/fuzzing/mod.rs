//! What hostile input is tried on: each function must survive any bytes. Used by tests and by the targets in `fuzz/`.

mod objects;
mod seeds;

use std::sync::LazyLock;

use http::header::{ACCEPT, ACCEPT_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use kube1_api::codec::protobuf;
use kube1_api::resource::ResourceTable;
use kube1_mutate::Target;
use serde_json::json;

use crate::audit::Policy;
use crate::authn::{AuthenticationConfiguration, fuzzing as authn};
use crate::authz::AuthorizationConfiguration;
use crate::dial::Remote;
use crate::http::fuzzing as http_frames;
use crate::options::{DeleteOptions, ListOptions, WriteOptions};
use crate::query::Query;
use crate::request_info::RequestInfo;
use crate::{encode, negotiate, storage};
use seeds::*;

/// What anybody can send.
pub fn requests() -> Vec<Target> {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers":
        [{"name": "c", "resources": {"limits": {"cpu": "1"}}}], "activeDeadlineSeconds": 5}});
    let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 1});
    let bodies = [pod, options].into_iter().filter_map(|value| protobuf::encode_object(&value));
    vec![
        Target::new("request", request, REQUESTS, REQUEST_WORDS),
        Target::new("headers", headers, HEADERS, REQUEST_WORDS),
        Target::new("body", body, &[], &["k8s\0", "Pod"]).with_seeds(bodies),
        Target::new("continue_token", storage::fuzzing::continue_token, CONTINUE, STORED_WORDS),
        Target::new("credentials", authn::credentials, TOKENS, TOKEN_WORDS),
    ]
}

/// What clients and kubelets stream.
pub fn frames() -> Vec<Target> {
    vec![
        Target::new("spdy", http_frames::spdy, SPDY, FRAME_WORDS),
        Target::new("websocket", http_frames::websocket, WEBSOCKET, FRAME_WORDS),
    ]
}

/// What others made: objects that clients wrote, answers of webhooks, of extension servers and of kubelets.
pub fn objects() -> Vec<Target> {
    vec![
        Target::new("objects", objects::used, OBJECTS, OBJECT_WORDS),
        Target::new("answers", objects::answers, ANSWERS, OBJECT_WORDS),
    ]
}

/// What lies on disks.
pub fn kept() -> Vec<Target> {
    vec![
        Target::new("stored", storage::fuzzing::stored, STORED, STORED_WORDS),
        Target::new("encrypted", storage::fuzzing::encrypted, ENCRYPTED, &["k8s:enc:", "aescbc:v1:", ":"]),
        Target::new("files", files, FILES, FILE_WORDS),
    ]
}

/// All that `fuzz/` runs.
pub fn targets() -> Vec<Target> {
    [requests(), frames(), objects(), kept()].concat()
}

/// The target of a request: path and query.
fn request(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (path, query) = text.split_once('?').unwrap_or((&text, &text));
    let query = Query::parse(query);
    for method in [Method::GET, Method::POST, Method::DELETE] {
        let info = RequestInfo::parse(&method, path, &query);
        let _ = info.is_long_running();
    }
    let _ = ListOptions::parse(&query, false);
    let _ = ListOptions::parse(&query, true);
    let _ = WriteOptions::parse(&query, &text, "PatchOptions").map(|o| o.to_json("PatchOptions"));
    let _ = DeleteOptions::parse(&query, None).map(|o| o.to_json());
    let _ = crate::http::requests::parse_duration(&text);
}

/// Headers by which a representation is chosen, and those of identities.
fn headers(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|b| *b == b'\n').take(10_000) {
        let mut parts = line.splitn(2, |b| *b == b':');
        let name = HeaderName::from_bytes(parts.next().unwrap_or_default());
        let value = HeaderValue::from_bytes(parts.next().unwrap_or_default());
        if let (Ok(name), Ok(value)) = (name, value) {
            let _ = headers.try_append(name, value);
        }
    }
    if let Ok(value) = HeaderValue::from_bytes(data) {
        headers.append(ACCEPT, value.clone());
        headers.append(ACCEPT_ENCODING, value);
    }
    let query = Query::default();
    for answer in [negotiate::Answer::Object, negotiate::Answer::List, negotiate::Answer::Stream] {
        let _ = negotiate::accept(&headers, &query, negotiate::Offer { protobuf: true, views: true, answer });
    }
    let _ = negotiate::accept_failure(&headers, &query);
    let _ = negotiate::aggregated_discovery(&headers);
    let _ = negotiate::accepts_gzip(&headers);
    let _ = negotiate::body_format(&headers, true);
    authn::headers(&headers);
}

/// Bodies in protobuf, by kind.
fn body(data: &[u8]) {
    static TABLE: LazyLock<ResourceTable> = LazyLock::new(ResourceTable::builtin);
    for plural in ["pods", "services", "events"] {
        if let Some(row) = TABLE.stored("", plural) {
            let _ = encode::decode_protobuf(&row, data);
        }
    }
    let _ = encode::decode_delete_options(data);
}

/// Files that operators write: kubeconfigs, and what configures audit, authentication, authorization, encryption and
/// tracing.
fn files(data: &[u8]) {
    let name = format!("kube1-fuzzing-{}-{:?}", std::process::id(), std::thread::current().id());
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, data).expect("a temporary file");
    let _ = Policy::read(&path).map(|policy| policy.verdict(None, &RequestInfo::default()));
    let _ = AuthorizationConfiguration::read(&path);
    let _ = AuthenticationConfiguration::read(&path, &["https://own.example".to_owned()]);
    let _ = storage::Encryption::open(None, Some(path.clone()));
    let _ = kube1_trace::Settings::read(&path);
    let _ = Remote::from_kubeconfig(&path);
    let _ = std::fs::remove_file(&path);
}

#[cfg(test)]
mod tests {
    #[test]
    fn decoders_of_requests_survive() {
        kube1_mutate::run(&super::requests());
    }

    #[test]
    fn decoders_of_frames_survive() {
        kube1_mutate::run(&super::frames());
    }

    #[test]
    fn decoders_of_objects_survive() {
        kube1_mutate::run(&super::objects());
    }

    #[test]
    fn decoders_of_what_is_kept_survive() {
        kube1_mutate::run(&super::kept());
    }
}
