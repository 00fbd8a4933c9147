//! Versions of a definition of custom resources.

use std::collections::HashSet;

use serde_json::Value;

use super::at::{At, same};
use super::{Errors, format, selectable};
use crate::custom::CustomSchema;
use crate::field::{FieldError, FieldPath};
use crate::structural;

/// Several problems of one value as one message.
pub(super) fn joined(problems: Vec<String>) -> Vec<String> {
    if problems.len() > 1 { vec![problems.join(",")] } else { problems }
}

/// What all versions have alike is told of the definition, as upstream does.
fn alike(versions: &At, member: &str) -> bool {
    let list = versions.list();
    list.iter().all(|v| same(&v[member], &list[0][member]))
}

/// Where the member of a version is told of: at the version, or, if all have it alike, at the definition and once.
fn place(versions: &At, version: &At, member: &'static str, common: &str) -> Option<FieldPath> {
    match alike(versions, member) {
        false => Some(version.path().child(member)),
        true => (versions.list()[0] == *version.value).then(|| FieldPath::new("spec").child(common)),
    }
}

/// The versions as messages show them: under upstream's own names, without what is told of the definition.
fn shown(versions: &At) -> String {
    let list = versions.list().iter().map(|version| {
        let own = |member: &str| match version[member].is_null() || alike(versions, member) {
            true => Value::Null,
            false => version[member].clone(),
        };
        format!(
            "{{\"Name\":{},\"Served\":{},\"Storage\":{},\"Deprecated\":{},\"DeprecationWarning\":{},\"Schema\":{},\
             \"Subresources\":{},\"AdditionalPrinterColumns\":{},\"SelectableFields\":{}}}",
            version["name"],
            version["served"] == true,
            version["storage"] == true,
            version["deprecated"] == true,
            version["deprecationWarning"],
            own("schema"),
            own("subresources"),
            own("additionalPrinterColumns"),
            own("selectableFields"),
        )
    });
    let list: Vec<String> = list.collect();
    if versions.is_set() { format!("[{}]", list.join(",")) } else { "null".to_owned() }
}

/// Checks all versions. What they have alike is told after all else.
pub(super) fn versions(spec: &At, old: Option<&Value>, errors: &mut Errors) {
    let (versions, mut common) = (spec.get("versions"), Errors::new());
    for version in versions.items() {
        let schema = version.get("schema.openAPIV3Schema");
        if schema.is_empty() {
            schema.required(errors, "");
        }
    }
    for version in versions.items() {
        let name = version.get("name");
        name.check(errors, joined(format::dns1035_label(name.text())));
        deprecation(&version, errors);
        let mut told = |member, shared, tell: &mut dyn FnMut(&FieldPath, &mut Errors)| {
            if let Some(path) = place(&versions, &version, member, shared) {
                tell(&path, if alike(&versions, member) { &mut common } else { errors });
            }
        };
        told("schema", "validation", &mut |path, errors| schema(&version, old, path, errors));
        told("subresources", "subresources", &mut |path, errors| {
            scale(&version.get("subresources.scale"), &path.child("scale"), errors);
        });
        told("additionalPrinterColumns", "additionalPrinterColumns", &mut |path, errors| {
            for (index, column) in version.get("additionalPrinterColumns").items().enumerate() {
                printer_column(&column, &path.index(index), errors);
            }
        });
        told("selectableFields", "selectableFields", &mut |path, errors| {
            selectable::fields(&version, old, path, errors)
        });
    }
    let mut wrong = |why: &str| {
        errors.push(FieldError::invalid_part(&versions.path(), format!("{}: {why}", shown(&versions))));
    };
    let mut names: HashSet<&str> = HashSet::new();
    if !versions.list().iter().all(|v| names.insert(v["name"].as_str().unwrap_or_default())) {
        wrong("must contain unique version names");
    }
    if versions.list().iter().filter(|v| v["storage"] == true).count() != 1 {
        wrong("must have exactly one version marked as storage version");
    }
    // Upstream knows the first version once more, as that of the definition.
    if let Some(first) = versions.list().first().and_then(|v| v["name"].as_str()) {
        let path = spec.path().child("version");
        errors
            .extend(joined(format::dns1035_label(first)).into_iter().map(|why| FieldError::invalid(&path, first, why)));
    }
    super::definition::names(&spec.get("names"), errors);
    errors.append(&mut common);
}

