//! JSON: strict decoding that reports duplicates, and the canonical stored form.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::trail::Trail;
use super::{Decoded, FieldValidation, tolerant, write_json};
use crate::resource::Resource;
use crate::status::Status;

/// What upstream reads first.
const TYPE_META: &str = "into Go value of type struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; \
                         Kind string \"json:\\\"kind,omitempty\\\"\" }";
/// Bytes of a body that an error shows.
const SHOWN: usize = 30;

/// An error about a body that does not even say what it is.
fn unrecognized(resource: &Resource, why: &str, body: &[u8]) -> Status {
    let cut = &body[..body.len().min(SHOWN)];
    let mut shown = match body.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => String::from_utf8_lossy(cut).into_owned(),
        Some(_) => cut.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    if body.len() > SHOWN {
        shown.push_str(" ...");
    }
    Status::bad_request(format!(
        "the object provided is unrecognized (must be of type {}): {why} ({shown})",
        resource.kind
    ))
}

/// Decodes and checks an object of the resource.
pub fn decode_json(resource: &Resource, bytes: &[u8], validation: FieldValidation) -> Result<Decoded, Status> {
    let (value, duplicates) = parse(bytes).map_err(|error| {
        let why = if error.is_eof() { "unexpected end of JSON input".to_owned() } else { error.to_string() };
        unrecognized(resource, &format!("couldn't get version/kind; json parse error: {why}"), bytes)
    })?;
    let other = match &value {
        Value::Object(_) | Value::Null => None,
        Value::Array(_) => Some("array"),
        Value::String(_) => Some("string"),
        Value::Number(_) => Some("number"),
        Value::Bool(_) => Some("bool"),
    };
    if let Some(other) = other {
        let why = format!("couldn't get version/kind; json parse error: json: cannot unmarshal {other} {TYPE_META}");
        return Err(unrecognized(resource, &why, bytes));
    }
    if resource.is_custom() && resource.ty.is_none() && value["kind"].as_str().unwrap_or_default().is_empty() {
        let body = String::from_utf8_lossy(bytes);
        return Err(unrecognized(resource, &format!("Object 'Kind' is missing in '{body}'"), bytes));
    }
    let duplicates = duplicates.into_iter().map(|path| format!("duplicate field \"{path}\"")).collect();
    tolerant::finish(resource, value, Vec::new(), duplicates, validation)
}

/// A JSON document, and the paths of members that come twice in it; of these the last counts.
pub fn parse_json(bytes: &[u8]) -> Result<(Value, Vec<String>), Status> {
    parse(bytes).map_err(|e| Status::bad_request(e.to_string()))
}

pub(super) fn parse(bytes: &[u8]) -> Result<(Value, Vec<String>), serde_json::Error> {
    let found = RefCell::new(Trail::default());
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = ValueSeed(&found).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok((value, found.into_inner().found()))
}

/// The stored form: compact, with members in the order that upstream writes them in.
pub fn encode_canonical(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(512);
    write_json(&mut bytes, value);
    bytes
}

/// Builds a value as serde_json does, keeping the paths of members that come twice.
#[derive(Clone, Copy)]
struct ValueSeed<'a>(&'a RefCell<Trail>);

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueSeed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let length = self.0.borrow_mut().enter_item(list.len());
            let item = items.next_element_seed(self)?;
            self.0.borrow_mut().leave(length);
            match item {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            let length = self.0.borrow_mut().enter(&key);
            if map.contains_key(&key) {
                self.0.borrow_mut().note();
            }
            let value = members.next_value_seed(self)?;
            map.insert(key, value);
            self.0.borrow_mut().leave(length);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resource::ResourceTable;

    fn decode(body: &str, validation: FieldValidation) -> Result<Decoded, Status> {
        let pods = ResourceTable::builtin().get("", "v1", "pods").unwrap();
        decode_json(&pods, body.as_bytes(), validation)
    }

    #[test]
    fn members_that_come_twice_are_told_where_they_begin() {
        let (value, twice) = parse_json(br#"{"a": 1, "a": {"b": 1, "b": 2}}"#).unwrap();
        assert_eq!((value, twice), (json!({"a": {"b": 2}}), vec!["a".to_owned(), "a.b".to_owned()]));
    }

    #[test]
    fn unknown_and_duplicate_fields_are_reported() {
        let body = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","name":"b"},"spec":{"containers":[{"name":"c","imag":"x"}]}}"#;
        let decoded = decode(body, FieldValidation::Warn).unwrap();
        assert_eq!(
            decoded.warnings,
            ["unknown field \"spec.containers[0].imag\"", "duplicate field \"metadata.name\""]
        );
        assert_eq!(decoded.value["spec"]["containers"], json!([{"name": "c"}]));
        assert!(decode(body, FieldValidation::Ignore).unwrap().warnings.is_empty());
        let error = decode(body, FieldValidation::Strict).unwrap_err();
        assert_eq!(error.code(), 400);
        assert_eq!(
            error.message(),
            "Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: unknown field \"spec.containers[0].imag\", duplicate field \"metadata.name\""
        );
    }

    #[test]
    fn wrong_types_and_kinds_are_refused() {
        for body in [
            r#"{"apiVersion":"v1","kind":"Pod","spec":{"hostNetwork":"yes"}}"#,
            r#"{"apiVersion":"v1","kind":"Pod","spec":{"priority":1.5}}"#,
            r#"{"apiVersion":"v1","kind":"Pod","spec":{"containers":{}}}"#,
            r#"{"apiVersion":"v1","kind":"Service"}"#,
            r#"{"apiVersion":"v2","kind":"Pod"}"#,
            "[]",
            "{",
        ] {
            assert_eq!(decode(body, FieldValidation::Ignore).unwrap_err().code(), 400, "{body}");
        }
    }
}
