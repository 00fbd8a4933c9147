//! Joining a stand-in for a server: TLS with a real CA, `/cacerts`, and certificate requests that are signed at once.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kube1_join::{CertificateRotation, JoinConfig, JoinError, JoinToken, join};
use kube1_pki::{AltName, Authority, CertificateRequest, CsrSigning, LeafProfile, Subject, Usage};
use kube1_supervisor::{Component, Context};
use parking_lot::Mutex;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

const SECRET: &str = "0123456789abcdef";

/// What a server saw: method, path, and whether there was a client certificate.
type Seen = Arc<Mutex<Vec<(Method, String, bool)>>>;

struct Server {
    address: SocketAddr,
    ca: Arc<Authority>,
    seen: Seen,
    _tasks: JoinSet<()>,
}

async fn server() -> Server {
    let ca = Arc::new(Authority::create("kubernetes-ca").unwrap());
    let profile = LeafProfile {
        subject: Subject::new("kube-apiserver", &[]),
        usages: vec![Usage::ServerAuth],
        alt_names: vec![AltName::parse("127.0.0.1")],
    };
    let leaf = ca.issue(&profile).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.certificate_der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
        .allow_unauthenticated()
        .build()
        .unwrap();
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![leaf.certificate_der().unwrap()],
            PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Seen::default();
    let mut tasks = JoinSet::new();
    let (ca2, seen2) = (ca.clone(), seen.clone());
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        let requests: Arc<Mutex<Vec<Value>>> = Arc::default();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, ca, seen, requests) = (acceptor.clone(), ca2.clone(), seen2.clone(), requests.clone());
            connections.spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let certified = stream.get_ref().1.peer_certificates().is_some();
                let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let (ca, seen, requests) = (ca.clone(), seen.clone(), requests.clone());
                    async move {
                        seen.lock().push((request.method().clone(), request.uri().path().to_owned(), certified));
                        Ok::<_, std::convert::Infallible>(answer(&ca, &requests, certified, request).await)
                    }
                });
                let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    Server { address, ca, seen, _tasks: tasks }
}

async fn answer(
    ca: &Authority,
    requests: &Mutex<Vec<Value>>,
    certified: bool,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    if request.uri().path() == "/cacerts" {
        return Response::new(Full::from(ca.certificate_pem().to_owned()));
    }
    let token = request.headers().get("authorization").map(|v| v.to_str().unwrap().to_owned());
    if !certified && token != Some(format!("Bearer abcdef.{SECRET}")) {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "Unauthorized",
            "reason": "Unauthorized", "code": 401});
        return reply(StatusCode::UNAUTHORIZED, &status);
    }
    if request.method() == Method::POST {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let mut object: Value = serde_json::from_slice(&body).unwrap();
        let certificate = sign(ca, &object);
        object["metadata"]["resourceVersion"] = "1".into();
        let mut signed = object.clone();
        signed["status"] = json!({ "certificate": certificate });
        requests.lock().push(signed);
        return reply(StatusCode::CREATED, &object);
    }
    let object = requests.lock().last().cloned().unwrap();
    reply(StatusCode::OK, &json!({"type": "ADDED", "object": object}))
}

fn reply(code: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let builder = Response::builder().status(code).header("content-type", "application/json");
    builder.body(Full::from(format!("{body}\n"))).unwrap()
}

fn sign(ca: &Authority, object: &Value) -> String {
    use base64::Engine;
    let base64 = base64::engine::general_purpose::STANDARD;
    let pem = base64.decode(object["spec"]["request"].as_str().unwrap()).unwrap();
    let request = CertificateRequest::from_pem(std::str::from_utf8(&pem).unwrap()).unwrap();
    let server = object["spec"]["signerName"] == "kubernetes.io/kubelet-serving";
    let signing = CsrSigning {
        usages: vec![if server { Usage::ServerAuth } else { Usage::ClientAuth }],
        digital_signature: true,
        key_encipherment: false,
        lifetime: Duration::from_secs(3600),
    };
    base64.encode(ca.sign_csr(&request, &signing).unwrap())
}

fn token(server: &Server) -> JoinToken {
    JoinToken {
        // The first address is down.
        servers: vec!["127.0.0.1:1".into(), server.address.to_string()],
        ca_hash: server.ca.hash(),
        id: "abcdef".into(),
        secret: SECRET.into(),
        expires: None,
    }
}

fn config(dir: &std::path::Path, token: Option<JoinToken>) -> JoinConfig {
    JoinConfig { data_dir: dir.to_owned(), node_name: "node-1".into(), token }
}

