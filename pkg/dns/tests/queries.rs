#![allow(clippy::unwrap_used)]
//! Real queries to the real server, in a network namespace of its own.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use kube::client::Body;
use kube1_client::Informers;
use kube1_dns::{Dns, DnsConfig};
use kube1_network::netns;
use kube1_network::rtnl::RouteSocket;
use kube1_supervisor::{Component, Context};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_util::bytes::Bytes;
use tokio_util::sync::CancellationToken;

const SERVER: &str = "10.43.0.10";

fn objects(path: &str) -> (&'static str, Vec<Value>) {
    let meta = |name: &str| json!({"name": name, "namespace": "ns", "resourceVersion": "1"});
    let clustered = json!({"type": "ClusterIP", "clusterIP": "10.43.0.7", "clusterIPs": ["10.43.0.7", "fd00::7"],
        "ports": [{"name": "http", "port": 80, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"}]});
    let headless = json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": [{"name": "http", "port": 80}]});
    let alias = |target: &str| json!({"type": "ExternalName", "externalName": target});
    let endpoints = (0..60u8).map(|number| {
        let hostname = if number == 0 { json!("db-0") } else { Value::Null };
        json!({"addresses": [format!("10.42.1.{number}")], "hostname": hostname, "conditions": {"ready": number != 59}})
    });
    match path {
        "/api/v1/services" => (
            "v1/ServiceList",
            vec![
                json!({"metadata": meta("web"), "spec": clustered}),
                json!({"metadata": meta("db"), "spec": headless}),
                json!({"metadata": meta("out"), "spec": alias("www.example.org")}),
                json!({"metadata": meta("in"), "spec": alias("web.ns.svc.cluster.local")}),
            ],
        ),
        "/apis/discovery.k8s.io/v1/endpointslices" => {
            let mut slice = meta("db-1");
            slice["labels"] = json!({"kubernetes.io/service-name": "db"});
            let ports = json!([{"name": "http", "port": 8080, "protocol": "TCP"}]);
            let slice = json!({"metadata": slice, "addressType": "IPv4", "ports": ports,
                "endpoints": endpoints.collect::<Vec<_>>()});
            ("discovery.k8s.io/v1/EndpointSliceList", vec![slice])
        }
        other => panic!("unexpected request for {other}"),
    }
}

/// An API server that has a few objects and to which nothing happens.
fn api() -> kube::Client {
    let service = tower::service_fn(|request: http::Request<Body>| async move {
        let watch = request.uri().query().is_some_and(|query| query.contains("watch="));
        let body: BoxBody<Bytes, Infallible> = if watch {
            Full::new(Bytes::new()).map_frame(|frame| frame).boxed()
        } else {
            let (kind, items) = objects(request.uri().path());
            let (version, kind) = kind.rsplit_once('/').unwrap();
            let list =
                json!({"apiVersion": version, "kind": kind, "metadata": {"resourceVersion": "1"}, "items": items});
            Full::new(Bytes::from(list.to_string())).boxed()
        };
        if watch {
            std::future::pending::<()>().await;
        }
        Ok::<_, Infallible>(http::Response::new(body))
    });
    kube1_client::in_process(service)
}

/// An API server that is away.
fn no_api() -> kube::Client {
    kube1_client::in_process(tower::service_fn(|_: http::Request<Body>| async {
        Err::<http::Response<Full<Bytes>>, _>(std::io::Error::other("away"))
    }))
}

/// Runs `test` against a server in a new namespace.
fn with_server(dir: &Path, client: fn() -> kube::Client, test: impl AsyncFnOnce() + Send) {
    netns::within_new(|| {
        let mut socket = RouteSocket::open().unwrap();
        let lo = socket.link("lo").unwrap();
        socket.set_up(lo.index).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let resolv_conf = dir.join("resolv.conf");
            std::fs::write(&resolv_conf, format!("nameserver {SERVER}\nnameserver 127.0.0.53\n")).unwrap();
            tokio::spawn(upstream_udp(UdpSocket::bind("127.0.0.53:53").await.unwrap()));
            tokio::spawn(upstream_tcp(TcpListener::bind("127.0.0.53:53").await.unwrap()));
            let shutdown = CancellationToken::new();
            let informers = Informers::new(client(), shutdown.clone());
            let (address, domain) = (SERVER.parse().unwrap(), "cluster.local".to_owned());
            let dns = Dns::new(
                informers,
                DnsConfig { address, domain, resolv_conf, data_dir: dir.to_owned(), metrics: None },
            );
            let (context, mut ready) = Context::new(shutdown.clone());
            let server = tokio::spawn(async move { dns.run(context).await });
            ready.wait_for(|ready| *ready).await.unwrap();
            test().await;
            shutdown.cancel();
            server.await.unwrap().unwrap();
        });
    })
    .unwrap();
}

/// Knows `www.example.org`, and long texts at `long.example.org`.
fn upstream_answer(bytes: &[u8], tcp: bool) -> Vec<u8> {
    let query = Message::from_vec(bytes).unwrap();
    let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
    let name = query.queries[0].name.clone();
    answer.add_queries(query.queries);
    match &*name.to_lowercase().to_ascii() {
        "www.example.org." => {
            answer.add_answer(Record::from_rdata(name, 300, RData::A(A::new(192, 0, 2, 80))));
        }
        "long.example.org." if !tcp => answer.metadata.truncation = true,
        "long.example.org." => {
            let text = RData::TXT(TXT::new(vec!["x".repeat(250); 20]));
            answer.add_answer(Record::from_rdata(name, 300, text));
        }
        _ => answer.metadata.response_code = ResponseCode::NXDomain,
    }
    answer.to_vec().unwrap()
}

async fn upstream_udp(socket: UdpSocket) {
    let mut buffer = [0; 4096];
    loop {
        let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
        socket.send_to(&upstream_answer(&buffer[..length], false), client).await.unwrap();
    }
}

async fn upstream_tcp(listener: TcpListener) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut query = vec![0; stream.read_u16().await.unwrap().into()];
        stream.read_exact(&mut query).await.unwrap();
        let answer = upstream_answer(&query, true);
        stream.write_u16(answer.len() as u16).await.unwrap();
        stream.write_all(&answer).await.unwrap();
    }
}

