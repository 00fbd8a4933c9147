//! Objects inside of custom objects (`x-kubernetes-embedded-resource`).

use serde_json::Value;

use super::validate::ERRORS_MAX;
use super::{Additional, Schema};
use crate::codec::trail::Trail;
use crate::field::{FieldError, FieldPath};

impl Schema {
    /// Calls `see` for every embedded resource in a value, with its path.
    ///
    /// # Errors
    /// The first error of `see`.
    pub(crate) fn each_embedded<E>(
        &self,
        value: &mut Value,
        path: &mut Trail,
        see: &mut impl FnMut(&mut Value, &mut Trail) -> Result<(), E>,
    ) -> Result<(), E> {
        if !self.may_embed {
            return Ok(());
        }
        if self.embedded_resource && value.is_object() {
            see(value, path)?;
        }
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    if let Some(schema) = self.member(name) {
                        let length = path.enter(name);
                        schema.each_embedded(member, path, see)?;
                        path.leave(length);
                    }
                }
            }
            Value::Array(items) => {
                let Some(schema) = &self.items else { return Ok(()) };
                for (index, item) in items.iter_mut().enumerate() {
                    let length = path.enter_item(index);
                    schema.each_embedded(item, path, see)?;
                    path.leave(length);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// What is wrong with kinds and metadata of the resources in an object.
    pub(crate) fn embedded_errors(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        self.check_embedded(object, &FieldPath::default(), &mut errors);
        errors
    }

    pub(super) fn check_embedded(&self, value: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
        if !self.may_embed || errors.len() >= ERRORS_MAX {
            return;
        }
        match value {
            Value::Object(members) => {
                if self.embedded_resource {
                    errors.extend(crate::validate::embedded(value, path));
                }
                for (name, member) in members {
                    let Some(schema) = self.member(name) else { continue };
                    let named = self.properties.contains_key(name);
                    let path = if named { path.child(name) } else { path.key(name) };
                    schema.check_embedded(member, &path, errors);
                }
            }
            Value::Array(items) => {
                let Some(schema) = &self.items else { return };
                for (index, item) in items.iter().enumerate() {
                    schema.check_embedded(item, &path.index(index), errors);
                }
            }
            _ => {}
        }
    }

    /// Notes whether resources are embedded anywhere below, so that most objects need not be walked for them.
    pub(super) fn note_embedding(&mut self) -> bool {
        let mut found = self.embedded_resource;
        for schema in self.properties.values_mut() {
            found |= schema.note_embedding();
        }
        if let Additional::Schema(schema) = &mut self.additional {
            found |= schema.note_embedding();
        }
        if let Some(schema) = &mut self.items {
            found |= schema.note_embedding();
        }
        self.may_embed = found;
        found
    }

    /// Notes where members without a schema may be: as upstream has it, also anywhere below where they are preserved.
    pub(super) fn note_openness(&mut self, above: bool) {
        let preserve = above || self.preserve_unknown;
        let free = self.properties.is_empty() && matches!(self.additional, Additional::None) && !self.embedded_resource;
        self.takes_any_member = preserve || free || matches!(self.additional, Additional::Any);
        self.properties.values_mut().for_each(|schema| schema.note_openness(preserve));
        if let Additional::Schema(schema) = &mut self.additional {
            schema.note_openness(preserve);
        }
        if let Some(schema) = &mut self.items {
            schema.note_openness(preserve);
        }
    }
}
