//! Field selectors on custom resources, over HTTPS.

#![allow(clippy::unwrap_used)]

mod support;

use serde_json::{Value, json};
use support::TestServer;
use support::wire::Wire;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const SHIRTS: &str = "/apis/example.com/v1/namespaces/default/shirts";

fn versions(fields: &Value) -> Value {
    let spec = json!({"type": "object", "properties": {"colour": {"type": "string"}, "size": {"type": "integer"},
        "worn": {"type": "boolean"}, "weight": {"type": "number"}}});
    json!([{"name": "v1", "served": true, "storage": true, "selectableFields": fields,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}}])
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn custom_resources_are_selected_by_their_fields() {
    let server = TestServer::start().await;
    let client = Wire::admin(&server).await;
    let fields = json!([{"jsonPath": ".spec.colour"}, {"jsonPath": ".spec.size"}, {"jsonPath": ".spec.worn"}]);
    client.define("Shirt", &versions(&fields), &Value::Null).await;
    for (name, spec) in [
        ("a", json!({"colour": "red", "size": 1, "worn": true})),
        ("b", json!({"colour": "red", "size": 2, "worn": false})),
        ("c", json!({"colour": "blue", "size": 2})),
        ("d", json!({})),
    ] {
        let shirt = json!({"apiVersion": "example.com/v1", "kind": "Shirt", "metadata": {"name": name}, "spec": spec});
        client.json("POST", SHIRTS, &shirt).await.ok();
    }
    for (selector, expected) in [
        ("spec.colour%3Dred", &["a", "b"][..]),
        ("spec.colour!%3Dred", &["c", "d"]),
        ("spec.colour%3Dred,spec.size%3D2", &["b"]),
        ("spec.worn%3Dtrue", &["a"]),
        ("spec.worn%3D", &["c", "d"]),
        ("metadata.name%3Dc,spec.size%3D2", &["c"]),
        ("spec.size%3D3", &[]),
    ] {
        let list = client.get(&format!("{SHIRTS}?fieldSelector={selector}")).await.ok();
        assert_eq!(names(&list), expected, "{selector}");
    }
    let refused = client.get(&format!("{SHIRTS}?fieldSelector=spec.weight%3D1")).await;
    assert_eq!((refused.code, refused.message()), (400, "field label not supported: spec.weight".into()));

    let version = client.get(SHIRTS).await.ok()["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let repaint = async |name: &str, colour: &str| {
        client.merge(&format!("{SHIRTS}/{name}"), &json!({"spec": {"colour": colour}})).await.ok()
    };
    repaint("a", "blue").await;
    repaint("c", "red").await;
    let removed = client.send("DELETE", &format!("{SHIRTS}?fieldSelector=spec.colour%3Dred"), &[], "").await.ok();
    assert_eq!(names(&removed), ["b", "c"]);
    assert_eq!(names(&client.get(SHIRTS).await.ok()), ["a", "d"]);
    let watch = format!("{SHIRTS}?watch=1&timeoutSeconds=1&resourceVersion={version}&fieldSelector=spec.colour%3Dred");
    let told = client.get(&watch).await.text();
    assert!(told.lines().all(|line| line.starts_with(r#"{"type":""#)), "the kind of an event comes first: {told}");
    let told: Vec<(String, String)> = told
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|event| {
            (event["type"].as_str().unwrap().into(), event["object"]["metadata"]["name"].as_str().unwrap().into())
        })
        .collect();
    let expected = [("DELETED", "a"), ("ADDED", "c"), ("DELETED", "b"), ("DELETED", "c")];
    assert_eq!(told, expected.map(|(kind, name)| (kind.to_owned(), name.to_owned())));

    // Typed clients could not read a whole number that has a fraction.
    let body = r#"{"apiVersion": "example.com/v1", "kind": "Shirt", "metadata": {"name": "e"}, "spec": {"size": 1e3}}"#;
    let created = client.send("POST", SHIRTS, &[("content-type", "application/json")], body).await;
    assert!(created.text().contains(r#""size":1000}"#), "{}", created.text());
    let found = client.get(&format!("{SHIRTS}?fieldSelector=spec.size%3D1000")).await.ok();
    assert_eq!(names(&found), ["e"]);
    let config = "apiVersion: example.com/v1\nkind: Shirt\nspec: {size: 7.0}\n";
    let media = [("content-type", "application/apply-patch+yaml")];
    let applied = client.send("PATCH", &format!("{SHIRTS}/f?fieldManager=m"), &media, config).await;
    assert!(applied.text().contains(r#""size":7}"#), "{}", applied.text());

    for (path, detail) in [
        (".spec.none", "Invalid value: \".spec.none\": is an invalid path: does not refer to a valid field"),
        ("spec.colour", "Invalid value: \"spec.colour\": is an invalid path: expected [ or . but got: spec"),
    ] {
        let change = json!({"spec": {"versions": versions(&json!([{"jsonPath": path}]))}});
        let refused = client.merge(&format!("{DEFINITIONS}/shirts.example.com"), &change).await;
        let message = format!(
            "CustomResourceDefinition.apiextensions.k8s.io \"shirts.example.com\" is invalid: spec.selectableFields[0].jsonPath: {detail}"
        );
        assert_eq!((refused.code, refused.message()), (422, message));
    }
    server.stop().await;
}
