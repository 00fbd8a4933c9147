//! Names outside the cluster: the host's own resolvers are asked.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use crate::cache::{Cache, key};
use crate::message::reply;
use crate::meters::Meters;

const PORT: u16 = 53;
/// How long one server is waited for, and how often each is tried.
const PATIENCE: Duration = Duration::from_secs(2);
const ROUNDS: usize = 2;
/// Queries that wait for upstream servers at a time; more are answered with a failure.
const WAITING: usize = 1000;
/// How often the host's configuration is looked at.
const RELOAD: Duration = Duration::from_secs(5);
/// What upstream servers are asked to send at most over UDP; longer answers are fetched over TCP by who wants them.
const UDP_PAYLOAD: u16 = 1232;
/// Some servers send more than they are asked to.
const BUFFER: usize = 4096;

/// Asks upstream servers, and remembers what they said.
pub struct Forwarder {
    resolv_conf: PathBuf,
    /// Asking this address would be asking ourselves.
    own: IpAddr,
    servers: Mutex<Servers>,
    cache: Mutex<Cache>,
    meters: Arc<Meters>,
    waiting: Semaphore,
}

#[derive(Default)]
struct Servers {
    addresses: Vec<SocketAddr>,
    modified: Option<SystemTime>,
    looked: Option<Instant>,
    /// Names by which a server shows that it asks us, and the servers that have.
    probes: Vec<(Name, SocketAddr)>,
    looping: Vec<SocketAddr>,
}

impl Forwarder {
    pub fn new(resolv_conf: PathBuf, own: IpAddr, meters: Arc<Meters>) -> Self {
        let (servers, cache) = (Mutex::default(), Mutex::default());
        Self { resolv_conf, own, servers, cache, meters, waiting: Semaphore::new(WAITING) }
    }

    /// The answer to a query, or a failure. `tcp` says how the client asked, and so whether it takes a long answer.
    pub async fn ask(&self, query: &Message, tcp: bool) -> Message {
        let Some(key) = key(query) else { return reply(query, ResponseCode::FormErr) };
        let cached = self.cache.lock().get(&key, Instant::now(), false);
        let negative = cached.as_ref().is_some_and(|found| found.answers.is_empty());
        self.meters.looked_up(cached.is_some(), negative);
        if let Some(found) = cached {
            return for_client(found, query);
        }
        match self.ask_upstream(query, tcp).await {
            Some(answer) => {
                self.cache.lock().put(key, &answer, Instant::now());
                for_client(answer, query)
            }
            None => {
                let stale = self.cache.lock().get(&key, Instant::now(), true);
                stale.map_or_else(|| reply(query, ResponseCode::ServFail), |found| for_client(found, query))
            }
        }
    }

    async fn ask_upstream(&self, query: &Message, tcp: bool) -> Option<Message> {
        let _permit = self.waiting.try_acquire().ok()?;
        let servers = self.servers();
        for _ in 0..ROUNDS {
            for server in &servers {
                match tokio::time::timeout(PATIENCE, exchange(*server, query, tcp)).await {
                    Ok(Ok(answer)) => return Some(answer),
                    Ok(Err(error)) => tracing::debug!(%server, %error, "upstream DNS server failed"),
                    Err(_) => tracing::debug!(%server, "upstream DNS server did not answer"),
                }
            }
        }
        None
    }

    /// The servers of the host's configuration but those that ask us.
    fn servers(&self) -> Vec<SocketAddr> {
        let mut servers = self.servers.lock();
        let now = Instant::now();
        if servers.looked.is_none_or(|looked| now.duration_since(looked) >= RELOAD) {
            servers.looked = Some(now);
            let modified = std::fs::metadata(&self.resolv_conf).and_then(|metadata| metadata.modified()).ok();
            if servers.addresses.is_empty() || modified != servers.modified {
                servers.modified = modified;
                servers.addresses = read_servers(&self.resolv_conf, self.own);
                servers.looping.clear();
            }
        }
        servers.addresses.iter().filter(|server| !servers.looping.contains(server)).copied().collect()
    }

    /// Asks every upstream server for a name that only we know, to find out whether it asks us.
    pub async fn probe_for_loops(&self) {
        for server in self.servers() {
            let name = Name::from_ascii(format!("{:016x}.loop.invalid.", rand::random::<u64>()));
            let Ok(name) = name else { continue };
            self.servers.lock().probes.push((name.clone(), server));
            let mut query = Message::query();
            query.metadata.recursion_desired = true;
            query.add_query(Query::query(name.clone(), RecordType::HINFO));
            let _ = tokio::time::timeout(PATIENCE, exchange(server, &query, false)).await;
            self.servers.lock().probes.retain(|(probe, _)| *probe != name);
        }
    }

