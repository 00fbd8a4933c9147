//! Lists.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use kube1_api::codec::protobuf::ListEncoder;
use kube1_api::codec::{partial_object_metadata, write_json_as};
use kube1_api::status::Status;
use serde_json::{Map, Value, json};

use super::Encoder;
use crate::http::body::{BoxError, ResponseBody};
use crate::http::compress::Compressible;
use crate::http::respond::{self, JSON, Reply};
use crate::negotiate::View;
use crate::storage::{ListScan, Object};

/// Chunks of a streamed list are about this long; lists shorter than it are sent whole.
pub(super) const CHUNK: usize = 128 * 1024;

/// The metadata of a list.
#[derive(Clone, Debug, Default)]
pub struct ListHead {
    pub revision: u64,
    pub continue_token: String,
    pub remaining: Option<u64>,
}

impl ListHead {
    pub(super) fn to_json(&self) -> Value {
        self.to_map().into()
    }

    /// Lists of custom resources say also that there is no more.
    fn of_custom(&self) -> Value {
        let mut meta = self.to_map();
        meta.entry("continue").or_insert_with(|| "".into());
        meta.into()
    }

    fn to_map(&self) -> Map<String, Value> {
        let mut meta = Map::new();
        // What is not stored has no revision.
        if self.revision > 0 {
            meta.insert("resourceVersion".into(), self.revision.to_string().into());
        }
        if !self.continue_token.is_empty() {
            meta.insert("continue".into(), self.continue_token.clone().into());
        }
        if let Some(remaining) = self.remaining {
            meta.insert("remainingItemCount".into(), remaining.into());
        }
        meta
    }
}

impl Encoder {
    /// The answer that is a list of stored objects.
    pub fn list(&self, head: &ListHead, items: Vec<Arc<Object>>) -> Result<Reply, Status> {
        if self.is_verbatim() {
            return Ok(self.spliced(head, Items::Page(items.into_iter())));
        }
        if self.is_transcoded()
            && let Some(encoder) = ListEncoder::new(&self.row.api_version(), &self.row.list_kind)
        {
            return Ok(self.transcoded(encoder, head, items));
        }
        let mut values = Vec::with_capacity(items.len());
        for item in &items {
            values.push(self.shown(item.json())?);
        }
        self.list_of(head, values)
    }

    /// The answer that is a list of objects of the row's own version.
    pub fn list_of(&self, head: &ListHead, mut items: Vec<Value>) -> Result<Reply, Status> {
        let list = match self.accepted.view {
            View::Table(version) => self.table(&items.iter().collect::<Vec<_>>(), &head.to_json(), version, true),
            View::Metadata(version) => json!({
                "kind": "PartialObjectMetadataList", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": head.to_json(),
                "items": items.iter().map(|i| partial_object_metadata(i, version)).collect::<Value>(),
            }),
            View::Object => {
                if !self.row.is_custom() {
                    for item in items.iter_mut().filter_map(Value::as_object_mut) {
                        item.remove("apiVersion");
                        item.remove("kind");
                    }
                }
                let head = if self.row.is_custom() { head.of_custom() } else { head.to_json() };
                json!({"kind": self.row.list_kind, "apiVersion": self.row.api_version(), "metadata": head, "items": items})
            }
        };
        Ok(respond::bytes(StatusCode::OK, self.accepted.format.media_type(), self.write(&list)?))
    }

    /// The answer that is a whole list, if stored bytes are the answer as they are.
    pub fn scanned(&self, scan: ListScan) -> Reply {
        self.spliced(&ListHead { revision: scan.revision(), ..ListHead::default() }, Items::Scan(scan))
    }

    /// JSON put together from stored bytes, a chunk at a time.
    fn spliced(&self, head: &ListHead, items: Items) -> Reply {
        let api_version = self.row.api_version();
        let kind = &self.row.list_kind;
        let mut opening = format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":").into_bytes();
        write_json_as(&mut opening, &head.to_json(), &["resourceVersion", "continue", "remainingItemCount"]);
        opening.extend_from_slice(b",\"items\":[");
        // Items of built-in kinds do not repeat their kind.
        let bare = !self.row.is_custom();
        let mut splicer = Splicer { opening: opening.into(), bare, items, first: true, done: false };
        let Some(first) = splicer.next() else { return respond::bytes(StatusCode::OK, JSON, Bytes::new()) };
        if splicer.done {
            return respond::bytes(StatusCode::OK, JSON, first);
        }
        let chunks = std::iter::once(first).chain(splicer).map(Ok::<_, BoxError>);
        let mut reply = respond::bytes(StatusCode::OK, JSON, Bytes::new());
        reply.extensions_mut().insert(Compressible);
        *reply.body_mut() = ResponseBody::stream(futures::stream::iter(chunks));
        reply
    }
}

/// Where the objects of a list come from.
enum Items {
    Page(std::vec::IntoIter<Arc<Object>>),
    Scan(ListScan),
}

impl Items {
    /// The next objects, about as many as have `bytes`, and whether more may follow.
    fn next_objects(&mut self, bytes: usize) -> (Vec<Arc<Object>>, bool) {
        let (mut found, mut size) = (Vec::new(), 0);
        match self {
            Self::Scan(scan) => {
                found = scan.next_objects(bytes);
                size = found.iter().map(|object| object.json().len()).sum();
            }
            Self::Page(items) => {
                while size < bytes
                    && let Some(object) = items.next()
                {
                    size += object.json().len();
                    found.push(object);
                }
            }
        }
        (found, size >= bytes)
    }
}

struct Splicer {
    opening: Bytes,
    bare: bool,
    items: Items,
    first: bool,
    done: bool,
}

impl Iterator for Splicer {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.done {
            return None;
        }
        let (objects, more) = self.items.next_objects(CHUNK);
        let size: usize = objects.iter().map(|object| object.json().len() + 1).sum();
        let mut chunk = Vec::with_capacity(size + self.opening.len() + 3);
        chunk.extend_from_slice(&std::mem::take(&mut self.opening));
        for object in &objects {
            if !std::mem::replace(&mut self.first, false) {
                chunk.push(b',');
            }
            if self.bare {
                chunk.push(b'{');
                chunk.extend_from_slice(object.json_without_kind());
            } else {
                chunk.extend_from_slice(object.json());
            }
        }
        if !more {
            chunk.extend_from_slice(b"]}\n");
            self.done = true;
        }
        Some(chunk.into())
    }
}
