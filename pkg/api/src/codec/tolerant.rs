//! Checking a value against the field table: types, unknown members, canonical leaves.

use std::fmt;

use base64::engine::general_purpose::STANDARD;
use base64::{DecodeError, Engine};
use serde_json::Value;

use super::trail::Trail;
use super::{Decoded, FieldValidation, plain_numbers};
use crate::field::{FieldError, FieldPath};
use crate::name::GroupKind;
use crate::resource::Resource;
use crate::schema::{Scalar, Shape, Type};
use crate::status::Status;
use crate::structural::Schema;

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

/// A value of another type than its place has, told as Go does.
#[derive(Debug)]
struct Wrong {
    found: String,
    wanted: String,
    /// The type of the innermost object on the way.
    owner: Option<&'static str>,
    /// Names of members on the way, innermost first; keys of maps and places in lists are not told.
    fields: Vec<String>,
}

impl Wrong {
    fn kind(wanted: Shape, value: &Value) -> Self {
        let found = match value {
            Value::Null => "null".to_owned(),
            Value::Bool(_) => "bool".to_owned(),
            Value::Number(number) => match wanted {
                Shape::Scalar(Scalar::Int32 | Scalar::Int64) => format!("number {number}"),
                _ => "number".to_owned(),
            },
            Value::String(_) => "string".to_owned(),
            Value::Array(_) => "array".to_owned(),
            Value::Object(_) => "object".to_owned(),
        };
        Self { found, wanted: go_type(wanted), owner: None, fields: Vec::new() }
    }

    /// What a value says that reads itself.
    fn text(text: String) -> Self {
        Self { found: text, wanted: String::new(), owner: None, fields: Vec::new() }
    }

    fn within(mut self, owner: Shape, field: &str) -> Self {
        if let (None, Shape::Struct(ty)) = (self.owner, owner) {
            self.owner = Some(last(ty.name));
        }
        self.fields.push(field.to_owned());
        self
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.wanted.is_empty() {
            return f.write_str(&self.found);
        }
        let fields: Vec<&str> = self.fields.iter().rev().map(String::as_str).collect();
        write!(f, "json: cannot unmarshal {} into Go ", self.found)?;
        match self.owner {
            Some(owner) => write!(f, "struct field {owner}.{} of type {}", fields.join("."), self.wanted),
            None => write!(f, "value of type {}", self.wanted),
        }
    }
}

