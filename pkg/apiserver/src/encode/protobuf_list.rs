//! Lists in protobuf, transcoded from the stored bytes while they are sent.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};
use kube1_api::codec::protobuf::ListEncoder;

use super::Encoder;
use super::list::{CHUNK, ListHead};
use crate::http::body::{BoxError, ResponseBody};
use crate::http::compress::Compressible;
use crate::http::respond::{self, Reply};
use crate::storage::Object;

/// Objects that are looked at before other tasks get their turn.
const TURN: usize = 64;

struct State {
    encoder: ListEncoder,
    api_version: String,
    kind: String,
    /// Taken once the list was opened.
    head: Option<ListHead>,
    items: std::vec::IntoIter<Arc<Object>>,
    done: bool,
}

impl Encoder {
    /// Memory for a chunk is all that such a list takes, however long it is: the lengths that come first are those that
    /// the objects remember.
    pub(super) fn transcoded(&self, encoder: ListEncoder, head: &ListHead, items: Vec<Arc<Object>>) -> Reply {
        let state = State {
            encoder,
            api_version: self.row.api_version(),
            kind: self.row.list_kind.clone(),
            head: Some(head.clone()),
            items: items.into_iter(),
            done: false,
        };
        let chunks = futures::stream::unfold(state, |mut state| async move {
            if state.done {
                return None;
            }
            let chunk = state.chunk().await;
            Some((Ok::<_, BoxError>(chunk), state))
        });
        let mut reply = respond::bytes(StatusCode::OK, "", Bytes::new());
        reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(self.accepted.format.media_type()));
        reply.extensions_mut().insert(Compressible);
        *reply.body_mut() = ResponseBody::stream(chunks);
        reply
    }
}

impl State {
    async fn chunk(&mut self) -> Bytes {
        let mut out = Vec::with_capacity(CHUNK + 8 * 1024);
        if let Some(head) = self.head.take() {
            let size = self.measure().await;
            self.encoder.open(&mut out, &self.api_version, &self.kind, &head.to_json(), size);
        }
        while out.len() < CHUNK {
            let Some(item) = self.items.next() else {
                ListEncoder::close(&mut out);
                self.done = true;
                break;
            };
            self.encoder.item(&mut out, item.json());
        }
        out.into()
    }

    /// What all items take together.
    async fn measure(&mut self) -> usize {
        let (mut size, mut measured, mut scratch) = (0, 0, Vec::new());
        for item in self.items.as_slice() {
            let message = item.protobuf_size(|| {
                measured += 1;
                scratch.clear();
                self.encoder.message(&mut scratch, item.json());
                scratch.len()
            });
            size += ListEncoder::item_size(message);
            if measured == TURN {
                measured = 0;
                tokio::task::yield_now().await;
            }
        }
        size
    }
}
