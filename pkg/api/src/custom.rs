//! What a custom resource's objects are checked against.

use serde_json::Value;

use crate::codec::trail::Trail;
use crate::field::{FieldError, FieldErrorKind, FieldPath};
use crate::structural::{RuleSet, Schema, lookup, parse};

/// What is known of the review of an API of the Kubernetes project, by an annotation of its definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Approval {
    /// The group is not the project's.
    NotNeeded,
    /// Where the API was approved.
    Given(String),
    /// Why it need not be.
    Bypassed(String),
    Missing,
    Invalid(String),
}

impl Approval {
    pub const ANNOTATION: &'static str = "api-approved.kubernetes.io";

    pub fn of(definition: &Value) -> Self {
        let group = definition["spec"]["group"].as_str().unwrap_or_default();
        let within =
            |domain: &str| group.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        let text = definition["metadata"]["annotations"][Self::ANNOTATION].as_str().unwrap_or_default();
        match text {
            _ if !within("k8s.io") && !within("kubernetes.io") => Self::NotNeeded,
            "" => Self::Missing,
            _ if text.starts_with("unapproved") => Self::Bypassed(text.to_owned()),
            _ => match text.split_once("://") {
                Some((scheme, rest)) if !scheme.is_empty() && !rest.is_empty() => Self::Given(text.to_owned()),
                _ => Self::Invalid(text.to_owned()),
            },
        }
    }

    /// For the condition, or for whoever writes the definition.
    pub fn message(&self) -> String {
        let must = |how: &str| {
            let annotation = Self::ANNOTATION;
            format!(
                "protected groups must have approval annotation \"{annotation}\"{how}, \
                 see https://github.com/kubernetes/enhancements/pull/1111"
            )
        };
        match self {
            Self::NotNeeded => String::new(),
            Self::Given(text) => format!("approved in {text}"),
            Self::Bypassed(text) => format!("not approved: {text:?}"),
            Self::Missing => must(""),
            Self::Invalid(_) => must(" with either a URL or a reason starting with \"unapproved\""),
        }
    }
}

/// The schema of one version of a custom resource, ready for use.
#[derive(Debug)]
pub struct CustomSchema {
    schema: Schema,
    rules: Option<RuleSet>,
}

impl CustomSchema {
    /// Compiles `openAPIV3Schema`.
    ///
    /// # Errors
    /// What makes it not structural, and rules that do not compile.
    pub fn compile(schema: &Value, path: &FieldPath) -> Result<Self, Vec<FieldError>> {
        let rules = RuleSet::compile(schema, path)?;
        Ok(Self { schema: parse(schema, path)?, rules })
    }

    /// Defaults that the rules of their own part of `schema` refuse.
    pub(crate) fn default_errors(&self, schema: &Value, path: &FieldPath) -> Vec<FieldError> {
        self.rules.as_ref().map(|rules| rules.default_errors(schema, path)).unwrap_or_default()
    }

    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Drops what the schema does not know and sets defaults; gives the paths of what was dropped.
    pub fn admit(&self, object: &mut Value) -> Vec<String> {
        let mut pruned = Trail::default();
        self.schema.prune(object, &mut pruned);
        self.schema.apply_defaults(object);
        pruned.found()
    }

    /// Drops what the schema does not know.
    pub fn prune(&self, object: &mut Value) {
        self.schema.prune(object, &mut Trail::default());
    }

    /// As [`Self::admit`], for what was stored when the schema may have been another. Metadata of embedded resources that
    /// cannot be read is left as it is.
    pub fn admit_stored(&self, object: &mut Value) {
        self.prune(object);
        // Whoever writes the object next is told.
        let _ = crate::codec::check_embedded(&self.schema, object, &mut Trail::default());
        self.schema.apply_defaults(object);
    }

