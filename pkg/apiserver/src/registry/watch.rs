//! Watching collections.

use bytes::{Bytes, BytesMut};
use futures::{FutureExt, StreamExt};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};
use kube1_api::selector::FieldSelector;
use kube1_api::status::Status;

use super::Endpoint;
use super::selection::Selection;
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
        *reply.body_mut() = match self.begin_watch(&mut options).await {
            Ok((events, selection)) => {
                let shutdown = self.server.shutdown.clone();
                let state = State { events, encoder, endpoint: self.clone(), selection, first: true, over: false };
                ResponseBody::stream(frames(state).take_until(shutdown.cancelled_owned()))
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

    async fn begin_watch(&self, options: &mut ListOptions) -> Result<(WatchStream, Option<Selection>), Status> {
        let selection = self.selection(options).await?;
        Ok((self.collection.watch(self.scope(), options).await?, selection))
    }
}

struct State {
    events: WatchStream,
    encoder: Encoder,
    endpoint: Endpoint,
    selection: Option<Selection>,
    first: bool,
    over: bool,
}

/// The events as bytes; an event that cannot be encoded ends the stream with an ERROR event.
fn frames(state: State) -> impl futures::Stream<Item = Result<Bytes, BoxError>> + Send + 'static {
    futures::stream::unfold(state, |mut state| async move {
        if state.over {
            return None;
        }
        let frame = loop {
            let event = state.events.next().await?;
            if let Some(frame) = state.frame(&event).await {
                break frame;
            }
        };
        // What else is ready goes along, so that a burst of changes does not take a packet each.
        let mut batch = BytesMut::new();
        while !state.over && frame.len() + batch.len() < BATCH {
            match state.events.next().now_or_never() {
                Some(Some(event)) => {
                    let Some(more) = state.frame(&event).await else { continue };
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
    /// `None` for an event that does not concern the watcher.
    async fn frame(&mut self, event: &WatchEvent) -> Option<Bytes> {
        let frame = if self.endpoint.row.conversion.is_some() && event.kind != WatchKind::Bookmark {
            self.converted(event).await
        } else {
            self.encoder.event(event, &mut self.first).map(Some)
        };
        frame.unwrap_or_else(|status| {
            self.over = true;
            Some(self.encoder.frame("ERROR", &status.to_json()).unwrap_or_default())
        })
    }

    async fn converted(&mut self, event: &WatchEvent) -> Result<Option<Bytes>, Status> {
        let shown = self.endpoint.shown(&event.object).await?;
        let seen = match &mut self.selection {
            Some(selection) => selection.see(event, shown),
            None => Some((event.kind, shown)),
        };
        let Some((kind, object)) = seen else { return Ok(None) };
        self.encoder.event_of(kind.as_str(), object, &mut self.first).map(Some)
    }
}
