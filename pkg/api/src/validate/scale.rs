//! What scale subresources read of custom objects.

use serde_json::Value;

use super::Errors;
use crate::field::{FieldError, FieldPath};
use crate::resource::Resource;
use crate::shown;

/// The numbers and the selector must be such, wherever the definition says that they are.
pub(super) fn values(resource: &Resource, object: &Value, errors: &mut Errors) {
    if let Some(scale) = &resource.scale {
        replicas(&scale.spec_replicas_path, object, errors);
        status(resource, object, errors);
    }
}

/// As [`values`], of what the status subresource can change.
pub(super) fn status(resource: &Resource, object: &Value, errors: &mut Errors) {
    let Some(scale) = &resource.scale else { return };
    replicas(&scale.status_replicas_path, object, errors);
    let path = &scale.label_selector_path;
    let why = match part(object, path) {
        Ok(Some(value)) if !value.is_string() => accessor(path, value, "string"),
        Err(why) => why,
        Ok(_) => return,
    };
    errors.push(FieldError::invalid(&FieldPath::new(path.clone()), "", why));
}

fn replicas(path: &str, object: &Value, errors: &mut Errors) {
    let mut wrong = |value: i64, why: String| errors.push(FieldError::invalid(&FieldPath::new(path), value, why));
    match part(object, path) {
        Err(why) => wrong(0, why),
        Ok(None) => {}
        Ok(Some(value)) => match value.as_i64() {
            None => wrong(0, accessor(path, value, "int64")),
            Some(number) if number < 0 => wrong(number, "should be a non-negative integer".into()),
            Some(number) if number > i64::from(i32::MAX) => {
                wrong(number, format!("should be less than or equal to {}", i32::MAX));
            }
            Some(_) => {}
        },
    }
}

/// The value at a dotted path; an error for a part on the way that has no members.
fn part<'a>(object: &'a Value, path: &str) -> Result<Option<&'a Value>, String> {
    let (mut value, mut way) = (object, String::new());
    for name in path.split('.').filter(|name| !name.is_empty()) {
        let Some(members) = value.as_object() else {
            return Err(accessor(&way, value, "map[string]interface{}"));
        };
        way = format!("{way}.{name}");
        let Some(next) = members.get(name) else { return Ok(None) };
        value = next;
    }
    Ok(Some(value).filter(|value| *value != object))
}

fn accessor(path: &str, value: &Value, wanted: &str) -> String {
    let (found, shown) = (shown::type_name(value), shown::plain(value));
    format!("{path} accessor error: {shown} is of the type {found}, expected {wanted}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resource::{CustomResource, ScalePaths};

    #[test]
    fn what_scales_read_is_of_its_type() {
        let mut row = Resource::from(CustomResource { group: "x.io".into(), ..CustomResource::default() });
        let (spec, status) = (".spec.replicas".to_owned(), ".status.replicas".to_owned());
        let selector = ".status.selector".to_owned();
        row.scale =
            Some(ScalePaths { spec_replicas_path: spec, status_replicas_path: status, label_selector_path: selector });
        for (object, expected) in [
            (json!({"spec": {"replicas": 1}, "status": {"replicas": 2, "selector": "a=b"}}), ""),
            (json!({}), ""),
            (json!({"spec": {"replicas": -1}}), ".spec.replicas: Invalid value: -1: should be a non-negative integer"),
            (
                json!({"spec": {"replicas": 1u64 << 31}}),
                ".spec.replicas: Invalid value: 2147483648: should be less than or equal to 2147483647",
            ),
            (
                json!({"spec": {"replicas": "5"}}),
                ".spec.replicas: Invalid value: 0: .spec.replicas accessor error: 5 is of the type string, expected int64",
            ),
            (
                json!({"status": {"selector": 5}}),
                ".status.selector: Invalid value: \"\": .status.selector accessor error: 5 is of the type int64, expected string",
            ),
        ] {
            let mut errors = Errors::new();
            values(&row, &object, &mut errors);
            let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
            assert_eq!(found.join("; "), expected, "{object}");
        }
    }
}
