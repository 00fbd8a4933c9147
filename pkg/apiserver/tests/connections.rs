//! Connections as hostile clients make them, byte by byte: each ends for its own client alone.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use http::Request;
use kube1_apiserver::http::requests::RequestOptions;
use kube1_apiserver::server::Front;
use kube1_pki::Leaf;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use support::TestServer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: u8 = 4;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
/// `:method GET`, `:scheme https`, `:path /`, all from HPACK's own table.
const REQUEST: &[u8] = &[0x82, 0x87, 0x84];
/// The same with `:method POST`, so that a body follows.
const POST: &[u8] = &[0x83, 0x87, 0x84];

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

async fn connect(server: &TestServer, protocol: &[u8]) -> TlsStream<TcpStream> {
    connect_as(server, protocol, None).await
}

async fn connect_as(server: &TestServer, protocol: &[u8], identity: Option<&Leaf>) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(server.pki.ca.certificate_der().to_vec())).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots);
    let mut config = match identity {
        Some(leaf) => {
            let key = PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes()).unwrap();
            config.with_client_auth_cert(vec![leaf.certificate_der().unwrap()], key).unwrap()
        }
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    let stream = TcpStream::connect(server.address).await.unwrap();
    let name = ServerName::IpAddress(server.address.ip().into());
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

/// Everything until the server closes; a connection that is reset has ended too.
async fn rest(stream: &mut (impl AsyncReadExt + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let reading = stream.read_to_end(&mut bytes);
    let _ = tokio::time::timeout(Duration::from_secs(30), reading).await.expect("the connection stays open");
    bytes
}

/// Kinds and payloads of frames.
fn frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while bytes.len() >= 9 {
        let length = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]) as usize;
        let end = (9 + length).min(bytes.len());
        frames.push((bytes[3], bytes[9..end].to_vec()));
        bytes = &bytes[end..];
    }
    frames
}

