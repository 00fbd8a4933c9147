//! Checking a value against the field table: types, unknown members, canonical leaves.

mod walk;
mod wrong;

use serde_json::Value;

use super::trail::Trail;
use super::{Decoded, FieldValidation, plain_numbers};
use crate::field::{FieldError, FieldPath};
use crate::name::GroupKind;
use crate::resource::Resource;
use crate::schema::{Shape, Type};
use crate::status::Status;
use crate::structural::Schema;
use walk::Walk;

/// Checks an object of the resource that was not decoded from bytes, such as a patched one.
pub fn check_value(resource: &Resource, value: Value, validation: FieldValidation) -> Result<Decoded, Status> {
    finish(resource, value, Vec::new(), Vec::new(), validation)
}

/// `early` and `late` are what decoding has found already, to be told before and after unknown members.
pub(super) fn finish(
    resource: &Resource,
    mut value: Value,
    early: Vec<String>,
    late: Vec<String>,
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    check_kind(resource, &mut value)?;
    if let Some(Value::Array(entries)) = value.pointer_mut("/metadata/managedFields")
        && entries.is_empty()
    {
        // An empty list resets who owns what; it would be lost with all other empty lists.
        entries.push(Value::Object(serde_json::Map::new()));
    }
    if is_deeper(&value, DEPTH_MAX) {
        return Err(too_deep());
    }
    if resource.is_custom() {
        plain_numbers(&mut value);
    }
    let mut walk = Walk::default();
    let checked = match (resource.ty, value.get_mut("metadata")) {
        (None, Some(metadata)) => walk.below("metadata", |walk| walk.value(object_meta(), metadata)),
        _ => walk.value(resource.shape(), &mut value),
    };
    checked.map_err(|wrong| unhandled(resource, &wrong.to_string()))?;
    if let Some(custom) = &resource.custom_schema {
        custom.schema().prune(&mut value, &mut walk.0);
        check_embedded(custom.schema(), &mut value, &mut walk.0).map_err(|problem| unhandled(resource, &problem))?;
    }
    let mut warnings = early;
    warnings.extend(walk.0.found().into_iter().map(|path| format!("unknown field \"{path}\"")));
    warnings.extend(late);
    match validation {
        FieldValidation::Strict if !warnings.is_empty() => {
            Err(unhandled(resource, &format!("strict decoding error: {}", warnings.join(", "))))
        }
        FieldValidation::Warn => Ok(Decoded { value, warnings }),
        _ => Ok(Decoded { value, warnings: Vec::new() }),
    }
}

fn unhandled(resource: &Resource, problem: &str) -> Status {
    let (kind, version) = (&resource.kind, &resource.version);
    Status::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {problem}"))
}

/// Checks kind and metadata of the resources embedded in a custom object, whose unknown members are dropped and noted.
///
/// # Errors
/// The first that has another type than it must.
pub(crate) fn check_embedded(schema: &Schema, object: &mut Value, trail: &mut Trail) -> Result<(), String> {
    schema.each_embedded(object, trail, &mut |embedded, trail| {
        for name in ["apiVersion", "kind"] {
            if let Some(other) = embedded.get(name).filter(|v| !v.is_string()) {
                return Err(format!("{}.{name}: Invalid value: {other}: must be a string", trail.path()));
            }
        }
        let Some(metadata) = embedded.get_mut("metadata") else { return Ok(()) };
        let given = metadata.clone();
        let mut walk = Walk(std::mem::take(trail));
        let checked = walk.below("metadata", |walk| {
            walk.value(object_meta(), metadata)
                .map_err(|wrong| format!("{}: Invalid value: {given}: {wrong}", walk.0.path()))
        });
        *trail = walk.0;
        checked
    })
}

/// What is known of every custom resource.
fn object_meta() -> Shape {
    crate::schema::find("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta").map_or(Shape::Any, Type::shape)
}

/// What upstream says of a body that is a list, a text or a number.
fn no_object(resource: &Resource, value: &Value) -> String {
    const SHOWN_BYTES: usize = 30;
    let form = match value {
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Number(_) => "number",
        _ => "bool",
    };
    let text = value.to_string();
    let (start, more) = match text.as_bytes().get(..SHOWN_BYTES) {
        Some(start) if text.len() > SHOWN_BYTES => (start, " ..."),
        _ => (text.as_bytes(), ""),
    };
    let into = r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
    format!(
        "the object provided is unrecognized (must be of type {}): couldn't get version/kind; json parse error: json: \
         cannot unmarshal {form} into Go value of type {into} ({}{more})",
        resource.kind,
        hex::encode(start)
    )
}

/// The body must be of the endpoint's kind; a body that does not say is taken to be, but for custom resources.
fn check_kind(resource: &Resource, value: &mut Value) -> Result<(), Status> {
    let api_version = resource.api_version();
    if value.is_null() {
        // Go reads null as an object without members.
        *value = Value::Object(serde_json::Map::new());
    }
    let Some(members) = value.as_object_mut() else {
        return Err(Status::bad_request(no_object(resource, value)));
    };
    if resource.is_custom() && resource.ty.is_none() {
        let text = |member: &str| members.get(member).and_then(Value::as_str).unwrap_or_default();
        let (kind, version) = (text("kind"), text("apiVersion"));
        if kind.is_empty() {
            return Err(Status::bad_request(format!(
                "the object provided is unrecognized (must be of type {}): Object 'Kind' is missing",
                resource.kind
            )));
        }
        if version.is_empty() {
            return Err(Status::bad_request(format!(
                "the API version in the data () does not match the expected API version ({api_version})"
            )));
        }
        if version == api_version && kind != resource.kind {
            let error = FieldError::invalid(&FieldPath::new("kind"), kind, format!("must be {}", resource.kind));
            let name = members.get("metadata").and_then(|m| m["name"].as_str()).unwrap_or_default();
            return Err(Status::invalid(&GroupKind::new(&resource.group, kind), name, vec![error]));
        }
    }
    for (key, expected) in [("apiVersion", api_version.as_str()), ("kind", resource.kind.as_str())] {
        match members.get(key) {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) if text.is_empty() || text == expected => {}
            Some(Value::String(text)) if key == "apiVersion" && resource.is_also(text) => {}
            // An empty group may be written.
            Some(Value::String(text)) if resource.group.is_empty() && text.strip_prefix('/') == Some(expected) => {}
            Some(Value::String(text)) if key == "apiVersion" => {
                return Err(Status::bad_request(format!(
                    "the API version in the data ({text}) does not match the expected API version ({api_version})"
                )));
            }
            Some(other) => {
                return Err(Status::bad_request(format!(
                    "{other} is not the kind of this endpoint, which takes {} of {api_version}",
                    resource.kind
                )));
            }
        }
        members.insert(key.into(), expected.into());
    }
    Ok(())
}

/// Levels of the deepest object that is taken. What readers parse has a few more around it, and they give up at 128.
pub(crate) const DEPTH_MAX: usize = 100;

pub(crate) fn too_deep() -> Status {
    Status::bad_request(format!("the object is nested deeper than {DEPTH_MAX} levels"))
}

/// Whether the value has more levels of lists and objects.
pub(crate) fn is_deeper(value: &Value, levels: usize) -> bool {
    match value {
        Value::Array(items) => levels == 0 || items.iter().any(|item| is_deeper(item, levels - 1)),
        Value::Object(members) => levels == 0 || members.values().any(|member| is_deeper(member, levels - 1)),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
