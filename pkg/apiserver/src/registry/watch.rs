//! Watching collections.

use bytes::{Bytes, BytesMut};
use futures::future::poll_fn;
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
use crate::metrics::WatchMeters;
use crate::negotiate::Answer;
use crate::options::ListOptions;
use crate::request_info::RequestInfo;
use crate::storage::{Round, Told, WatchEvent, WatchKind, WatchStream};

/// Frames shorter than this are sent together with what else is ready.
const BATCH: usize = 8 * 1024;

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
                // A token of its own, as all those who poll the same one wait for each other.
                let shutdown = self.server.shutdown.child_token();
                let RequestInfo { group, version, resource, .. } = &call.info;
                let scope = if self.scope().is_some() { "namespace" } else { "cluster" };
                let meters = WatchMeters::of(group, version, resource, scope);
                let state =
                    State { events, encoder, endpoint: self.clone(), selection, meters, first: true, over: false };
                ResponseBody::stream(frames(state).take_until(shutdown.cancelled_owned()))
            }
            // Clients learn from the stream that their version is too old, and list again.
            Err(status) if status.code() == 410 => ResponseBody::Full(encoder.frame("ERROR", &status.to_json())?),
            Err(status) => return Err(status),
        };
        match wish {
            Some(wish) => Ok(wish.grant(&self.server, reply)),
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
    meters: WatchMeters,
    first: bool,
    over: bool,
}

/// The events as bytes; an event that cannot be encoded ends the stream with an ERROR event.
fn frames(state: State) -> impl futures::Stream<Item = Result<Bytes, BoxError>> + Send + 'static {
    futures::stream::unfold(state, |mut state| async move {
        let mut frame = loop {
            let told = state.told().await?;
            if let Some(frame) = state.shown(&told).await {
                break frame;
            }
        };
        if frame.len() >= BATCH {
            return Some((Ok(frame), state));
        }
        // What else is ready goes along, so that a burst of changes does not take a packet each.
        let mut batch = BytesMut::new();
        while frame.len().max(batch.len()) < BATCH
            && let Some(told) = state.told().now_or_never()
        {
            let Some(told) = told else {
                state.over = true;
                break;
            };
            let Some(more) = state.shown(&told).await else { continue };
            if batch.is_empty() {
                batch.extend_from_slice(&frame);
            }
            batch.extend_from_slice(&more);
        }
        if !batch.is_empty() {
            frame = batch.freeze();
        }
        Some((Ok(frame), state))
    })
}

impl State {
    /// What comes next; `None` at the end.
    async fn told(&mut self) -> Option<Told> {
        if self.over { None } else { poll_fn(|cx| self.events.poll_told(cx)).await }
    }

    /// `None` when it does not concern the watcher.
    async fn shown(&mut self, told: &Told) -> Option<Bytes> {
        match told {
            Told::Event(event) => self.frame(event).await,
            Told::Round(round) => match self.encoder.round(round) {
                Some(bytes) => {
                    self.meters.sent_together(round.events().len(), bytes.len());
                    Some(bytes)
                }
                None => self.frames(round).await,
            },
        }
    }

    async fn frames(&mut self, round: &Round) -> Option<Bytes> {
        let mut all = BytesMut::new();
        for event in round.events() {
            let Some(frame) = self.frame(event).await else { continue };
            all.extend_from_slice(&frame);
            if self.over {
                break;
            }
        }
        (!all.is_empty()).then(|| all.freeze())
    }

    /// `None` for an event that does not concern the watcher.
    async fn frame(&mut self, event: &WatchEvent) -> Option<Bytes> {
        let frame = if self.endpoint.row.conversion.is_some() && event.kind != WatchKind::Bookmark {
            self.converted(event).await
        } else {
            self.encoder.event(event, &mut self.first).map(Some)
        };
        let frame = frame.unwrap_or_else(|status| {
            self.over = true;
            Some(self.encoder.frame("ERROR", &status.to_json()).unwrap_or_default())
        });
        if let Some(frame) = &frame {
            self.meters.sent(frame.len(), event.ends_initial());
        }
        frame
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
