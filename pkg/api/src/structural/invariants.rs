//! What the schema of a new or changed definition must hold beyond being structural. What was stored before these were
//! checked is still served.

use serde_json::{Map, Value};

use super::{Additional, Schema};
use crate::codec::trail::Trail;
use crate::field::{FieldError, FieldErrorKind, FieldPath};

pub(super) const LIST_TYPE: &str = "x-kubernetes-list-type";
pub(super) const MAP_TYPE: &str = "x-kubernetes-map-type";
const EMBEDDED: &str = "x-kubernetes-embedded-resource";
const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";
const INT_OR_STRING: &str = "x-kubernetes-int-or-string";
const RULES: &str = "x-kubernetes-validations";

/// Keywords that branches of `allOf` and the like may not have, and what they must be there.
const NOT_IN_BRANCHES: [(&str, &str); 6] = [
    ("type", "must be empty to be structural"),
    (PRESERVE, "must be false to be structural"),
    (EMBEDDED, "must be false to be structural"),
    (INT_OR_STRING, "must be false to be structural"),
    (LIST_TYPE, "must be undefined to be structural"),
    (MAP_TYPE, "must be undefined to be structural"),
];

/// What is wrong with the schema of a version at `path`.
pub(crate) fn check(schema: &Value, path: &FieldPath) -> Vec<FieldError> {
    let mut checker = Checker { errors: Vec::new() };
    if let Some(members) = schema.as_object() {
        if members.get("nullable") == Some(&Value::Bool(true)) {
            checker.forbid(path.child("nullable"), "nullable cannot be true at the root");
        }
        if members.get("additionalProperties").is_some_and(|a| !a.is_null()) {
            let path = path.child("additionalProperties");
            checker.errors.push(FieldError::forbidden(&path, "must not be used at the root"));
        }
        checker.node(members, path, true);
    }
    checker.errors
}

/// Defaults that their own schema would refuse or prune.
pub(crate) fn check_defaults(schema: &Schema, path: &FieldPath) -> Vec<FieldError> {
    let mut errors = Vec::new();
    defaults(schema, path, &mut errors);
    errors
}

pub(super) struct Checker {
    pub(super) errors: Vec<FieldError>,
}

impl Checker {
    pub(super) fn forbid(&mut self, path: FieldPath, detail: &str) {
        self.errors.push(FieldError::forbidden(&path, detail));
    }

    pub(super) fn invalid(&mut self, path: FieldPath, value: impl Into<Value>, detail: &str) {
        self.errors.push(FieldError::invalid(&path, value, detail));
    }

    fn node(&mut self, node: &Map<String, Value>, path: &FieldPath, root: bool) {
        self.keywords(node, path);
        self.extensions(node, path);
        self.lists(node, path);
        for key in ["anyOf", "oneOf", "allOf"] {
            for (index, branch) in node.get(key).and_then(Value::as_array).into_iter().flatten().enumerate() {
                if !is_pattern(key, index, node) {
                    self.branch(branch, &path.child(key).index(index));
                }
            }
        }
        if let Some(branch) = node.get("not") {
            self.branch(branch, &path.child("not"));
        }
        let properties = node.get("properties").and_then(Value::as_object);
        if root {
            for name in ["apiVersion", "kind", "metadata"] {
                if let Some(child) = properties.and_then(|p| p.get(name)) {
                    self.forbid_defaults(child, &path.child("properties").key(name), name);
                }
            }
        }
        if root || node.get(EMBEDDED) == Some(&Value::Bool(true)) {
            self.metadata(properties, path, root);
        }
        for (name, child) in properties.into_iter().flatten() {
            self.child(child, &path.child("properties").key(name));
        }
        for key in ["items", "additionalProperties"] {
            if let Some(child) = node.get(key) {
                self.child(child, &path.child(key));
            }
        }
    }

    fn child(&mut self, child: &Value, path: &FieldPath) {
        if let Some(members) = child.as_object() {
            self.node(members, path, false);
        }
    }

    pub(super) fn wrong_type(&mut self, path: &FieldPath, given: &str, detail: &str) {
        match given {
            "" => self.errors.push(FieldError::required(&path.child("type"), detail)),
            _ => self.invalid(path.child("type"), given, detail),
        }
    }

