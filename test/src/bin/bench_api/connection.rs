//! One HTTPS connection with as little of a client as possible, so that the server is what is measured: whatever comes is
//! read into one buffer of the thread, decrypted, and looked at once.

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use kube1_pki::AnyServer;
use rustls::ClientConfig;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::unbuffered::ConnectionState;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use crate::answer::Parser;

/// So much of an answer is kept, for messages and for what its head tells.
const KEPT: usize = 512;
const BUFFER: usize = 256 * 1024;
/// A record's head and what its encryption adds, and more.
const RECORD_MORE: usize = 64;
const RECORD_MAX: usize = 16 * 1024;

thread_local! {
    /// What is read at a time.
    static READ: RefCell<Vec<u8>> = RefCell::new(vec![0; BUFFER]);
}

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
    tls: Arc<ClientConfig>,
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
    stream: TcpStream,
    tls: UnbufferedClientConnection,
    /// The beginning of a record that was not read to its end.
    part: Vec<u8>,
    /// Records to be sent.
    outgoing: Vec<u8>,
    parser: Parser,
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
        Ok(Self { authority, token: token.to_owned(), tls: Arc::new(config) })
    }

    pub async fn connect(&self) -> anyhow::Result<Connection> {
        let stream =
            TcpStream::connect(&self.authority).await.with_context(|| format!("cannot reach {}", self.authority))?;
        stream.set_nodelay(true)?;
        let host = self.authority.rsplit_once(':').map_or(self.authority.as_str(), |(host, _)| host);
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())?;
        let tls = UnbufferedClientConnection::new(self.tls.clone(), name)?;
        let mut connection =
            Connection { stream, tls, part: Vec::new(), outgoing: Vec::new(), parser: Parser::default() };
        let mut open = connection.process(&mut [], &mut |_| {})?.1;
        loop {
            connection.flush().await?;
            if open {
                return Ok(connection);
            }
            open = connection.read(|_| {}).await.context("the TLS handshake failed")?;
        }
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
        let (mut size, mut first, mut start) = (0, None, Vec::new());
        let mut take = |data: &[u8]| {
            first.get_or_insert_with(|| begun.elapsed());
            size += data.len();
            let room = KEPT.saturating_sub(start.len());
            start.extend_from_slice(&data[..data.len().min(room)]);
        };
        let status = self.open(request, &mut take).await?;
        while !self.parser.is_done() {
            self.read(&mut take).await?;
        }
        let (total, start) = (begun.elapsed(), String::from_utf8_lossy(&start).into_owned());
        ensure!((200..300).contains(&status), "the server answered {status}: {start}");
        Ok(Answer { size, first: first.unwrap_or(total), total, start })
    }

    /// Sends a request and reads the head of its answer; gives the status code. `take` is given what comes with it of the
    /// body.
    pub async fn open(&mut self, request: &[u8], mut take: impl FnMut(&[u8])) -> anyhow::Result<u16> {
        self.parser = Parser::default();
        self.encrypt(request)?;
        self.flush().await?;
        loop {
            self.read(&mut take).await?;
            if let Some(status) = self.parser.status() {
                return Ok(status);
            }
        }
    }

    /// Waits for more of the body; fails at its end.
    pub async fn more(&mut self, take: impl FnMut(&[u8])) -> anyhow::Result<()> {
        ensure!(!self.parser.is_done(), "the answer is over");
        self.read(take).await?;
        Ok(())
    }

    /// Whether requests can be sent now: the handshake is done.
    async fn read(&mut self, mut take: impl FnMut(&[u8])) -> anyhow::Result<bool> {
        std::future::poll_fn(|task| READ.with_borrow_mut(|buffer| self.poll_read(task, buffer, &mut take))).await
    }

    fn poll_read(
        &mut self,
        task: &mut Task<'_>,
        buffer: &mut [u8],
        take: &mut impl FnMut(&[u8]),
    ) -> Poll<anyhow::Result<bool>> {
        let kept = self.part.len();
        let mut read = ReadBuf::new(&mut buffer[kept..]);
        ready!(Pin::new(&mut self.stream).poll_read(task, &mut read))?;
        let all = kept + read.filled().len();
        if all == kept {
            return Poll::Ready(Err(anyhow!("the server closed the connection")));
        }
        buffer[..kept].copy_from_slice(&self.part);
        self.part.clear();
        let (used, open) = self.process(&mut buffer[..all], take)?;
        self.part.extend_from_slice(&buffer[used..all]);
        Poll::Ready(Ok(open))
    }

    /// Decrypts whole records; gives how many bytes they are, and whether the handshake is done.
    fn process(&mut self, records: &mut [u8], take: &mut impl FnMut(&[u8])) -> anyhow::Result<(usize, bool)> {
        let mut used = 0;
        loop {
            let status = self.tls.process_tls_records(&mut records[used..]);
            let mut open = None;
            match status.state? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        self.parser.feed(record.payload, take)?;
                        used += record.discard;
                    }
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    let end = self.outgoing.len();
                    self.outgoing.resize(end + RECORD_MAX + RECORD_MORE, 0);
                    let size = data.encode(&mut self.outgoing[end..])?;
                    self.outgoing.truncate(end + size);
                }
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::BlockedHandshake => open = Some(false),
                ConnectionState::WriteTraffic(_) => open = Some(true),
                _ => bail!("the server closed the connection"),
            }
            used += status.discard;
            if let Some(open) = open {
                return Ok((used, open));
            }
        }
    }

    fn encrypt(&mut self, data: &[u8]) -> anyhow::Result<()> {
        let ConnectionState::WriteTraffic(mut traffic) = self.tls.process_tls_records(&mut []).state? else {
            bail!("the connection is not open");
        };
        let end = self.outgoing.len();
        self.outgoing.resize(end + data.len() + (data.len() / RECORD_MAX + 1) * RECORD_MORE, 0);
        let size = traffic.encrypt(data, &mut self.outgoing[end..])?;
        self.outgoing.truncate(end + size);
        Ok(())
    }

    async fn flush(&mut self) -> anyhow::Result<()> {
        self.stream.write_all(&self.outgoing).await?;
        self.outgoing.clear();
        Ok(())
    }
}
