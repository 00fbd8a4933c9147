//! Who owns which fields when managers speak different versions of a kind, over HTTPS.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::{Value, json};
use support::TestServer;
use support::neighbour::serve;
use support::wire::Wire;

/// manager, operation, version and fields of each entry.
fn owners(object: &Value) -> Vec<(String, String, String, Value)> {
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    let mut owners: Vec<_> = entries
        .map(|e| (text(&e["manager"]), text(&e["operation"]), text(&e["apiVersion"]), e["fieldsV1"].clone()))
        .collect();
    owners.sort_by(|a, b| (&a.0, &a.2).cmp(&(&b.0, &b.2)));
    owners
}

fn owner(manager: &str, operation: &str, version: &str, fields: Value) -> (String, String, String, Value) {
    (manager.into(), operation.into(), version.into(), fields)
}

fn autoscaler(version: &str, spec: Value) -> Value {
    let mut object = json!({"apiVersion": format!("autoscaling/{version}"), "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "h"}, "spec": spec});
    object["spec"]["scaleTargetRef"] = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"});
    object
}

#[tokio::test(flavor = "multi_thread")]
async fn autoscalers_are_owned_in_the_version_of_each_manager() {
    let server = TestServer::start().await;
    let client = Wire::admin(&server).await;
    let at = |version: &str| format!("/apis/autoscaling/{version}/namespaces/default/horizontalpodautoscalers/h");
    let mut old = autoscaler("v1", json!({"maxReplicas": 3, "targetCPUUtilizationPercentage": 50}));
    client.apply(&at("v1"), "old", &old).await.ok();
    let cpu = |percent: u8| {
        json!([{"type": "Resource", "resource": {"name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": percent}}}])
    };
    let new = autoscaler("v2", json!({"maxReplicas": 3, "metrics": cpu(80)}));
    // The other version's name for the field is the one that conflicts.
    let refused = client.apply(&at("v2"), "new", &new).await;
    assert_eq!(refused.code, 409);
    let field = &refused.value()["details"]["causes"][0]["field"];
    assert_eq!(field, ".spec.targetCPUUtilizationPercentage");
    let mut forced = client.apply(&at("v2"), "new&force=true", &new).await.ok();
    let fields = json!({"f:spec": {"f:maxReplicas": {}, "f:metrics": {},
        "f:scaleTargetRef": {"f:apiVersion": {}, "f:kind": {}, "f:name": {}}}});
    let expected = [
        owner("new", "Apply", "autoscaling/v2", fields),
        owner("old", "Apply", "autoscaling/v1", json!({"f:spec": {"f:maxReplicas": {}, "f:scaleTargetRef": {}}})),
    ];
    assert_eq!(owners(&forced), expected);
    // What nobody else owns goes with the configuration that had it, whichever version it is written in now.
    old["spec"]["minReplicas"] = 2.into();
    old["spec"]["targetCPUUtilizationPercentage"] = 80.into();
    client.apply(&at("v1"), "old", &old).await.ok();
    forced = client.apply(&at("v2"), "old", &new).await.ok();
    assert_eq!(forced["spec"]["minReplicas"], 1, "the default is back");
    assert_eq!(forced["spec"]["metrics"], cpu(80));
    let versions: Vec<String> = owners(&forced).into_iter().map(|o| format!("{} {}", o.0, o.2)).collect();
    assert_eq!(versions, ["new autoscaling/v2", "old autoscaling/v2"], "one entry of each applier");
    // An update through the other version takes the fields from those who have them in theirs.
    client
        .merge(&format!("{}?fieldManager=editor", at("v1")), &json!({"spec": {"targetCPUUtilizationPercentage": 60}}))
        .await
        .ok();
    let now = client.get(&at("v2")).await.ok();
    assert_eq!(now["spec"]["metrics"], cpu(60));
    assert_eq!(
        owners(&now)[0],
        owner("editor", "Update", "autoscaling/v1", json!({"f:spec": {"f:targetCPUUtilizationPercentage": {}}}))
    );
    assert!(owners(&now)[1..].iter().all(|o| o.3["f:spec"].get("f:metrics").is_none()), "{now}");
    server.stop().await;
}

fn version(name: &str, served: bool, properties: Value) -> Value {
    json!({"name": name, "served": served, "storage": name == "v1", "schema": {"openAPIV3Schema": {"type": "object",
        "properties": {"spec": {"type": "object", "properties": properties}}}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_of_versions_that_are_gone_are_forgotten() {
    let server = TestServer::start().await;
    let client = Wire::admin(&server).await;
    let free = json!({"a": {"type": "string"}, "b": {"type": "string"}});
    let versions = json!([version("v1", true, free.clone()), version("v2", true, free)]);
    client.define("Thing", &versions, &Value::Null).await;
    let at = |version: &str| format!("/apis/example.com/{version}/namespaces/default/things/t");
    let thing = |version: &str, spec: Value| {
        json!({"apiVersion": format!("example.com/{version}"), "kind": "Thing",
        "metadata": {"name": "t"}, "spec": spec})
    };
    client.apply(&at("v1"), "one", &thing("v1", json!({"a": "1"}))).await.ok();
    let refused = client.apply(&at("v2"), "two", &thing("v2", json!({"a": "2", "b": "2"}))).await;
    assert_eq!(refused.message(), "Apply failed with 1 conflict: conflict with \"one\": .spec.a");
    client.apply(&at("v2"), "two", &thing("v2", json!({"b": "2"}))).await.ok();
    // The same applier says it in the other version, and leaves something out.
    let moved = client.apply(&at("v1"), "two", &thing("v1", json!({}))).await.ok();
    assert_eq!(moved["spec"], json!({"a": "1"}));
    let both = client.apply(&at("v2"), "two", &thing("v2", json!({"b": "3"}))).await.ok();
    let b = json!({"f:spec": {"f:b": {}}});
    let a = json!({"f:spec": {"f:a": {}}});
    assert_eq!(
        owners(&both),
        [owner("one", "Apply", "example.com/v1", a.clone()), owner("two", "Apply", "example.com/v2", b)]
    );
    let definition = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/things.example.com";
    let defined = client.get(definition).await.ok();
    let status = defined["metadata"]["managedFields"].as_array().unwrap().iter().find(|e| e["subresource"] == "status");
    let status = status.expect("the server owns the status");
    assert_eq!((&status["manager"], &status["operation"]), (&json!("kube-apiserver"), &json!("Update")));
    assert_eq!(
        status["fieldsV1"]["f:status"]["f:conditions"]["k:{\"type\":\"Established\"}"]["f:status"],
        json!({}),
        "{status}"
    );
    let remaining = json!({"spec": {"versions": [versions[0]]}});
    client.merge(definition, &remaining).await.ok();
    client.until(&at("v2"), |answer| answer.code == 404).await;
    let after = client.merge(&format!("{}?fieldManager=one", at("v1")), &json!({"spec": {"b": "4"}})).await.ok();
    let now = [
        owner("one", "Apply", "example.com/v1", a),
        owner("one", "Update", "example.com/v1", json!({"f:spec": {"f:b": {}}})),
    ];
    assert_eq!(owners(&after), now);
    let nothing = client.get(&format!("{}/scale", at("v1"))).await;
    assert_eq!(nothing.message(), "things.example.com \"t\" not found");
    client.merge(&at("v1"), &json!({"metadata": {"finalizers": ["x.io/y"]}})).await.ok();
    client.json("DELETE", &at("v1"), &Value::Null).await.ok();
    let last = client.merge(&at("v1"), &json!({"metadata": {"finalizers": null}})).await.ok();
    assert_eq!(last["metadata"].get("finalizers"), None, "who lets go sees it without what held it");
    assert_eq!(client.get(&at("v1")).await.code, 404);
    server.stop().await;
}

/// Version 2 calls the size by another name.
fn rename(_: &Method, _: &str, _: &str, review: Value) -> Value {
    let request = &review["request"];
    let objects = request["objects"].as_array().unwrap().iter().map(|object| {
        let mut object = object.clone();
        object["apiVersion"] = request["desiredAPIVersion"].clone();
        let Some(spec) = object["spec"].as_object_mut() else { return object };
        let (from, to) =
            if object_is_v1(&request["desiredAPIVersion"]) { ("width", "size") } else { ("size", "width") };
        if let Some(value) = spec.remove(from) {
            spec.insert(to.into(), value);
        }
        object
    });
    json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1", "response": {"uid": request["uid"],
        "result": {"status": "Success"}, "convertedObjects": objects.collect::<Vec<_>>()}})
}

fn object_is_v1(api_version: &Value) -> bool {
    api_version == "example.com/v1"
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_tells_what_others_own() {
    let server = TestServer::start().await;
    let client = Wire::admin(&server).await;
    let address = serve(&server, "converter", rename).await;
    let hook = json!({"url": format!("https://127.0.0.1:{}/convert", address.port()),
        "caBundle": STANDARD.encode(server.pki.ca.certificate_pem())});
    let conversion =
        json!({"strategy": "Webhook", "webhook": {"clientConfig": hook, "conversionReviewVersions": ["v1"]}});
    let properties = |name: &str| json!({name: {"type": "integer"}, "colour": {"type": "string"}});
    let versions = json!([version("v1", true, properties("size")), version("v2", true, properties("width"))]);
    client.define("Crate", &versions, &conversion).await;
    let at = |version: &str| format!("/apis/example.com/{version}/namespaces/default/crates/c");
    let object = |version: &str, spec: Value| {
        json!({"apiVersion": format!("example.com/{version}"), "kind": "Crate",
        "metadata": {"name": "c"}, "spec": spec})
    };
    client.apply(&at("v1"), "one", &object("v1", json!({"size": 1, "colour": "red"}))).await.ok();
    let refused = client.apply(&at("v2"), "two", &object("v2", json!({"width": 2}))).await;
    assert_eq!(refused.message(), "Apply failed with 1 conflict: conflict with \"one\": .spec.size");
    let shared = client.apply(&at("v2"), "two", &object("v2", json!({"width": 1}))).await.ok();
    assert_eq!(shared["spec"], json!({"width": 1, "colour": "red"}));
    // The first leaves both out: the second still owns the size, by its other name.
    let left = client.apply(&at("v1"), "one", &object("v1", json!({}))).await.ok();
    assert_eq!(left["spec"], json!({"size": 1}));
    client.apply(&at("v1"), "one", &object("v1", json!({"size": 1}))).await.ok();
    let mut update = client.get(&at("v2")).await.ok();
    update["spec"]["width"] = 5.into();
    let updated = client.json("PUT", &format!("{}?fieldManager=writer", at("v2")), &update).await.ok();
    let width = json!({"f:spec": {"f:width": {}}});
    assert_eq!(owners(&updated), [owner("writer", "Update", "example.com/v2", width)], "both others lost it");
    // A conversion has its say in dry runs too, and cannot make what the schema does not know.
    let dry = client.merge(&format!("{}?dryRun=All", at("v2")), &json!({"spec": {"width": 6}})).await.ok();
    assert_eq!(dry["spec"], json!({"width": 6}));
    // Objects move to the new storage version by being written as they are.
    let definition = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/crates.example.com";
    let mut versions = versions;
    versions[0]["storage"] = false.into();
    versions[1]["storage"] = true.into();
    client.merge(definition, &json!({"spec": {"versions": versions}})).await.ok();
    let before = client.get(&at("v2")).await.ok();
    let deadline = Instant::now() + Duration::from_secs(20);
    let moved = loop {
        let written = client.merge(&at("v2"), &json!({})).await.ok();
        if written["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"] {
            break written;
        }
        assert!(Instant::now() < deadline, "the object stays in its old version");
    };
    assert_eq!(moved["spec"], before["spec"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_named_twice_is_kept_once() {
    let server = TestServer::start().await;
    let client = Wire::admin(&server).await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let one = |uid: &str| json!({"apiVersion": "v1", "kind": "Node", "name": "n", "uid": uid});
    let owned = |refs: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "ownerReferences": refs}});
    let at = format!("{maps}/m");
    let (early, late) = ("contains duplicate entries; API server dedups", "duplicate entries after mutating admission");
    let twice = owned(json!([one("a"), one("a")]));
    for (answer, expected) in [
        (client.json("POST", maps, &twice).await, early),
        (client.json("PUT", &at, &twice).await, early),
        // What a patch makes is first seen after admission.
        (client.merge(&at, &owned(json!([one("b"), one("b")]))).await, late),
    ] {
        let warnings = answer.warnings();
        assert!(warnings.len() == 1 && warnings[0].contains(expected), "{warnings:?}");
        let object = answer.ok();
        assert_eq!(object["metadata"]["ownerReferences"].as_array().unwrap().len(), 1);
        let refs = object["metadata"]["ownerReferences"][0]["uid"].as_str().unwrap();
        let fields = object["metadata"]["managedFields"][0]["fieldsV1"]["f:metadata"]["f:ownerReferences"].clone();
        assert!(fields.to_string().contains(&format!("uid\\\":\\\"{refs}")), "{fields}");
    }
    server.stop().await;
}
