//! Structural schemas of custom resources: parsed once per CustomResourceDefinition version, then used to prune,
//! default and validate objects.

mod defaulting;
mod embedded;
mod format;
mod invariants;
mod keywords;
mod lists;
mod parse;
mod prune;
mod rules;
mod validate;

pub use format::unknown_formats;
pub(crate) use invariants::{check, check_defaults};
pub(crate) use keywords::is_convertible;
pub use parse::parse;
pub use rules::RuleSet;
pub(crate) use rules::lookup;

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

/// The deepest nesting that pruning, defaulting and validation follow; deeper objects are refused when decoded.
pub(crate) const DEPTH_MAX: usize = 128;

/// From here on doubles are too far apart to be integers, as upstream says.
const EXACT_INTEGERS: f64 = (1_u64 << 53) as f64;

/// `type` of a schema node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonType {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

impl JsonType {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "object" => Self::Object,
            "array" => Self::Array,
            "string" => Self::String,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            _ => return None,
        })
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }

    /// Whether a value has this type. An integral number such as `1.0` is an integer.
    fn holds(self, value: &Value) -> bool {
        match self {
            Self::Object => value.is_object(),
            Self::Array => value.is_array(),
            Self::String => value.is_string(),
            Self::Integer => {
                value.is_i64() || value.as_f64().is_some_and(|n| n.fract() == 0.0 && n.abs() < EXACT_INTEGERS)
            }
            Self::Number => value.is_number(),
            Self::Boolean => value.is_boolean(),
        }
    }
}

/// What an object may hold beside its named properties.
#[derive(Clone, Debug, Default)]
pub enum Additional {
    /// Nothing: further members are pruned.
    #[default]
    None,
    Any,
    Schema(Box<Schema>),
}

/// How items of a list are told apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    #[default]
    Atomic,
    Set,
    Map(Vec<String>),
}

/// The checks on values that JSON Schema has, of a node or of a branch of `allOf` and the like.
#[derive(Clone, Debug, Default)]
pub struct Checks {
    pub required: Vec<String>,
    pub values: Vec<Value>,
    pub minimum: Option<f64>,
    pub maximum: Option<f64>,
    pub exclusive_minimum: bool,
    pub exclusive_maximum: bool,
    pub multiple_of: Option<f64>,
    pub min_length: Option<u64>,
    pub max_length: Option<u64>,
    pub min_items: Option<u64>,
    pub max_items: Option<u64>,
    pub min_properties: Option<u64>,
    pub max_properties: Option<u64>,
    pub pattern: Option<Regex>,
    pub format: String,
    pub all_of: Vec<Schema>,
    pub any_of: Vec<Schema>,
    pub one_of: Vec<Schema>,
    pub not: Option<Box<Schema>>,
}

/// A node of a schema.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    /// None for int-or-string, preserve-unknown nodes and branches of `allOf` and the like.
    pub json_type: Option<JsonType>,
    pub nullable: bool,
    pub int_or_string: bool,
    pub preserve_unknown: bool,
    pub embedded_resource: bool,
    /// It or something below it is an embedded resource.
    pub may_embed: bool,
    /// Applied configurations may have members here that the schema does not name, be they pruned later.
    pub takes_any_member: bool,
    pub properties: BTreeMap<String, Schema>,
    pub additional: Additional,
    pub items: Option<Box<Schema>>,
    pub default: Option<Value>,
    pub checks: Checks,
    pub list_type: ListType,
    pub map_atomic: bool,
}

impl Schema {
    /// The schema of a member, if the object may have one of that name.
    pub fn member(&self, name: &str) -> Option<&Self> {
        self.properties.get(name).or(match &self.additional {
            Additional::Schema(schema) => Some(schema),
            _ => None,
        })
    }

    /// Whether a null here stands for nothing.
    fn drops_null(&self) -> bool {
        !self.nullable && self.default.is_none()
    }

    /// Whether a member without a schema is kept.
    fn keeps_unknown(&self) -> bool {
        self.preserve_unknown || matches!(self.additional, Additional::Any)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::codec::trail::Trail;
    use crate::field::FieldPath;

    fn schema() -> Schema {
        parse(
            &json!({"type": "object", "required": ["spec"], "properties": {
            "spec": {"type": "object", "required": ["name"], "properties": {
                "name": {"type": "string", "maxLength": 5, "pattern": "^[a-z]+$"},
                "replicas": {"type": "integer", "minimum": 1, "maximum": 3, "default": 2},
                "port": {"x-kubernetes-int-or-string": true},
                "kind": {"type": "string", "enum": ["a", "b"]},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "ports": {"type": "array", "maxItems": 2, "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name"],
                    "items": {"type": "object", "required": ["name"], "properties": {
                        "name": {"type": "string"}, "protocol": {"type": "string", "default": "TCP"}}}},
                "when": {"type": "string", "format": "date-time", "nullable": true},
                "either": {"type": "object", "properties": {"x": {"type": "string"}, "y": {"type": "string"}},
                    "oneOf": [{"required": ["x"]}, {"required": ["y"]}]}
            }}}}),
            &FieldPath::new("schema"),
        )
        .unwrap()
    }

