//! A gRPC server on a unix socket, of calls that have one request and one answer.

use std::path::Path;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixListener;
use tokio::task::AbortHandle;

/// What a call is answered with; an error is a code and a message.
pub type Answer = Result<Vec<u8>, (u32, String)>;

/// A running server; dropping it closes it and its connections.
pub struct GrpcServer(AbortHandle);

impl Drop for GrpcServer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Answers every call on the socket with what `answer` makes of its path and message.
pub fn serve(socket: &Path, answer: impl Fn(&str, Bytes) -> Answer + Send + Sync + 'static) -> GrpcServer {
    let _ = std::fs::remove_file(socket);
    let listener = UnixListener::bind(socket).unwrap();
    let answer = Arc::new(answer);
    let serving = async move {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let answer = answer.clone();
            let service = service_fn(move |request: Request<Incoming>| respond(request, answer.clone()));
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            connections.spawn(async move {
                let _ = connection.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    };
    GrpcServer(tokio::spawn(serving).abort_handle())
}

type Body = StreamBody<futures::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, std::convert::Infallible>>>>;

async fn respond<A: Fn(&str, Bytes) -> Answer>(
    request: Request<Incoming>,
    answer: Arc<A>,
) -> Result<Response<Body>, std::convert::Infallible> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let mut frames = Vec::new();
    let mut trailers = HeaderMap::new();
    match answer(&path, body.slice(5..)) {
        Ok(message) => {
            let mut framed = BytesMut::new();
            framed.put_u8(0);
            framed.put_u32(message.len() as u32);
            framed.put_slice(&message);
            frames.push(Ok(Frame::data(framed.freeze())));
            trailers.insert("grpc-status", 0.into());
        }
        Err((code, message)) => {
            trailers.insert("grpc-status", code.into());
            trailers.insert("grpc-message", message.parse().unwrap());
        }
    }
    frames.push(Ok(Frame::trailers(trailers)));
    let body = StreamBody::new(futures::stream::iter(frames));
    Ok(Response::builder().header("content-type", "application/grpc").body(body).unwrap())
}
