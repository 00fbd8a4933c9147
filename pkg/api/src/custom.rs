//! What a custom resource's objects are checked against.

use serde_json::Value;

use crate::codec::trail::Trail;
use crate::field::{FieldError, FieldPath};
use crate::structural::{RuleSet, Schema, parse};

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
    pub fn compile(
        schema: &Value,
        path: &FieldPath,
        group: &str,
        version: &str,
        kind: &str,
    ) -> Result<Self, Vec<FieldError>> {
        let rules = RuleSet::compile(schema, path, group, version, kind)?;
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
            errors.retain(|error| !before.contains(error));
        }
        if errors.is_empty()
            && let Some(rules) = &self.rules
        {
            errors = rules.validate(object, old);
        }
        errors
    }
}