    fn errors(spec: Value) -> Vec<String> {
        let object = json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "n"}, "spec": spec});
        schema().validate(&object).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn unknown_members_are_pruned_and_named_unless_they_are_kept() {
        let mut object = json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "n", "annotations": {"a": "b"}},
            "extra": 1, "spec": {"name": "a", "free": {"x": {"y": 1}}, "labels": {"k": "v"}, "z": 1,
            "ports": [{"name": "a", "q": 1}]}});
        let mut trail = Trail::default();
        schema().prune(&mut object, &mut trail);
        let pruned = trail.found();
        assert_eq!(pruned, ["extra", "spec.ports[0].q", "spec.z"]);
        assert_eq!(object["spec"]["free"]["x"]["y"], 1);
        assert_eq!(object["metadata"]["annotations"]["a"], "b");
    }

    #[test]
    fn defaults_fill_what_is_missing() {
        let mut object = json!({"spec": {"name": "a", "ports": [{"name": "x"}], "replicas": null}});
        schema().apply_defaults(&mut object);
        assert_eq!(object, json!({"spec": {"name": "a", "ports": [{"name": "x", "protocol": "TCP"}], "replicas": 2}}));
    }

    #[test]
    fn values_are_checked_with_their_paths() {
        assert_eq!(errors(json!({"name": "ok", "port": "http", "when": null, "either": {"x": "1"}})), [""; 0]);
        let cases = [
            (json!({}), "spec.name: Required value"),
            (json!({"name": "toolong"}), "spec.name: Too long: may not be more than 5 bytes"),
            (json!({"name": "A"}), "spec.name: Invalid value: \"A\": spec.name in body should match '^[a-z]+$'"),
            (
                json!({"name": "a", "replicas": 4}),
                "spec.replicas: Invalid value: 4: spec.replicas in body should be less than or equal to 3",
            ),
            (
                json!({"name": "a", "replicas": "x"}),
                "spec.replicas: Invalid value: \"string\": spec.replicas in body must be of type integer: \"string\"",
            ),
            (json!({"name": "a", "kind": "c"}), "spec.kind: Unsupported value: \"c\": supported values: \"a\", \"b\""),
            (
                json!({"name": "a", "when": "soon"}),
                "spec.when: Invalid value: \"soon\": spec.when in body must be of type date-time: \"soon\"",
            ),
        ];
        for (spec, expected) in cases {
            assert_eq!(errors(spec.clone()), [expected], "{spec}");
        }
        assert!(
            errors(json!({"name": "a", "either": {}}))[0].contains("must validate one and only one schema (oneOf)")
        );
    }

    #[test]
    fn types_with_a_format_are_told_by_it() {
        let text = |format: &str| json!({"type": "string", "format": format});
        let integer = json!({"type": "integer", "format": "int64", "maximum": 5});
        for (schema, value, expected) in [
            (
                integer.clone(),
                json!(1u64 << 63),
                &["x in body must be of type int64: \"float64\"", "int64 in x", "equal to 5"][..],
            ),
            (integer.clone(), json!(true), &["x in body must be of type int64: \"\""]),
            (integer, json!("1"), &["x in body must be of type integer: \"string\""]),
            (text("date"), json!(1), &["x in body must be of type date: \"int64\""]),
            (text("date"), json!([1]), &[]),
            (text(""), json!([1]), &["x in body must be of type string: \"array\""]),
            (
                json!({"type": "object", "properties": {"a": {"type": "integer"}}, "allOf": [{"required": ["b"]}, {"required": ["c"]}],
                    "anyOf": [{"required": ["d"]}]}),
                json!({"a": "1"}),
                &[
                    "(anyOf)",
                    "x.d: Required",
                    "x.b: Required",
                    "x.c: Required",
                    "(allOf). None validated",
                    "x.a in body must be",
                ],
            ),
        ] {
            let schema = json!({"type": "object", "properties": {"x": schema}});
            let found = parse(&schema, &FieldPath::new("schema")).unwrap().validate(&json!({"x": value}));
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            let same = found.len() == expected.len() && found.iter().zip(expected).all(|(f, e)| f.contains(e));
            assert!(same, "{value}: {found:?}");
        }
    }

    #[test]
    fn an_item_that_comes_often_is_told_once() {
        let object = json!({"spec": {"ports": [{"name": "x"}, {"name": "y"}, {"name": "x"}, {"name": "x"}]}});
        let found: Vec<String> = schema().duplicates(&object).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["spec.ports[2]: Duplicate value: {\"name\":\"x\"}"]);
    }

    #[test]
    fn a_null_that_means_nothing_goes() {
        let mut object = json!({"spec": {"name": null, "replicas": null, "when": null, "labels": {"a": null}}});
        let mut trail = Trail::default();
        schema().prune(&mut object, &mut trail);
        schema().apply_defaults(&mut object);
        assert_eq!(object, json!({"spec": {"replicas": 2, "when": null, "labels": {}}}));
        assert_eq!(trail.found(), [""; 0]);
    }

    #[test]
    fn schemas_that_are_not_structural_are_refused() {
        let cases = [
            (json!({"type": "array"}), "schema.type"),
            (json!({"type": "object", "properties": {"a": {}}}), "schema.properties[a].type"),
            (json!({"type": "object", "properties": {"a": {"type": "array"}}}), "schema.properties[a].items"),
            (json!({"type": "object", "$ref": "#/x"}), "schema.$ref"),
            (
                json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}}),
                "schema.properties[a].pattern",
            ),
            (
                json!({"type": "object", "additionalProperties": {"type": "string"}, "properties": {"a": {"type": "string"}}}),
                "schema.additionalProperties",
            ),
        ];
        for (value, field) in cases {
            let errors = parse(&value, &FieldPath::new("schema")).unwrap_err();
            assert!(errors.iter().any(|e| e.field == field), "{value}: {errors:?}");
        }
    }
}
