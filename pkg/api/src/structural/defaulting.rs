//! Filling in what is missing.

use serde_json::Value;

use super::Schema;

impl Schema {
    /// Sets defaults of members that are missing, or null without being nullable, in depth.
    pub fn apply_defaults(&self, value: &mut Value) {
        match value {
            Value::Object(map) => {
                for (name, schema) in &self.properties {
                    let missing = map.get(name).is_none_or(|v| v.is_null() && !schema.nullable);
                    if let Some(default) = schema.default.as_ref().filter(|_| missing) {
                        map.insert(name.clone(), default.clone());
                    }
                    if let Some(member) = map.get_mut(name) {
                        schema.apply_defaults(member);
                    }
                }
                if let super::Additional::Schema(schema) = &self.additional {
                    for member in map.values_mut() {
                        if member.is_null()
                            && !schema.nullable
                            && let Some(default) = &schema.default
                        {
                            *member = default.clone();
                        }
                        schema.apply_defaults(member);
                    }
                }
            }
            Value::Array(items) => {
                let Some(schema) = &self.items else { return };
                for item in items {
                    if item.is_null()
                        && !schema.nullable
                        && let Some(default) = &schema.default
                    {
                        *item = default.clone();
                    }
                    schema.apply_defaults(item);
                }
            }
            _ => {}
        }
    }
}
