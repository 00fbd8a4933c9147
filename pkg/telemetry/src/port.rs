//! Ports where monitoring and load balancers ask small questions over plain HTTP.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
pub use hyper::StatusCode;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
pub use hyper::header::HeaderValue;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Connections that one port serves at a time.
const CONNECTIONS: usize = 64;
/// A client that does not end its request is cut off: others wait for its place.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause after a connection could not be taken, as when no file descriptors are left.
const RETRY: Duration = Duration::from_millis(100);

/// The content type of metrics.
pub const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
/// The content type of other texts.
pub const TEXT: &str = "text/plain; charset=utf-8";

/// What a port answers.
pub type Answer = Response<Full<Bytes>>;

/// An answer of a content type.
pub fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// The answer to a path that is not served.
pub fn not_found() -> Answer {
    answer(StatusCode::NOT_FOUND, TEXT, "404 page not found\n")
}

/// Answers every request on `listener` by its path alone, one for each connection, until stopped.
pub async fn serve(
    listener: TcpListener,
    stop: CancellationToken,
    answer: impl Fn(&str) -> Answer + Send + Sync + 'static,
) {
    let (answer, mut connections) = (Arc::new(answer), JoinSet::new());
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept(), if connections.len() < CONNECTIONS => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(RETRY).await;
            continue;
        };
        let answer = Arc::clone(&answer);
        connections.spawn(async move {
            let reply = service_fn(move |request: Request<Incoming>| {
                std::future::ready(Ok::<_, Infallible>(answer(request.uri().path())))
            });
            let served = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), reply);
            // A client that breaks off or dawdles is not our concern.
            let _ = tokio::time::timeout(PATIENCE, served).await;
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn silent_clients_do_not_keep_others_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, stop.clone(), |path| match path {
            "/a" => answer(StatusCode::OK, TEXT, "yes"),
            _ => not_found(),
        }));
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        for (path, status, end) in [("/a", "200 OK", "yes"), ("/b", "404 Not Found", "not found\n")] {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
            let mut text = String::new();
            client.read_to_string(&mut text).await.unwrap();
            assert!(text.starts_with(&format!("HTTP/1.1 {status}\r\n")) && text.ends_with(end), "{text}");
        }
        stop.cancel();
        serving.await.unwrap();
    }
}
