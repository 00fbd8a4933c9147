//! Watch events.

use bytes::Bytes;
use kube1_api::status::Status;
use serde_json::{Value, json};

use super::Encoder;
use crate::negotiate::Format;
use crate::storage::{Encoding, WatchEvent};

impl Encoder {
    /// The media type of a stream of events.
    pub fn stream_media_type(&self) -> &'static str {
        match self.accepted.format {
            Format::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
            format => format.media_type(),
        }
    }

    /// The frame of an event. `first` is cleared once a Table has told its columns.
    pub fn event(&self, event: &WatchEvent, first: &mut bool) -> Result<Bytes, Status> {
        let kind = event.kind.as_str();
        if self.is_verbatim() {
            return Ok(event.encoded(Encoding::Json, || verbatim(kind, event.object.json())));
        }
        if self.is_transcoded() {
            let object = |stored| super::render::protobuf_of_stored(&self.row, stored);
            let frame = |object: Vec<u8>| kube1_api::codec::protobuf::watch_frame(kind, &object).into();
            let encode = || object(event.object.json()).map_or_else(|_| Bytes::new(), frame);
            return Ok(event.encoded(Encoding::Protobuf, encode));
        }
        self.event_of(kind, self.shown(event.object.json())?, first)
    }

    /// As [`Encoder::event`], for an object of the row's own version.
    pub fn event_of(&self, kind: &str, object: Value, first: &mut bool) -> Result<Bytes, Status> {
        let columns = std::mem::replace(first, false);
        self.frame(kind, &self.view(object, columns)?)
    }

    /// The frame of an event about a value that is complete, such as a Status.
    pub fn frame(&self, kind: &str, object: &Value) -> Result<Bytes, Status> {
        match self.accepted.format {
            Format::Protobuf => super::render::protobuf_event(kind, object),
            _ => Ok(format!("{}\n", json!({"type": kind, "object": object})).into()),
        }
    }
}

/// The usual frame, made of stored bytes.
fn verbatim(kind: &str, stored: &[u8]) -> Bytes {
    [b"{\"type\":\"", kind.as_bytes(), b"\",\"object\":", stored, b"}\n"].concat().into()
}
