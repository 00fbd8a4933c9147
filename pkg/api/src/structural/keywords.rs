//! Keywords that no schema of custom resources has, and those that say how the parts of lists and maps are told apart. They
//! are judged in branches of `allOf` and the like too.

use serde_json::{Map, Value};

use super::invariants::{Checker, LIST_TYPE, MAP_TYPE};
use crate::field::{FieldError, FieldPath};

const LIST_KEYS: &str = "x-kubernetes-list-map-keys";
/// Keywords of JSON schemas for which structural ones have no form.
const WITHOUT_FORM: [&str; 7] =
    ["id", "$schema", "$ref", "definitions", "dependencies", "additionalItems", "patternProperties"];

/// Whether the schema has a structural form at all, be it right or wrong.
pub(crate) fn is_convertible(schema: &Value) -> bool {
    let Some(members) = schema.as_object() else { return true };
    let list = |key: &str| members.get(key).and_then(Value::as_array).into_iter().flatten();
    !WITHOUT_FORM.iter().any(|key| members.get(*key).is_some_and(|v| !is_nothing(v)))
        && !members.get("items").is_some_and(Value::is_array)
        && ["items", "additionalProperties", "not"].iter().filter_map(|key| members.get(*key)).all(is_convertible)
        && ["allOf", "anyOf", "oneOf"].into_iter().flat_map(list).all(is_convertible)
        && members.get("properties").and_then(Value::as_object).into_iter().flat_map(Map::values).all(is_convertible)
}

/// What is as good as not being there.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Object(members) => members.is_empty(),
        _ => false,
    }
}

impl Checker {
    /// What no schema of custom resources may have, structural or not.
    pub(super) fn keywords(&mut self, node: &Map<String, Value>, path: &FieldPath) {
        for key in ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"] {
            if node.get(key).is_some_and(|value| !is_nothing(value)) {
                self.forbid(path.child(key), &format!("{key} is not supported"));
            }
        }
        if node.get("type").is_some_and(|t| t == "null") {
            self.forbid(path.child("type"), "type cannot be set to null, use nullable as an alternative");
        }
        if node.get("items").is_some_and(Value::is_array) {
            self.forbid(path.child("items"), "items must be a schema object and not an array");
        }
    }

    /// The server gives these, so there is nothing to fill in.
    pub(super) fn forbid_defaults(&mut self, node: &Value, path: &FieldPath, name: &str) {
        if node.get("default").is_some_and(|default| !default.is_null()) {
            self.forbid(path.child("default"), &format!("must not be set in top-level {name}"));
        }
        for (key, child) in node["properties"].as_object().into_iter().flatten() {
            self.forbid_defaults(child, &path.child("properties").key(key), name);
        }
        for key in ["items", "additionalProperties"] {
            if let Some(child) = node.get(key).filter(|child| child.is_object()) {
                self.forbid_defaults(child, &path.child(key), name);
            }
        }
    }

    /// How the parts of lists and maps are told apart.
    pub(super) fn lists(&mut self, node: &Map<String, Value>, path: &FieldPath) {
        let text = |key: &str| node.get(key).and_then(Value::as_str).filter(|t| !t.is_empty());
        let given = text("type").unwrap_or_default();
        if let Some(list_type) = text(LIST_TYPE) {
            if !matches!(list_type, "atomic" | "set" | "map") {
                let all = ["atomic", "set", "map"];
                self.errors.push(FieldError::not_supported(&path.child(LIST_TYPE), list_type, &all));
            }
            if given != "array" {
                self.wrong_type(path, given, "must be array if x-kubernetes-list-type is specified");
            }
            let items = &node.get("items").cloned().unwrap_or_default();
            let item = path.child("items");
            match (list_type, items["type"].as_str()) {
                ("set", Some("array")) if !items[LIST_TYPE].is_null() && items[LIST_TYPE] != "atomic" => {
                    let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
                    self.invalid(item.child(LIST_TYPE), items[LIST_TYPE].clone(), detail);
                }
                ("set", Some("object")) if items[MAP_TYPE] != "atomic" => {
                    let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
                    self.invalid(item.child(MAP_TYPE), items[MAP_TYPE].clone(), detail);
                }
                ("map", found) if found != Some("object") && given == "array" => {
                    let detail = "must be object if parent array's x-kubernetes-list-type is map";
                    self.invalid(item.child("type"), found.unwrap_or_default(), detail);
                }
                _ => {}
            }
            if matches!(list_type, "set" | "map") && items["nullable"] == true {
                self.forbid(
                    item.child("nullable"),
                    &format!("cannot be nullable when x-kubernetes-list-type is {list_type}"),
                );
            }
        }
        self.list_keys(node, path);
        if let Some(map_type) = text(MAP_TYPE) {
            if !matches!(map_type, "atomic" | "granular") {
                let path = path.child(MAP_TYPE);
                self.errors.push(FieldError::not_supported(&path, map_type, &["atomic", "granular"]));
            }
            if given != "object" {
                self.wrong_type(path, given, "must be object if x-kubernetes-map-type is specified");
            }
        }
    }

    fn list_keys(&mut self, node: &Map<String, Value>, path: &FieldPath) {
        let keys = node.get(LIST_KEYS).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        match node.get(LIST_TYPE).and_then(Value::as_str) {
            _ if keys.is_empty() => {}
            Some("map") => {}
            other => {
                let (path, why) = (path.child(LIST_TYPE), "must be map if x-kubernetes-list-map-keys is non-empty");
                match other {
                    None => self.errors.push(FieldError::required(&path, why)),
                    Some(other) => self.invalid(path, other, why),
                }
                return;
            }
        }
        let items = node.get("items").cloned().unwrap_or_default();
        for (index, key) in keys.iter().filter_map(Value::as_str).enumerate().filter(|_| items["type"] == "object") {
            let (property, at) = (&items["properties"][key], path.child("items").child("properties").key(key));
            if property["type"] == "array" || property["type"] == "object" {
                let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                self.invalid(at.child("type"), "object", why);
            }
            if keys[..index].iter().any(|k| k == key) {
                self.invalid(path.child(LIST_KEYS), keys, "must not contain duplicate entries");
            }
            if property["nullable"] == true {
                let why = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
                self.forbid(at.child("nullable"), why);
            }
        }
    }
}
