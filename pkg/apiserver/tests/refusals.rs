//! How malformed requests are refused: code, reason and words, over HTTPS. The words are those that upstream's server
//! answers to the same requests.

#![allow(clippy::unwrap_used)]

mod support;

use serde_json::{Value, json};
use support::TestServer;
use support::wire::Wire;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const A: &str = "/api/v1/namespaces/default/configmaps/a";
const JSON: &str = "application/json";
const JSON_PATCH: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";
const NO_PATH: &str = "the server could not find the requested resource";
const NO_METHOD: &str = "the server does not allow this method on the requested resource";
const UNFIT: &str = "the server rejected our request due to an error in our request";
const MODIFIED: &str = "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again";
const NAMELESS: &str = "the name of the object (a based on URL) was undeterminable: name must be provided";
const OTHER_NAMESPACE: &str = "the namespace of the object (q) does not match the namespace on the request (default)";

/// Method, path, Content-Type, body; code, reason, message.
type Row = (&'static str, String, &'static str, String, u16, &'static str, &'static str);

async fn check(rows: Vec<Row>) {
    let server = TestServer::start().await;
    let client = Wire::admin(&server).await;
    let map = json!({"metadata": {"name": "a"}, "data": {"a": "1"}});
    let before = client.json("POST", MAPS, &map).await.ok();
    for (method, path, media, body, code, reason, message) in rows {
        let answer = client.send(method, &path, &[("content-type", media)], body.clone()).await;
        let found = answer.value();
        let case = format!("{method} {path} {media} {body}: {}", answer.text());
        assert_eq!(answer.code, code, "{case}");
        assert_eq!(answer.message(), message, "{case}");
        assert_eq!(found["reason"].as_str().unwrap_or_default(), reason, "{case}");
        assert_eq!(found["status"], "Failure", "{case}");
    }
    assert_eq!(client.get(A).await.ok(), before, "nothing of all that changed it");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_and_parameters() {
    let get = |path: &str, code: u16, reason: &'static str, message: &'static str| -> Row {
        ("GET", path.to_owned(), JSON, String::new(), code, reason, message)
    };
    let list = |query: &str, message: &'static str| get(&format!("{MAPS}?{query}"), 400, "BadRequest", message);
    check(vec![
        get("/api/v1/foos", 404, "NotFound", NO_PATH),
        get("/api/v1/namespaces/default/foos/x", 404, "NotFound", NO_PATH),
        get("/apis/apps/v9/deployments", 404, "NotFound", NO_PATH),
        get(&format!("{A}/status"), 404, "NotFound", NO_PATH),
        get(&format!("{MAPS}/none"), 404, "NotFound", "configmaps \"none\" not found"),
        ("POST", A.into(), JSON, "{}".into(), 405, "MethodNotAllowed", NO_METHOD),
        ("PUT", MAPS.into(), JSON, "{}".into(), 405, "MethodNotAllowed", NO_METHOD),
        ("PATCH", MAPS.into(), MERGE, "{}".into(), 405, "MethodNotAllowed", NO_METHOD),
        get(
            &format!("{A}?resourceVersion=x"),
            500,
            "",
            "resourceVersion: Invalid value: \"x\": strconv.ParseUint: parsing \"x\": invalid syntax",
        ),
        list(
            "resourceVersion=-1",
            "invalid resource version: resourceVersion: Invalid value: \"-1\": strconv.ParseUint: parsing \"-1\": invalid syntax",
        ),
        list("limit=x", "strconv.ParseInt: parsing \"x\": invalid syntax"),
        list("timeoutSeconds=x", "strconv.ParseInt: parsing \"x\": invalid syntax"),
        list("labelSelector=a%20b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        list("fieldSelector=x", "invalid selector: 'x'; can't understand 'x'"),
        list(
            "fieldSelector=spec.x%3Dy",
            "\"spec.x\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
        ),
        get("/api/v1/pods?fieldSelector=spec.x%3Dy", 400, "BadRequest", "field label not supported: spec.x"),
        (
            "DELETE",
            format!("{A}?gracePeriodSeconds=x"),
            JSON,
            String::new(),
            400,
            "BadRequest",
            "strconv.ParseInt: parsing \"x\": invalid syntax",
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_updates() {
    let put = |meta: Value, code: u16, reason: &'static str, message: &'static str| -> Row {
        ("PUT", A.to_owned(), JSON, json!({"metadata": meta}).to_string(), code, reason, message)
    };
    let create = json!({"metadata": {"name": "x", "resourceVersion": "5"}}).to_string();
    check(vec![
        put(json!({}), 400, "BadRequest", NAMELESS),
        put(
            json!({"name": "b"}),
            400,
            "BadRequest",
            "the name of the object (b) does not match the name on the URL (a)",
        ),
        put(json!({"name": "a", "namespace": "q"}), 400, "BadRequest", OTHER_NAMESPACE),
        put(json!({"name": "a", "resourceVersion": "1"}), 409, "Conflict", MODIFIED),
        put(json!({"name": "a", "resourceVersion": "x"}), 500, "", "strconv.ParseUint: parsing \"x\": invalid syntax"),
        (
            "POST",
            MAPS.into(),
            JSON,
            json!({"metadata": {"name": "x", "namespace": "q"}}).to_string(),
            400,
            "BadRequest",
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        ("POST", MAPS.into(), JSON, create, 500, "", "resourceVersion should not be set on objects to be created"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn patches() {
    let patch = |media: &'static str, body: Value, code: u16, reason: &'static str, message: &'static str| -> Row {
        ("PATCH", A.to_owned(), media, body.to_string(), code, reason, message)
    };
    let bad = |operation: Value| patch(JSON_PATCH, json!([operation]), 422, "Invalid", UNFIT);
    let apply = |body: Value, message: &'static str| -> Row {
        ("PATCH", format!("{A}?fieldManager=m"), APPLY, body.to_string(), 400, "BadRequest", message)
    };
    let many = vec![json!({"op": "test", "path": "/data/a", "value": "1"}); 10_001];
    check(vec![
        bad(json!({"op": "what", "path": "/a"})),
        bad(json!({"path": "/data"})),
        bad(json!({"op": "add"})),
        bad(json!({"op": "add", "path": "data", "value": "1"})),
        bad(json!({"op": "add", "path": "", "value": {}})),
        bad(json!({"op": "test", "path": "/data/a", "value": "2"})),
        bad(json!({"op": "remove", "path": "/data/zz"})),
        patch(
            JSON_PATCH,
            many.into(),
            413,
            "RequestEntityTooLarge",
            "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001",
        ),
        patch(JSON_PATCH, json!([{"op": "remove", "path": "/metadata/name"}]), 400, "BadRequest", NAMELESS),
        patch(MERGE, json!({"metadata": null}), 400, "BadRequest", NAMELESS),
        patch(MERGE, json!({"metadata": {"namespace": "q"}}), 400, "BadRequest", OTHER_NAMESPACE),
        patch(MERGE, json!({"metadata": {"resourceVersion": "1"}}), 409, "Conflict", MODIFIED),
        patch(
            MERGE,
            json!({"metadata": {"uid": "q"}}),
            422,
            "Invalid",
            "ConfigMap \"a\" is invalid: metadata.uid: Invalid value: \"q\": field is immutable",
        ),
        patch(STRATEGIC, json!({"metadata": {"$retainKeys": ["name"], "labels": {"a": "b"}}}), 422, "Invalid", UNFIT),
        apply(json!({"kind": "ConfigMap"}), "invalid object type: /, Kind=ConfigMap"),
        apply(json!({"apiVersion": "v1", "kind": "Secret"}), "invalid object type: /v1, Kind=Secret"),
        apply(json!({"apiVersion": "apps/v2", "kind": "ConfigMap"}), "invalid object type: apps/v2, Kind=ConfigMap"),
        apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "q"}}), OTHER_NAMESPACE),
        (
            "PATCH",
            format!("{A}?fieldManager=%07"),
            MERGE,
            "{}".into(),
            422,
            "Invalid",
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Invalid value: \"\\u0007\": invalid character U+0007 (at position 0)",
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_looks_malformed_is_done() {
    let server = TestServer::start().await;
    let client = Wire::admin(&server).await;
    let created = client.json("POST", MAPS, &json!({"metadata": {"name": "a"}, "data": {"a": "1"}})).await.ok();
    assert!(created["metadata"]["managedFields"].is_array());
    let send = async |media: &str, body: &str| client.send("PATCH", A, &[("content-type", media)], body).await.ok();
    let replaced = send(JSON_PATCH, r#"[{"op": "replace", "path": "/data/b", "value": "2"}]"#).await;
    assert_eq!(replaced["data"], json!({"a": "1", "b": "2"}), "replace adds what is not there");
    let copied = send(JSON_PATCH, r#"[{"op": "copy", "from": "/none", "path": "/data/c"}]"#).await;
    assert_eq!(copied["data"]["c"], "", "what is copied from nowhere is empty");
    send(STRATEGIC, "null").await;
    let reset = send(MERGE, r#"{"metadata": {"managedFields": []}}"#).await;
    assert_eq!(reset["metadata"].get("managedFields"), None, "an empty list resets who owns what");
    let untracked = send(MERGE, r#"{"data": {"d": "1"}}"#).await;
    assert_eq!(untracked["metadata"].get("managedFields"), None, "until somebody applies");
    server.stop().await;
}