fn schema(version: &At, old: Option<&Value>, path: &FieldPath, errors: &mut Errors) {
    let (schema, path) = (version.get("schema.openAPIV3Schema"), path.child("openAPIV3Schema"));
    let mut before = old.and_then(Value::as_array).into_iter().flatten();
    if schema.is_empty() || before.any(|v| v["schema"] == version.value["schema"]) {
        return;
    }
    let found = structural::check(schema.value, &path);
    if !structural::is_convertible(schema.value) {
        // What has no structural form at all is not looked at as such.
        if found.is_empty() {
            errors.push(FieldError::invalid(&path, "", "OpenAPIV3Schema 'schema' is not supported"));
        }
        return errors.extend(found);
    }
    match structural::parse(schema.value, &path) {
        Ok(parsed) => {
            let mut wrong = structural::check_defaults(&parsed, &path);
            if found.is_empty() && wrong.is_empty() {
                match CustomSchema::compile(schema.value, &path) {
                    Ok(compiled) => wrong = compiled.default_errors(schema.value, &path),
                    Err(refused) => errors.extend(refused),
                }
            }
            errors.extend(wrong);
        }
        Err(wrong) => errors.extend(wrong.into_iter().filter(|error| !found.contains(error))),
    }
    errors.extend(found);
}

fn deprecation(version: &At, errors: &mut Errors) {
    let warning = version.get("deprecationWarning");
    if !warning.is_set() {
        return;
    }
    if !version.get("deprecated").is_true() {
        warning.invalid(errors, "can only be set for deprecated versions");
    }
    if warning.text().len() > 256 {
        warning.invalid(errors, "must be <= 256 characters long");
    }
    if warning.text().is_empty() {
        warning.invalid(errors, "must not be an empty string");
    }
    if let Some((index, _)) = warning.text().char_indices().find(|(_, c)| c.is_control()) {
        let detail =
            format!("must only contain printable UTF-8 characters; non-printable character found at index {index}");
        warning.invalid(errors, detail);
    }
}

fn scale(scale: &At, path: &FieldPath, errors: &mut Errors) {
    if !scale.is_set() {
        return;
    }
    for (field, roots, under) in [
        ("specReplicasPath", &[".spec."][..], ".spec"),
        ("statusReplicasPath", &[".status."], ".status"),
        ("labelSelectorPath", &[".spec.", ".status."], "either .spec or .status"),
    ] {
        let (given, path) = (scale.str(field), path.child(field));
        if given.is_empty() {
            if field != "labelSelectorPath" {
                errors.push(FieldError::required(&path, ""));
            }
        } else if !given.starts_with('.') {
            errors.push(FieldError::invalid(&path, given, "must be a simple json path starting with ."));
        } else if !roots.iter().any(|root| given.starts_with(root)) {
            errors.push(FieldError::invalid(&path, given, format!("should be a json path under {under}")));
        }
    }
}

const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];

fn printer_column(column: &At, path: &FieldPath, errors: &mut Errors) {
    if column.str("name").is_empty() {
        errors.push(FieldError::required(&path.child("name"), ""));
    }
    for (field, known) in [("type", &COLUMN_TYPES[..]), ("format", &COLUMN_FORMATS)] {
        let given = column.str(field);
        if given.is_empty() {
            if field == "type" {
                let detail = format!("must be one of {}", known.join(","));
                errors.push(FieldError::required(&path.child(field), detail));
            }
        } else if !known.contains(&given) {
            let detail = format!("must be one of {}", known.join(","));
            errors.push(FieldError::invalid(&path.child(field), given, detail));
        }
    }
    // Upstream's own name of the field.
    let (given, path) = (column.str("jsonPath"), path.child("JSONPath"));
    if given.is_empty() {
        errors.push(FieldError::required(&path, ""));
    } else if !given.starts_with('.') {
        errors.push(FieldError::invalid(&path, given, "must be a simple json path starting with ."));
    }
}
