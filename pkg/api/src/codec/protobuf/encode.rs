//! JSON as messages, byte for byte as the reference encoder writes them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use smallvec::SmallVec;

use super::leaf;
use super::plan::{self, Form, Leaf, Step, Steps};
use super::tape::Json;
use super::wire::{write_bytes, write_double, write_int, write_part};
use crate::schema::{self, Type};

const SCHEMA: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";

/// The content of a message of the type.
pub(super) fn message(out: &mut Vec<u8>, ty: &'static Type, value: Json<'_, '_>) {
    if !ty.encoding().is_empty() {
        return custom(out, ty, value);
    }
    let plan = plan::of(ty);
    // How far inside the value its members are; 0 for those that it does not have.
    let mut found: SmallVec<[u32; 64]> = SmallVec::from_elem(0, plan.slots());
    let mut after = 0;
    // Nothing is said of other values than objects.
    for (key, member) in value.members() {
        // The names of fields need no escapes.
        let name = &key.text()[1..key.text().len() - 1];
        if !member.is_null()
            && let Some(slot) = plan.slot(name, &mut after)
        {
            found[slot] = value.distance(member);
        }
    }
    write_steps(out, &plan.steps, &found, value);
}

fn write_steps(out: &mut Vec<u8>, steps: &Steps, found: &[u32], value: Json<'_, '_>) {
    let mut written = 0;
    for step in &steps.list {
        if found[step.slots.clone()].iter().all(|distance| *distance == 0) {
            continue;
        }
        out.extend_from_slice(&steps.empty[written..step.empty.start]);
        written = step.empty.end;
        write_step(out, step, found, value);
    }
    out.extend_from_slice(&steps.empty[written..]);
}

fn write_step(out: &mut Vec<u8>, step: &Step, found: &[u32], value: Json<'_, '_>) {
    if let Form::Inline(inner) = &step.form {
        return write_part(out, step.number, |out| write_steps(out, inner, found, value));
    }
    let member = value.at(found[step.slots.start]);
    match step.form {
        // A value of another shape cannot be said in this field.
        Form::Repeated if member.is_array() => member.inside().for_each(|item| single(out, step, step.number, item)),
        Form::Map => entries(out, step, member),
        Form::One => single(out, step, step.number, member),
        _ => {}
    }
}

/// What is written for a step none of whose members is there.
pub(super) fn empty_step(out: &mut Vec<u8>, step: &Step) {
    match &step.form {
        Form::Inline(inner) => write_part(out, step.number, |out| out.extend_from_slice(&inner.empty)),
        _ => single(out, step, step.number, Json::NULL),
    }
}

fn entries(out: &mut Vec<u8>, step: &Step, map: Json<'_, '_>) {
    let mut entries: SmallVec<[_; 16]> = map.members().map(|(k, v)| (k.as_str().unwrap_or_default(), v)).collect();
    if !entries.is_sorted_by(|(one, _), (other, _)| one <= other) {
        entries.sort_by(|(one, _), (other, _)| one.cmp(other));
    }
    for (key, value) in entries {
        write_part(out, step.number, |out| {
            write_bytes(out, 1, key.as_bytes());
            single(out, step, 2, value);
        });
    }
}

/// One element of the field, under the number given.
fn single(out: &mut Vec<u8>, step: &Step, number: u32, value: Json<'_, '_>) {
    match step.leaf {
        Leaf::Text => write_bytes(out, number, value.as_str().unwrap_or_default().as_bytes()),
        Leaf::Bool => write_int(out, number, i64::from(value.as_bool().unwrap_or(false))),
        Leaf::Int => write_int(out, number, value.as_i64().unwrap_or(0)),
        Leaf::Double => write_double(out, number, value.as_f64().unwrap_or(0.0)),
        Leaf::Bytes => {
            let text = value.as_str().unwrap_or_default();
            write_bytes(out, number, &STANDARD.decode(text.as_bytes()).unwrap_or_default());
        }
        Leaf::Message(ty) => write_part(out, number, |out| message(out, ty, value)),
        Leaf::Unknown => {}
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
