//! What hostile input is tried on: each function must survive any bytes. Used by tests and by the targets in `fuzz/`.

mod seeds;

use std::sync::{Arc, LazyLock};

use kube1_mutate::Target;
use serde_json::{Value, json};

use crate::apply;
use crate::cel::{Env, Type};
use crate::codec::{
    self, FieldValidation, decode_json, decode_yaml, encode_canonical, parse_json, parse_yaml, protobuf,
};
use crate::custom::CustomSchema;
use crate::default::apply_defaults;
use crate::expression::{Bindings, Expression};
use crate::field::FieldPath;
use crate::patch;
use crate::quantity::Quantity;
use crate::resource::{CustomResource, Resource, ResourceTable};
use crate::schema;
use crate::selector::{FieldSelector, LabelSelector};
use crate::table;
use crate::validate::{validate_create, validate_update};
use seeds::*;

/// Decoders of whole documents.
pub fn documents() -> Vec<Target> {
    let protobuf_of = |json| protobuf::encode_object(&serde_json::from_slice(json).ok()?);
    let encoded = [POD, DEFINITION].into_iter().filter_map(protobuf_of);
    let protobuf_words = ["k8s\0", "application/json", "Pod", "v1"];
    vec![
        Target::new("json", self::json, &[POD, FOO, DEFINITION], JSON_WORDS),
        Target::new("yaml", yaml, &[YAML, BOMB, POD], YAML_WORDS),
        Target::new("protobuf", protobuf, &[b"\x0a\x02\x08\x01"], &protobuf_words).with_seeds(encoded),
        Target::new("patch", patch, PATCHES, JSON_WORDS),
        Target::new("managed_fields", managed_fields, MANAGED_FIELDS, JSON_WORDS),
        Target::new("structural", structural, &[SCHEMA], JSON_WORDS),
    ]
}

/// Decoders of short texts.
pub fn texts() -> Vec<Target> {
    vec![
        Target::new("selectors", selectors, SELECTORS, TEXT_WORDS),
        Target::new("quantities", quantities, QUANTITIES, TEXT_WORDS),
        Target::new("expressions", expressions, EXPRESSIONS, EXPRESSION_WORDS).with_memory(1500),
    ]
}

/// All that `fuzz/` runs.
pub fn targets() -> Vec<Target> {
    [documents(), texts()].concat()
}

static TABLE: LazyLock<ResourceTable> = LazyLock::new(ResourceTable::builtin);

fn row(group: &str, plural: &str) -> Arc<Resource> {
    TABLE.stored(group, plural).expect("a built-in resource")
}

fn rows() -> [Arc<Resource>; 5] {
    [
        row("", "pods"),
        row("apps", "deployments"),
        row("resource.k8s.io", "resourceslices"),
        row("apiextensions.k8s.io", "customresourcedefinitions"),
        custom_row(),
    ]
}

/// A custom resource of which any part may be there.
fn custom_row() -> Arc<Resource> {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
        "properties": {"list": {"type": "array", "items": {"type": "object", "required": ["name"], "properties":
            {"name": {"type": "string", "maxLength": 10}, "size": {"type": "integer", "default": 3, "minimum": 1}}},
            "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}}}}});
    let compiled = CustomSchema::compile(&schema, &FieldPath::new("schema"));
    let mut row = Resource::from(CustomResource {
        group: "g.io".into(),
        version: "v1".into(),
        plural: "foos".into(),
        kind: "Foo".into(),
        list_kind: "FooList".into(),
        namespaced: true,
        schema: Some(Arc::new(schema)),
        ..CustomResource::default()
    });
    row.custom_schema = compiled.ok().map(Arc::new);
    Arc::new(row)
}

/// What becomes of an object that was decoded: all of the pure part of a creation, and every form of the answer.
fn pass_through(row: &Resource, mut object: Value) {
    apply_defaults(row, &mut object);
    let _ = validate_create(row, &object);
    let _ = validate_update(row, &object, &object, "");
    let _ = table::render(row, &[&object], &json!({}), &table::TableOptions::default());
    let _ = apply::apply(row, Some(&object), &object, "m", true, "", "2026-01-01T00:00:00Z");
    let stored = encode_canonical(&object);
    let read: Value = serde_json::from_slice(&stored).expect("what is stored can be read");
    assert_eq!(read.as_object().map(serde_json::Map::len), object.as_object().map(serde_json::Map::len));
    let _ = protobuf::encode_object(&object);
    let _ = codec::encode_yaml(&object);
}

fn json(data: &[u8]) {
    let _ = parse_json(data);
    for row in rows() {
        for validation in [FieldValidation::Warn, FieldValidation::Strict] {
            if let Ok(decoded) = decode_json(&row, data, validation) {
                pass_through(&row, decoded.value);
            }
        }
    }
}

fn yaml(data: &[u8]) {
    let _ = parse_yaml(data);
    let pods = row("", "pods");
    if let Ok(decoded) = decode_yaml(&pods, data, FieldValidation::Warn) {
        pass_through(&pods, decoded.value);
    }
    let _ = decode_yaml(&pods, data, FieldValidation::Strict);
}

fn protobuf(data: &[u8]) {
    let pod = schema::find("io.k8s.api.core.v1.Pod").expect("pods are known");
    for ty in [Some(pod), schema::find("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps")] {
        if let Some(value) = ty.and_then(|ty| protobuf::decode(ty, data).ok()) {
            let _ = protobuf::encode(pod, "v1", "Pod", &value);
        }
    }
    let enveloped = [protobuf::MAGIC, data].concat();
    for bytes in [data, &enveloped[..]] {
        let Ok(decoded) = protobuf::decode_object(bytes) else { continue };
        let _ = protobuf::encode_object(&decoded.value);
        for row in rows().iter().filter(|r| r.kind == decoded.kind && r.api_version() == decoded.api_version) {
            if let Ok(checked) = codec::check_value(row, decoded.value.clone(), FieldValidation::Ignore) {
                pass_through(row, checked.value);
            }
        }
    }
}

/// The object that patches are applied to.
fn patched() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"a": "1"}, "finalizers": ["x/a"]},
        "spec": {"containers": [{"name": "c", "image": "i", "env": [{"name": "A", "value": "1"}],
            "ports": [{"containerPort": 80, "protocol": "TCP"}]}], "tolerations": [{"key": "k"}],
            "volumes": [{"name": "v", "emptyDir": {}}]}})
}