fn query(name: &str, kind: RecordType, payload: u16) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(format!("{name}.")).unwrap(), kind));
    if payload > 0 {
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        message.set_edns(edns);
    }
    message
}

async fn udp(query: &Message) -> Message {
    let socket = UdpSocket::bind("0.0.0.0:0").await.unwrap();
    socket.connect(SocketAddr::new(SERVER.parse().unwrap(), 53)).await.unwrap();
    socket.send(&query.to_vec().unwrap()).await.unwrap();
    let mut buffer = [0; 4096];
    let received = tokio::time::timeout(Duration::from_secs(20), socket.recv(&mut buffer)).await;
    let length = received.expect("no answer").unwrap();
    let limit = query.edns.as_ref().map_or(512, Edns::max_payload);
    assert!(length <= limit.into(), "{length} bytes are more than the client takes");
    Message::from_vec(&buffer[..length]).unwrap()
}

async fn tcp(query: &Message) -> Message {
    let mut stream = TcpStream::connect((SERVER, 53)).await.unwrap();
    let bytes = query.to_vec().unwrap();
    stream.write_u16(bytes.len() as u16).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    let mut answer = vec![0; stream.read_u16().await.unwrap().into()];
    stream.read_exact(&mut answer).await.unwrap();
    Message::from_vec(&answer).unwrap()
}

/// Asks until the server knows the cluster.
async fn ask(name: &str, kind: RecordType) -> Message {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        let answer = udp(&query(name, kind, 4096)).await;
        if answer.metadata.response_code != ResponseCode::ServFail || tokio::time::Instant::now() > deadline {
            return answer;
        }
        tokio::task::yield_now().await;
    }
}

/// Data of the answer's records, or its code.
async fn data(name: &str, kind: RecordType) -> Vec<String> {
    let answer = ask(name, kind).await;
    let mut data: Vec<String> = answer.answers.iter().map(|record| record.data.to_string()).collect();
    data.sort();
    if answer.metadata.response_code == ResponseCode::NXDomain {
        assert!(answer.answers.is_empty());
        data.push("NXDOMAIN".into());
    }
    data
}