    fn extensions(&mut self, node: &Map<String, Value>, path: &FieldPath) {
        let text = |key: &str| node.get(key).and_then(Value::as_str).filter(|t| !t.is_empty());
        let has = |key: &str| node.get(key) == Some(&Value::Bool(true));
        let given = text("type").unwrap_or_default();
        if node.get(PRESERVE) == Some(&Value::Bool(false)) {
            self.invalid(path.child(PRESERVE), false, "must be true or undefined");
        }
        if has(EMBEDDED) {
            let named = node.get("properties").and_then(Value::as_object).is_some_and(|p| !p.is_empty());
            if !has(PRESERVE) && !named {
                let detail = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
                self.errors.push(FieldError::required(&path.child("properties"), detail));
            }
            if node.get("additionalProperties").is_some_and(|a| !a.is_null()) {
                let detail = "must not be used if x-kubernetes-embedded-resource is set";
                self.forbid(path.child("additionalProperties"), detail);
            }
            if given != "object" {
                self.wrong_type(path, given, "must be object if x-kubernetes-embedded-resource is true");
            }
        }
        if has(INT_OR_STRING) {
            for key in [PRESERVE, EMBEDDED] {
                if has(key) {
                    self.invalid(path.child(key), true, "must be false if x-kubernetes-int-or-string is true");
                }
            }
        }
    }

    fn branch(&mut self, branch: &Value, path: &FieldPath) {
        let Some(members) = branch.as_object() else { return };
        self.keywords(members, path);
        self.lists(members, path);
        for (key, detail) in NOT_IN_BRANCHES {
            if members.get(key).is_some_and(|v| !v.is_null() && v != &Value::Bool(false) && v != "") {
                self.forbid(path.child(key), detail);
            }
        }
        if members.get(RULES).and_then(Value::as_array).is_some_and(|rules| !rules.is_empty()) {
            self.forbid(path.child(RULES), "must be empty to be structural");
        }
        for key in ["anyOf", "oneOf", "allOf"] {
            for (index, inner) in members.get(key).and_then(Value::as_array).into_iter().flatten().enumerate() {
                self.branch(inner, &path.child(key).index(index));
            }
        }
        for key in ["not", "items"] {
            if let Some(inner) = members.get(key) {
                self.branch(inner, &path.child(key));
            }
        }
        for (name, inner) in members.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let path = path.child("properties").key(name);
            if name == "metadata" {
                self.forbid(path.clone(), "must not be specified in a nested context");
            }
            self.branch(inner, &path);
        }
    }

    /// Kind and metadata are the server's: a schema may only narrow names.
    fn metadata(&mut self, properties: Option<&Map<String, Value>>, path: &FieldPath, root: bool) {
        let Some(properties) = properties else { return };
        for name in ["kind", "apiVersion"] {
            if let Some(found) = properties.get(name).map(|p| p["type"].as_str().unwrap_or_default())
                && found != "string"
            {
                self.invalid(path.child("properties").key(name).child("type"), found, "must be string");
            }
        }
        let Some(metadata) = properties.get("metadata").and_then(Value::as_object) else { return };
        let path = path.child("properties").key("metadata");
        let found = metadata.get("type").and_then(Value::as_str).unwrap_or_default();
        if found != "object" {
            self.invalid(path.child("type"), found, "must be object");
        }
        if !root {
            return;
        }
        let narrows_names = |properties: &Value| {
            let mut names = properties.as_object().into_iter().flat_map(Map::keys);
            names.all(|name| matches!(name.as_str(), "name" | "generateName"))
        };
        let plain = metadata.iter().all(|(key, value)| match key.as_str() {
            "type" | "default" => true,
            "properties" => narrows_names(value),
            _ => value.is_null() || value == &Value::Bool(false) || value == "",
        });
        if !plain {
            let detail =
                "must not specify anything other than name and generateName, but metadata is implicitly specified";
            self.forbid(path, detail);
        }
    }
}

/// The branches that clients write beside `x-kubernetes-int-or-string`.
fn is_pattern(key: &str, index: usize, node: &Map<String, Value>) -> bool {
    let both = serde_json::json!([{"type": "integer"}, {"type": "string"}]);
    match key {
        "anyOf" => node.get("anyOf") == Some(&both),
        "allOf" => index == 0 && node.get("allOf").is_some_and(|branches| branches[0]["anyOf"] == both),
        _ => false,
    }
}

