//! Dropping what a schema does not know.

use serde_json::{Map, Value};

use super::Schema;

impl Schema {
    /// Drops unknown members of a custom object, in depth, and appends their paths (for strict field validation and
    /// warnings). apiVersion, kind and metadata of the object and of embedded resources are kept.
    pub fn prune(&self, object: &mut Value, pruned: &mut Vec<String>) {
        if let Value::Object(map) = object {
            self.prune_object(map, "", true, pruned);
        }
    }

    fn prune_value(&self, value: &mut Value, path: &str, pruned: &mut Vec<String>) {
        match value {
            Value::Object(map) => self.prune_object(map, path, self.embedded_resource, pruned),
            Value::Array(items) => {
                let Some(schema) = &self.items else { return };
                for (index, item) in items.iter_mut().enumerate() {
                    schema.prune_value(item, &format!("{path}[{index}]"), pruned);
                }
            }
            _ => {}
        }
    }

    fn prune_object(&self, map: &mut Map<String, Value>, path: &str, is_resource: bool, pruned: &mut Vec<String>) {
        let child = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        let keeps = self.keeps_unknown();
        map.retain(|name, value| {
            if is_resource && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
                return true;
            }
            match self.member(name) {
                Some(schema) => {
                    schema.prune_value(value, &child(name), pruned);
                    true
                }
                None if keeps => true,
                None => {
                    pruned.push(child(name));
                    false
                }
            }
        });
    }
}
