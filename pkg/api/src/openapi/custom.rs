//! Schemas of custom resources and their lists.

use serde_json::{Map, Value, json};

use super::Version;
use super::operation::definition_name;
use crate::resource::Resource;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// The schema of a custom resource's objects.
pub(super) fn object(row: &Resource, version: Version) -> Value {
    let mut schema = match row.schema.as_deref() {
        Some(schema) => schema.clone(),
        None => json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
    };
    if version == Version::V2 {
        simplify(&mut schema);
    }
    add_type_meta(&mut schema, "ObjectMeta", version);
    schema
}

/// The schema of lists of a custom resource's objects.
pub(super) fn list(row: &Resource, version: Version) -> Value {
    let item = version.reference(&definition_name(row));
    let mut schema = json!({
        "type": "object",
        "description": format!("{} is a list of {}", row.list_kind, row.kind),
        "required": ["items"],
        "properties": {"items": {"type": "array", "items": {"$ref": item}, "description": "The objects of the list."}},
    });
    add_type_meta(&mut schema, "ListMeta", version);
    schema
}

fn add_type_meta(schema: &mut Value, meta: &str, version: Version) {
    let Some(members) = schema.as_object_mut() else { return };
    let properties = members.entry("properties").or_insert_with(|| Map::new().into());
    let Some(properties) = properties.as_object_mut() else { return };
    let text = |description: &str| json!({"type": "string", "description": description});
    let version_text = "The group and version of the API that this object is written in.";
    properties.entry("apiVersion").or_insert_with(|| text(version_text));
    properties.entry("kind").or_insert_with(|| text("The kind of this object."));
    let reference = version.reference(&format!("{META}.{meta}"));
    let metadata = match version {
        Version::V2 => json!({"$ref": reference, "description": "Metadata that every object or list has."}),
        Version::V3 => {
            json!({"allOf": [{"$ref": reference}], "description": "Metadata that every object or list has."})
        }
    };
    properties.insert("metadata".into(), metadata);
}

/// Takes away what version 2 has no words for. Where free members are kept, nothing can be said about their form.
fn simplify(schema: &mut Value) {
    let Some(members) = schema.as_object_mut() else { return };
    for key in ["oneOf", "anyOf", "allOf", "not", "nullable", "default", "x-kubernetes-validations"] {
        members.remove(key);
    }
    if members.get("x-kubernetes-preserve-unknown-fields").is_some_and(|v| *v == true) {
        members.retain(|key, _| key == "description" || key.starts_with("x-"));
        return;
    }
    if members.get("x-kubernetes-int-or-string").is_some_and(|v| *v == true) {
        members.remove("type");
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = members.get_mut(key) {
            simplify(inner);
        }
    }
    if let Some(properties) = members.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(simplify);
    }
}
