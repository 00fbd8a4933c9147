//! Objects in the representation that a client accepted, made from the stored bytes.
//!
//! The usual case, JSON of the stored version, copies bytes and parses nothing.

mod list;
mod protobuf_list;
mod render;
mod watch;

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use http::header::{HeaderValue, RETRY_AFTER};
use kube1_api::codec::{encode_yaml, partial_object_metadata, write_json, write_pretty_json};
use kube1_api::resource::Resource;
use kube1_api::status::Status;
use kube1_api::table::IncludeObject;
use serde_json::Value;

pub use list::ListHead;
pub use render::{decode_delete_options, decode_protobuf};

use crate::call::Call;
use crate::convert;
use crate::http::respond::{self, JSON, Reply};
use crate::negotiate::{self, Accepted, Answer, Format, Offer, View};

/// Writes objects of one resource for one client.
#[derive(Clone)]
pub struct Encoder {
    pub row: Arc<Resource>,
    pub accepted: Accepted,
    include: IncludeObject,
}

impl Encoder {
    /// Chooses the representation by the request's headers.
    pub fn new(row: &Arc<Resource>, call: &Call, answer: Answer) -> Result<Self, Status> {
        let offer = Offer { protobuf: row.has_protobuf(), views: true, answer };
        let accepted = negotiate::accept(call.headers(), &call.query, offer)?;
        let include = call.query.get("includeObject").unwrap_or_default();
        let include = match IncludeObject::parse(include) {
            None if matches!(accepted.view, View::Table(_)) => {
                return Err(Status::bad_request(format!(
                    "Unable to convert to Table as requested: includeObject: Invalid value: {include:?}: must be \
                     'Metadata', 'Object', 'None', or empty"
                )));
            }
            include => include.unwrap_or_default(),
        };
        Ok(Self { row: row.clone(), accepted, include })
    }

    /// Whether stored bytes are the answer as they are.
    pub fn is_verbatim(&self) -> bool {
        self.accepted == Accepted::default() && self.row.is_storage_version() && !self.row.is_custom()
    }

    /// Whether the answer is the protobuf form of the stored bytes.
    fn is_transcoded(&self) -> bool {
        self.accepted == Accepted::plain(Format::Protobuf) && self.row.is_storage_version() && !self.row.is_custom()
    }

    /// A stored object as the row shows it.
    pub fn shown(&self, stored: &[u8]) -> Result<Value, Status> {
        let mut value: Value = serde_json::from_slice(stored).map_err(Status::internal)?;
        convert::shown(&self.row, &mut value);
        Ok(value)
    }

    /// The answer that is one stored object, given as its line.
    pub fn stored(&self, code: StatusCode, stored: &Bytes) -> Result<Reply, Status> {
        if self.is_verbatim() {
            return Ok(respond::bytes(code, JSON, stored.clone()));
        }
        if self.is_transcoded() {
            let body = render::protobuf_of_stored(&self.row, stored.trim_ascii_end())?;
            return Ok(respond::bytes(code, self.accepted.format.media_type(), body));
        }
        self.object(code, self.shown(stored)?)
    }

    /// The answer that is one object of the row's own version.
    pub fn object(&self, code: StatusCode, object: Value) -> Result<Reply, Status> {
        let viewed = self.view(object, true)?;
        Ok(respond::bytes(code, self.accepted.format.media_type(), self.write(&viewed)?))
    }

    /// The answer that is a Status, which has no other view.
    pub fn status(&self, code: StatusCode, status: &Value) -> Result<Reply, Status> {
        Ok(respond::bytes(code, self.accepted.format.media_type(), self.write(status)?))
    }

    /// The object as the accepted view shows it.
    fn view(&self, object: Value, columns: bool) -> Result<Value, Status> {
        Ok(match self.accepted.view {
            View::Object => object,
            View::Metadata(version) => partial_object_metadata(&object, version),
            View::Table(version) => {
                let meta = serde_json::json!({"resourceVersion": object["metadata"]["resourceVersion"]});
                self.table(&[&object], &meta, version, columns)
            }
        })
    }

    fn table(&self, objects: &[&Value], meta: &Value, version: &str, columns: bool) -> Value {
        render::table(&self.row, objects, meta, version, columns, self.include)
    }

    /// The bytes of a value in the accepted format.
    pub fn write(&self, value: &Value) -> Result<Vec<u8>, Status> {
        write(self.accepted, value)
    }
}

/// The bytes of a value in an accepted format.
pub fn write(accepted: Accepted, value: &Value) -> Result<Vec<u8>, Status> {
    match accepted.format {
        Format::Json => {
            let mut text = Vec::with_capacity(512);
            let write = if accepted.pretty { write_pretty_json } else { write_json };
            write(&mut text, value);
            text.push(b'\n');
            Ok(text)
        }
        Format::Yaml => encode_yaml(value),
        Format::Protobuf => render::protobuf(value),
    }
}

/// A failure as its Status object, in the format that the request accepts.
pub fn failure(accepted: Accepted, status: &Status) -> Reply {
    let code = StatusCode::from_u16(status.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let value = status.to_json();
    let mut reply = match write(accepted, &value) {
        Ok(body) => respond::bytes(code, accepted.format.media_type(), body),
        Err(_) => respond::json(code, &value),
    };
    if status.retry_after_seconds() > 0 {
        reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from(status.retry_after_seconds()));
    }
    reply
}

/// An answer in whatever format the request accepts; for objects that are computed rather than stored.
pub fn reply(call: &Call, code: StatusCode, value: &Value, protobuf: bool) -> Result<Reply, Status> {
    let offer = Offer { protobuf, views: false, answer: Answer::Object };
    let accepted = negotiate::accept(call.headers(), &call.query, offer)?;
    Ok(respond::bytes(code, accepted.format.media_type(), write(accepted, value)?))
}
