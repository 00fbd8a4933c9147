//! TLS connections to addresses, under the name the other side's certificate must have.

use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::Full;
use kube1_pki::AnyServer;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::idle::{self, Key, Open};
use super::listed::BundleVerifier;

/// Which certificates of the other side are believed.
#[derive(Clone, Debug)]
pub enum Trust {
    /// Those of the authorities in this PEM bundle.
    Authorities(Vec<u8>),
    /// Any, as the object that names the target asks for.
    Anything,
}

impl Trust {
    /// The authorities of a configured PEM bundle; without one those that the host believes.
    pub fn bundle(pem: Vec<u8>) -> Self {
        Self::Authorities(if pem.is_empty() { super::system_authorities() } else { pem })
    }
}

/// The other side.
#[derive(Clone)]
pub struct Target {
    /// Host and port, or an address.
    pub address: Address,
    /// The name in the other side's certificate.
    pub server_name: String,
    pub trust: Trust,
    /// What this server shows, if the other side asks.
    pub identity: Option<Arc<dyn ResolvesClientCert>>,
}

/// Where to connect to.
#[derive(Clone, Debug)]
pub enum Address {
    Socket(SocketAddr),
    Host(String, u16),
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Socket(address)
    }
}

/// Why the other side gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("there is no usable CA certificate, neither in the configured bundle nor among this host's")]
    Authorities,
    #[error("\"{0}\" is no name a certificate could have")]
    ServerName(String),
    #[error("cannot connect")]
    Connect(#[source] std::io::Error),
    #[error("the TLS handshake failed")]
    Tls(#[source] std::io::Error),
    #[error("the exchange failed")]
    Exchange(#[source] hyper::Error),
    #[error("the answer cannot be read: {0}")]
    Answer(String),
    #[error("the request could not be made")]
    Request(#[from] http::Error),
    #[error("context deadline exceeded")]
    Deadline,
}

impl DialError {
    /// The error and what caused it, for a message to the user.
    pub fn with_cause(&self) -> String {
        self.source().map_or_else(|| self.to_string(), |cause| format!("{self}: {cause}"))
    }
}

/// An answer that was read whole.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: StatusCode,
    pub body: Bytes,
}

/// Opens a connection. Dropping the future gives it up.
pub async fn connect(target: &Target) -> Result<TlsStream<TcpStream>, DialError> {
    let stream = match &target.address {
        Address::Socket(address) => TcpStream::connect(address).await,
        Address::Host(host, port) => TcpStream::connect((host.as_str(), *port)).await,
    }
    .map_err(DialError::Connect)?;
    // Small requests wait for their answers: nothing is gained by waiting to fill packets.
    stream.set_nodelay(true).map_err(DialError::Connect)?;
    let name = ServerName::try_from(target.server_name.clone())
        .map_err(|_| DialError::ServerName(target.server_name.clone()))?;
    let connector = TlsConnector::from(Arc::new(tls_config(target)?));
    connector.connect(name, stream).await.map_err(DialError::Tls)
}

/// Sends a JSON body and reads the answer, all within `timeout`.
pub async fn post(target: &Target, path: &str, body: Bytes, timeout: Duration) -> Result<Response, DialError> {
    post_with(target, path, &HeaderMap::new(), body, timeout).await
}

/// Sends a JSON body with further headers and reads the answer, all within `timeout`.
pub async fn post_with(
    target: &Target,
    path: &str,
    headers: &HeaderMap,
    body: Bytes,
    timeout: Duration,
) -> Result<Response, DialError> {
    let exchange = exchange(target, Method::POST, path, headers, body);
    tokio::time::timeout(timeout, exchange).await.map_err(|_| DialError::Deadline)?
}

/// Reads a path, all within `timeout`.
pub async fn get(target: &Target, path: &str, timeout: Duration) -> Result<Response, DialError> {
    get_with(target, path, &HeaderMap::new(), timeout).await
}

/// Reads a path with further headers, all within `timeout`.
pub async fn get_with(
    target: &Target,
    path: &str,
    headers: &HeaderMap,
    timeout: Duration,
) -> Result<Response, DialError> {
    let exchange = exchange(target, Method::GET, path, headers, Bytes::new());
    tokio::time::timeout(timeout, exchange).await.map_err(|_| DialError::Deadline)?
}

/// One request, over a connection that an earlier one left open if there is any.
async fn exchange(
    target: &Target,
    method: Method,
    path: &str,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Response, DialError> {
    let request = || {
        let request = Request::builder()
            .method(method.clone())
            .uri(path)
            .header(HOST, &target.server_name)
            .header(CONTENT_TYPE, "application/json")
            .header(http::header::ACCEPT, "application/json")
            .body(Full::new(body.clone()));
        request.map(|mut request| {
            request.headers_mut().extend(headers.clone());
            kube1_trace::inject(request.headers_mut());
            request
        })
    };
    let key = Key::of(target);
    while let Some(mut open) = idle::take(&key) {
        match open.send(request()?).await {
            // The other side had closed it, or does so now.
            Err(DialError::Exchange(_)) => {}
            Ok(answer) => {
                idle::keep(key, open);
                return Ok(answer);
            }
            error => return error,
        }
    }
    let mut open = Open::over(Abrupt(connect(target).await?)).await?;
    let answer = open.send(request()?).await?;
    idle::keep(key, open);
    Ok(answer)
}

/// A connection that may end without a word: many servers close so. Whether an answer is whole, its length tells.
struct Abrupt<S>(S);

impl<S: AsyncRead + Unpin> AsyncRead for Abrupt<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer).map(|read| match read {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            read => read,
        })
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Abrupt<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Sends one request over a connection of its own and reads the whole answer.
pub(super) async fn send<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Response, DialError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    Open::over(stream).await?.send(request).await
}

pub(super) fn tls_config(target: &Target) -> Result<ClientConfig, DialError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|_| DialError::Authorities)?;
    let verifier: Arc<dyn ServerCertVerifier> = match &target.trust {
        Trust::Anything => Arc::new(AnyServer),
        Trust::Authorities(pem) => {
            let listed: Vec<_> = CertificateDer::pem_slice_iter(pem).filter_map(Result::ok).collect();
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(listed.iter().cloned());
            let built = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
            Arc::new(BundleVerifier { signed: built.map_err(|_| DialError::Authorities)?, listed })
        }
    };
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    Ok(match &target.identity {
        Some(identity) => builder.with_client_cert_resolver(identity.clone()),
        None => builder.with_no_client_auth(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_bundle_the_host_decides() {
        let bundle = |pem: &[u8]| match Trust::bundle(pem.to_vec()) {
            Trust::Authorities(pem) => pem,
            Trust::Anything => Vec::new(),
        };
        assert_eq!(bundle(b"pem"), b"pem");
        assert_eq!(bundle(b""), super::super::system_authorities());
    }
}
