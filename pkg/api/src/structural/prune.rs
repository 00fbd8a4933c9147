//! Dropping what a schema does not know.

use serde_json::{Map, Value};

use super::Schema;
use crate::codec::trail::Trail;

impl Schema {
    /// Drops unknown members of a custom object, in depth, and notes their paths (for strict field validation and
    /// warnings). apiVersion, kind and metadata of the object and of embedded resources are kept. A null that the
    /// schema neither allows nor replaces by a default is an absent member.
    pub(crate) fn prune(&self, object: &mut Value, pruned: &mut Trail) {
        if let Value::Object(map) = object {
            self.prune_object(map, true, pruned);
        }
    }

    /// As [`Self::prune`], for a value inside of an object.
    pub(super) fn prune_part(&self, value: &mut Value, pruned: &mut Trail) {
        self.prune_value(value, pruned);
    }

    fn prune_value(&self, value: &mut Value, pruned: &mut Trail) {
        match value {
            Value::Object(map) => self.prune_object(map, self.embedded_resource, pruned),
            Value::Array(items) => {
                let Some(schema) = &self.items else { return };
                for (index, item) in items.iter_mut().enumerate() {
                    let length = pruned.enter_item(index);
                    schema.prune_value(item, pruned);
                    pruned.leave(length);
                }
            }
            _ => {}
        }
    }

    fn prune_object(&self, map: &mut Map<String, Value>, is_resource: bool, pruned: &mut Trail) {
        let keeps = self.keeps_unknown();
        map.retain(|name, value| {
            if is_resource && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
                return true;
            }
            let known = self.member(name);
            if value.is_null() && known.is_some_and(Schema::drops_null) {
                return false;
            }
            if known.is_none() && keeps {
                return true;
            }
            let length = pruned.enter(name);
            match known {
                Some(schema) => schema.prune_value(value, pruned),
                None => pruned.note(),
            }
            pruned.leave(length);
            known.is_some()
        });
    }
}
