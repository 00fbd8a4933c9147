//! Connections to whichever server of a cluster can be reached.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderValue, USER_AGENT};
use http::{Request, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use kube::client::Body;
use kube1_pki::clock::FlooredTime;
use kube1_pki::{ReloadingCertificate, certificates_from_pem};
use parking_lot::Mutex;
use rustls::client::danger::ServerCertVerifier;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tower::ServiceBuilder;

use crate::JoinError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// An unanswered ping for this long means that a server is gone, and with it every watch on the connection.
const PING_INTERVAL: Duration = Duration::from_secs(15);
const PING_TIMEOUT: Duration = Duration::from_secs(15);
/// Requests name this host; the connection goes to one of the servers.
const AUTHORITY: &str = "kubernetes.default.svc";

/// Who connects.
pub enum Identity {
    Token(String),
    /// Whatever the certificate is at the time of the handshake.
    Certificate(Arc<ReloadingCertificate>),
}

/// The servers' addresses, `HOST:PORT`. Clones share which of them was last seen working.
#[derive(Clone)]
pub struct Servers {
    addresses: Arc<[String]>,
    last_good: Arc<AtomicUsize>,
    /// Cancelled, and replaced, when connections are to be made anew.
    epoch: Arc<Mutex<CancellationToken>>,
}

impl Servers {
    pub fn new(addresses: impl IntoIterator<Item = String>) -> Self {
        Self { addresses: addresses.into_iter().collect(), last_good: Arc::default(), epoch: Arc::default() }
    }

    /// Ends the connections of all clients; their next requests make new ones, with the certificate of then.
    pub fn reconnect(&self) {
        std::mem::take(&mut *self.epoch.lock()).cancel();
    }

    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// A TLS connection to the first server that takes one, beginning with the one that did last time.
    pub(crate) async fn connect(&self, tls: &TlsConnector) -> io::Result<(String, TlsStream<TcpStream>)> {
        let count = self.addresses.len();
        let first = self.last_good.load(Ordering::Relaxed);
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "no server address is known");
        for index in (0..count).map(|i| (first + i) % count.max(1)) {
            let address = &self.addresses[index];
            match tokio::time::timeout(CONNECT_TIMEOUT, connect_one(address, tls)).await {
                Ok(Ok(stream)) => {
                    self.last_good.store(index, Ordering::Relaxed);
                    return Ok((address.clone(), stream));
                }
                Ok(Err(error)) => failure = error,
                Err(_) => failure = io::Error::new(io::ErrorKind::TimedOut, format!("{address} does not answer")),
            }
        }
        Err(failure)
    }
}

async fn connect_one(address: &str, tls: &TlsConnector) -> io::Result<TlsStream<TcpStream>> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(host).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    tls.connect(name, stream).await
}

/// TLS towards servers that have a certificate by `ca_pem`.
fn tls_config(ca_pem: &str, identity: &Identity) -> Result<ClientConfig, JoinError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates_from_pem(ca_pem)? {
        roots.add(certificate)?;
    }
    let builder = builder()?.with_root_certificates(roots);
    Ok(match identity {
        Identity::Token(_) => builder.with_no_client_auth(),
        Identity::Certificate(certificate) => builder.with_client_cert_resolver(certificate.clone()),
    })
}

/// TLS towards servers that `verifier` judges.
pub(crate) fn tls_with_verifier(verifier: Arc<dyn ServerCertVerifier>) -> Result<TlsConnector, JoinError> {
    let config = builder()?.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, JoinError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_details(provider, Arc::new(FlooredTime)).with_safe_default_protocol_versions()?)
}

/// A client of the cluster whose CA is `ca_pem`. Its watches share one HTTP/2 connection; when that breaks, the next
/// request goes to another server.
///
/// Must be called inside a tokio runtime.
pub fn connect(servers: Servers, ca_pem: &str, identity: Identity) -> Result<kube::Client, JoinError> {
    let mut tls = tls_config(ca_pem, &identity)?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let bearer = match identity {
        Identity::Token(token) => {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| JoinError::TokenRefused)?;
            value.set_sensitive(true);
            Some(value)
        }
        Identity::Certificate(_) => None,
    };
    let connector = Connector { servers, tls: TlsConnector::from(Arc::new(tls)) };
    let client: Client<Connector, Body> = Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_adaptive_window(true)
        .http2_keep_alive_interval(PING_INTERVAL)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .http2_keep_alive_while_idle(true)
        .build(connector);
    let agent = HeaderValue::from_static(concat!("kube1/", env!("CARGO_PKG_VERSION")));
    let service = ServiceBuilder::new()
        .map_request(move |mut request: Request<Body>| {
            let path = request.uri().path_and_query().cloned();
            *request.uri_mut() = Uri::builder()
                .scheme("https")
                .authority(AUTHORITY)
                .path_and_query(path.unwrap_or_else(|| http::uri::PathAndQuery::from_static("/")))
                .build()
                .expect("scheme, authority and path are all there");
            if let Some(bearer) = &bearer {
                request.headers_mut().insert(AUTHORIZATION, bearer.clone());
            }
            request.headers_mut().entry(USER_AGENT).or_insert_with(|| agent.clone());
            request
        })
        .service(client);
    Ok(kube1_client::in_process(service))
}

/// Makes the client's connections.
#[derive(Clone)]
struct Connector {
    servers: Servers,
    tls: TlsConnector,
}

impl tower::Service<Uri> for Connector {
    type Response = ServerStream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<ServerStream>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let epoch = this.servers.epoch.lock().clone();
            let (_, stream) = this.servers.connect(&this.tls).await?;
            Ok(ServerStream { io: TokioIo::new(stream), over: Box::pin(epoch.cancelled_owned()) })
        })
    }
}

/// A connection that tells the HTTP client whether it speaks HTTP/2.
struct ServerStream {
    io: TokioIo<TlsStream<TcpStream>>,
    over: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Connection for ServerStream {
    fn connected(&self) -> Connected {
        let (_, session) = self.io.inner().get_ref();
        if session.alpn_protocol() == Some(b"h2") { Connected::new().negotiated_h2() } else { Connected::new() }
    }
}

impl Read for ServerStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        if self.over.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the certificate was renewed")));
        }
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl Write for ServerStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
