//! Queries over UDP and TCP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::Name;
use parking_lot::RwLock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::forward::Forwarder;
use crate::message::{Decision, Domain, decide, encode, objection, reply, udp_limit};
use crate::meters::Meters;
use crate::zone::Zone;

/// UDP queries that are worked on at a time. Nearly all take no time; the others wait for upstream servers.
const QUERIES: usize = 2000;
const CONNECTIONS: usize = 200;
/// A TCP client that sends nothing for this long is cut off.
const IDLE: Duration = Duration::from_secs(10);
const LARGEST: usize = 65_535;

/// What answers need.
pub struct Resolver {
    /// Unknown until the API was heard or a last known state found.
    pub zone: RwLock<Option<Zone>>,
    pub domain: Domain,
    pub forwarder: Forwarder,
    pub meters: Arc<Meters>,
}

impl Resolver {
    /// The answer to a message, in bytes; nothing if it is no query.
    async fn answer(&self, bytes: &[u8], client: SocketAddr, tcp: bool) -> Option<Vec<u8>> {
        let Ok(query) = Message::from_vec(bytes) else { return malformed(bytes) };
        let (limit, asked) = (if tcp { LARGEST } else { udp_limit(&query) }, Instant::now());
        let (answer, plugin) = match self.decide(&query)? {
            Decision::Answer(answer) => (answer, "kubernetes"),
            Decision::Forward => (self.forwarder.ask(&query, tcp).await, "forward"),
            Decision::Follow(answer, target) => (self.follow(answer, &query, target, tcp).await, "kubernetes"),
        };
        self.meters.answered(&query, &answer, tcp, client.is_ipv6(), plugin, asked.elapsed());
        encode(answer, limit)
    }

    fn decide(&self, query: &Message) -> Option<Decision> {
        if query.metadata.message_type == hickory_proto::op::MessageType::Response {
            return None; // Answering answers makes loops.
        }
        if let Some(code) = objection(query) {
            return Some(Decision::Answer(reply(query, code)));
        }
        if self.forwarder.is_own_probe(query) {
            return Some(Decision::Answer(reply(query, ResponseCode::NXDomain)));
        }
        Some(decide(self.zone.read().as_ref(), &self.domain, query))
    }

    /// Adds what the alias in `answer` leads to.
    async fn follow(&self, mut answer: Message, query: &Message, target: Name, tcp: bool) -> Message {
        let mut next = query.clone();
        next.queries[0].name = target;
        let found = self.forwarder.ask(&next, tcp).await;
        answer.metadata.response_code = found.metadata.response_code;
        answer.metadata.truncation = found.metadata.truncation;
        answer.add_answers(found.answers);
        answer.add_authorities(found.authorities);
        answer
    }
}

/// Says that a query cannot be read, if it has at least a number to say it to.
pub(crate) fn malformed(bytes: &[u8]) -> Option<Vec<u8>> {
    let (id, flags) = (bytes.get(..2)?, bytes.get(2..12)?);
    let is_query = flags[0] & 0x80 == 0;
    let format_error = [0x80 | (flags[0] & 0x79), 0x81, 0, 0, 0, 0, 0, 0, 0, 0];
    is_query.then(|| [id, &format_error].concat())
}

/// Answers UDP queries until stopped.
pub async fn serve_udp(socket: UdpSocket, resolver: Arc<Resolver>, stop: CancellationToken) -> std::io::Result<()> {
    let (socket, mut tasks) = (Arc::new(socket), JoinSet::new());
    let mut buffer = vec![0; LARGEST];
    loop {
        let received = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            Some(_) = tasks.join_next() => continue,
            received = socket.recv_from(&mut buffer), if tasks.len() < QUERIES => received,
        };
        // Errors here are those of earlier answers to clients that are gone.
        let Ok((length, client)) = received else { continue };
        let (socket, resolver, query) = (Arc::clone(&socket), Arc::clone(&resolver), buffer[..length].to_vec());
        tasks.spawn(async move {
            if let Some(answer) = resolver.answer(&query, client, false).await {
                // A client that is gone needs no answer.
                let _ = socket.send_to(&answer, client).await;
            }
        });
    }
}

/// Answers TCP queries until stopped.
pub async fn serve_tcp(listener: TcpListener, resolver: Arc<Resolver>, stop: CancellationToken) -> std::io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept(), if connections.len() < CONNECTIONS => accepted,
        };
        if let Ok((stream, client)) = accepted {
            connections.spawn(converse(stream, client, Arc::clone(&resolver)));
        }
    }
}

async fn converse(mut stream: TcpStream, client: SocketAddr, resolver: Arc<Resolver>) {
    loop {
        let Ok(Ok(query)) = tokio::time::timeout(IDLE, read(&mut stream)).await else { return };
        let Some(answer) = resolver.answer(&query, client, true).await else { return };
        let Ok(length) = u16::try_from(answer.len()) else { return };
        let framed = [&length.to_be_bytes()[..], &answer].concat();
        if let Err(error) = stream.write_all(&framed).await {
            tracing::debug!(%client, %error, "cannot send a DNS answer");
            return;
        }
    }
}

async fn read(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut query = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut query).await?;
    Ok(query)
}