    /// Whether a query is one of our own probes, come back: then its server is not asked any more.
    pub fn is_own_probe(&self, query: &Message) -> bool {
        let mut servers = self.servers.lock();
        let asked = query.queries.first().map(|asked| &asked.name);
        let Some(server) = servers.probes.iter().find_map(|(probe, server)| (Some(probe) == asked).then_some(*server))
        else {
            return false;
        };
        if !servers.looping.contains(&server) {
            tracing::warn!(%server, "this host's DNS server asks the cluster's DNS, which would ask it: not using it");
            servers.looping.push(server);
        }
        true
    }
}

fn for_client(mut answer: Message, query: &Message) -> Message {
    answer.metadata.id = query.metadata.id;
    answer.metadata.recursion_desired = query.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    answer.metadata.authoritative = false;
    // With the client's own spelling of the name.
    answer.queries.clone_from(&query.queries);
    if query.edns.is_none() {
        answer.edns = None;
    }
    answer
}

/// The servers that a resolver configuration names.
fn read_servers(path: &Path, own: IpAddr) -> Vec<SocketAddr> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let words = text.lines().map(str::split_whitespace);
    let named = words.filter_map(|mut words| (words.next() == Some("nameserver")).then(|| words.next()).flatten());
    let addresses = named.filter_map(|word| parse_server(word, PORT));
    addresses.filter(|server| server.ip() != own && !server.ip().is_unspecified()).collect()
}

/// An address, with an interface for link-local ones, or `address:port`.
fn parse_server(word: &str, port: u16) -> Option<SocketAddr> {
    if let Ok(address) = word.parse::<IpAddr>() {
        return Some(SocketAddr::new(address, port));
    }
    let (address, scope) = word.split_once('%')?;
    let index = std::fs::read_to_string(format!("/sys/class/net/{scope}/ifindex")).ok()?;
    let v6 = std::net::SocketAddrV6::new(address.parse().ok()?, port, 0, index.trim().parse().ok()?);
    Some(v6.into())
}

async fn exchange(server: SocketAddr, query: &Message, tcp: bool) -> std::io::Result<Message> {
    // A fresh number and a fresh port for each query make answers hard to forge.
    let mut query = query.clone();
    query.metadata.id = rand::random();
    if let Some(edns) = query.edns.as_mut().filter(|edns| edns.max_payload() > UDP_PAYLOAD) {
        edns.set_max_payload(UDP_PAYLOAD);
    }
    let bytes = query.to_vec().map_err(std::io::Error::other)?;
    if tcp {
        return exchange_tcp(server, &query, &bytes).await;
    }
    let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(&bytes).await?;
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(answer) = matching(&buffer[..length], &query) {
            return Ok(answer);
        }
    }
}

async fn exchange_tcp(server: SocketAddr, query: &Message, bytes: &[u8]) -> std::io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(bytes.len()).map_err(std::io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), bytes].concat()).await?;
    let mut buffer = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut buffer).await?;
    matching(&buffer, query).ok_or_else(|| std::io::Error::other("the answer does not belong to the query"))
}

fn matching(bytes: &[u8], query: &Message) -> Option<Message> {
    let answer = Message::from_vec(bytes).ok()?;
    let same = answer.metadata.id == query.metadata.id && answer.queries == query.queries;
    same.then_some(answer)
}

/// What hostile input is tried on: what an upstream server sends, which is kept and told to clients.
#[cfg(any(test, fuzzing))]
pub(crate) fn hostile(bytes: &[u8]) {
    let Ok(answer) = Message::from_vec(bytes) else { return };
    let Some(key) = key(&answer) else { return };
    let mut query = Message::query();
    query.queries.clone_from(&answer.queries);
    query.metadata.id = answer.metadata.id;
    let Some(answer) = matching(bytes, &query) else { return };
    let (mut cache, now) = (Cache::default(), Instant::now());
    cache.put(key.clone(), &answer, now);
    let kept = cache.get(&key, now, true).unwrap_or(answer);
    let _ = crate::message::encode(for_client(kept, &query), crate::message::udp_limit(&query));
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_those_of_the_host_but_ourselves() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        let text = "# nameserver 192.0.2.1\nsearch example.org\nnameserver 192.0.2.2\nnameserver 10.43.0.10\n\
                    nameserver 2001:db8::1 # second\nnameserver nonsense\n";
        std::fs::write(&path, text).unwrap();
        let servers = read_servers(&path, "10.43.0.10".parse().unwrap());
        assert_eq!(servers, ["192.0.2.2:53".parse().unwrap(), "[2001:db8::1]:53".parse::<SocketAddr>().unwrap()]);
        assert!(read_servers(&dir.path().join("missing"), "10.43.0.10".parse().unwrap()).is_empty());
    }
}
