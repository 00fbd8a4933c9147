//! Messages as JSON values. What is read comes from the network: nothing here trusts a length, a depth or a text.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::super::{normalize, plain_number};
use super::leaf;
use super::wire::{Part, Reader, WireError};
use crate::schema::{self, Field, Type};

const SCHEMA: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";
const MAX_DEPTH: usize = 100;
/// List items, map entries and messages of one object: far more than the largest sensible one has.
const MAX_ELEMENTS: usize = 500_000;

/// How much of its limits a decoding has used up.
#[derive(Default)]
pub(super) struct Budget {
    depth: usize,
    elements: usize,
}

impl Budget {
    /// Runs `inner` one level deeper.
    pub(super) fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T, WireError>) -> Result<T, WireError> {
        self.element()?;
        if self.depth >= MAX_DEPTH {
            return Err(WireError::Depth);
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    fn element(&mut self) -> Result<(), WireError> {
        self.elements += 1;
        if self.elements > MAX_ELEMENTS { Err(WireError::Elements) } else { Ok(()) }
    }
}

/// The value of a message of the type.
pub(super) fn message(ty: &'static Type, bytes: &[u8], budget: &mut Budget) -> Result<Value, WireError> {
    budget.deeper(|budget| {
        if !ty.encoding().is_empty() {
            return custom(ty, bytes, budget);
        }
        let mut members = Map::new();
        fields(ty, bytes, &mut members, budget)?;
        Ok(members.into())
    })
}

fn fields(
    ty: &'static Type,
    bytes: &[u8],
    members: &mut Map<String, Value>,
    budget: &mut Budget,
) -> Result<(), WireError> {
    let mut reader = Reader::new(bytes);
    // Fields come in the order of their numbers, as they are in the table: the next one is not far from the last.
    let mut last = 0;
    while let Some((number, part)) = reader.next()? {
        let wanted = |field: &Field| field.number == number && field.via.is_empty();
        let (before, rest) = ty.fields.split_at(last);
        let index = rest.iter().position(wanted).map(|index| last + index);
        let Some(index) = index.or_else(|| before.iter().position(wanted)) else { continue };
        let field = &ty.fields[index];
        last = index;
        if field.inline {
            if let Some(inner) = field.target() {
                let bytes = part_bytes(number, part)?;
                budget.deeper(|budget| fields(inner, bytes, members, budget))?;
            }
        } else if field.is_map() {
            let (key, value) = entry(field, part_bytes(number, part)?, budget)?;
            let map = members.entry(field.name).or_insert_with(|| Map::new().into());
            if let Value::Object(map) = map {
                map.insert(key, value);
            }
        } else if field.repeated {
            let list = members.entry(field.name).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(list) = list {
                push(field, part, list, budget)?;
            }
        } else if is_said(field, part) {
            members.insert(field.name.to_owned(), single(field, part, budget)?);
        } else {
            members.remove(field.name);
        }
    }
    Ok(())
}

/// Whether there is something in a field that JSON has only then. The wire has most fields, set or not.
fn is_said(field: &Field, part: Part<'_>) -> bool {
    let scalar =
        matches!((field.proto, part), ("string", Part::Bytes([])) | ("bool" | "int32" | "int64", Part::Varint(0)));
    !(scalar && field.omit_empty && !field.pointer)
}

fn part_bytes(number: u32, part: Part<'_>) -> Result<&[u8], WireError> {
    match part {
        Part::Bytes(bytes) => Ok(bytes),
        Part::Varint(_) => Err(WireError::WireType(number, 0)),
        Part::Fixed64(_) => Err(WireError::WireType(number, 1)),
        Part::Fixed32 => Err(WireError::WireType(number, 5)),
    }
}

fn text(number: u32, part: Part) -> Result<String, WireError> {
    String::from_utf8(part_bytes(number, part)?.to_vec()).map_err(|_| WireError::Text(number))
}

fn int(number: u32, part: Part) -> Result<i64, WireError> {
    match part {
        Part::Varint(value) => Ok(value as i64),
        Part::Bytes(_) => Err(WireError::WireType(number, 2)),
        Part::Fixed64(_) => Err(WireError::WireType(number, 1)),
        Part::Fixed32 => Err(WireError::WireType(number, 5)),
    }
}

fn entry(field: &'static Field, bytes: &[u8], budget: &mut Budget) -> Result<(String, Value), WireError> {
    budget.element()?;
    let mut key = String::new();
    let mut value = None;
    let mut reader = Reader::new(bytes);
    while let Some((number, part)) = reader.next()? {
        match number {
            1 => key = text(number, part)?,
            2 => value = Some(single(field, part, budget)?),
            _ => {}
        }
    }
    let value = match value {
        Some(value) => value,
        // A value that is left out is the empty one.
        None if matches!(field.proto, "int32" | "int64" | "bool" | "double") => 0.into(),
        None => single(field, Part::Bytes(&[]), budget)?,
    };
    Ok((key, value))
}

/// Adds an item, or the numbers of a packed list.
fn push(field: &'static Field, part: Part, list: &mut Vec<Value>, budget: &mut Budget) -> Result<(), WireError> {
    match (field.proto, part) {
        ("int32" | "int64" | "bool", Part::Bytes(packed)) => {
            let mut reader = Reader::new(packed);
            while !reader.is_empty() {
                budget.element()?;
                let number = reader.varint()?;
                list.push(single(field, Part::Varint(number), budget)?);
            }
        }
        _ => {
            budget.element()?;
            list.push(single(field, part, budget)?);
        }
    }
    Ok(())
}

fn single(field: &'static Field, part: Part, budget: &mut Budget) -> Result<Value, WireError> {
    let number = field.number;
    Ok(match field.proto {
        "string" => text(number, part)?.into(),
        "bool" => (int(number, part)? != 0).into(),
        "int32" => (int(number, part)? as i32).into(),
        "int64" => int(number, part)?.into(),
        "double" => match part {
            Part::Fixed64(bits) => plain_number(f64::from_bits(bits)).map_or(Value::Null, Value::Number),
            Part::Varint(_) => return Err(WireError::WireType(number, 0)),
            Part::Bytes(_) => return Err(WireError::WireType(number, 2)),
            Part::Fixed32 => return Err(WireError::WireType(number, 5)),
        },
        "bytes" => STANDARD.encode(part_bytes(number, part)?).into(),
        _ => match field.target() {
            Some(ty) => message(ty, part_bytes(number, part)?, budget)?,
            None => Value::Null,
        },
    })
}

/// Scalar fields of a small message of known form.
#[derive(Default)]
struct Scalars<'a> {
    numbers: [i64; 2],
    bytes: [Option<&'a [u8]>; 2],
    third: Option<&'a [u8]>,
}

fn scalars(bytes: &[u8]) -> Result<Scalars<'_>, WireError> {
    let mut found = Scalars::default();
    let mut reader = Reader::new(bytes);
    while let Some((number, part)) = reader.next()? {
        match (number, part) {
            (1 | 2, Part::Varint(value)) => found.numbers[number as usize - 1] = value as i64,
            (1 | 2, Part::Bytes(bytes)) => found.bytes[number as usize - 1] = Some(bytes),
            (3, Part::Bytes(bytes)) => found.third = Some(bytes),
            _ => {}
        }
    }
    Ok(found)
}

