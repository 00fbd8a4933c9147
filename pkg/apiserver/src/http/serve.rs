//! The HTTPS listener.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::body::{RequestBody, ResponseBody};
use super::first::{First, PREFACE};
use super::requests::RequestOptions;
use super::respond::Reply;
use super::timer::ConnectionTimer;

/// How long a new connection may take for its first request while the server ends, and a client for its goodbye.
const FIRST: Duration = Duration::from_secs(1);
/// Bytes of one request's headers.
const HEADERS_MAX: u32 = 1 << 20;

/// What requests of the listener's connections are given to.
pub trait Handler: Send + Sync + 'static {
    /// What is found out about a client once for its connection.
    type Client: Send + Sync + 'static;

    /// `certificates` is the chain that the client showed, its own first; empty when it showed none.
    fn connected(&self, certificates: &[CertificateDer<'_>], address: SocketAddr) -> Self::Client;

    /// Called for each connection whose handshake failed.
    fn handshake_failed(&self) {}

    /// Whether the client of an HTTP/2 connection is to be told to make its next requests over another one.
    fn sends_away(&self, _request: &Request<RequestBody>) -> bool {
        false
    }

    /// Whether no connection is to be kept for another request, since the server will end soon.
    fn is_leaving(&self) -> bool {
        false
    }

    fn handle(
        self: Arc<Self>,
        request: Request<RequestBody>,
        client: Arc<Self::Client>,
    ) -> impl Future<Output = Reply> + Send;
}

/// Serves connections until `shutdown`; each by what `tls` gives for it. Then no more are taken, and those that are open may finish the requests they
/// are at, for as long as a request may take.
pub async fn serve<H: Handler>(
    listener: TcpListener,
    tls: impl Fn() -> Arc<ServerConfig>,
    handler: Arc<H>,
    options: &RequestOptions,
    shutdown: CancellationToken,
) {
    let (limits, drain) = (options.clone(), options.timeout);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, address)) => {
                    let (acceptor, handler, shutdown) = (TlsAcceptor::from(tls()), handler.clone(), shutdown.clone());
                    connections.spawn(connection(stream, address, acceptor, handler, limits.clone(), shutdown));
                }
                Err(error) => {
                    // Mostly a lack of file descriptors, which passes as connections end.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a connection's task failed");
                }
            }
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(drain, drained).await.is_err() {
        connections.shutdown().await;
    }
}

/// When a connection last had anything to do with a request, and how many of its answers are under way.
struct Activity {
    started: Instant,
    /// Milliseconds since.
    last: AtomicU64,
    open: AtomicUsize,
}

impl Activity {
    fn new() -> Arc<Self> {
        Arc::new(Self { started: Instant::now(), last: AtomicU64::new(0), open: AtomicUsize::new(0) })
    }

    fn begin(self: &Arc<Self>) -> Busy {
        self.open.fetch_add(1, Ordering::Relaxed);
        Busy(self.clone())
    }

    /// Ends when nothing has been under way for `limit`.
    async fn idle(&self, limit: Duration) {
        let mut end = self.started + limit;
        loop {
            tokio::time::sleep_until(end).await;
            let last = self.started + Duration::from_millis(self.last.load(Ordering::Relaxed));
            match self.open.load(Ordering::Relaxed) {
                0 if last + limit <= Instant::now() => return,
                0 => end = last + limit,
                _ => end = Instant::now() + limit,
            }
        }
    }
}

/// An answer that is under way.
struct Busy(Arc<Activity>);