    /// Everything that is wrong with an object. Rules are only asked when its structure is right. Errors that `old`
    /// already had are left out where the value at their field is unchanged, those of rules are marked as tolerated.
    pub fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let errors = unless_before(object, old, |object| self.schema.validate(object));
        self.go_on(errors, true, object, old)
    }

    /// As [`Self::validate`], for a change of the status alone.
    pub fn validate_status(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let errors = unless_before(object, Some(old), |object| self.status_errors(object));
        self.go_on(errors, false, object, Some(old))
    }

    /// The messages name the parts of a status as seen from it, as upstream's do.
    fn status_errors(&self, object: &Value) -> Vec<FieldError> {
        let (Some(schema), Some(status)) = (self.schema.properties.get("status"), object.get("status")) else {
            return Vec::new();
        };
        let mut errors = schema.errors_of(status);
        for error in &mut errors {
            error.field = match error.field.as_str() {
                "" | "<nil>" => "status".to_owned(),
                item if item.starts_with('[') => format!("status{item}"),
                field => format!("status.{field}"),
            };
        }
        errors
    }

    fn go_on(
        &self,
        mut errors: Vec<FieldError>,
        embedded: bool,
        object: &Value,
        old: Option<&Value>,
    ) -> Vec<FieldError> {
        if embedded {
            errors.extend(self.schema.embedded_errors(object));
        }
        // Lists that the schema did not fit before need not fit it now.
        if old.is_none_or(|old| self.schema.duplicates(old).is_empty()) {
            errors.extend(self.schema.duplicates(object));
        }
        let Some(rules) = &self.rules else { return errors };
        if errors.iter().any(|error| blocks_rules(error.kind)) {
            let detail = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
            errors.push(FieldError::invalid(&FieldPath::new("<nil>"), Value::Null, detail));
        } else {
            errors.extend(rules.validate(object, old));
        }
        errors
    }
}

/// What `check` finds wrong with an object, but for what is as wrong in the old one and unchanged.
fn unless_before(object: &Value, old: Option<&Value>, check: impl Fn(&Value) -> Vec<FieldError>) -> Vec<FieldError> {
    let mut errors = check(object);
    if let Some(old) = old.filter(|_| !errors.is_empty()) {
        let before = check(old);
        errors.retain(|error| !(before.contains(error) && is_unchanged(error, object, old)));
    }
    errors
}

/// Whether an object with such an error is not what rules are written for.
fn blocks_rules(kind: FieldErrorKind) -> bool {
    use FieldErrorKind::{NotSupported, Required, TooLong, TooMany, TypeInvalid};
    matches!(kind, NotSupported | Required | TooLong | TooMany | TypeInvalid)
}