fn utf8(number: u32, bytes: Option<&[u8]>) -> Result<String, WireError> {
    text(number, Part::Bytes(bytes.unwrap_or_default()))
}

fn custom(ty: &'static Type, bytes: &[u8], budget: &mut Budget) -> Result<Value, WireError> {
    let encoding = ty.encoding();
    if encoding == "list" {
        return strings(bytes, budget).map(Value::from);
    }
    if encoding.starts_with("schemaOr") {
        return schema_or(encoding, bytes, budget);
    }
    let found = scalars(bytes)?;
    Ok(match encoding {
        "quantity" => utf8(1, found.bytes[0])?.into(),
        "time" | "microtime" if bytes.is_empty() => Value::Null,
        "time" | "microtime" => {
            let nanos = i32::try_from(found.numbers[1]).map_err(|_| WireError::Range(2))?;
            leaf::time_text(found.numbers[0], nanos, encoding == "microtime").ok_or(WireError::Range(1))?.into()
        }
        "duration" => leaf::duration_text(found.numbers[0]).into(),
        "intorstring" if found.numbers[0] == 1 => utf8(3, found.third)?.into(),
        "intorstring" => (found.numbers[1] as i32).into(),
        "rawjson" => raw_json(found.bytes[0])?,
        "rawextension" => match found.bytes[0] {
            Some(raw) if raw.starts_with(super::MAGIC) => super::open(raw, budget)?.map_or(Value::Null, |o| o.value),
            raw => raw_json(raw)?,
        },
        _ => Value::Null,
    })
}

pub(super) fn raw_json(raw: Option<&[u8]>) -> Result<Value, WireError> {
    match raw {
        None | Some([]) => Ok(Value::Null),
        Some(raw) => serde_json::from_slice(raw).map_err(|_| WireError::Json(1)),
    }
}

fn strings(bytes: &[u8], budget: &mut Budget) -> Result<Vec<Value>, WireError> {
    let mut list = Vec::new();
    let mut reader = Reader::new(bytes);
    while let Some((number, part)) = reader.next()? {
        if number == 1 {
            budget.element()?;
            list.push(text(number, part)?.into());
        }
    }
    Ok(list)
}

/// A schema within a schema, without the empty members that the wire has of all of its fields.
fn schema_message(schema: &'static Type, number: u32, part: Part, budget: &mut Budget) -> Result<Value, WireError> {
    let mut value = message(schema, part_bytes(number, part)?, budget)?;
    normalize(schema.shape(), &mut value);
    Ok(value)
}

fn schema_or(encoding: &str, bytes: &[u8], budget: &mut Budget) -> Result<Value, WireError> {
    let Some(schema) = schema::find(SCHEMA) else { return Ok(Value::Null) };
    let schema_number = if encoding == "schemaOrBool" { 2 } else { 1 };
    let mut value = if encoding == "schemaOrBool" { Value::Bool(false) } else { Value::Null };
    let mut list = Vec::new();
    let mut reader = Reader::new(bytes);
    while let Some((number, part)) = reader.next()? {
        if number == schema_number {
            value = schema_message(schema, number, part, budget)?;
        } else if encoding == "schemaOrBool" && number == 1 {
            if !value.is_object() {
                value = (int(number, part)? != 0).into();
            }
        } else if encoding == "schemaOrArray" && number == 2 {
            list.push(schema_message(schema, number, part, budget)?);
        } else if number == 2 {
            budget.element()?;
            list.push(text(number, part)?.into());
        }
    }
    Ok(if value.is_null() && !list.is_empty() { list.into() } else { value })
}
