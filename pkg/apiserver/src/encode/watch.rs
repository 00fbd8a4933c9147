//! Watch events.

use bytes::{Bytes, BytesMut};
use kube1_api::codec::protobuf::watch_frame;
use kube1_api::codec::write_json;
use kube1_api::status::Status;
use serde_json::Value;

use super::Encoder;
use crate::negotiate::Format;
use crate::storage::{Encoding, Round, WatchEvent};

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
        if self.is_verbatim() {
            return Ok(self.shared_frame(Encoding::Json, event));
        }
        if self.is_transcoded() {
            return Ok(self.shared_frame(Encoding::Protobuf, event));
        }
        self.event_of(event.kind.as_str(), self.shown(event.object.json())?, first)
    }

    /// The frames of events that watchers are told together, if they are the same for all; else each must be asked for.
    pub fn round(&self, round: &Round) -> Option<Bytes> {
        let encoding = match (self.is_verbatim(), self.is_transcoded()) {
            (true, _) => Encoding::Json,
            (_, true) => Encoding::Protobuf,
            _ => return None,
        };
        Some(round.encoded(encoding, |events| {
            match events {
                [event] => self.shared_frame(encoding, event),
                // They are wanted one by one by hardly anyone else.
                _ => events
                    .iter()
                    .fold(BytesMut::new(), |mut all, event| {
                        all.extend_from_slice(&self.shared_frame(encoding, event));
                        all
                    })
                    .freeze(),
            }
        }))
    }

    fn shared_frame(&self, encoding: Encoding, event: &WatchEvent) -> Bytes {
        let (kind, stored) = (event.kind.as_str(), event.object.json());
        event.encoded(encoding, || match encoding {
            Encoding::Json => told(kind, stored),
            Encoding::Protobuf => super::render::protobuf_of_stored(&self.row, stored)
                .map_or_else(|_| Bytes::new(), |object| watch_frame(kind, &object).into()),
        })
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
            _ => {
                let mut json = Vec::with_capacity(512);
                write_json(&mut json, object);
                Ok(told(kind, &json))
            }
        }
    }
}

/// A frame in JSON. The kind comes first, as from upstream: clients may decode the object as they read it.
fn told(kind: &str, stored: &[u8]) -> Bytes {
    [b"{\"type\":\"", kind.as_bytes(), b"\",\"object\":", stored, b"}\n"].concat().into()
}
