//! What a custom resource's objects are checked against.

use serde_json::Value;

use crate::codec::trail::Trail;
use crate::field::{FieldError, FieldErrorKind, FieldPath};
use crate::structural::{RuleSet, Schema, lookup, parse};

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

    /// Everything that is wrong with an object. Rules are only asked when its structure is right. Errors that `old`
    /// already had are tolerated where the value at their field is unchanged.
    pub fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = self.schema.validate(object);
        if let Some(old) = old.filter(|_| !errors.is_empty()) {
            let before = self.schema.validate(old);
            errors.retain(|error| !(before.contains(error) && is_unchanged(error, object, old)));
        }
        if errors.is_empty()
            && let Some(rules) = &self.rules
        {
            errors = rules.validate(object, old);
        }
        errors
    }
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
            (json!({"map": {"k.io/l": "longer"}}), Some("spec.map[k.io/l]")),
            (json!({"map": {"k.io/m": "m"}}), None),
            (json!({"part": {"y": 2}}), Some("spec.part.x")),
        ] {
            let new = crate::patch::merge_patch(&old, &json!({"spec": change}));
            let errors = schema.validate(&new, Some(&old));
            let fields: Vec<&str> = errors.iter().map(|e| e.field.as_str()).collect();
            assert_eq!(fields, Vec::from_iter(refused), "{change}");
        }
    }
}