#[tokio::test]
async fn a_node_joins_once_and_then_needs_no_token() {
    let server = server().await;
    let dir = tempfile::tempdir().unwrap();
    let stop = CancellationToken::new();
    let node = join(&config(dir.path(), Some(token(&server))), &stop).await.unwrap();
    assert_eq!(node.ca_pem, server.ca.certificate_pem());
    let paths = |seen: &Seen| seen.lock().iter().map(|(m, p, c)| format!("{m} {p} {c}")).collect::<Vec<_>>();
    let csrs = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    assert_eq!(
        paths(&server.seen),
        ["GET /cacerts false".to_owned(), format!("POST {csrs} false"), format!("GET {csrs} false")]
    );
    node.client.apiserver_version().await.unwrap();
    assert_eq!(paths(&server.seen).last().unwrap(), "GET /version true", "the client shows its certificate");
    drop(node);
    let again = join(&config(dir.path(), None), &stop).await.unwrap();
    again.client.apiserver_version().await.unwrap();
    assert_eq!(paths(&server.seen).iter().filter(|p| p.starts_with("POST")).count(), 1);
    let kubeconfig = std::fs::read_to_string(dir.path().join("agent/kubelet.kubeconfig")).unwrap();
    assert!(kubeconfig.contains("agent/pki/kubelet-client.crt"), "{kubeconfig}");

    let moved = JoinToken { servers: vec!["127.0.0.1:2".into()], ..token(&server) };
    join(&config(dir.path(), Some(moved)), &stop).await.unwrap();
    let kept = join(&config(dir.path(), None), &stop).await.unwrap();
    assert_eq!(kept.servers.addresses(), ["127.0.0.1:2", "127.0.0.1:1", server.address.to_string().as_str()]);

    let renamed = JoinConfig { node_name: "other".into(), ..config(dir.path(), None) };
    assert!(matches!(join(&renamed, &stop).await.err().unwrap(), JoinError::OtherName { .. }));
    let foreign = JoinToken { ca_hash: "0".repeat(64), ..token(&server) };
    let error = join(&config(dir.path(), Some(foreign)), &stop).await.err().unwrap();
    assert!(matches!(error, JoinError::OtherCluster));
}

#[tokio::test]
async fn a_wrong_authority_and_a_wrong_token_end_the_attempt() {
    let server = server().await;
    let dir = tempfile::tempdir().unwrap();
    let stop = CancellationToken::new();
    let attempt = async |token| join(&config(dir.path(), token), &stop).await.err().unwrap();
    assert!(matches!(attempt(None).await, JoinError::NoToken));
    let foreign = JoinToken { ca_hash: "0".repeat(64), ..token(&server) };
    assert!(matches!(attempt(Some(foreign)).await, JoinError::WrongAuthority { .. }));
    assert!(
        server.seen.lock().iter().all(|(_, path, _)| path == "/cacerts"),
        "the token is only sent to the right server"
    );
    let misspelt = JoinToken { secret: "0123456789abcdeg".into(), ..token(&server) };
    assert!(matches!(attempt(Some(misspelt)).await, JoinError::TokenRefused));
    let expired = JoinToken { expires: Some(1_000_000_000), ..token(&server) };
    assert!(matches!(attempt(Some(expired)).await, JoinError::TokenExpired));
    let down = JoinToken { servers: vec!["127.0.0.1:1".into()], ..token(&server) };
    stop.cancel();
    assert!(matches!(attempt(Some(down)).await, JoinError::Stopped), "an unreachable server is tried again");
}

#[tokio::test]
async fn a_serving_certificate_for_the_nodes_addresses_replaces_the_makeshift_one() {
    let server = server().await;
    let dir = tempfile::tempdir().unwrap();
    let node = join(&config(dir.path(), Some(token(&server))), &CancellationToken::new()).await.unwrap();
    let rotation = CertificateRotation::new(node, vec!["192.0.2.7".parse().unwrap()]);
    let (ctx, _) = Context::new(CancellationToken::new());
    let shutdown = ctx.shutdown.clone();
    let path = dir.path().join("agent/pki");
    let issued = async {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while kube1_pki::Leaf::read(&path, "kubelet-serving").unwrap().is_none() {
            assert!(tokio::time::Instant::now() < deadline, "no serving certificate in time");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        shutdown.cancel();
    };
    let (result, ()) = tokio::join!(rotation.run(ctx), issued);
    result.unwrap();
    let leaf = kube1_pki::Leaf::read(&path, "kubelet-serving").unwrap().unwrap();
    assert_eq!(leaf.alt_names().unwrap(), [AltName::parse("node-1"), AltName::parse("192.0.2.7")]);
    assert!(!path.join("kubelet-serving.pending").exists());
    assert!(server.seen.lock().iter().any(|(m, _, certified)| m == Method::POST && *certified));
}
