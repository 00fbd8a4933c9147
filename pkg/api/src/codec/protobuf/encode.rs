//! JSON as messages, byte for byte as the reference encoder writes them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use smallvec::SmallVec;

use super::leaf;
use super::tape::Json;
use super::wire::{write_bytes, write_double, write_int, write_part};
use crate::schema::{self, Field, Type};

const SCHEMA: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";

/// The content of a message of the type.
pub(super) fn message(out: &mut Vec<u8>, ty: &'static Type, value: Json<'_, '_>) {
    if !ty.encoding().is_empty() {
        return custom(out, ty, value);
    }
    // Keys are looked up in what is at hand: objects have few members. Nothing is said of other values.
    fields(out, ty, &value.members().collect::<Members<'_, '_>>());
}

type Members<'t, 'a> = SmallVec<[(Json<'t, 'a>, Json<'t, 'a>); 16]>;

/// Fields of the message, and of the inline messages whose members are its own in JSON.
fn fields(out: &mut Vec<u8>, ty: &'static Type, members: &Members<'_, '_>) {
    for field in ty.fields.iter().filter(|f| f.via.is_empty()) {
        if !field.inline {
            // The names of fields need no escapes.
            let named = |key: &str| key.len() == field.name.len() + 2 && &key[1..key.len() - 1] == field.name;
            let value = members.iter().find(|(key, _)| named(key.text()));
            self::field(out, field, value.map_or(Json::NULL, |(_, value)| *value));
        } else if let Some(inner) = field.target() {
            write_part(out, field.number, |out| fields(out, inner, members));
        }
    }
}

fn field(out: &mut Vec<u8>, field: &'static Field, value: Json<'_, '_>) {
    if value.is_null() && (field.pointer || field.repeated || field.is_map() || field.proto == "bytes") {
        return;
    }
    if field.repeated {
        // A value of another shape cannot be said in this field.
        if value.is_array() {
            value.inside().for_each(|item| single(out, field, field.number, item));
        }
    } else if field.is_map() {
        let mut entries: Vec<_> = value.members().map(|(k, v)| (k.as_str().unwrap_or_default(), v)).collect();
        entries.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        for (key, value) in entries {
            write_part(out, field.number, |out| {
                write_bytes(out, 1, key.as_bytes());
                single(out, field, 2, value);
            });
        }
    } else {
        single(out, field, field.number, value);
    }
}

/// One element of the field, under the number given.
fn single(out: &mut Vec<u8>, field: &'static Field, number: u32, value: Json<'_, '_>) {
    match field.proto {
        "string" => write_bytes(out, number, value.as_str().unwrap_or_default().as_bytes()),
        "bool" => write_int(out, number, i64::from(value.as_bool().unwrap_or(false))),
        "int32" | "int64" => write_int(out, number, value.as_i64().unwrap_or(0)),
        "double" => write_double(out, number, value.as_f64().unwrap_or(0.0)),
        "bytes" => {
            write_bytes(
                out,
                number,
                &STANDARD.decode(value.as_str().unwrap_or_default().as_bytes()).unwrap_or_default(),
            );
        }
        _ => {
            if let Some(ty) = field.target() {
                write_part(out, number, |out| message(out, ty, value));
            }
        }
    }
}

fn custom(out: &mut Vec<u8>, ty: &'static Type, value: Json<'_, '_>) {
    match ty.encoding() {
        "quantity" => {
            let text = value.as_str().unwrap_or_else(|| if value.is_null() { "0" } else { value.text() }.into());
            write_bytes(out, 1, text.as_bytes());
        }
        "time" | "microtime" => {
            if let Some((seconds, nanos)) = value.as_str().and_then(|text| leaf::time_parts(&text)) {
                let nanos = if ty.encoding() == "time" { 0 } else { nanos / 1000 * 1000 };
                write_int(out, 1, seconds);
                write_int(out, 2, nanos.into());
            }
        }
        "duration" => write_int(out, 1, value.as_str().and_then(|text| leaf::duration_nanos(&text)).unwrap_or(0)),
        "intorstring" => {
            let text = value.as_str();
            write_int(out, 1, i64::from(text.is_some()));
            write_int(out, 2, value.as_i64().unwrap_or(0));
            write_bytes(out, 3, text.unwrap_or_default().as_bytes());
        }
        "list" => {
            for item in value.inside().filter(|_| value.is_array()) {
                write_bytes(out, 1, item.as_str().unwrap_or_default().as_bytes());
            }
        }
        "rawjson" | "rawextension" if !value.is_null() => write_bytes(out, 1, value.text().as_bytes()),
        "schemaOrArray" | "schemaOrBool" | "schemaOrStringArray" => schema_or(out, ty.encoding(), value),
        _ => {}
    }
}

fn schema_or(out: &mut Vec<u8>, encoding: &str, value: Json<'_, '_>) {
    let Some(schema) = schema::find(SCHEMA) else { return };
    let as_bool = encoding == "schemaOrBool";
    if as_bool {
        write_int(out, 1, i64::from(value.as_bool().unwrap_or(value.is_object())));
    }
    if value.is_object() {
        write_part(out, if as_bool { 2 } else { 1 }, |out| message(out, schema, value));
    }
    for item in value.inside().filter(|_| value.is_array()) {
        match item.as_str() {
            Some(text) => write_bytes(out, 2, text.as_bytes()),
            None => write_part(out, 2, |out| message(out, schema, item)),
        }
    }
}
