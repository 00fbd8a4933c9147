//! JSON values as messages, byte for byte as the reference encoder writes them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::leaf;
use super::wire::{write_bytes, write_double, write_int, write_part};
use crate::schema::{self, Field, Type};

const SCHEMA: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";

/// The content of a message of the type.
pub(super) fn message(out: &mut Vec<u8>, ty: &'static Type, value: &Value) {
    if ty.encoding().is_empty() {
        match value {
            Value::Object(members) => fields(out, ty, members),
            // Nothing is allocated for an empty map.
            _ => fields(out, ty, &Map::new()),
        }
    } else {
        custom(out, ty, value);
    }
}

/// Fields of the message, and of the inline messages whose members are its own in JSON.
fn fields(out: &mut Vec<u8>, ty: &'static Type, members: &Map<String, Value>) {
    for field in ty.fields.iter().filter(|f| f.via.is_empty()) {
        if !field.inline {
            self::field(out, field, members.get(field.name).unwrap_or(&Value::Null));
        } else if let Some(inner) = field.target() {
            write_part(out, field.number, |out| fields(out, inner, members));
        }
    }
}

fn field(out: &mut Vec<u8>, field: &'static Field, value: &Value) {
    match value {
        Value::Null if field.pointer || field.repeated || field.is_map() || field.proto == "bytes" => {}
        Value::Array(items) if field.repeated => items.iter().for_each(|item| single(out, field, field.number, item)),
        Value::Object(members) if field.is_map() => {
            let mut entries: Vec<(&String, &Value)> = members.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            for (key, value) in entries {
                write_part(out, field.number, |out| {
                    write_bytes(out, 1, key.as_bytes());
                    single(out, field, 2, value);
                });
            }
        }
        // A value of another shape cannot be said in this field.
        _ if field.repeated || field.is_map() => {}
        _ => single(out, field, field.number, value),
    }
}

/// One element of the field, under the number given.
fn single(out: &mut Vec<u8>, field: &'static Field, number: u32, value: &Value) {
    match field.proto {
        "string" => write_bytes(out, number, value.as_str().unwrap_or_default().as_bytes()),
        "bool" => write_int(out, number, i64::from(value.as_bool().unwrap_or(false))),
        "int32" | "int64" => write_int(out, number, value.as_i64().unwrap_or(0)),
        "double" => write_double(out, number, value.as_f64().unwrap_or(0.0)),
        "bytes" => {
            write_bytes(out, number, &STANDARD.decode(value.as_str().unwrap_or_default()).unwrap_or_default());
        }
        _ => {
            if let Some(ty) = field.target() {
                write_part(out, number, |out| message(out, ty, value));
            }
        }
    }
}

fn custom(out: &mut Vec<u8>, ty: &'static Type, value: &Value) {
    match ty.encoding() {
        "quantity" => {
            let text = value
                .as_str()
                .map_or_else(|| if value.is_null() { "0".into() } else { value.to_string() }, String::from);
            write_bytes(out, 1, text.as_bytes());
        }
        "time" | "microtime" => {
            if let Some((seconds, nanos)) = value.as_str().and_then(leaf::time_parts) {
                let nanos = if ty.encoding() == "time" { 0 } else { nanos / 1000 * 1000 };
                write_int(out, 1, seconds);
                write_int(out, 2, nanos.into());
            }
        }
        "duration" => write_int(out, 1, value.as_str().and_then(leaf::duration_nanos).unwrap_or(0)),
        "intorstring" => {
            let text = value.as_str();
            write_int(out, 1, i64::from(text.is_some()));
            write_int(out, 2, value.as_i64().unwrap_or(0));
            write_bytes(out, 3, text.unwrap_or_default().as_bytes());
        }
        "list" => {
            for item in value.as_array().into_iter().flatten() {
                write_bytes(out, 1, item.as_str().unwrap_or_default().as_bytes());
            }
        }
        "rawjson" | "rawextension" if !value.is_null() => write_bytes(out, 1, value.to_string().as_bytes()),
        "schemaOrArray" | "schemaOrBool" | "schemaOrStringArray" => schema_or(out, ty.encoding(), value),
        _ => {}
    }
}

fn schema_or(out: &mut Vec<u8>, encoding: &str, value: &Value) {
    let Some(schema) = schema::find(SCHEMA) else { return };
    let as_bool = encoding == "schemaOrBool";
    if as_bool {
        write_int(out, 1, i64::from(value.as_bool().unwrap_or(value.is_object())));
    }
    match value {
        Value::Object(_) => write_part(out, if as_bool { 2 } else { 1 }, |out| message(out, schema, value)),
        Value::Array(items) => {
            for item in items {
                match item {
                    Value::String(text) => write_bytes(out, 2, text.as_bytes()),
                    _ => write_part(out, 2, |out| message(out, schema, item)),
                }
            }
        }
        _ => {}
    }
}
