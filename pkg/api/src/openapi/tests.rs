#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::facts;
use crate::resource::{CustomResource, Resource};

fn parsed(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

/// Upstream's document without versions that are not served by default.
fn upstream() -> Option<Value> {
    let mut swagger = facts::read_json("openapi/swagger.json")?;
    let unserved = |path: &String| {
        path.contains("alpha")
            || path.contains("beta")
            || path.contains("internal.apiserver")
            || path.contains("storagemigration")
    };
    swagger["paths"].as_object_mut().unwrap().retain(|path, _| !unserved(path));
    Some(swagger)
}

/// Parameter names of each operation, by path and method; path parameters belong to every operation.
fn operations_of(document: &Value) -> BTreeMap<String, (String, Vec<String>)> {
    let resolve = |p: &Value| match p["$ref"].as_str() {
        Some(reference) => document.pointer(&reference[1..]).unwrap()["name"].as_str().unwrap().to_owned(),
        None => p["name"].as_str().unwrap().to_owned(),
    };
    let names = |value: &Value| value.as_array().into_iter().flatten().map(resolve).collect::<Vec<_>>();
    let mut all = BTreeMap::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap().iter().filter(|(key, _)| *key != "parameters") {
            let mut parameters = names(&item["parameters"]);
            parameters.extend(names(&operation["parameters"]));
            parameters.retain(|name| name != "shardSelector");
            parameters.sort();
            all.insert(format!("{method} {path}"), (operation["operationId"].as_str().unwrap().to_owned(), parameters));
        }
    }
    all
}

#[test]
fn operations_are_upstreams() {
    let Some(upstream) = upstream() else { return };
    let ours = operations_of(&parsed(&v2::<Arc<Extension>>(&ResourceTable::builtin(), &[])));
    let theirs = operations_of(&upstream);
    for (operation, description) in &theirs {
        assert_eq!(ours.get(operation), Some(description), "{operation}");
    }
    let extra: Vec<_> = ours.keys().filter(|key| !theirs.contains_key(*key)).collect();
    assert!(extra.is_empty(), "{extra:?}");
}

#[test]
fn definitions_are_upstreams() {
    let Some(mut upstream) = upstream() else { return };
    let ours = parsed(&v2::<Arc<Extension>>(&ResourceTable::builtin(), &[]));
    for (name, ours) in ours["definitions"].as_object().unwrap() {
        let mut ours = ours.clone();
        let theirs = &mut upstream["definitions"][name];
        for schema in [&mut ours, theirs] {
            let schema = schema.as_object_mut().unwrap_or_else(|| panic!("{name} is not upstream's"));
            // Ours differ in words, and name only what is served.
            for key in ["description", "x-kubernetes-unions"] {
                schema.remove(key);
            }
            if name.ends_with("DeleteOptions") || name.ends_with("WatchEvent") {
                schema.remove("x-kubernetes-group-version-kind");
            }
            if let Some(Value::Array(required)) = schema.get_mut("required") {
                required.sort_by_key(|name| name.as_str().map(str::to_owned));
            }
            for property in
                schema.get_mut("properties").and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut)
            {
                property.as_object_mut().unwrap().remove("description");
            }
        }
        assert_eq!(ours, *theirs, "{name}");
    }
}

#[test]
fn every_reference_of_a_v3_document_leads_somewhere() {
    let table = ResourceTable::builtin().with_resource_metrics();
    for path in documents(&table) {
        let document = parsed(&v3_document(&table, &path).unwrap());
        let mut references = Vec::new();
        find_references(&document, &mut references);
        for reference in references {
            assert!(document.pointer(&reference[1..]).is_some(), "{path}: {reference}");
        }
    }
}

fn find_references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| find_references(item, found)),
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
            members.values().for_each(|member| find_references(member, found));
        }
        _ => {}
    }
}

#[test]
fn explain_finds_what_it_needs() {
    let document = parsed(&v3_group(&ResourceTable::builtin(), "apps", "v1").unwrap());
    let schema = &document["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"];
    assert_eq!(schema["x-kubernetes-group-version-kind"][0]["kind"], "Deployment");
    assert_eq!(
        schema["properties"]["spec"]["allOf"][0]["$ref"],
        "#/components/schemas/io.k8s.api.apps.v1.DeploymentSpec"
    );
    let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
    let parameters = patch["parameters"].as_array().unwrap();
    assert!(parameters.iter().any(|p| p["name"] == "fieldValidation"));
    let container = &document["components"]["schemas"]["io.k8s.api.core.v1.Container"]["properties"];
    assert_eq!(container["imagePullPolicy"]["enum"], json!(["Always", "IfNotPresent", "Never"]));
    assert_eq!(container["ports"]["x-kubernetes-list-map-keys"], json!(["containerPort", "protocol"]));
}

#[test]
fn custom_resources_are_described_by_their_schema() {
    let mut table = ResourceTable::builtin();
    let before = v3_root(&table);
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "required": ["any", "none"],
        "properties": {"none": {"type": "string", "nullable": true}, "port": {"x-kubernetes-int-or-string": true}, "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}});
    table.insert(Resource::from(CustomResource {
        group: "stable.example.com".into(),
        version: "v1".into(),
        plural: "foos".into(),
        kind: "Foo".into(),
        list_kind: "FooList".into(),
        namespaced: true,
        schema: Some(Arc::new(schema)),
        ..CustomResource::default()
    }));
    let document = parsed(&v3_document(&table, "apis/stable.example.com/v1").unwrap());
    let foo = &document["components"]["schemas"]["com.example.stable.v1.Foo"];
    assert_eq!(foo["x-kubernetes-group-version-kind"][0]["group"], "stable.example.com");
    assert_eq!(foo["properties"]["spec"]["properties"]["none"]["nullable"], true);
    assert_eq!(foo["properties"]["spec"]["properties"]["port"]["anyOf"][0]["type"], "integer");
    assert!(document["components"]["schemas"]["io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta"].is_object());
    let patch = &document["paths"]["/apis/stable.example.com/v1/namespaces/{namespace}/foos/{name}"]["patch"];
    let types = patch["requestBody"]["content"].as_object().unwrap();
    assert!(!types.contains_key("application/strategic-merge-patch+json"));
    let v2 = parsed(&v2::<Arc<Extension>>(&table, &[]));
    let spec = &v2["definitions"]["com.example.stable.v1.Foo"]["properties"]["spec"];
    let properties = json!({"none": {}, "port": {"x-kubernetes-int-or-string": true},
        "any": {"x-kubernetes-preserve-unknown-fields": true}});
    assert_eq!(*spec, json!({"type": "object", "required": ["any"], "properties": properties}));
    assert_ne!(v3_root(&table)["paths"]["api/v1"], before["paths"]["api/v1"]);
}