impl Drop for Busy {
    fn drop(&mut self) {
        let now = u64::try_from(self.0.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.last.store(now, Ordering::Relaxed);
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn connection<H: Handler>(
    stream: TcpStream,
    address: SocketAddr,
    acceptor: TlsAcceptor,
    handler: Arc<H>,
    limits: RequestOptions,
    shutdown: CancellationToken,
) {
    // Small answers must not wait for acknowledgements.
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(limits.handshake_timeout, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            handler.handshake_failed();
            return tracing::debug!(%error, %address, "TLS handshake failed");
        }
        Err(_) => {
            handler.handshake_failed();
            return tracing::debug!(%address, "TLS handshake took too long");
        }
    };
    // Finding out by the first bytes would wait for them without end.
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let renew = Arc::new(Notify::new());
    let asked = renew.clone();
    let activity = is_http2.then(Activity::new);
    let active = activity.clone();
    let begun_once = Arc::new(AtomicBool::new(false));
    let asked_once = begun_once.clone();
    let client = Arc::new(handler.connected(stream.get_ref().1.peer_certificates().unwrap_or_default(), address));
    let service = service_fn(move |request: Request<Incoming>| {
        let request = request.map(|body| match body.is_end_stream() {
            true => super::body::no_body(),
            false => RequestBody::new(body.map_err(Into::into)),
        });
        asked_once.store(true, Ordering::Relaxed);
        if is_http2 && (handler.sends_away(&request) || handler.is_leaving()) {
            asked.notify_one();
        }
        let (handler, client) = (handler.clone(), client.clone());
        let (busy, ending) = (active.as_ref().map(Activity::begin), asked.clone());
        async move {
            let mut reply = handler.clone().handle(request, client).await;
            if !is_http2 && handler.is_leaving() && reply.status() != http::StatusCode::SWITCHING_PROTOCOLS {
                // Otherwise the connection would be closed while its client sends the next request over it.
                reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            // HTTP/2 has no such header: here it says that the connection is for no other request.
            if is_http2 && reply.headers_mut().remove(CONNECTION).is_some() {
                ending.notify_one();
            }
            if let Some(busy) = busy.filter(|_| !matches!(reply.body(), ResponseBody::Full(_))) {
                let body = std::mem::replace(reply.body_mut(), ResponseBody::empty());
                *reply.body_mut() = body.holding(busy);
            }
            Ok::<Response<_>, std::convert::Infallible>(reply)
        }
    });
    let timer = ConnectionTimer::new(limits.header_timeout);
    let arrival = (!is_http2).then(|| timer.arrival());
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut builder = if is_http2 { builder.http2_only() } else { builder.http1_only() };
    builder.http1().timer(timer).header_read_timeout(limits.idle_timeout).max_buf_size(HEADERS_MAX as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.http2_max_streams)
        .max_header_list_size(HEADERS_MAX)
        .keep_alive_interval(Duration::from_secs(30));
    let (stream, begun) = First::new(stream, arrival);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // Until the first bytes have come hyper looks which protocol they are of, for as long as that takes.
    let silent = async {
        let limit = if is_http2 { limits.handshake_timeout } else { limits.header_timeout };
        tokio::time::sleep(limit).await;
        let has_begun = match is_http2 {
            true => begun.load(Ordering::Relaxed) >= PREFACE,
            false => begun_once.load(Ordering::Relaxed),
        };
        if has_begun {
            std::future::pending::<()>().await;
        }
    };
    let idle = async {
        match &activity {
            Some(activity) => activity.idle(limits.idle_timeout).await,
            // The timer of its headers is enough.
            None => std::future::pending().await,
        }
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = silent => return tracing::debug!(%address, "the client said nothing"),
        () = async {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = renew.notified() => {}
                () = idle => {}
            }
        } => {
            if !begun_once.load(Ordering::Relaxed) {
                // Its first request is on its way.
                tokio::select! {
                    _ = connection.as_mut() => return,
                    () = tokio::time::sleep(FIRST) => {}
                }
            }
            connection.as_mut().graceful_shutdown();
            loop {
                match tokio::time::timeout(FIRST, connection.as_mut()).await {
                    Ok(ended) => break ended,
                    // A client that does not answer a goodbye is not waited for.
                    Err(_) if activity.as_ref().is_some_and(|a| a.open.load(Ordering::Relaxed) == 0) => return,
                    Err(_) => {}
                }
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = &*error, %address, "connection ended");
    }
}
