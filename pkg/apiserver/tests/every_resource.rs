//! The life of an object of every built-in resource over HTTPS: each verb, each kind of patch, each representation.

#![allow(clippy::unwrap_used)]

mod support;

use kube::client::Body;
use kube1_api::resource::{Resource, ResourceTable};
use serde_json::{Map, Value, json};
use support::TestServer;

/// A client that looks at codes and bytes.
struct Http(kube::Client);

impl Http {
    async fn send(&self, method: &str, path: &str, media: &str, accept: &str, body: Option<&Value>) -> (u16, Vec<u8>) {
        let bytes = body.map(|b| b.to_string().into_bytes()).unwrap_or_default();
        let request = http::Request::builder().method(method).uri(path).header("accept", accept);
        let request = request.header("content-type", media).body(Body::from(bytes)).unwrap();
        let response = self.0.send(request).await.unwrap();
        let code = response.status().as_u16();
        (code, response.into_body().collect_bytes().await.unwrap().to_vec())
    }

    /// Sends JSON; fails unless the code is the one wanted.
    async fn json(&self, wanted: u16, method: &str, path: &str, media: &str, body: Option<&Value>) -> Value {
        let (code, bytes) = self.send(method, path, media, "application/json", body).await;
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(code, wanted, "{method} {path}: {text}");
        serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{method} {path}: {e} in {text}"))
    }

    async fn get(&self, path: &str) -> Value {
        self.json(200, "GET", path, "application/json", None).await
    }

    async fn put(&self, wanted: u16, path: &str, object: &Value) -> Value {
        self.json(wanted, "PUT", path, "application/json", Some(object)).await
    }

    async fn patch(&self, path: &str, kind: &str, patch: &Value) -> Value {
        self.json(200, "PATCH", path, &format!("application/{kind}"), Some(patch)).await
    }
}

