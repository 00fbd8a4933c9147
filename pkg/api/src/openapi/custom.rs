//! Schemas of custom resources and their lists.

use serde_json::{Map, Value, json};

use super::Version;
use super::description::Descriptions;
use super::operation::definition_name;
use crate::resource::Resource;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// The schema of a custom resource's objects.
///
/// Where everything is kept as it is sent, version 2 says no more than that there is an object: its clients take any
/// member that is named for a sign that others are forbidden.
pub(super) fn object(row: &Resource, version: Version, words: &Descriptions) -> Value {
    let keeps_all = |schema: &Value| schema["x-kubernetes-preserve-unknown-fields"] == true;
    let mut schema = match row.schema.as_deref() {
        Some(schema) if version == Version::V3 || !keeps_all(schema) => schema.clone(),
        _ => return json!({"type": "object"}),
    };
    prepare(&mut schema, version, words);
    add_type_meta(&mut schema, "ObjectMeta", version, words);
    schema
}

/// The schema of lists of a custom resource's objects.
pub(super) fn list(row: &Resource, version: Version, words: &Descriptions) -> Value {
    let item = version.reference(&definition_name(row));
    let mut schema = json!({
        "type": "object",
        "description": format!("{} is a list of {}", row.list_kind, row.kind),
        "required": ["items"],
        "properties": {"items": {"type": "array", "items": {"$ref": item}, "description": "The objects of the list."}},
    });
    add_type_meta(&mut schema, "ListMeta", version, words);
    schema
}

fn add_type_meta(schema: &mut Value, meta: &str, version: Version, words: &Descriptions) {
    let Some(members) = schema.as_object_mut() else { return };
    let properties = members.entry("properties").or_insert_with(|| Map::new().into());
    let Some(properties) = properties.as_object_mut() else { return };
    for member in ["apiVersion", "kind"] {
        let text = words.of_member(member);
        properties.insert(member.into(), json!({"type": "string", "description": text}));
    }
    let reference = version.reference(&format!("{META}.{meta}"));
    let text = words.of_member("metadata");
    let metadata = match version {
        Version::V2 => json!({"$ref": reference, "description": text}),
        Version::V3 => json!({"allOf": [{"$ref": reference}], "description": text}),
    };
    properties.insert("metadata".into(), metadata);
}

/// Brings a schema and all below it to the words of the version.
fn prepare(schema: &mut Value, version: Version, words: &Descriptions) {
    let Some(members) = schema.as_object_mut() else { return };
    match version {
        Version::V2 => simplify(members),
        Version::V3 if is_set(members, "x-kubernetes-int-or-string") => {
            members.entry("anyOf").or_insert_with(|| json!([{"type": "integer"}, {"type": "string"}]));
        }
        Version::V3 => {}
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = members.get_mut(key) {
            prepare(inner, version, words);
        }
    }
    if let Some(properties) = members.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(|property| prepare(property, version, words));
    }
    let free = version == Version::V2 && is_set(members, "x-kubernetes-preserve-unknown-fields");
    if is_set(members, "x-kubernetes-embedded-resource") && !free {
        add_type_meta(schema, "ObjectMeta", version, words);
    }
}

fn is_set(members: &Map<String, Value>, key: &str) -> bool {
    members.get(key).is_some_and(|value| *value == true)
}

/// Takes away what version 2 has no words for, or what its clients misunderstand.
fn simplify(members: &mut Map<String, Value>) {
    for key in ["oneOf", "anyOf", "allOf", "not"] {
        members.remove(key);
    }
    let nullable = members.remove("nullable").is_some_and(|value| value == true);
    let free = is_set(members, "x-kubernetes-preserve-unknown-fields");
    if nullable || free {
        members.remove("items");
        members.remove("properties");
    }
    let kind = members.get("type").and_then(Value::as_str).unwrap_or_default();
    if nullable || (free && kind == "object") || (kind == "array" && !members.contains_key("items")) {
        members.remove("type");
    }
    let is_nullable = |schema: &Value| schema["nullable"] == true;
    if members.get("additionalProperties").is_some_and(is_nullable) {
        members.remove("required");
    }
    let nullable: Vec<String> = members
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter(|(_, property)| is_nullable(property))
        .map(|(name, _)| name.clone())
        .collect();
    if let Some(required) = members.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|name| !nullable.iter().any(|n| name == n));
        if required.is_empty() {
            members.remove("required");
        }
    }
}
