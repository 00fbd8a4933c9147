//! Lists of type `set` and `map`: no item comes twice.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::validate::ERRORS_MAX;
use super::{ListType, Schema};
use crate::field::{FieldError, FieldPath};

impl Schema {
    /// Items that come twice. Each is told once, where it comes the second time.
    pub(crate) fn duplicates(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        self.find_duplicates(object, &FieldPath::default(), &mut errors);
        errors
    }

    fn find_duplicates(&self, value: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
        if errors.len() >= ERRORS_MAX {
            return;
        }
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    let Some(schema) = self.member(name) else { continue };
                    let named = self.properties.contains_key(name);
                    let path = if named { path.child(name) } else { path.key(name) };
                    schema.find_duplicates(member, &path, errors);
                }
            }
            Value::Array(items) => {
                self.compare_items(items, path, errors);
                if let Some(schema) = &self.items {
                    for (index, item) in items.iter().enumerate() {
                        schema.find_duplicates(item, &path.index(index), errors);
                    }
                }
            }
            _ => {}
        }
    }

    fn compare_items(&self, items: &[Value], path: &FieldPath, errors: &mut Vec<FieldError>) {
        let identity = |item: &Value| match &self.list_type {
            ListType::Map(keys) => {
                let keys = keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone())));
                Value::Object(keys.collect::<Map<_, _>>())
            }
            _ => item.clone(),
        };
        match &self.list_type {
            ListType::Atomic => return,
            ListType::Set => {}
            ListType::Map(_) => {
                if let Some(odd) = items.iter().position(|item| !item.is_object() && !item.is_null()) {
                    let detail = "must be an object for an array of list-type map";
                    errors.push(FieldError::invalid(&path.index(odd), items[odd].clone(), detail));
                    return;
                }
            }
        }
        let mut seen: HashMap<String, usize> = HashMap::new();
        for (index, item) in items.iter().enumerate() {
            let identity = identity(item);
            let times = seen.entry(identity.to_string()).or_default();
            *times += 1;
            if *times == 2 && errors.len() < ERRORS_MAX {
                errors.push(FieldError::duplicate(&path.index(index), identity));
            }
        }
    }
}
