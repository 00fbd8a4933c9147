//! From the JSON of `openAPIV3Schema` to a [`Schema`], with the rules that make it structural.

use regex::Regex;
use serde_json::{Map, Value};

use super::{Additional, Checks, DEPTH_MAX, JsonType, ListType, Schema};
use crate::field::{FieldError, FieldPath};

/// Keywords that a structural schema may not have.
const FORBIDDEN: [&str; 11] = [
    "$ref",
    "definitions",
    "dependencies",
    "patternProperties",
    "additionalItems",
    "deprecated",
    "discriminator",
    "id",
    "readOnly",
    "writeOnly",
    "xml",
];

/// Keywords that branches of `allOf` and the like may not have: they would change what a value means, not check it.
const FORBIDDEN_IN_BRANCH: [&str; 5] = ["description", "default", "additionalProperties", "nullable", "title"];

/// Parses the schema of a version.
///
/// # Errors
/// Everything that makes it not structural, with paths below `path`.
pub fn parse(value: &Value, path: &FieldPath) -> Result<Schema, Vec<FieldError>> {
    let mut parser = Parser { errors: Vec::new() };
    let mut schema = parser.node(value, path, 0, Place::Root);
    schema.note_embedding();
    schema.note_openness(false);
    schema.takes_any_member &= schema.preserve_unknown;
    if parser.errors.is_empty() { Ok(schema) } else { Err(parser.errors) }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Node,
    Branch,
}

struct Parser {
    errors: Vec<FieldError>,
}

impl Parser {
    fn node(&mut self, value: &Value, path: &FieldPath, depth: usize, place: Place) -> Schema {
        let Some(map) = value.as_object() else {
            self.errors.push(FieldError::invalid(path, value.clone(), "must be a schema"));
            return Schema::default();
        };
        if depth > DEPTH_MAX {
            self.errors.push(FieldError::forbidden(path, "the schema is nested too deeply"));
            return Schema::default();
        }
        self.forbid(map, path, place);
        let flag = |name: &str| map.get(name).and_then(Value::as_bool).unwrap_or(false);
        let mut schema = Schema {
            json_type: self.json_type(map, path, place),
            nullable: flag("nullable"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            embedded_resource: flag("x-kubernetes-embedded-resource"),
            default: map.get("default").cloned(),
            checks: self.checks(map, path, depth),
            list_type: list_type(map),
            map_atomic: map.get("x-kubernetes-map-type").and_then(Value::as_str) == Some("atomic"),
            ..Schema::default()
        };
        let inner = if place == Place::Branch { Place::Branch } else { Place::Node };
        for (name, child) in map.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let child = self.node(child, &path.child("properties").key(name), depth + 1, inner);
            schema.properties.insert(name.clone(), child);
        }
        if let Some(items) = map.get("items") {
            schema.items = Some(Box::new(self.node(items, &path.child("items"), depth + 1, inner)));
        } else if schema.json_type == Some(JsonType::Array) && place != Place::Branch {
            self.errors.push(FieldError::required(&path.child("items"), "must be specified"));
        }
        schema.additional = self.additional(map, path, depth, inner);
        self.list_keys(&schema, path);
        schema
    }

    fn forbid(&mut self, map: &Map<String, Value>, path: &FieldPath, place: Place) {
        let branch: &[&str] = if place == Place::Branch { &FORBIDDEN_IN_BRANCH } else { &[] };
        for name in FORBIDDEN.iter().chain(branch) {
            let present = map.get(*name).is_some_and(|v| !v.is_null() && v != &Value::Bool(false) && v != "");
            if present {
                let detail = match *name {
                    "default" | "additionalProperties" => "must be undefined to be structural".to_owned(),
                    "nullable" => "must be false to be structural".to_owned(),
                    "description" | "title" => "must be empty to be structural".to_owned(),
                    _ => format!("{name} is not supported"),
                };
                self.errors.push(FieldError::forbidden(&path.child(name), detail));
            }
        }
        if map.get("uniqueItems") == Some(&Value::Bool(true)) {
            let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            self.errors.push(FieldError::forbidden(&path.child("uniqueItems"), detail));
        }
    }

    fn json_type(&mut self, map: &Map<String, Value>, path: &FieldPath, place: Place) -> Option<JsonType> {
        let free = ["x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields"]
            .iter()
            .any(|name| map.get(*name) == Some(&Value::Bool(true)));
        let path = path.child("type");
        match map.get("type").and_then(Value::as_str).filter(|t| !t.is_empty()) {
            None if place == Place::Root => {
                self.errors.push(FieldError::required(&path, "must not be empty at the root"));
                None
            }
            None if free || place == Place::Branch => None,
            None => {
                self.errors.push(FieldError::required(&path, "must not be empty for specified object fields"));
                None
            }
            Some(text) => {
                let parsed = JsonType::parse(text);
                if place == Place::Root && parsed != Some(JsonType::Object) {
                    self.errors.push(FieldError::invalid(&path, text, "must be object at the root"));
                } else if parsed.is_none() {
                    let all = ["array", "boolean", "integer", "number", "object", "string"];
                    self.errors.push(FieldError::not_supported(&path, text, &all));
                }
                parsed
            }
        }
    }

