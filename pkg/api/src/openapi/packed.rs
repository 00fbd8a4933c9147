//! The document of version 2 as protobuf (package openapi.v2), which client-go reads and nothing else.

use serde_json::{Map, Value};

use super::merge::{Additions, Extension};
use super::operation::Operation;
use super::{KUBERNETES, Version, write};
use crate::codec::protobuf::wire::{write_bytes, write_double, write_int, write_part};
use crate::resource::ResourceTable;

type Out = Vec<u8>;

/// A member of a message: its JSON name, its number and what it holds.
type Member = (&'static str, u32, Form);

#[derive(Clone, Copy)]
enum Form {
    Text,
    Texts,
    Flag,
    Int,
    Double,
    /// Any value, as text in YAML, of which JSON is a part.
    Any,
    Anys,
    /// What else a member can hold.
    Made(fn(&mut Out, &Value)),
    Each(fn(&mut Out, &Value)),
}

use Form::{Any, Anys, Double, Each, Flag, Int, Made, Text, Texts};

const SCHEMA: &[Member] = &[
    ("$ref", 1, Text),
    ("format", 2, Text),
    ("title", 3, Text),
    ("description", 4, Text),
    ("default", 5, Any),
    ("multipleOf", 6, Double),
    ("maximum", 7, Double),
    ("exclusiveMaximum", 8, Flag),
    ("minimum", 9, Double),
    ("exclusiveMinimum", 10, Flag),
    ("maxLength", 11, Int),
    ("minLength", 12, Int),
    ("pattern", 13, Text),
    ("maxItems", 14, Int),
    ("minItems", 15, Int),
    ("uniqueItems", 16, Flag),
    ("maxProperties", 17, Int),
    ("minProperties", 18, Int),
    ("required", 19, Texts),
    ("enum", 20, Anys),
    ("additionalProperties", 21, Made(additional_properties)),
    ("type", 22, Made(|out, kind| texts(out, 1, kind))),
    ("items", 23, Made(|out, items| write_part(out, 1, |out| schema(out, items)))),
    ("properties", 25, Made(|out, properties| named(out, 1, properties, schema))),
    ("example", 30, Any),
];

const OPERATION: &[Member] = &[
    ("tags", 1, Texts),
    ("description", 3, Text),
    ("operationId", 5, Text),
    ("produces", 6, Texts),
    ("consumes", 7, Texts),
    ("parameters", 8, Each(parameter)),
    ("responses", 9, Made(|out, responses| named(out, 1, responses, response))),
    ("schemes", 10, Texts),
];

fn operation(out: &mut Out, operation: &Value) {
    message(out, OPERATION, 13, operation);
}

const PATH: &[Member] = &[
    ("get", 2, Made(operation)),
    ("put", 3, Made(operation)),
    ("post", 4, Made(operation)),
    ("delete", 5, Made(operation)),
    ("options", 6, Made(operation)),
    ("head", 7, Made(operation)),
    ("patch", 8, Made(operation)),
    ("parameters", 9, Each(parameter)),
];

const BODY: &[Member] = &[("name", 2, Text), ("in", 3, Text), ("required", 4, Flag), ("schema", 5, Made(schema))];
const QUERY: &[Member] = &[
    ("required", 1, Flag),
    ("in", 2, Text),
    ("description", 3, Text),
    ("name", 4, Text),
    ("type", 6, Text),
    ("uniqueItems", 20, Flag),
];
const IN_PATH: &[Member] = &[
    ("required", 1, Flag),
    ("in", 2, Text),
    ("description", 3, Text),
    ("name", 4, Text),
    ("type", 5, Text),
    ("uniqueItems", 19, Flag),
];

/// The whole document.
pub(super) fn document<E: AsRef<Extension>>(
    table: &ResourceTable,
    operations: Vec<Operation>,
    extensions: &[E],
) -> Out {
    let names = write::definitions(table, &operations);
    let more = Additions::of(table, &names, extensions);
    let mut out = Vec::with_capacity(64 * 1024);
    write_bytes(&mut out, 1, b"2.0");
    write_part(&mut out, 2, |out| {
        write_bytes(out, 1, b"Kubernetes");
        write_bytes(out, 2, KUBERNETES.as_bytes());
    });
    write_part(&mut out, 8, |out| {
        write::paths(operations, Version::V2, |path, item| {
            entry(out, 2, path, |out| message(out, PATH, 10, &item));
        });
        for (path, item) in &more.paths {
            entry(out, 2, path, |out| message(out, PATH, 10, item));
        }
    });
    write_part(&mut out, 9, |out| {
        write::schemas(table, &names, Version::V2, |name, value| {
            entry(out, 1, name, |out| schema(out, &more.extended(name, value)));
        });
        for (name, value) in &more.definitions {
            entry(out, 1, name, |out| schema(out, value));
        }
    });
    write_part(&mut out, 12, |out| entry(out, 1, "BearerToken", |_| {}));
    write_part(&mut out, 13, |out| {
        entry(out, 1, "BearerToken", |out| {
            write_part(out, 2, |out| {
                for (number, text) in [(1, "apiKey"), (2, "authorization"), (3, "header"), (4, "A bearer token")] {
                    write_bytes(out, number, text.as_bytes());
                }
            });
        });
    });
    out
}

/// A message of the members in the table; extensions go under their own number.
fn message(out: &mut Out, members: &[Member], extensions: u32, value: &Value) {
    for (name, number, form) in members {
        if let Some(value) = value.get(*name) {
            member(out, *number, *form, value);
        }
    }
    let all = value.as_object().into_iter().flatten();
    for (name, value) in all.filter(|(name, _)| name.starts_with("x-")) {
        entry(out, extensions, name, |out| any(out, value));
    }
}

fn member(out: &mut Out, number: u32, form: Form, value: &Value) {
    match form {
        Text => write_bytes(out, number, value.as_str().unwrap_or_default().as_bytes()),
        Texts => texts(out, number, value),
        Flag => write_int(out, number, i64::from(value == true)),
        Int => write_int(out, number, value.as_i64().unwrap_or(0)),
        Double => write_double(out, number, value.as_f64().unwrap_or(0.0)),
        Any => write_part(out, number, |out| any(out, value)),
        Made(make) => write_part(out, number, |out| make(out, value)),
        Anys => each(value, |item| write_part(out, number, |out| any(out, item))),
        Each(make) => each(value, |item| write_part(out, number, |out| make(out, item))),
    }
}

fn each(list: &Value, run: impl FnMut(&Value)) {
    list.as_array().into_iter().flatten().for_each(run);
}

/// A list of texts; a single text is a list of one.
fn texts(out: &mut Out, number: u32, value: &Value) {
    match value {
        Value::String(text) => write_bytes(out, number, text.as_bytes()),
        list => each(list, |text| write_bytes(out, number, text.as_str().unwrap_or_default().as_bytes())),
    }
}

fn any(out: &mut Out, value: &Value) {
    write_bytes(out, 2, format!("{value}\n").as_bytes());
}

/// A name and what it stands for.
fn entry(out: &mut Out, number: u32, name: &str, value: impl FnOnce(&mut Out)) {
    write_part(out, number, |out| {
        write_bytes(out, 1, name.as_bytes());
        write_part(out, 2, value);
    });
}

fn named(out: &mut Out, number: u32, members: &Value, make: fn(&mut Out, &Value)) {
    for (name, value) in members.as_object().into_iter().flat_map(Map::iter) {
        entry(out, number, name, |out| make(out, value));
    }
}

fn schema(out: &mut Out, value: &Value) {
    message(out, SCHEMA, 31, value);
}

fn additional_properties(out: &mut Out, value: &Value) {
    match value.as_bool() {
        Some(flag) => write_int(out, 2, i64::from(flag)),
        None => write_part(out, 1, |out| schema(out, value)),
    }
}

fn parameter(out: &mut Out, value: &Value) {
    write_part(out, 1, |out| match value["in"].as_str().unwrap_or_default() {
        "body" => write_part(out, 1, |out| message(out, BODY, 6, value)),
        "path" => write_part(out, 2, |out| write_part(out, 4, |out| message(out, IN_PATH, 22, value))),
        _ => write_part(out, 2, |out| write_part(out, 3, |out| message(out, QUERY, 23, value))),
    });
}

fn response(out: &mut Out, value: &Value) {
    write_part(out, 1, |out| {
        write_bytes(out, 1, value["description"].as_str().unwrap_or_default().as_bytes());
        if let Some(value) = value.get("schema") {
            write_part(out, 2, |out| write_part(out, 1, |out| schema(out, value)));
        }
    });
}
