//! One HTTP/1.1 connection with as little of a client as possible, so that the server is what is measured.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use kube1_pki::AnyServer;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

/// The server under measurement.
#[derive(Clone)]
pub struct Server {
    authority: String,
    token: String,
    tls: TlsConnector,
}

/// A connection and the task that drives it.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    server: Server,
    _driver: JoinSet<()>,
}

impl Server {
    pub fn new(url: &str, token: &str) -> anyhow::Result<Self> {
        let authority = url.strip_prefix("https://").context("the server's address must start with https://")?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .dangerous()
            // The token is what must be right here, not the certificate of a server under test.
            .with_custom_certificate_verifier(Arc::new(AnyServer))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let authority = authority.trim_end_matches('/').to_owned();
        Ok(Self { authority, token: token.to_owned(), tls: TlsConnector::from(Arc::new(config)) })
    }

    pub async fn connect(&self) -> anyhow::Result<Connection> {
        let stream =
            TcpStream::connect(&self.authority).await.with_context(|| format!("cannot reach {}", self.authority))?;
        stream.set_nodelay(true)?;
        let host = self.authority.rsplit_once(':').map_or(self.authority.as_str(), |(host, _)| host);
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())?;
        let stream = self.tls.connect(name, stream).await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // The end of the connection shows at its next use.
            let _ = connection.await;
        });
        Ok(Connection { sender, server: self.clone(), _driver: driver })
    }
}

impl Connection {
    /// Sends a request; the answer's body is not read yet.
    pub async fn send(&mut self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Response<Incoming>> {
        let content = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.server.authority)
            .header("authorization", format!("Bearer {}", self.server.token))
            .header("content-type", content)
            .header("accept", "application/json")
            .body(Full::new(body))?;
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }

    /// Sends a request that must succeed; gives the size of the answer and the time to its first byte.
    pub async fn call(&mut self, method: Method, path: &str, body: Bytes) -> anyhow::Result<(usize, Duration)> {
        let begun = Instant::now();
        let response = self.send(method, path, body).await?;
        let status = response.status();
        let mut body = response.into_body();
        let (mut size, mut first) = (0, None);
        let mut start = Vec::new();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data() {
                first.get_or_insert_with(|| begun.elapsed());
                if start.len() < 500 {
                    start.extend_from_slice(&data[..data.len().min(500)]);
                }
                size += data.len();
            }
        }
        ensure!(status.is_success(), "{path}: {status}: {}", String::from_utf8_lossy(&start));
        Ok((size, first.unwrap_or_else(|| begun.elapsed())))
    }
}