/// The least that a valid object of the resource has.
fn sample(samples: &Map<String, Value>, row: &Resource) -> Value {
    let key = format!("{}/{}", row.group, row.plural);
    let mut object = samples.get(&key).or_else(|| samples.get(&row.plural)).cloned();
    let object = object.as_mut().unwrap_or_else(|| panic!("no sample of {key}"));
    object["apiVersion"] = row.api_version().into();
    object["kind"] = row.kind.as_str().into();
    if object["metadata"]["name"].is_null() {
        object["metadata"]["name"] = format!("life-{}-{}", row.plural, row.version).into();
    }
    object["metadata"]["labels"]["life"] = "1".into();
    object.take()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_resource_lives_its_life() {
    let server = TestServer::start().await;
    let http = Http(server.admin().await);
    let samples: Map<String, Value> = serde_json::from_str(include_str!("samples.json")).unwrap();
    let account = json!({"metadata": {"name": "default"}});
    http.json(201, "POST", "/api/v1/namespaces/default/serviceaccounts", "application/json", Some(&account)).await;
    let mut ends = Vec::new();
    let has = |row: &Resource, verb: &str| row.verbs.iter().any(|v| v == verb);
    for row in ResourceTable::builtin().iter().filter(|r| has(r, "list") && has(r, "create")) {
        let base = if row.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", row.group) };
        let namespace = if row.namespaced { "/namespaces/default" } else { "" };
        let collection = format!("{base}/{}{namespace}/{}", row.version, row.plural);
        let object = sample(&samples, row);
        ends.push(life(&http, row, &collection, &object).await);
    }
    // Watches last a second each, so all of them run at once.
    futures::future::join_all(ends.iter().map(|end| end.is_watched(&http))).await;
    server.stop().await;
}

async fn life(http: &Http, row: &Resource, collection: &str, object: &Value) -> End {
    let item = format!("{collection}/{}", object["metadata"]["name"].as_str().unwrap());
    let created = http.json(201, "POST", collection, "application/json", Some(object)).await;
    http.json(409, "POST", collection, "application/json", Some(object)).await;
    let first = http.get(&item).await;
    assert_eq!(first["metadata"]["uid"], created["metadata"]["uid"], "{item}");
    let list = http.get(&format!("{collection}?labelSelector=life%3D1")).await;
    assert_eq!((&list["kind"], list["items"].as_array().unwrap().len()), (&json!(row.list_kind), 1), "{item}");
    representations(http, collection, &item).await;
    unchanged(http, &item).await;
    let annotate = |key: &str| json!({"metadata": {"annotations": {key: "1"}}});
    http.patch(&item, "merge-patch+json", &annotate("merge")).await;
    http.patch(&item, "strategic-merge-patch+json", &annotate("strategic")).await;
    let add = json!([{"op": "add", "path": "/metadata/annotations/json", "value": "1"}]);
    http.patch(&item, "json-patch+json", &add).await;
    let mut applied = annotate("applied");
    applied["apiVersion"] = row.api_version().into();
    applied["kind"] = row.kind.as_str().into();
    let applied = http.patch(&format!("{item}?fieldManager=life"), "apply-patch+yaml", &applied).await;
    for key in ["merge", "strategic", "json", "applied"] {
        assert_eq!(applied["metadata"]["annotations"][key], "1", "{key} patch of {item}");
    }
    http.put(409, &item, &first).await;
    subresources(http, row, &item).await;
    ending(http, row, collection, &item).await
}

/// An update with what is there already writes nothing.
async fn unchanged(http: &Http, item: &str) {
    for _ in 0..10 {
        let current = http.get(item).await;
        let (code, bytes) = http.send("PUT", item, "application/json", "application/json", Some(&current)).await;
        // The server's own loops may have written in between.
        if code == 200 {
            let same: Value = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(same["metadata"], current["metadata"]);
            return;
        }
    }
    panic!("{item} cannot be updated with itself");
}

async fn representations(http: &Http, collection: &str, item: &str) {
    let json = "application/json";
    for (path, accept, kind) in [
        (collection, "application/json;as=Table;v=v1;g=meta.k8s.io", "Table"),
        (item, "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io", "PartialObjectMetadata"),
    ] {
        let (code, bytes) = http.send("GET", path, json, accept, None).await;
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!((code, &value["kind"]), (200, &json!(kind)), "{path}");
    }
    let (code, bytes) = http.send("GET", item, json, "application/vnd.kubernetes.protobuf", None).await;
    assert_eq!(code, 200, "{item} in protobuf");
    let decoded = kube1_api::codec::protobuf::decode_object(&bytes).unwrap();
    assert_eq!(decoded.value["metadata"]["uid"], http.get(item).await["metadata"]["uid"]);
}

async fn subresources(http: &Http, row: &Resource, item: &str) {
    if row.has_status() {
        let path = format!("{item}/status");
        http.patch(&path, "merge-patch+json", &json!({"metadata": {"annotations": {"status": "1"}}})).await;
        let status = http.get(&path).await;
        assert_eq!(status["kind"], row.kind.as_str());
        http.put(200, &path, &status).await;
    }
    if row.subresource("scale").is_some() {
        let path = format!("{item}/scale");
        let mut scale = http.patch(&path, "merge-patch+json", &json!({"spec": {"replicas": 3}})).await;
        assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(3)));
        if !row.is_custom() {
            // Some clients send the kind of the parent.
            let patch =
                json!({"kind": row.kind, "metadata": {"name": scale["metadata"]["name"]}, "spec": {"replicas": 4}});
            scale = http.patch(&path, "strategic-merge-patch+json", &patch).await;
            assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(4)));
        }
        scale["spec"]["replicas"] = 2.into();
        http.put(200, &path, &scale).await;
        assert_eq!(http.get(item).await["spec"]["replicas"], 2);
    }
}

async fn ending(http: &Http, row: &Resource, collection: &str, item: &str) -> End {
    let version = http.get(collection).await["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    if row.verbs.iter().any(|v| v == "deletecollection") {
        let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0,
            "propagationPolicy": "Background"});
        let selected = format!("{collection}?labelSelector=life%3D1");
        http.json(200, "DELETE", &selected, "application/json", Some(&options)).await;
    } else {
        http.json(200, "DELETE", item, "application/json", None).await;
    }
    let (code, bytes) = http.send("GET", item, "application/json", "application/json", None).await;
    let ends = || serde_json::from_slice::<Value>(&bytes).unwrap()["metadata"]["deletionTimestamp"].is_string();
    assert!(code == 404 || ends(), "{item} is still there");
    End { collection: collection.to_owned(), version }
}

/// A collection and its version before the object was deleted.
struct End {
    collection: String,
    version: String,
}

impl End {
    async fn is_watched(&self, http: &Http) {
        let watch = format!("{}?watch=true&timeoutSeconds=1&resourceVersion={}", self.collection, self.version);
        let (_, events) = http.send("GET", &watch, "application/json", "application/json", None).await;
        let seen = String::from_utf8(events).unwrap();
        assert!(seen.contains("DELETED") || seen.contains("MODIFIED"), "{watch}: {seen}");
    }
}