async fn still_answers(server: &TestServer) {
    let client = server.admin().await;
    let request = Request::get("/livez").body(Vec::new()).unwrap();
    assert_eq!(client.request_text(request).await.unwrap(), "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_are_too_long_get_431() {
    let server = TestServer::start().await;
    let mut stream = connect(&server, b"http/1.1").await;
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nA: ").await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let writing = tokio::spawn(async move {
        // The server may close before it has taken all.
        let _ = writer.write_all(&vec![b'a'; 3 << 20]).await;
        writer
    });
    let mut head = [0; 12];
    tokio::time::timeout(Duration::from_secs(30), reader.read_exact(&mut head)).await.unwrap().unwrap();
    assert_eq!(String::from_utf8_lossy(&head), "HTTP/1.1 431");
    drop((reader, writing.await));

    // Long ones that fit are no matter.
    let long = "a".repeat(500 << 10);
    let mut stream = connect(&server, b"http/1.1").await;
    let text = format!("GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\nA: {long}\r\n\r\n");
    stream.write_all(text.as_bytes()).await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..200.min(answer.len())]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_over_http2_end_their_own_connection() {
    let server = TestServer::start().await;
    let begun = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    // Requests that are taken back at once, over and over (CVE-2023-44487).
    let resets = (0..20_000_u32).flat_map(|n| {
        let stream = 2 * n + 1;
        [frame(HEADERS, 0x5, stream, REQUEST), frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
    });
    // Headers that go on and on (CVE-2024-24549 and its like).
    let endless = (0..20_000).flat_map(|_| frame(CONTINUATION, 0, 1, &[0x40, 1, b'a', 1, b'b']));
    let endless = [frame(HEADERS, 0x1, 1, REQUEST), endless.collect()].concat();
    // Far more streams at once than may be open, none of which ever ends.
    let open = (0..20_000_u32).flat_map(|n| frame(HEADERS, 0x4, 2 * n + 1, POST));
    for flood in [resets.collect::<Vec<u8>>(), endless, open.collect()] {
        let stream = connect(&server, b"h2").await;
        let (mut reader, mut writer) = tokio::io::split(stream);
        let bytes = [begun.clone(), flood].concat();
        let writing = tokio::spawn(async move {
            // The server may close before it has taken all.
            let _ = writer.write_all(&bytes).await;
            writer
        });
        let told = frames(&rest(&mut reader).await);
        drop(writing.await);
        assert!(told.iter().any(|(kind, _)| *kind == GOAWAY), "{} frames without a GOAWAY", told.len());
        still_answers(&server).await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_limits_are_told_and_shutdown_says_goodbye() {
    let requests = RequestOptions { http2_max_streams: 77, ..RequestOptions::default() };
    let server = TestServer::start_with(|_| Front { requests, ..Front::default() }).await;
    let mut stream = connect(&server, b"h2").await;
    stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await.unwrap();
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.unwrap();
    let mut settings = vec![0; usize::from(head[2])];
    stream.read_exact(&mut settings).await.unwrap();
    let told: Vec<(u8, u32)> =
        settings.chunks(6).map(|s| (s[1], u32::from_be_bytes([s[2], s[3], s[4], s[5]]))).collect();
    assert_eq!(head[3], SETTINGS);
    assert!(told.contains(&(3, 77)) && told.contains(&(6, 1 << 20)), "{told:?}");
    let stopping = tokio::spawn(server.stop());
    let goodbye = async {
        let mut bytes = Vec::new();
        while !frames(&bytes).iter().any(|(kind, _)| *kind == GOAWAY) {
            assert!(stream.read_buf(&mut bytes).await.unwrap() > 0, "closed without a GOAWAY");
        }
    };
    tokio::time::timeout(Duration::from_secs(30), goodbye).await.unwrap();
    drop(stream);
    stopping.await.unwrap();
}

/// Limits that end what they are about at once, and all others never.
fn limits(change: impl FnOnce(&mut RequestOptions)) -> Front {
    let never = Duration::from_secs(3600);
    let mut requests = RequestOptions {
        handshake_timeout: never,
        header_timeout: never,
        idle_timeout: never,
        ..RequestOptions::default()
    };
    change(&mut requests);
    Front { requests, ..Front::default() }
}

const SHORT: Duration = Duration::from_millis(200);

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_says_nothing_is_not_waited_for() {
    let server = TestServer::start_with(|_| limits(|l| l.handshake_timeout = SHORT)).await;
    for half in [&b""[..], b"\x16\x03\x01"] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(half).await.unwrap();
        rest(&mut stream).await;
    }
    rest(&mut connect(&server, b"h2").await).await;
    server.stop().await;

    let server = TestServer::start_with(|_| limits(|l| l.header_timeout = SHORT)).await;
    for half in ["", "P", "GET /livez HTTP/1.1\r\nHost: x\r\n"] {
        let mut stream = connect(&server, b"http/1.1").await;
        stream.write_all(half.as_bytes()).await.unwrap();
        let told = rest(&mut stream).await;
        assert!(told.is_empty() || told.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&told));
    }
    // A second request that stays halfway, though nothing would end a connection that is merely kept.
    let mut stream = connect(&server, b"http/1.1").await;
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"ok") {
        assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "{}", String::from_utf8_lossy(&answer));
    }
    stream.write_all(b"GET /livez").await.unwrap();
    assert_eq!(rest(&mut stream).await, b"");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_requests_is_closed() {
    let server = TestServer::start_with(|_| limits(|l| l.idle_timeout = SHORT)).await;
    let mut stream = connect(&server, b"http/1.1").await;
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert!(rest(&mut stream).await.starts_with(b"HTTP/1.1 200"));

    // A watch is no idleness: it goes on while another connection is found to be idle.
    let admin = support::wire::Wire::admin(&server).await;
    let request = Request::get("/api/v1/configmaps?watch=1").body(Vec::new()).unwrap();
    let mut lines = Box::pin(admin.0.request_stream(request).await.unwrap());
    let identity = server.pki.admin().unwrap();
    let mut stream = connect_as(&server, b"h2", Some(&identity)).await;
    let bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(HEADERS, 0x5, 1, REQUEST)].concat();
    stream.write_all(&bytes).await.unwrap();
    let told = frames(&rest(&mut stream).await);
    assert!(told.iter().any(|(kind, _)| *kind == HEADERS), "it is answered first");
    assert!(told.iter().any(|(kind, _)| *kind == GOAWAY), "{told:?}");
    let map = serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}});
    admin.json("POST", "/api/v1/namespaces/default/configmaps", &map).await.ok();
    let found = async {
        use futures::{AsyncBufReadExt, StreamExt};
        let mut text = (&mut lines).lines();
        while !text.next().await.expect("the watch ended").unwrap().contains(r#""name":"m""#) {}
    };
    tokio::time::timeout(Duration::from_secs(30), found).await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_unknown_make_one_request_over_a_connection_of_http2() {
    let server = TestServer::start_with(|_| limits(|_| ())).await;
    let mut stream = connect(&server, b"h2").await;
    let bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(HEADERS, 0x5, 1, REQUEST)].concat();
    stream.write_all(&bytes).await.unwrap();
    let told = frames(&rest(&mut stream).await);
    assert!(told.iter().any(|(kind, _)| *kind == HEADERS), "it is answered first");
    assert!(told.iter().any(|(kind, _)| *kind == GOAWAY), "{told:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let server = TestServer::start_with(|_| limits(|l| l.timeout = SHORT)).await;
    let admin = server.pki.admin().unwrap();
    let mut stream = connect_as(&server, b"http/1.1", Some(&admin)).await;
    let head =
        "POST /api/v1/namespaces HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    let told = rest(&mut stream).await;
    assert!(told.starts_with(b"HTTP/1.1 504"), "{}", String::from_utf8_lossy(&told));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_serving_certificate_is_shown_to_the_next_connection() {
    let server = TestServer::start().await;
    let shown = async || {
        let stream = connect(&server, b"http/1.1").await;
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let before = shown().await;
    assert_eq!(shown().await, before);
    let mut open = connect(&server, b"http/1.1").await;
    let leaf = server.pki.admin().unwrap();
    // Any certificate will do, but one that names the server must be trusted.
    assert!(server.pki.serving.replace(&leaf).is_ok());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(server.pki.ca.certificate_der().to_vec())).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(server.address).await.unwrap();
    let name = ServerName::IpAddress(server.address.ip().into());
    let refused = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    assert!(refused.is_err(), "the new certificate is for clients, and was shown");
    open.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(rest(&mut open).await.starts_with(b"HTTP/1.1 200"), "connections that are open go on");
}