#[test]
fn names_of_the_cluster() {
    use RecordType::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
    let cases: &[(&str, RecordType, &[&str])] = &[
        ("web.ns.svc.cluster.local", A, &["10.43.0.7"]),
        ("WEB.ns.svc.Cluster.Local", A, &["10.43.0.7"]),
        ("web.ns.svc.cluster.local", AAAA, &["fd00::7"]),
        ("web.ns.svc.cluster.local", TXT, &[]),
        ("nothing.ns.svc.cluster.local", A, &["NXDOMAIN"]),
        ("web.other.svc.cluster.local", A, &["NXDOMAIN"]),
        ("ns.svc.cluster.local", A, &[]),
        ("other.svc.cluster.local", A, &["NXDOMAIN"]),
        ("cluster.local", A, &[]),
        ("cluster.local", NS, &["ns.dns.cluster.local."]),
        ("ns.dns.cluster.local", A, &[SERVER]),
        ("dns-version.cluster.local", TXT, &["1.1.0"]),
        ("web.cluster.local", A, &["NXDOMAIN"]),
        ("_http._tcp.web.ns.svc.cluster.local", SRV, &["0 100 80 web.ns.svc.cluster.local."]),
        ("_http._udp.web.ns.svc.cluster.local", SRV, &["NXDOMAIN"]),
        ("_tcp.web.ns.svc.cluster.local", SRV, &[]),
        ("db-0.db.ns.svc.cluster.local", A, &["10.42.1.0"]),
        ("10-42-1-3.db.ns.svc.cluster.local", A, &["10.42.1.3"]),
        ("10-42-1-59.db.ns.svc.cluster.local", A, &["NXDOMAIN"]),
        ("10-42-9-9.ns.pod.cluster.local", A, &["10.42.9.9"]),
        ("x.ns.pod.cluster.local", A, &["NXDOMAIN"]),
        ("out.ns.svc.cluster.local", A, &["192.0.2.80", "www.example.org."]),
        ("out.ns.svc.cluster.local", CNAME, &["www.example.org."]),
        ("in.ns.svc.cluster.local", A, &["10.43.0.7", "web.ns.svc.cluster.local."]),
        ("7.0.43.10.in-addr.arpa", PTR, &["web.ns.svc.cluster.local."]),
        ("0.1.42.10.in-addr.arpa", PTR, &["db-0.db.ns.svc.cluster.local."]),
        ("9.9.9.10.in-addr.arpa", PTR, &["NXDOMAIN"]),
        ("www.example.org", A, &["192.0.2.80"]),
        ("unknown.example.org", A, &["NXDOMAIN"]),
    ];
    let dir = tempfile::tempdir().unwrap();
    with_server(dir.path(), api, async || {
        for (name, kind, expected) in cases {
            assert_eq!(data(name, *kind).await, *expected, "{name} {kind}");
        }
        assert_eq!(ask("cluster.local", SOA).await.answers.len(), 1);
        for negative in ["ns.svc.cluster.local", "nothing.ns.svc.cluster.local"] {
            let answer = ask(negative, A).await;
            assert_eq!(answer.authorities[0].record_type(), SOA, "no SOA says how long {negative} does not exist");
        }
        let services = ask("_http._tcp.db.ns.svc.cluster.local", SRV).await;
        assert!(
            services
                .answers
                .iter()
                .any(|record| record.data.to_string().ends_with("8080 db-0.db.ns.svc.cluster.local."))
        );
    });
}

#[test]
fn sizes_and_transports() {
    let dir = tempfile::tempdir().unwrap();
    with_server(dir.path(), api, async || {
        ask("web.ns.svc.cluster.local", RecordType::A).await;
        let name = "db.ns.svc.cluster.local";
        let short = udp(&query(name, RecordType::A, 0)).await;
        assert!(short.metadata.truncation && !short.answers.is_empty() && short.answers.len() < 59);
        let long = udp(&query(name, RecordType::A, 4096)).await;
        assert!(!long.metadata.truncation && long.edns.is_some());
        let all: BTreeSet<IpAddr> = long.answers.iter().filter_map(|record| record.data.ip_addr()).collect();
        assert_eq!(all.len(), 59);
        assert_eq!(tcp(&query(name, RecordType::SRV, 0)).await.answers.len(), 59);
        let first = |message: &Message| message.answers[0].data.to_string();
        let mut firsts = BTreeSet::new();
        for _ in 0..20 {
            firsts.insert(first(&udp(&query(name, RecordType::A, 4096)).await));
        }
        assert!(firsts.len() > 3, "clients that take the first address would all take the same");

        assert!(udp(&query("long.example.org", RecordType::TXT, 4096)).await.metadata.truncation);
        assert_eq!(tcp(&query("long.example.org", RecordType::TXT, 4096)).await.answers.len(), 1);

        let mut bad = query(name, RecordType::A, 4096);
        bad.edns.as_mut().unwrap().set_version(1);
        assert_eq!(u16::from(udp(&bad).await.metadata.response_code), u16::from(ResponseCode::BADVERS));
    });
}

#[test]
fn the_last_known_state_is_used_while_the_api_is_away() {
    let dir = tempfile::tempdir().unwrap();
    with_server(dir.path(), no_api, async || {
        let answer = udp(&query("web.ns.svc.cluster.local", RecordType::A, 0)).await;
        assert_eq!(
            answer.metadata.response_code,
            ResponseCode::ServFail,
            "it is not known that the name does not exist"
        );
        assert_eq!(data("www.example.org", RecordType::A).await, ["192.0.2.80"]);
    });
    with_server(dir.path(), api, async || {
        assert_eq!(data("web.ns.svc.cluster.local", RecordType::A).await, ["10.43.0.7"]);
    });
    with_server(dir.path(), no_api, async || {
        assert_eq!(data("web.ns.svc.cluster.local", RecordType::A).await, ["10.43.0.7"]);
        assert_eq!(data("0.1.42.10.in-addr.arpa", RecordType::PTR).await, ["db-0.db.ns.svc.cluster.local."]);
    });
}