fn defaults(schema: &Schema, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if let Some(default) = schema.default.as_ref().filter(|d| !d.is_null()) {
        let place = path.child("default");
        let mut pruned = default.clone();
        schema.prune_part(&mut pruned, &mut Trail::default());
        if pruned != *default {
            errors.push(FieldError::invalid(&place, default.clone(), "must not have unknown fields"));
        }
        let before = errors.len();
        schema.check_embedded(default, &place, errors);
        let embedded = errors.len() > before;
        for mut error in schema.errors_of(default).into_iter().filter(|_| !embedded) {
            let within = if error.field.is_empty() || error.kind == FieldErrorKind::Invalid && error.field == "<nil>" {
                String::new()
            } else {
                format!(".{}", error.field)
            };
            error.field = format!("{place}{within}");
            errors.push(error);
        }
    }
    for (name, child) in &schema.properties {
        defaults(child, &path.child("properties").key(name), errors);
    }
    if let Some(items) = &schema.items {
        defaults(items, &path.child("items"), errors);
    }
    if let Additional::Schema(child) = &schema.additional {
        defaults(child, &path.child("additionalProperties"), errors);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::structural::parse;

    #[test]
    fn schemas_are_told_what_they_may_not_say() {
        let a = |schema: Value| json!({"type": "object", "properties": {"a": schema}});
        for (schema, expected) in [
            (
                a(json!({"type": "array", LIST_TYPE: "foo"})),
                "s.properties[a].x-kubernetes-list-type: Unsupported value",
            ),
            (
                a(json!({"type": "string", LIST_TYPE: "set"})),
                "s.properties[a].type: Invalid value: \"string\": must be array",
            ),
            (
                a(json!({"type": "array", LIST_TYPE: "set", "items": {"type": "object"}})),
                "s.properties[a].items.x-kubernetes-map-type: Invalid value: null: must be atomic",
            ),
            (
                a(json!({"type": "string", MAP_TYPE: "atomic"})),
                "s.properties[a].type: Invalid value: \"string\": must be object",
            ),
            (a(json!({"type": "object", EMBEDDED: true})), "s.properties[a].properties: Required value"),
            (a(json!({"type": "object", PRESERVE: false})), "must be true or undefined"),
            (a(json!({"type": "string", "anyOf": [{"type": "string"}]})), "s.properties[a].anyOf[0].type: Forbidden"),
            (json!({"type": "object", "additionalProperties": {"type": "string"}}), "must not be used at the root"),
            (
                json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {}}}}}),
                "must not specify anything other than name",
            ),
            (
                json!({"type": "object", "properties": {"kind": {"type": "integer"}}}),
                "s.properties[kind].type: Invalid value",
            ),
        ] {
            let found: Vec<String> = check(&schema, &FieldPath::new("s")).iter().map(ToString::to_string).collect();
            assert!(found.len() == 1 && found[0].contains(expected), "{schema}: {found:?}");
        }
        for fine in [
            a(json!({INT_OR_STRING: true, "anyOf": [{"type": "integer"}, {"type": "string"}], "pattern": "x"})),
            json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"name": {"type": "string"}}}}}),
        ] {
            assert_eq!(check(&fine, &FieldPath::new("s")), [], "{fine}");
        }
    }

    #[test]
    fn defaults_fit_their_schema() {
        let path = FieldPath::new("s");
        for (schema, expected) in [
            (
                json!({"type": "string", "default": 1}),
                Some(
                    "s.properties[a].default: Invalid value: \"integer\":  in body must be of type string: \"integer\"",
                ),
            ),
            (
                json!({"type": "object", "default": {"c": 1}, "properties": {"b": {"type": "string"}}}),
                Some("s.properties[a].default: Invalid value: {\"c\":1}: must not have unknown fields"),
            ),
            (
                json!({"type": "string", "pattern": "^a$", "default": "b"}),
                Some("s.properties[a].default: Invalid value: \"b\":  in body should match '^a$'"),
            ),
            (json!({"type": "string", "pattern": "^a$", "default": "a"}), None),
        ] {
            let schema = parse(&json!({"type": "object", "properties": {"a": schema}}), &path).unwrap();
            let found: Vec<String> = check_defaults(&schema, &path).iter().map(ToString::to_string).collect();
            assert_eq!(found.first().map(String::as_str), expected);
        }
    }
}
