//! Tokens of outside issuers, whose configuration is exchanged while the server runs, and connections that clients are
//! asked to make anew, over HTTPS.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, OnceLock};

use bytes::Bytes;
use http::Method;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kube1_apiserver::authn::AuthenticationOptions;
use kube1_apiserver::http::requests::RequestOptions;
use kube1_apiserver::server::Front;
use kube1_pki::{PrivateKey, ServiceAccountKeys, clock};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use support::TestServer;
use support::neighbour::serve;
use support::wire::{Answer, Wire};

static KEYS: LazyLock<[ServiceAccountKeys; 2]> =
    LazyLock::new(|| [0, 1].map(|_| ServiceAccountKeys::new(PrivateKey::generate().unwrap())));
static PORT: OnceLock<u16> = OnceLock::new();

/// Two issuers, each with keys of its own.
fn issuers(_: &Method, path: &str, _: &str, _: Value) -> Value {
    let name = path.split('/').nth(1).unwrap();
    if path.ends_with("/keys") {
        return KEYS[usize::from(name == "two")].jwks();
    }
    let port = PORT.get().unwrap();
    json!({"issuer": format!("https://idp.example/{name}"), "jwks_uri": format!("https://127.0.0.1:{port}/{name}/keys")})
}

fn write(path: &Path, jwt: &Value) {
    let config = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration",
        "anonymous": {"enabled": true, "conditions": [{"path": "/livez"}]}, "jwt": jwt});
    std::fs::write(path, config.to_string()).unwrap();
}

fn issuer(server: &TestServer, name: &str, mappings: Value, rules: Value) -> Value {
    let discovery = format!("https://127.0.0.1:{}/{name}/.well-known/openid-configuration", PORT.get().unwrap());
    let mut issuer = json!({"issuer": {"url": format!("https://idp.example/{name}"), "discoveryURL": discovery,
        "certificateAuthority": server.pki.ca.certificate_pem(), "audiences": ["kube", "other"],
        "audienceMatchPolicy": "MatchAny"}, "claimMappings": mappings});
    for (key, value) in rules.as_object().unwrap() {
        issuer[key] = value.clone();
    }
    issuer
}

fn token(key: usize, claims: Value) -> String {
    let mut all = json!({"aud": "other", "exp": clock::unix_now() + 600, "iat": clock::unix_now(), "sub": "alice"});
    claims.as_object().unwrap().iter().for_each(|(name, value)| all[name] = value.clone());
    all["iss"] = json!(format!("https://idp.example/{}", ["one", "two"][key]));
    KEYS[key].sign(&all).unwrap()
}

fn nobody(server: &TestServer) -> Wire {
    let mut config = kube::Config::new(format!("https://{}", server.address).parse().unwrap());
    config.root_cert = Some(vec![server.pki.ca.certificate_der().to_vec()]);
    Wire(kube::Client::try_from(config).unwrap())
}

async fn who(client: &Wire, token: &str) -> Answer {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).to_string();
    let bearer = format!("Bearer {token}");
    let headers = [("content-type", "application/json"), ("authorization", bearer.as_str())];
    client.send("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", &headers, review).await
}