    fn additional(&mut self, map: &Map<String, Value>, path: &FieldPath, depth: usize, inner: Place) -> Additional {
        let path = path.child("additionalProperties");
        let named = map.get("properties").and_then(Value::as_object).is_some_and(|p| !p.is_empty());
        match map.get("additionalProperties") {
            None | Some(Value::Null) => Additional::None,
            Some(_) if named => {
                self.errors
                    .push(FieldError::forbidden(&path, "additionalProperties and properties are mutual exclusive"));
                Additional::None
            }
            Some(Value::Bool(false)) => Additional::None,
            Some(Value::Bool(true)) => Additional::Any,
            Some(schema) => Additional::Schema(Box::new(self.node(schema, &path, depth + 1, inner))),
        }
    }

    fn list_keys(&mut self, schema: &Schema, path: &FieldPath) {
        let ListType::Map(keys) = &schema.list_type else { return };
        let keys_path = path.child("x-kubernetes-list-map-keys");
        if keys.is_empty() {
            let detail = "must not be empty if x-kubernetes-list-type is map";
            self.errors.push(FieldError::required(&keys_path, detail));
        }
        let Some(items) = schema.items.as_ref().filter(|items| items.json_type == Some(JsonType::Object)) else {
            return;
        };
        for key in keys {
            match items.properties.get(key) {
                None => {
                    let detail = "entries must all be names of item properties";
                    self.errors.push(FieldError::invalid(&keys_path, keys.clone(), detail));
                }
                Some(property) if property.default.is_none() && !items.checks.required.contains(key) => {
                    let path = path.child("items").child("properties").key(key).child("default");
                    let detail = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
                    self.errors.push(FieldError::required(&path, detail));
                }
                Some(_) => {}
            }
        }
    }

    fn checks(&mut self, map: &Map<String, Value>, path: &FieldPath, depth: usize) -> Checks {
        let number = |name: &str| map.get(name).and_then(Value::as_f64);
        let count = |name: &str| map.get(name).and_then(Value::as_u64);
        let flag = |name: &str| map.get(name).and_then(Value::as_bool).unwrap_or(false);
        let pattern = map.get("pattern").and_then(Value::as_str).filter(|p| !p.is_empty());
        let pattern = pattern.and_then(|text| match Regex::new(text) {
            Ok(regex) => Some(regex),
            Err(error) => {
                let detail = format!("must be a valid regular expression, but isn't: {error}");
                self.errors.push(FieldError::invalid(&path.child("pattern"), text, detail));
                None
            }
        });
        Checks {
            required: strings(map.get("required")),
            values: map.get("enum").and_then(Value::as_array).cloned().unwrap_or_default(),
            minimum: number("minimum"),
            maximum: number("maximum"),
            exclusive_minimum: flag("exclusiveMinimum"),
            exclusive_maximum: flag("exclusiveMaximum"),
            multiple_of: number("multipleOf").filter(|n| *n != 0.0),
            min_length: count("minLength"),
            max_length: count("maxLength"),
            min_items: count("minItems"),
            max_items: count("maxItems"),
            min_properties: count("minProperties"),
            max_properties: count("maxProperties"),
            pattern,
            format: map.get("format").and_then(Value::as_str).unwrap_or_default().to_owned(),
            all_of: self.branches(map, "allOf", path, depth),
            any_of: self.branches(map, "anyOf", path, depth),
            one_of: self.branches(map, "oneOf", path, depth),
            not: map.get("not").map(|branch| Box::new(self.node(branch, &path.child("not"), depth + 1, Place::Branch))),
        }
    }

    fn branches(&mut self, map: &Map<String, Value>, name: &str, path: &FieldPath, depth: usize) -> Vec<Schema> {
        let branches = map.get(name).and_then(Value::as_array).into_iter().flatten().enumerate();
        branches
            .map(|(index, branch)| self.node(branch, &path.child(name).index(index), depth + 1, Place::Branch))
            .collect()
    }
}

fn strings(value: Option<&Value>) -> Vec<String> {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn list_type(map: &Map<String, Value>) -> ListType {
    match map.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("set") => ListType::Set,
        Some("map") => ListType::Map(strings(map.get("x-kubernetes-list-map-keys"))),
        _ => ListType::Atomic,
    }
}
