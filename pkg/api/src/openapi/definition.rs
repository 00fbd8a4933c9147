//! Schemas of the built-in types.

use serde_json::{Map, Value, json};

use super::Version;
use super::description::Descriptions;
use crate::schema::{self, Field, Type};

/// Makes schemas of types in one version of OpenAPI.
pub(super) struct Definitions {
    pub version: Version,
    pub descriptions: Descriptions,
}

const VERSION_INFO: &str = "io.k8s.apimachinery.pkg.version.Info";

impl Definitions {
    /// The schema of a type, without its kinds.
    pub(super) fn schema(&self, name: &str) -> Value {
        let description = self.descriptions.of_type(name);
        let mut schema = match schema::find(name) {
            _ if name == VERSION_INFO => version_info(),
            Some(ty) if ty.encoding().is_empty() => self.object(ty),
            Some(ty) => self.leaf(ty),
            None => Map::new(),
        };
        if !description.is_empty() {
            schema.insert("description".into(), description.into());
        }
        schema.into()
    }

    fn object(&self, ty: &'static Type) -> Map<String, Value> {
        let mut properties = Map::new();
        if ty.type_meta {
            for member in ["apiVersion", "kind"] {
                let text = self.descriptions.of_field(ty.name, member);
                properties.insert(member.into(), json!({"type": "string", "description": text}));
            }
        }
        let fields = || ty.fields.iter().filter(|f| !f.inline);
        for field in fields() {
            properties.insert(field.name.into(), self.property(ty, field));
        }
        let mut required: Vec<&str> = fields().filter(|f| f.required).map(|f| f.name).collect();
        required.sort_unstable();
        let mut schema = Map::new();
        schema.insert("type".into(), "object".into());
        if !properties.is_empty() {
            schema.insert("properties".into(), properties.into());
        }
        if !required.is_empty() {
            schema.insert("required".into(), required.into());
        }
        if !ty.map_type.is_empty() {
            schema.insert("x-kubernetes-map-type".into(), ty.map_type.into());
        }
        schema
    }

    fn property(&self, ty: &'static Type, field: &'static Field) -> Value {
        let element = self.element(field);
        let mut property = if field.repeated {
            object([("type", "array".into()), ("items", self.enumerated(element, &field.item_values).into())])
        } else if field.is_map() {
            object([("type", "object".into()), ("additionalProperties", element.into())])
        } else {
            self.enumerated(element, &field.values)
        };
        let description = self.descriptions.of_field(ty.name, field.name);
        let default = field.default.as_ref().filter(|_| self.version == Version::V3);
        if self.version == Version::V3
            && (!description.is_empty() || default.is_some())
            && let Some(reference) = property.remove("$ref")
        {
            // Beside a reference nothing else is allowed: it becomes the only part of a conjunction.
            property.insert("allOf".into(), json!([{"$ref": reference}]));
        }
        if !description.is_empty() {
            property.insert("description".into(), description.into());
        }
        if let Some(default) = default {
            property.insert("default".into(), default.clone());
        }
        extensions(&mut property, field);
        property.into()
    }

    fn enumerated(&self, mut schema: Map<String, Value>, values: &[&str]) -> Map<String, Value> {
        if self.version == Version::V3 && !values.is_empty() {
            schema.insert("enum".into(), values.into());
        }
        schema
    }

    /// The schema of the field's value, list item or map value.
    fn element(&self, field: &'static Field) -> Map<String, Value> {
        let typed = |kind: &str, format: &str| {
            let mut schema = object([("type", kind.into())]);
            if !format.is_empty() {
                schema.insert("format".into(), format.into());
            }
            schema
        };
        match field.proto {
            "string" => typed("string", ""),
            "bool" => typed("boolean", ""),
            "int32" | "int64" => typed("integer", field.proto),
            "double" => typed("number", "double"),
            "bytes" => typed("string", "byte"),
            _ => match field.target() {
                Some(ty) if ty.encoding() == "list" => {
                    object([("type", "array".into()), ("items", json!({"type": "string"}))])
                }
                Some(ty) if ty.encoding() == "duration" => typed("string", ""),
                _ => object([("$ref", self.version.reference(field.reference).into())]),
            },
        }
    }

    /// Types that are no JSON objects.
    fn leaf(&self, ty: &'static Type) -> Map<String, Value> {
        let v3 = self.version == Version::V3;
        match ty.encoding() {
            "time" | "microtime" => object([("type", "string".into()), ("format", "date-time".into())]),
            "quantity" if v3 => object([("oneOf", json!([{"type": "string"}, {"type": "number"}]))]),
            "quantity" | "duration" => object([("type", "string".into())]),
            "intorstring" if v3 => object([
                ("format", "int-or-string".into()),
                ("oneOf", json!([{"type": "integer"}, {"type": "string"}])),
            ]),
            "intorstring" => object([("type", "string".into()), ("format", "int-or-string".into())]),
            "list" => object([("type", "array".into()), ("items", json!({"type": "string"}))]),
            "rawjson" if ty.name.ends_with(".JSON") => Map::new(),
            "rawjson" | "rawextension" | "patch" => object([("type", "object".into())]),
            _ => Map::new(),
        }
    }
}

fn object<const N: usize>(members: [(&str, Value); N]) -> Map<String, Value> {
    members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// How lists and maps merge.
fn extensions(property: &mut Map<String, Value>, field: &Field) {
    let texts = [
        ("x-kubernetes-list-type", field.list_type),
        ("x-kubernetes-map-type", field.map_type),
        ("x-kubernetes-patch-strategy", field.patch_strategy()),
        ("x-kubernetes-patch-merge-key", field.patch_merge_key),
    ];
    for (key, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
        property.insert(key.into(), text.into());
    }
    if !field.list_map_keys.is_empty() {
        property.insert("x-kubernetes-list-map-keys".into(), field.list_map_keys.clone().into());
    }
}

/// The answer of `/version`, the only type without a row in the field table.
fn version_info() -> Map<String, Value> {
    const REQUIRED: [&str; 9] =
        ["buildDate", "compiler", "gitCommit", "gitTreeState", "gitVersion", "goVersion", "major", "minor", "platform"];
    const OPTIONAL: [&str; 4] = ["emulationMajor", "emulationMinor", "minCompatibilityMajor", "minCompatibilityMinor"];
    let all = REQUIRED.iter().chain(&OPTIONAL);
    let properties: Map<String, Value> = all.map(|name| ((*name).to_owned(), json!({"type": "string"}))).collect();
    object([("type", "object".into()), ("properties", properties.into()), ("required", json!(REQUIRED))])
}

/// Names of the definitions that a type's fields refer to.
pub(super) fn references(name: &str) -> Vec<&'static str> {
    let Some(ty) = schema::find(name).filter(|ty| ty.encoding().is_empty()) else { return Vec::new() };
    let fields = ty.fields.iter().filter(|f| !f.inline && f.proto == "message");
    fields
        .filter(|f| f.target().is_some_and(|ty| !matches!(ty.encoding(), "list" | "duration")))
        .map(|f| f.reference)
        .collect()
}