async fn reloaded(admin: &Wire, status: &str, times: u8) {
    let counter = "apiserver_authentication_config_controller_automatic_reloads_total";
    let fits = |line: &str| {
        line.starts_with(counter)
            && line.contains(&format!("status=\"{status}\""))
            && line.ends_with(&format!(" {times}"))
    };
    admin.until("/metrics", |answer| answer.text().lines().any(fits)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn issuers_come_and_go_with_their_file() {
    let path = std::cell::RefCell::new(PathBuf::new());
    let server = TestServer::start_with(|dir| {
        let file = dir.join("authentication.yaml");
        write(&file, &json!([]));
        *path.borrow_mut() = file.clone();
        let authentication = AuthenticationOptions { config_file: Some(file), ..AuthenticationOptions::default() };
        Front { authentication, ..Front::default() }
    })
    .await;
    let (path, admin, client) = (path.into_inner(), Wire::admin(&server).await, nobody(&server));
    PORT.set(serve(&server, "issuers", issuers).await.port()).unwrap();
    assert_eq!((client.get("/livez").await.code, client.get("/readyz").await.code), (200, 401), "only where it says");
    assert_eq!(who(&client, &token(0, json!({}))).await.code, 401, "no issuer yet");

    let one = issuer(
        &server,
        "one",
        json!({"username": {"expression": "'one:' + claims.sub"}, "uid": {"claim": "sub"},
            "groups": {"expression": "claims.?roles.orValue([])"},
            "extra": [{"key": "example.com/team", "valueExpression": "claims.?team.orValue('none')"}]}),
        json!({"claimValidationRules": [{"expression": "claims.exp - claims.iat <= 3600", "message": "it lives too long"}],
            "userValidationRules": [{"expression": "!user.username.endsWith('root')", "message": "root is reserved"}]}),
    );
    let two = issuer(
        &server,
        "two",
        json!({"username": {"claim": "sub", "prefix": "two:"}, "groups": {"claim": "roles", "prefix": ""}}),
        json!({}),
    );
    write(&path, &json!([one, two]));
    reloaded(&admin, "success", 1).await;
    let user = who(&client, &token(0, json!({"roles": ["dev"]}))).await.ok()["status"]["userInfo"].take();
    assert_eq!(
        user,
        json!({"username": "one:alice", "uid": "alice", "groups": ["dev", "system:authenticated"],
            "extra": {"example.com/team": ["none"]}})
    );
    let user =
        who(&client, &token(1, json!({"roles": ["ops"], "aud": ["x", "kube"]}))).await.ok()["status"]["userInfo"]
            .take();
    assert_eq!(user, json!({"username": "two:alice", "groups": ["ops", "system:authenticated"]}));
    for refused in [
        token(0, json!({"exp": clock::unix_now() + 7200})),
        token(0, json!({"sub": "root"})),
        token(0, json!({"aud": "elsewhere"})),
        token(1, json!({"exp": 1})),
    ] {
        let answer = who(&client, &refused).await;
        assert_eq!((answer.code, answer.message().as_str()), (401, "Unauthorized"));
    }

    std::fs::write(&path, "kind: Nonsense\n").unwrap();
    reloaded(&admin, "failure", 1).await;
    who(&client, &token(1, json!({}))).await.ok();
    write(&path, &json!([one]));
    reloaded(&admin, "success", 2).await;
    assert_eq!(who(&client, &token(1, json!({}))).await.code, 401, "also of tokens that were good before");
    who(&client, &token(0, json!({}))).await.ok();
    server.stop().await;
}

/// A TLS connection that speaks the named protocol.
/// As the administrator: strangers get one answer over a connection of HTTP/2.
async fn connect(server: &TestServer, protocol: &str) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(server.pki.ca.certificate_der().to_vec().into()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let admin = server.pki.admin().unwrap();
    let key = PrivateKeyDer::from_pem_slice(admin.key_pem.as_bytes()).unwrap();
    let builder = builder.with_root_certificates(roots);
    let mut config = builder.with_client_auth_cert(vec![admin.certificate_der().unwrap()], key).unwrap();
    config.alpn_protocols = vec![protocol.into()];
    let stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let name = ServerName::IpAddress(server.address.ip().into());
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_connections_are_sent_away_after_their_answer() {
    for (chance, sent_away) in [(1.0, true), (0.0, false)] {
        let requests = RequestOptions { goaway_chance: chance, ..RequestOptions::default() };
        let server = TestServer::start_with(|_| Front { requests, ..Front::default() }).await;
        let stream = TokioIo::new(connect(&server, "h2").await);
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        let mut connection = tokio::spawn(connection);
        let url = format!("https://{}/livez", server.address);
        let ask = || http::Request::get(&url).body(Full::new(Bytes::new())).unwrap();
        let response = sender.send_request(ask()).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "ok", "the answer is whole");
        if sent_away {
            // The connection ends by itself, although the client would go on.
            tokio::time::timeout(std::time::Duration::from_secs(10), &mut connection).await.unwrap().unwrap().unwrap();
        } else {
            assert_eq!(sender.send_request(ask()).await.unwrap().status(), 200);
        }
        connection.abort();
        server.stop().await;
    }
}
