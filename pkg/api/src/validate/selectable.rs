//! Fields that a definition lets field selectors name.

use std::collections::HashSet;

use serde_json::Value;

use super::Errors;
use super::at::At;
use crate::field::{FieldError, FieldPath};

const MOST: usize = 8;

/// Each names a scalar that the schema declares, and not in metadata.
pub(super) fn fields(version: &At, old: Option<&Value>, path: &FieldPath, errors: &mut Errors) {
    let before = errors.len();
    let (fields, schema) = (version.get("selectableFields"), &version.value["schema"]["openAPIV3Schema"]);
    let mut known: HashSet<&str> = HashSet::new();
    for field in fields.items() {
        let path = field.get("jsonPath");
        if !path.need(errors) {
            continue;
        }
        let found = match lookup(path.text(), schema) {
            Ok(found) => found,
            Err(why) => {
                path.invalid(errors, format!("is an invalid path: {why}"));
                continue;
            }
        };
        if path.text() == ".metadata" || path.text().starts_with(".metadata.") {
            path.invalid(errors, "must not point to fields in metadata");
        }
        if !matches!(found["type"].as_str(), Some("string" | "boolean" | "integer")) {
            path.invalid(
                errors,
                "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.",
            );
        }
        if !known.insert(path.text()) {
            path.duplicate(errors);
        }
    }
    let unchanged = old
        .and_then(Value::as_array)
        .is_some_and(|list| list.iter().any(|v| v["selectableFields"] == version.value["selectableFields"]));
    if known.len() > MOST && !unchanged {
        errors.push(FieldError::too_many(&fields.path(), known.len(), MOST));
    }
    let own = fields.path().to_string();
    for error in &mut errors[before..] {
        error.field = error.field.replacen(&own, &path.to_string(), 1);
    }
}

/// The schema at a path such as `.spec.colour`.
fn lookup<'s>(path: &str, schema: &'s Value) -> Result<&'s Value, String> {
    let Some(steps) = path.strip_prefix('.') else {
        let first = path.split(['.', '[', ']']).next().unwrap_or_default();
        return Err(match path.starts_with('[') {
            true => "array notation is not allowed".into(),
            false => format!("expected [ or . but got: {first}"),
        });
    };
    let mut schema = schema;
    for step in steps.split('.') {
        let (name, list) = step.split_once('[').map_or((step, false), |(name, _)| (name, true));
        if name.is_empty() {
            return Err("unexpected end of JSON path".into());
        }
        let declared = schema["properties"].is_object();
        let next = if declared { schema["properties"].get(name) } else { schema.get("additionalProperties") };
        schema = next.filter(|next| next.is_object()).ok_or("does not refer to a valid field")?;
        if list {
            return Err("array notation is not allowed".into());
        }
    }
    Ok(schema)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_declared_scalars_can_be_selected_by() {
        let schema = json!({"properties": {"metadata": {"type": "object", "properties": {"name": {"type": "string"}}},
            "spec": {"properties": {"colour": {"type": "string"}, "size": {"type": "integer"}, "weight": {"type": "number"},
                "list": {"type": "array"}}}}});
        let scalar = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
        for (paths, expected) in [
            (&[".spec.colour", ".spec.size"][..], ""),
            (&[""], "Required value"),
            (&["spec.colour"], "Invalid value: \"spec.colour\": is an invalid path: expected [ or . but got: spec"),
            (&[".spec.none"], "Invalid value: \".spec.none\": is an invalid path: does not refer to a valid field"),
            (&[".spec.list[0]"], "Invalid value: \".spec.list[0]\": is an invalid path: array notation is not allowed"),
            (&[".spec."], "Invalid value: \".spec.\": is an invalid path: unexpected end of JSON path"),
            (&[".metadata.name"], "Invalid value: \".metadata.name\": must not point to fields in metadata"),
            (&[".spec.weight"], &format!("Invalid value: \".spec.weight\": {scalar}")),
            (&[".spec.size", ".spec.size"], "Duplicate value: \".spec.size\""),
        ] {
            let fields: Vec<Value> = paths.iter().map(|path| json!({"jsonPath": path})).collect();
            let version = json!({"schema": {"openAPIV3Schema": schema}, "selectableFields": fields});
            let mut errors = Vec::new();
            super::fields(&At::root(&version), None, &FieldPath::new("selectableFields"), &mut errors);
            let found: Vec<String> = errors.iter().map(FieldError::body).collect();
            assert_eq!(found.join("; "), expected, "{paths:?}");
        }
    }
}
