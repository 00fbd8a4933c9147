//! Watching collections.

use bytes::{Bytes, BytesMut};
use futures::{FutureExt, StreamExt};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};
use kube1_api::selector::FieldSelector;
use kube1_api::status::Status;

use super::Endpoint;
use crate::call::Call;
use crate::encode::Encoder;
use crate::http::body::{BoxError, ResponseBody};
use crate::http::respond::{self, JSON, Reply};
use crate::http::websocket::Wish;
use crate::negotiate::Answer;
use crate::options::ListOptions;
use crate::storage::{WatchEvent, WatchKind, WatchStream};

/// Frames that are ready together are sent together up to about this many bytes.
const BATCH: usize = 64 * 1024;

impl Endpoint {
    /// GET of a collection with `watch=true`.
    pub async fn watch(&self, call: &mut Call) -> Result<Reply, Status> {
        let wish = Wish::take(&mut call.parts, true)?;
        let encoder = Encoder::new(&self.row, call, Answer::Stream)?;
        let mut options = ListOptions::parse(&call.query, true)?;
        if !call.info.name.is_empty() && options.fields.exact("metadata.name").is_none() {
            // The old form of a path that names what is watched.
            let fields = format!("metadata.name={},{}", call.info.name, call.info.field_selector);
            options.fields = FieldSelector::parse(&fields).map_err(|e| Status::bad_request(e.to_string()))?;
        }
        self.check_fields(&options.fields)?;
        if options.timeout_seconds.is_none_or(|seconds| seconds == 0) {
            let least = self.server.config.front.requests.min_watch_timeout.as_secs().max(1);
            options.timeout_seconds = Some(rand::random_range(least..least * 2));
        }
        let mut reply = respond::bytes(StatusCode::OK, JSON, Bytes::new());
        reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(encoder.stream_media_type()));
        *reply.body_mut() = match self.collection.watch(self.scope(), &options).await {
            Ok(events) => {
                let shutdown = self.server.shutdown.clone();
                let frames = frames(events, encoder, self.clone()).take_until(shutdown.cancelled_owned());
                ResponseBody::stream(frames)
            }
            // Clients learn from the stream that their version is too old, and list again.
            Err(status) if status.code() == 410 => ResponseBody::Full(encoder.frame("ERROR", &status.to_json())?),
            Err(status) => return Err(status),
        };
        match wish {
            Some(wish) => wish.grant(&self.server, reply),
            None => Ok(reply),
        }
    }
}

struct State {
    events: WatchStream,
    encoder: Encoder,
    endpoint: Endpoint,
    first: bool,
    over: bool,
}

/// The events as bytes; an event that cannot be encoded ends the stream with an ERROR event.
fn frames(
    events: WatchStream,
    encoder: Encoder,
    endpoint: Endpoint,
) -> impl futures::Stream<Item = Result<Bytes, BoxError>> + Send + 'static {
    let state = State { events, encoder, endpoint, first: true, over: false };
    futures::stream::unfold(state, |mut state| async move {
        if state.over {
            return None;
        }
        let event = state.events.next().await?;
        let frame = state.frame(&event).await;
        // What else is ready goes along, so that a burst of changes does not take a packet each.
        let mut batch = BytesMut::new();
        while !state.over && frame.len() + batch.len() < BATCH {
            match state.events.next().now_or_never() {
                Some(Some(event)) => {
                    let more = state.frame(&event).await;
                    if batch.is_empty() {
                        batch.extend_from_slice(&frame);
                    }
                    batch.extend_from_slice(&more);
                }
                Some(None) => state.over = true,
                None => break,
            }
        }
        let bytes = if batch.is_empty() { frame } else { batch.freeze() };
        Some((Ok(bytes), state))
    })
}

impl State {
    async fn frame(&mut self, event: &WatchEvent) -> Bytes {
        let frame = if self.endpoint.row.conversion.is_some() && event.kind != WatchKind::Bookmark {
            let shown = self.endpoint.shown(&event.object).await;
            shown.and_then(|object| self.encoder.event_of(event.kind.as_str(), object, &mut self.first))
        } else {
            self.encoder.event(event, &mut self.first)
        };
        match frame {
            Ok(frame) => frame,
            Err(status) => {
                self.over = true;
                self.encoder.frame("ERROR", &status.to_json()).unwrap_or_default()
            }
        }
    }
}