/// What is after the last dot.
fn last(name: &'static str) -> &'static str {
    name.rsplit_once('.').map_or(name, |(_, last)| last)
}

/// The name that upstream's program has for the type.
fn go_type(shape: Shape) -> String {
    match shape {
        Shape::Scalar(Scalar::Bool) => "bool".into(),
        Shape::Scalar(Scalar::Int32) => "int32".into(),
        Shape::Scalar(Scalar::Int64) => "int64".into(),
        Shape::Scalar(Scalar::Double) => "float64".into(),
        Shape::Scalar(Scalar::Bytes) => "[]uint8".into(),
        Shape::Scalar(Scalar::Quantity) => "resource.Quantity".into(),
        Shape::Scalar(_) => "string".into(),
        Shape::Struct(ty) => {
            let package = ty.name.rsplit_once('.').map_or("", |(package, _)| package);
            format!("{}.{}", package.rsplit('.').next().unwrap_or_default(), last(ty.name))
        }
        Shape::List(_) => format!("[]{}", go_type(shape.item())),
        Shape::Map(field) => format!("map[string]{}", go_type(field.element())),
        Shape::Strings => "[]string".into(),
        Shape::Any => "interface {}".into(),
    }
}

/// A walk that notes unknown members.
#[derive(Default)]
struct Walk(Trail);

impl Walk {
    /// Runs `inner` with a longer path.
    fn below<T>(&mut self, step: &str, inner: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.0.enter(step);
        let result = inner(self);
        self.0.leave(length);
        result
    }

    fn below_item<T>(&mut self, index: usize, inner: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.0.enter_item(index);
        let result = inner(self);
        self.0.leave(length);
        result
    }

    fn value(&mut self, shape: Shape, value: &mut Value) -> Result<(), Wrong> {
        if value.is_null() {
            return Ok(());
        }
        match shape {
            Shape::Any => {
                plain_numbers(value);
                Ok(())
            }
            Shape::Scalar(scalar) => self.scalar(scalar, value),
            Shape::Struct(_) => self.members(shape, value),
            Shape::Map(field) => {
                let Value::Object(members) = value else { return Err(Wrong::kind(shape, value)) };
                members.iter_mut().try_for_each(|(key, v)| self.below(key, |w| w.element(field.element(), v)))
            }
            Shape::List(_) | Shape::Strings => {
                let Value::Array(items) = value else { return Err(Wrong::kind(shape, value)) };
                let mut indexed = items.iter_mut().enumerate();
                indexed.try_for_each(|(i, v)| self.below_item(i, |w| w.element(shape.item(), v)))
            }
        }
    }

    /// A null among the elements of a list or map is the zero value of their type.
    fn element(&mut self, shape: Shape, value: &mut Value) -> Result<(), Wrong> {
        if value.is_null() {
            match shape {
                Shape::Scalar(Scalar::String | Scalar::Bytes) => *value = "".into(),
                Shape::Scalar(Scalar::Quantity) => *value = "0".into(),
                Shape::Scalar(Scalar::Bool) => *value = false.into(),
                Shape::Scalar(Scalar::Int32 | Scalar::Int64 | Scalar::Double | Scalar::IntOrString) => {
                    *value = 0.into()
                }
                Shape::Struct(_) => *value = Value::Object(serde_json::Map::new()),
                Shape::Scalar(Scalar::Time | Scalar::MicroTime | Scalar::Duration)
                | Shape::Any
                | Shape::Map(_)
                | Shape::List(_)
                | Shape::Strings => {}
            }
        }
        self.value(shape, value)
    }

    fn members(&mut self, shape: Shape, value: &mut Value) -> Result<(), Wrong> {
        let Value::Object(members) = value else { return Err(Wrong::kind(shape, value)) };
        let mut dropped = Vec::new();
        for (key, member) in members.iter_mut() {
            match shape.member(key) {
                Some(inner) => self.below(key, |w| w.value(inner, member)).map_err(|wrong| wrong.within(shape, key))?,
                None => {
                    self.below(key, |w| w.0.note());
                    dropped.push(key.clone());
                }
            }
        }
        for key in dropped {
            members.remove(&key);
        }
        // An explicit null is an absent member, except inside free-form values.
        members.retain(|_, v| !v.is_null());
        Ok(())
    }

    fn scalar(&self, scalar: Scalar, value: &mut Value) -> Result<(), Wrong> {
        let valid = match scalar {
            Scalar::String => value.is_string(),
            Scalar::Bool => value.is_boolean(),
            Scalar::Int32 => value.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
            Scalar::Int64 => value.is_i64(),
            Scalar::Double => {
                plain_numbers(value);
                value.is_number()
            }
            Scalar::Bytes => value.as_str().is_some_and(|s| STANDARD.decode(s).is_ok()),
            Scalar::IntOrString => value.is_string() || value.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
            Scalar::Quantity => return self.quantity(value),
            Scalar::Time | Scalar::MicroTime => return self.time(scalar, value),
            Scalar::Duration => value.is_string(),
        };
        match (valid, scalar, &*value) {
            (true, ..) => Ok(()),
            (_, Scalar::Bytes, Value::String(text)) => {
                let at = STANDARD.decode(text).err().map_or(0, |error| match error {
                    DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => at,
                    DecodeError::InvalidLength(length) => length,
                    DecodeError::InvalidPadding => text.len(),
                });
                Err(Wrong::text(format!("illegal base64 data at input byte {at}")))
            }
            // These read themselves, and do not know where they are.
            (_, Scalar::IntOrString | Scalar::Duration, value) => {
                let wanted = if scalar == Scalar::Duration { Scalar::String } else { Scalar::Int32 };
                Err(Wrong::text(Wrong::kind(Shape::Scalar(wanted), value).to_string()))
            }
            _ => Err(Wrong::kind(Shape::Scalar(scalar), value)),
        }
    }

    fn quantity(&self, value: &mut Value) -> Result<(), Wrong> {
        let text = match &*value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            other => other.to_string(),
        };
        let parsed = crate::quantity::Quantity::parse(&text).map_err(|error| Wrong::text(error.to_string()))?;
        *value = parsed.to_string().into();
        Ok(())
    }

    fn time(&self, scalar: Scalar, value: &mut Value) -> Result<(), Wrong> {
        let no_text = || Wrong::text(Wrong::kind(Shape::Scalar(Scalar::String), value).to_string());
        let text = value.as_str().ok_or_else(no_text)?;
        if text.is_empty() {
            *value = Value::Null;
            return Ok(());
        }
        let layout =
            if scalar == Scalar::Time { "2006-01-02T15:04:05Z07:00" } else { "2006-01-02T15:04:05.000000Z07:00" };
        let no_time =
            |_| Wrong::text(format!("parsing time {text:?} as {layout:?}: cannot parse {text:?} as \"2006\""));
        let time: jiff::Timestamp = text.parse().map_err(no_time)?;
        let format = if scalar == Scalar::Time { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S.%6fZ" };
        *value = time.strftime(format).to_string().into();
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_body_that_is_no_object_is_told_of_in_gos_words() {
        let row = crate::resource::ResourceTable::builtin().get("", "v1", "configmaps").unwrap();
        let check = |body: Value| check_value(&row, body, FieldValidation::Ignore);
        assert_eq!(check(Value::Null).unwrap().value["kind"], "ConfigMap");
        for (version, code) in [("v1", 200), ("", 200), ("/v1", 200), ("//v1", 400), ("/v2", 400), ("core/v1", 400)] {
            let told = check(json!({"apiVersion": version})).map(|decoded| decoded.value["apiVersion"].clone());
            assert_eq!(told.map_or_else(|e| e.code(), |v| if v == "v1" { 200 } else { 0 }), code, "{version:?}");
        }
        let message = check(json!("x")).unwrap_err().message().to_owned();
        assert_eq!(
            message,
            "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: json: cannot unmarshal string into Go value of type struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" } (227822)"
        );
    }

    #[test]
    fn nulls_are_absent_members_and_zero_elements() {
        let cases = [
            ("ConfigMap", json!({"data": {"a": null, "b": "c"}}), json!({"data": {"a": "", "b": "c"}})),
            ("ConfigMap", json!({"data": null}), json!({})),
            ("Secret", json!({"data": {"a": null}}), json!({"data": {"a": ""}})),
            ("Namespace", json!({"metadata": {"labels": {"a": null}}}), json!({"metadata": {"labels": {"a": ""}}})),
            ("Namespace", json!({"spec": {"finalizers": [null]}}), json!({"spec": {"finalizers": [""]}})),
            ("ResourceQuota", json!({"spec": {"hard": {"pods": null}}}), json!({"spec": {"hard": {"pods": "0"}}})),
            ("Pod", json!({"spec": {"containers": [null]}}), json!({"spec": {"containers": [{}]}})),
        ];
        for (kind, given, expected) in cases {
            let ty = crate::schema::find(&format!("io.k8s.api.core.v1.{kind}")).unwrap();
            let (mut value, mut walk) = (given.clone(), Walk::default());
            walk.value(ty.shape(), &mut value).unwrap();
            assert_eq!(value, expected, "{kind} {given}");
        }
    }

    #[test]
    fn custom_objects_say_what_they_are() {
        let row: Resource = crate::resource::CustomResource {
            group: "g.example.com".into(),
            version: "v1".into(),
            storage_version: "v1".into(),
            plural: "widgets".into(),
            kind: "Widget".into(),
            ..Default::default()
        }
        .into();
        for (body, code) in [
            (json!({"apiVersion": "g.example.com/v1", "kind": "Widget"}), 200),
            (json!({"apiVersion": "g.example.com/v1"}), 400),
            (json!({"kind": "Widget"}), 400),
            (json!({"apiVersion": "g.example.com/v1", "kind": "Gadget"}), 422),
            (json!({"apiVersion": "g.example.com/v2", "kind": "Widget"}), 400),
        ] {
            let found = check_value(&row, body.clone(), FieldValidation::Warn).map_or_else(|e| e.code(), |_| 200);
            assert_eq!(found, code, "{body}");
        }
    }
}