/// Every kind of patch; what comes out goes the way of a changed object.
fn patch(data: &[u8]) {
    let Ok((patch, _)) = parse_json(data) else { return };
    let (pods, foos, object) = (row("", "pods"), custom_row(), patched());
    if let Ok(patched) = patch::json_patch(&object, &patch) {
        serde_json::from_slice::<Value>(&encode_canonical(&patched)).expect("what was patched can be read again");
    }
    let results = [
        patch::json_patch(&object, &patch).map_err(Into::into),
        Ok(patch::merge_patch(&object, &patch)),
        patch::strategic_merge_patch(pods.shape(), &object, &patch),
        apply::apply(&pods, Some(&object), &patch, "m", true, "", "2026-01-01T00:00:00Z"),
    ];
    for value in results.into_iter().flatten() {
        for row in [&pods, &foos] {
            let mut value = value.clone();
            if let Some(members) = value.as_object_mut() {
                members.insert("apiVersion".into(), row.api_version().into());
                members.insert("kind".into(), row.kind.as_str().into());
            }
            if let Ok(checked) = codec::check_value(row, value, FieldValidation::Warn) {
                let mut new = checked.value;
                apply::track_update(row, Some(&object), &mut new, "m", "", "2026-01-01T00:00:00Z");
                pass_through(row, new);
            }
        }
    }
    let _ = apply::apply(&foos, None, &patch, "m", true, "", "2026-01-01T00:00:00Z");
}

/// managedFields that a client sends.
fn managed_fields(data: &[u8]) {
    let Ok((fields, _)) = parse_json(data) else { return };
    let (pods, mut object) = (row("", "pods"), patched());
    object["metadata"]["managedFields"] = json!([{"manager": "m", "operation": "Apply", "apiVersion": "v1",
        "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": fields}]);
    let config = patched();
    let _ = apply::apply(&pods, Some(&object), &config, "m", false, "", "2026-01-02T00:00:00Z");
    object["metadata"]["managedFields"] = fields;
    let mut new = object.clone();
    apply::track_update(&pods, Some(&object), &mut new, "other", "", "2026-01-02T00:00:00Z");
    let _ = apply::apply(&pods, Some(&new), &config, "m", true, "", "2026-01-02T00:00:00Z");
}

fn selectors(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(selector) = LabelSelector::parse(text) {
        selector.matches(|key| (key == "a").then_some("1"));
    }
    if let Ok(selector) = FieldSelector::parse(text) {
        selector.matches(str::to_owned);
    }
    if let Ok((value, _)) = parse_json(data) {
        let _ = LabelSelector::from_value(&value);
    }
    let _ = table::jsonpath::first(text, &patched());
}

fn quantities(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(quantity) = Quantity::parse(text) else { return };
    let shown = quantity.to_string();
    let again = Quantity::parse(&shown).expect("what is shown can be read");
    assert_eq!(again.partial_cmp(&quantity), Some(std::cmp::Ordering::Equal), "{text} {shown}");
    assert_eq!(again.to_string(), shown, "{text}");
    let sum = quantity.plus(again).minus(quantity);
    let _ = (sum.millis(), sum.units(), sum.rounded_to_millis().to_string());
}

fn expressions(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(expression) = Expression::compile(text, &Env::admission(Type::Dyn).with_authorizer().patching()) {
        let mut bindings = Bindings::new();
        bindings.set("object", patched());
        let _ = expression.evaluate(&bindings);
    }
}

/// A schema of a definition, and an object against it.
fn structural(data: &[u8]) {
    let Ok((schema, _)) = parse_json(data) else { return };
    let Ok(compiled) = CustomSchema::compile(&schema, &FieldPath::new("schema")) else { return };
    for mut object in [patched(), schema] {
        compiled.admit(&mut object);
        let _ = compiled.validate(&object, Some(&object));
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn decoders_of_documents_survive() {
        kube1_mutate::run(&super::documents());
    }

    #[test]
    fn decoders_of_texts_survive() {
        kube1_mutate::run(&super::texts());
    }
}