/// Whether what an error complains of is as it was. What misses a member is the object that should have it.
fn is_unchanged(error: &FieldError, object: &Value, old: &Value) -> bool {
    let path = match error.kind {
        FieldErrorKind::Required => error.field.rsplit_once('.').map_or("", |(parent, _)| parent),
        _ => &error.field,
    };
    path.is_empty() || lookup(object, path) == lookup(old, path)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_is_unchanged_may_stay_wrong() {
        let name = json!({"type": "string", "maxLength": 2});
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "a": name, "b": {"type": "string"}, "map": {"type": "object", "additionalProperties": name},
            "part": {"type": "object", "required": ["x"], "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}}}}}}});
        let schema = CustomSchema::compile(&schema, &FieldPath::new("schema")).unwrap();
        let old = json!({"spec": {"a": "long", "b": "x", "map": {"k.io/l": "long"}, "part": {"y": 1}}});
        for (change, refused) in [
            (json!({"b": "y"}), None),
            (json!({"a": "longer"}), Some("spec.a")),
            (json!({"map": {"k.io/l": "longer"}}), Some("spec.map.k.io/l")),
            (json!({"map": {"k.io/m": "m"}}), None),
            (json!({"part": {"y": 2}}), Some("spec.part.x")),
        ] {
            let new = crate::patch::merge_patch(&old, &json!({"spec": change}));
            let errors = schema.validate(&new, Some(&old));
            let fields: Vec<&str> = errors.iter().map(|e| e.field.as_str()).collect();
            assert_eq!(fields, Vec::from_iter(refused), "{change}");
        }
    }

    #[test]
    fn a_change_of_status_is_judged_by_its_part_of_the_schema() {
        let schema = json!({"type": "object", "required": ["spec"], "properties": {"status": {"type": "object", "required": ["r"],
            "properties": {"r": {"type": "integer"}, "l": {"type": "array", "items": {"type": "string"}}}}}});
        let schema = CustomSchema::compile(&schema, &FieldPath::new("schema")).unwrap();
        let old = json!({"status": {"r": 1, "l": [5]}});
        for (status, expected) in [
            (json!({"r": "x"}), "status.r: Invalid value: \"string\": r in body must be of type integer: \"string\""),
            (json!({"l": [5]}), "status.r: Required value"),
            (json!({"r": 2, "l": [5]}), ""),
            (json!(5), "status: Invalid value: \"integer\":  in body must be of type object: \"integer\""),
        ] {
            let found = schema.validate_status(&json!({"status": status}), &old);
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            assert_eq!(found.join("; "), expected, "{status}");
        }
    }

    #[test]
    fn lists_that_did_not_fit_before_need_not_fit_now() {
        let list = |keys: &[&str]| {
            let (text, keys) = (json!({"type": "string", "default": ""}), json!(keys));
            json!({"type": "object", "properties": {"l": {"type": "array", "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": keys, "items": {"type": "object", "properties": {"a": text, "b": text}}}}})
        };
        let compile = |keys: &[&str]| CustomSchema::compile(&list(keys), &FieldPath::new("schema")).unwrap();
        let old = json!({"l": [{"a": "1", "b": "1"}, {"a": "1", "b": "2"}]});
        let new = json!({"l": [{"a": "1", "b": "1"}, {"a": "1", "b": "1"}]});
        assert_eq!(compile(&["a", "b"]).validate(&new, Some(&old)).len(), 1);
        assert_eq!(compile(&["a"]).validate(&new, Some(&old)), []);
    }

    #[test]
    fn rules_wait_until_the_structure_is_right() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "string", "maxLength": 2}, "b": {"type": "integer", "maximum": 1}},
            "x-kubernetes-validations": [{"rule": "self.b < 3", "message": "too much"}]});
        let schema = CustomSchema::compile(&schema, &FieldPath::new("schema")).unwrap();
        let errors =
            |object: Value| -> Vec<String> { schema.validate(&object, None).iter().map(ToString::to_string).collect() };
        let found = errors(json!({"a": "long", "b": 5}));
        assert!(
            found.len() == 3 && found[2].starts_with("<nil>: Invalid value: null: some validation rules"),
            "{found:?}"
        );
        assert_eq!(errors(json!({"b": 5})).len(), 2, "a number too high is a number");
    }

    #[test]
    fn embedded_resources_are_resources() {
        let schema = json!({"type": "object", "properties": {"t": {"type": "object", "x-kubernetes-embedded-resource": true,
            "x-kubernetes-preserve-unknown-fields": true}}});
        let schema = CustomSchema::compile(&schema, &FieldPath::new("schema")).unwrap();
        let object =
            json!({"t": {"apiVersion": "a/b/c", "kind": "x y", "metadata": {"name": "a/b", "labels": {"-": "v"}}}});
        let fields: Vec<String> = schema.validate(&object, None).into_iter().map(|e| e.field).collect();
        assert_eq!(fields, ["t.apiVersion", "t.kind", "t.metadata.name", "t.metadata.labels"]);
        let mut stored =
            json!({"t": {"apiVersion": "v1", "kind": "X", "metadata": {"name": "a", "unknown": 1}, "other": 1}});
        schema.admit_stored(&mut stored);
        assert_eq!(stored["t"], json!({"apiVersion": "v1", "kind": "X", "metadata": {"name": "a"}, "other": 1}));
    }
}
