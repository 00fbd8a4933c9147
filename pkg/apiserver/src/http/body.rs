//! Bodies of requests and responses.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures::Stream;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty};
use kube1_api::status::Status;

/// Any failure of a transport.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A request's body as the pipeline sees it, whatever transport it came by.
pub type RequestBody = UnsyncBoxBody<Bytes, BoxError>;

/// The body of a request that has none. Takes no memory.
pub fn no_body() -> RequestBody {
    RequestBody::new(Empty::new().map_err(|never| match never {}))
}

/// Bytes that are produced while they are sent.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, BoxError>> + Send>>;

/// The largest request body that is read.
pub const MAX_BODY: usize = 3 * 1024 * 1024;

/// A response's body: empty, shared bytes, a stream of bytes, or another server's answer passed on.
pub enum ResponseBody {
    Full(Bytes),
    Stream(ByteStream),
    Proxied(UnsyncBoxBody<Bytes, BoxError>),
}

impl ResponseBody {
    pub fn empty() -> Self {
        Self::Full(Bytes::new())
    }

    pub fn stream(stream: impl Stream<Item = Result<Bytes, BoxError>> + Send + 'static) -> Self {
        Self::Stream(Box::pin(stream))
    }

    /// The same body; `guard` is dropped when it has been sent or given up.
    pub fn holding(self, guard: impl Send + 'static) -> Self {
        self.measured(move |_| drop(guard))
    }

    /// The same body; when it has been sent or given up, `ended` is told how many of its bytes were sent.
    pub fn measured(self, ended: impl FnOnce(u64) + Send + 'static) -> Self {
        Self::Proxied(UnsyncBoxBody::new(Measured { body: self, sent: 0, ended: Some(Box::new(ended)) }))
    }

    /// The bytes of a body that is already complete.
    pub fn full(&self) -> Option<&Bytes> {
        if let Self::Full(bytes) = self { Some(bytes) } else { None }
    }
}

/// A body whose end somebody wants to hear of.
struct Measured {
    body: ResponseBody,
    sent: u64,
    ended: Option<Box<dyn FnOnce(u64) + Send>>,
}

impl http_body::Body for Measured {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            this.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        if let Some(ended) = self.ended.take() {
            ended(self.sent);
        }
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Stream(stream) => stream.as_mut().poll_next(cx).map(|item| item.map(|bytes| bytes.map(Frame::data))),
            Self::Proxied(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_empty(),
            Self::Stream(_) => false,
            Self::Proxied(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(_) => SizeHint::default(),
            Self::Proxied(body) => body.size_hint(),
        }
    }
}

/// Reads an answer's whole body; 502 when it is longer than `limit`.
pub async fn read_limited(mut body: ResponseBody, limit: usize) -> Result<Bytes, Status> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Status::internal(format!("cannot read the answer: {e}")))?;
        if let Ok(data) = frame.into_data() {
            whole.extend_from_slice(&data);
        }
        if whole.len() > limit {
            return Err(Status::internal("the answer is too long"));
        }
    }
    Ok(whole.freeze())
}

/// Reads a request's whole body, up to [`MAX_BODY`].
pub async fn read(mut body: RequestBody) -> Result<Bytes, Status> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Status::bad_request(format!("cannot read the body of the request: {e}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + data.len() > MAX_BODY {
            return Err(Status::too_large(format!("limit is {MAX_BODY}")));
        }
        if whole.is_empty() && body.is_end_stream() {
            return Ok(data);
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}
