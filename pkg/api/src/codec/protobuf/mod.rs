//! Objects as Kubernetes protobuf: an envelope that names the kind, around the object's own message.

mod decode;
mod encode;
mod leaf;
mod list;
mod memo;
mod plan;
mod scan;
pub(crate) mod wire;

pub use list::ListEncoder;
pub use wire::WireError;

use std::cell::RefCell;

use serde_json::Value;

use super::normalize;
use crate::schema::{self, Type};
use crate::status::Status;
use decode::Budget;
use encode::Encoder;
use wire::{Part, Reader, write_bytes, write_part};

/// What an enveloped object begins with.
pub const MAGIC: &[u8] = b"k8s\0";

/// A decoded object; `value` has its apiVersion and kind as members too.
#[derive(Clone, Debug, PartialEq)]
pub struct ProtobufObject {
    pub api_version: String,
    pub kind: String,
    pub value: Value,
}

/// Encodes an object by its own apiVersion and kind; `None` when its kind has no protobuf form.
pub fn encode_object(value: &Value) -> Option<Vec<u8>> {
    let member = |name: &str| value[name].as_str().unwrap_or_default();
    let (api_version, kind) = (member("apiVersion"), member("kind"));
    let ty = schema::by_kind(api_version, kind)?;
    Some(encode(ty, api_version, kind, value))
}

/// Encodes an object of a known type, in its envelope.
pub fn encode(ty: &'static Type, api_version: &str, kind: &str, value: &Value) -> Vec<u8> {
    let text = value.to_string();
    envelope(api_version, kind, text.len(), |out| {
        // What a value is written as can be read.
        let _ = message(out, ty, kind, text.as_bytes());
    })
}

/// What a thread may remember of the objects that it encoded, in bytes.
const MEMO: usize = 64 << 10;

thread_local! {
    static ENCODER: RefCell<Encoder> = RefCell::new(Encoder::with_memo(MEMO));
}

/// Encodes an object from its compact JSON, which this program wrote; `None` when the kind has no protobuf form, or the
/// text is no JSON.
pub fn encode_text(api_version: &str, kind: &str, json: &[u8]) -> Option<Vec<u8>> {
    let ty = schema::by_kind(api_version, kind)?;
    let mut complete = None;
    let encoded = envelope(api_version, kind, json.len(), |out| complete = message(out, ty, kind, json));
    complete.map(|()| encoded)
}

/// The content of a message of a type, from JSON that this program wrote.
fn message(out: &mut Vec<u8>, ty: &'static Type, kind: &str, json: &[u8]) -> Option<()> {
    match kind {
        // Of secrets nothing is kept.
        "Secret" => Encoder::default().message(out, ty, json),
        _ => ENCODER.with_borrow_mut(|encoder| encoder.message(out, ty, json)),
    }
}

/// A frame of a watch stream: the length, then an event around an object that is already in its envelope.
pub fn watch_frame(event: &str, object: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(object.len() + 32);
    write_bytes(&mut message, 1, event.as_bytes());
    write_part(&mut message, 2, |out| write_bytes(out, 1, object));
    let mut frame = Vec::with_capacity(message.len() + 4);
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend_from_slice(&message);
    frame
}

/// Decodes an enveloped object of any kind that has a protobuf form.
pub fn decode_object(bytes: &[u8]) -> Result<ProtobufObject, Status> {
    if !bytes.starts_with(MAGIC) {
        return Err(Status::bad_request(
            "provided data does not appear to be a protobuf message, expected prefix 'k8s'",
        ));
    }
    let opened = open(bytes, &mut Budget::default())
        .map_err(|e| Status::bad_request(format!("couldn't decode the protobuf body: {e}")))?;
    opened.ok_or_else(|| Status::bad_request("the kind of the protobuf body is not known to this server"))
}

/// Decodes the bare message of a type.
pub fn decode(ty: &'static Type, bytes: &[u8]) -> Result<Value, WireError> {
    let mut value = decode::message(ty, bytes, &mut Budget::default())?;
    normalize(ty.shape(), &mut value);
    Ok(value)
}

/// `size` is about that of the content.
fn envelope(api_version: &str, kind: &str, size: usize, content: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::with_capacity(size + 64);
    out.extend_from_slice(MAGIC);
    write_part(&mut out, 1, |out| {
        write_bytes(out, 1, api_version.as_bytes());
        write_bytes(out, 2, kind.as_bytes());
    });
    write_part(&mut out, 2, content);
    write_bytes(&mut out, 3, b"");
    write_bytes(&mut out, 4, b"");
    out
}

/// Opens an envelope; `None` when the kind inside is not known.
fn open(bytes: &[u8], budget: &mut Budget) -> Result<Option<ProtobufObject>, WireError> {
    let mut type_meta: &[u8] = &[];
    let mut raw: &[u8] = &[];
    let mut content_type: &[u8] = &[];
    let mut reader = Reader::new(bytes.get(MAGIC.len()..).unwrap_or_default());
    while let Some((number, part)) = reader.next()? {
        match (number, part) {
            (1, Part::Bytes(bytes)) => type_meta = bytes,
            (2, Part::Bytes(bytes)) => raw = bytes,
            (4, Part::Bytes(bytes)) => content_type = bytes,
            _ => {}
        }
    }
    let (api_version, kind) = kind_of(type_meta)?;
    let mut value = if content_type == b"application/json" {
        decode::raw_json(Some(raw))?
    } else {
        let Some(ty) = schema::by_kind(&api_version, &kind) else { return Ok(None) };
        let mut value = decode::message(ty, raw, budget)?;
        normalize(ty.shape(), &mut value);
        value
    };
    if let Some(members) = value.as_object_mut() {
        members.insert("apiVersion".to_owned(), api_version.as_str().into());
        members.insert("kind".to_owned(), kind.as_str().into());
    }
    Ok(Some(ProtobufObject { api_version, kind, value }))
}

fn kind_of(type_meta: &[u8]) -> Result<(String, String), WireError> {
    let mut names = [String::new(), String::new()];
    let mut reader = Reader::new(type_meta);
    while let Some((number, part)) = reader.next()? {
        if let (1 | 2, Part::Bytes(bytes)) = (number, part) {
            let text = std::str::from_utf8(bytes).map_err(|_| WireError::Text(number))?;
            text.clone_into(&mut names[number as usize - 1]);
        }
    }
    let [api_version, kind] = names;
    Ok((api_version, kind))
}

#[cfg(test)]
mod tests;
