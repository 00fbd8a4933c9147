//! One HTTP/1.1 connection with as little of a client as possible, so that the server is what is measured.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use kube1_pki::AnyServer;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// So much of an answer is kept, for messages and for what its head tells.
const KEPT: usize = 512;
const BUFFER: usize = 64 * 1024;

/// What a client accepts: kubectl takes JSON, components written with client-go take protobuf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accept {
    Json,
    Protobuf,
}

/// A server under measurement.
#[derive(Clone)]
pub struct Server {
    authority: String,
    token: String,
    tls: TlsConnector,
}

/// An answer whose body was read and dropped.
pub struct Answer {
    pub size: usize,
    /// Until the first byte of the body.
    pub first: Duration,
    pub total: Duration,
    /// How the body begins.
    pub start: String,
}

pub struct Connection {
    /// Buffered below TLS too, as that reads only 4 KiB at a time: the client must not take the time that is measured.
    stream: TlsStream<BufReader<TcpStream>>,
    buffer: Vec<u8>,
    /// The part of the buffer that was read and not yet used.
    unused: std::ops::Range<usize>,
    body: Body,
}

/// What is left of the body that is being read.
enum Body {
    Sized(usize),
    /// Bytes left in this chunk with the line's end after it; `None` before the first.
    Chunked(Option<usize>),
    Done,
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
        let stream = self.tls.connect(name, BufReader::with_capacity(BUFFER / 2, stream)).await?;
        Ok(Connection { stream, buffer: Vec::new(), unused: 0..0, body: Body::Done })
    }

    /// The bytes of a request.
    pub fn request(&self, method: &str, path: &str, accept: Accept, body: &str) -> Vec<u8> {
        let accept = match accept {
            Accept::Json => "application/json",
            Accept::Protobuf => "application/vnd.kubernetes.protobuf",
        };
        format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\naccept: {accept}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.authority,
            self.token,
            body.len()
        )
        .into_bytes()
    }

    pub fn get(&self, path: &str) -> Vec<u8> {
        self.request("GET", path, Accept::Json, "")
    }

    pub fn post(&self, path: &str, body: &str) -> Vec<u8> {
        self.request("POST", path, Accept::Json, body)
    }
}

impl Connection {
    /// Sends a request that must succeed, and reads its answer.
    pub async fn call(&mut self, request: &[u8]) -> anyhow::Result<Answer> {
        let begun = Instant::now();
        let status = self.open(request).await?;
        let (mut size, mut first, mut start) = (0, None, Vec::new());
        while let Some(data) = self.data().await? {
            first.get_or_insert_with(|| begun.elapsed());
            size += data.len();
            let room = KEPT.saturating_sub(start.len());
            start.extend_from_slice(&data[..data.len().min(room)]);
        }
        let (total, start) = (begun.elapsed(), String::from_utf8_lossy(&start).into_owned());
        ensure!((200..300).contains(&status), "the server answered {status}: {start}");
        Ok(Answer { size, first: first.unwrap_or(total), total, start })
    }

    /// Sends a request and reads the head of its answer; gives the status code.
    pub async fn open(&mut self, request: &[u8]) -> anyhow::Result<u16> {
        self.stream.write_all(request).await?;
        self.stream.flush().await?;
        self.body = Body::Done;
        let mut status = None;
        loop {
            let line = self.line().await?;
            if status.is_none() {
                let code = line.split(|b| *b == b' ').nth(1).and_then(|code| std::str::from_utf8(code).ok());
                status = Some(code.and_then(|code| code.parse().ok()).context("this is no HTTP answer")?);
            } else if line.is_empty() {
                return status.context("this is no HTTP answer");
            } else if let Some(length) = header(line, b"content-length:") {
                self.body = Body::Sized(std::str::from_utf8(length)?.parse()?);
            } else if header(line, b"transfer-encoding:").is_some() {
                self.body = Body::Chunked(None);
            }
        }
    }

    /// The next piece of the body, as it arrives; `None` at its end.
    pub async fn data(&mut self) -> anyhow::Result<Option<&[u8]>> {
        let left = match self.body {
            Body::Done | Body::Sized(0) => return Ok(None),
            Body::Sized(left) => left,
            Body::Chunked(Some(left)) if left > 2 => left - 2,
            Body::Chunked(before) => {
                if before.is_some() {
                    self.line().await?;
                }
                let size = std::str::from_utf8(self.line().await?)?;
                let size = usize::from_str_radix(size, 16).with_context(|| format!("{size:?} is no chunk's size"))?;
                if size == 0 {
                    self.line().await?;
                    self.body = Body::Done;
                    return Ok(None);
                }
                self.body = Body::Chunked(Some(size + 2));
                size
            }
        };
        if self.unused.is_empty() {
            self.fill().await?;
        }
        let taken = self.unused.len().min(left);
        match &mut self.body {
            Body::Sized(left) | Body::Chunked(Some(left)) => *left -= taken,
            Body::Chunked(None) | Body::Done => {}
        }
        let start = self.unused.start;
        self.unused.start += taken;
        Ok(Some(&self.buffer[start..start + taken]))
    }

    /// The next line without its end.
    async fn line(&mut self) -> anyhow::Result<&[u8]> {
        let mut searched = 0;
        loop {
            let unused = &self.buffer[self.unused.clone()];
            if let Some(end) = unused[searched..].iter().position(|b| *b == b'\n') {
                let start = self.unused.start;
                self.unused.start += searched + end + 1;
                let line = &self.buffer[start..start + searched + end];
                return Ok(line.strip_suffix(b"\r").unwrap_or(line));
            }
            searched = unused.len();
            self.buffer.copy_within(self.unused.clone(), 0);
            self.unused = 0..searched;
            self.fill().await?;
        }
    }

    /// Reads on, behind what is unused.
    async fn fill(&mut self) -> anyhow::Result<()> {
        if self.buffer.is_empty() {
            self.buffer.resize(BUFFER, 0);
        }
        if self.unused.is_empty() {
            self.unused = 0..0;
        }
        ensure!(self.unused.end < BUFFER, "the server sent a line that is too long");
        match self.stream.read(&mut self.buffer[self.unused.end..]).await? {
            0 => bail!("the server closed the connection"),
            size => self.unused.end += size,
        }
        Ok(())
    }
}

/// The value of a header line of this name.
fn header<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (found, value) = line.split_at_checked(name.len())?;
    found.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}
