//! Certificate authorities, certificates and keys in files, which are exchanged while the server runs and connections are
//! open.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube1_apiserver::authn::{AuthenticationOptions, ServiceAccountOptions, TrustOptions};
use kube1_apiserver::http::tls::{CipherSuite, TlsOptions, TlsVersion};
use kube1_apiserver::server::{Front, ServingOptions};
use kube1_pki::{
    AltName, Authority, CertificateFiles, Leaf, LeafProfile, PrivateKey, ServiceAccountKeyFiles, ServiceAccountKeys,
    Subject, Usage, clock, to_pem,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use support::TestServer;
use support::wire::Wire;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const WHO: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

fn leaf(ca: &Authority, name: &str, usage: Usage, alt_names: &[&str]) -> Leaf {
    let alt_names = alt_names.iter().map(|name| AltName::parse(name)).collect();
    ca.issue(&LeafProfile { subject: Subject::new(name, &["dev"]), usages: vec![usage], alt_names }).unwrap()
}

/// Replaces a file as a mounted ConfigMap or a careful program does.
fn put(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(&beside, path).unwrap();
}

/// One connection over which requests are made one after another.
struct Line(TlsStream<TcpStream>);

impl Line {
    /// Trusts the authorities, asks for `name`, and shows `identity`.
    async fn open(server: &TestServer, trusted: &str, name: &str, identity: Option<&Leaf>) -> std::io::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(trusted.as_bytes()).map(Result::unwrap));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots);
        let config = match identity {
            Some(leaf) => {
                let key = PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes()).unwrap();
                config.with_client_auth_cert(vec![leaf.certificate_der().unwrap()], key).unwrap()
            }
            None => config.with_no_client_auth(),
        };
        let stream = TcpStream::connect(server.address).await?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        Ok(Self(TlsConnector::from(Arc::new(config)).connect(name, stream).await?))
    }

    async fn to(server: &TestServer, identity: Option<&Leaf>) -> Self {
        Self::open(server, server.pki.ca.certificate_pem(), "127.0.0.1", identity).await.unwrap()
    }

    /// The user's name, or the code of the refusal.
    async fn who(&mut self, headers: &str) -> Result<String, u16> {
        let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).to_string();
        let length = body.len();
        let text = format!(
            "POST {WHO} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        );
        self.0.write_all(text.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        let head = loop {
            if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.0.read_buf(&mut bytes).await.unwrap() > 0, "closed");
        };
        let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let end = head + length.trim().parse::<usize>().unwrap();
        while bytes.len() < end {
            assert!(self.0.read_buf(&mut bytes).await.unwrap() > 0, "closed");
        }
        let code: u16 = text.split(' ').nth(1).unwrap().parse().unwrap();
        let body: Value = serde_json::from_slice(&bytes[head..end]).unwrap();
        match body["status"]["userInfo"]["username"].as_str() {
            Some(name) => Ok(name.to_owned()),
            None => Err(code),
        }
    }

    /// Asks over the same connection until the answer is as wished.
    async fn until(&mut self, headers: &str, wished: Result<&str, u16>) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let found = self.who(headers).await;
            if found.as_deref().map_err(|code| *code) == wished {
                return;
            }
            assert!(Instant::now() < deadline, "waited too long for {wished:?}: {found:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A server whose front is made from the paths of these files in its directory.
async fn start(files: &[(&str, &str)], front: impl FnOnce(&[PathBuf]) -> Front) -> (TestServer, Vec<PathBuf>) {
    let mut paths = Vec::new();
    let server = TestServer::start_with(|dir| {
        paths = files.iter().map(|(name, _)| dir.join(name)).collect();
        paths.iter().zip(files).for_each(|(path, (_, text))| put(path, text));
        front(&paths)
    });
    (server.await, paths)
}

fn authentication(change: impl FnOnce(&mut AuthenticationOptions)) -> Front {
    let mut authentication = AuthenticationOptions::default();
    change(&mut authentication);
    Front { authentication, ..Front::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn client_authorities_come_and_go_under_open_connections() {
    let [one, two] = ["one", "two"].map(|name| Authority::create(name).unwrap());
    let (server, files) = start(&[("clients.pem", one.certificate_pem())], |files| {
        authentication(|a| a.trust = TrustOptions { client_ca_file: Some(files[0].clone()), ..TrustOptions::default() })
    })
    .await;
    let [alice, bob] = [(&one, "alice"), (&two, "bob")].map(|(ca, name)| leaf(ca, name, Usage::ClientAuth, &[]));
    let admin = server.pki.admin().unwrap();
    let mut own = Line::to(&server, Some(&admin)).await;
    let (mut alice, mut bob) = (Line::to(&server, Some(&alice)).await, Line::to(&server, Some(&bob)).await);
    assert_eq!((alice.who("").await, bob.who("").await), (Ok("alice".into()), Err(401)));
    put(&files[0], two.certificate_pem());
    bob.until("", Ok("bob")).await;
    assert_eq!(alice.who("").await, Err(401), "its authority is not believed any more");
    put(&files[0], "torn");
    let client = Wire::admin(&server).await;
    let failed = "apiserver_client_ca_config_controller_automatic_reloads_total{status=\"failure\"";
    client.until("/metrics", |answer| answer.text().contains(failed)).await;
    assert_eq!(bob.who("").await, Ok("bob".into()), "what was in effect stays");
    assert_eq!(own.who("").await, Ok("kubernetes-admin".into()), "the cluster's own is always believed");
    let told = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let both = format!("{}{}", server.pki.ca.certificate_pem(), two.certificate_pem());
    client.until(told, |answer| answer.value()["data"]["client-ca-file"] == *both).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn front_proxies_come_and_go_under_open_connections() {
    let [one, two] = ["one", "two"].map(|name| Authority::create(name).unwrap());
    let (server, files) = start(&[("proxies.pem", one.certificate_pem())], |files| {
        let (file, names) = (Some(files[0].clone()), vec!["gate".to_owned()]);
        let mut trust = TrustOptions { proxy_ca_file: file, proxy_names: names, ..TrustOptions::default() };
        trust.headers.user = vec!["x-user".into(), "x-remote-user".into()];
        authentication(|a| a.trust = trust)
    })
    .await;
    let gate = |ca, name| leaf(ca, name, Usage::ClientAuth, &[]);
    let mut first = Line::to(&server, Some(&gate(&one, "gate"))).await;
    let mut second = Line::to(&server, Some(&gate(&two, "gate"))).await;
    let mut other = Line::to(&server, Some(&gate(&one, "other"))).await;
    let mut own = Line::to(&server, Some(&gate(&server.pki.request_header_ca, "front-proxy-client"))).await;
    let named = "X-User: alice\r\nX-Remote-Group: dev\r\n";
    assert_eq!(first.who(named).await, Ok("alice".into()));
    assert_eq!(first.who("X-Remote-User: bob\r\n").await, Ok("bob".into()));
    assert_eq!((second.who(named).await, other.who(named).await), (Err(401), Err(403)), "nobody, and anonymous");
    put(&files[0], two.certificate_pem());
    second.until(named, Ok("alice")).await;
    assert_eq!((first.who(named).await, own.who(named).await), (Err(401), Ok("alice".into())));
    let told = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let told = Wire::admin(&server)
        .await
        .until(told, |answer| {
            let bundle = answer.value()["data"]["requestheader-client-ca-file"].to_string();
            bundle.contains(json!(two.certificate_pem()).to_string().trim_matches('"'))
        })
        .await;
    let data = &told.value()["data"];
    assert_eq!(data["requestheader-allowed-names"], r#"["front-proxy-client","gate"]"#);
    assert_eq!(data["requestheader-username-headers"], r#"["X-User","X-Remote-User"]"#);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_tokens_come_and_go() {
    let private = [0, 1, 2].map(|_| PrivateKey::generate().unwrap());
    let public = private.each_ref().map(|key| to_pem("PUBLIC KEY", &key.public_key_info()));
    let made = private.map(ServiceAccountKeys::new);
    let (server, files) = start(&[("a.pem", &public[0]), ("b.pem", &public[1])], |files| {
        let key_files = ServiceAccountKeyFiles { signing: None, accepted: files.to_vec() };
        let issuers = vec!["https://new.example".to_owned(), "https://old.example".to_owned()];
        let options = ServiceAccountOptions { key_files, issuers, ..ServiceAccountOptions::default() };
        authentication(|a| a.service_accounts = options)
    })
    .await;
    let admin = Wire::admin(&server).await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}});
    let account = admin.json("POST", "/api/v1/namespaces/default/serviceaccounts", &account).await.ok();
    let token = |key: usize, issuer: &str| {
        let claims = json!({"iss": issuer, "aud": [issuer], "exp": clock::unix_now() + 600,
            "sub": "system:serviceaccount:default:robot", "kubernetes.io": {"namespace": "default",
                "serviceaccount": {"name": "robot", "uid": account["metadata"]["uid"]}}});
        format!("Authorization: Bearer {}\r\n", made[key].sign(&claims).unwrap())
    };
    let robot = Ok("system:serviceaccount:default:robot".to_owned());
    let mut line = Line::to(&server, None).await;
    for (key, issuer, expected) in [
        (0, "https://new.example", robot.clone()),
        (1, "https://old.example", robot.clone()),
        (2, "https://new.example", Err(401)),
        (0, "https://other.example", Err(401)),
    ] {
        assert_eq!(line.who(&token(key, issuer)).await, expected, "{key} {issuer}");
    }
    put(&files[1], &public[2]);
    line.until(&token(2, "https://new.example"), Ok("system:serviceaccount:default:robot")).await;
    assert_eq!(line.who(&token(1, "https://old.example")).await, Err(401), "its key was taken away");
    let keys = admin.get("/openid/v1/jwks").await.ok();
    let ids: Vec<&Value> = keys["keys"].as_array().unwrap().iter().map(|key| &key["kid"]).collect();
    for (key, shown) in [(0, true), (1, false), (2, true)] {
        assert_eq!(ids.contains(&&made[key].jwks()["keys"][0]["kid"]), shown, "{key}");
    }
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"});
    let made = admin.json("POST", "/api/v1/namespaces/default/serviceaccounts/robot/token", &request).await.ok();
    assert_eq!(made["spec"]["audiences"], json!(["https://new.example", "https://old.example"]));
    let bearer = format!("Authorization: Bearer {}\r\n", made["status"]["token"].as_str().unwrap());
    assert_eq!(line.who(&bearer).await, robot, "the server's own key still signs");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn named_certificates_are_exchanged_for_the_next_connection() {
    let [one, two] = ["one", "two"].map(|name| Authority::create(name).unwrap());
    let [first, second] =
        [&one, &two].map(|ca| leaf(ca, "api", Usage::ServerAuth, &["api.example.com", "*.apps.example.com"]));
    let (server, files) = start(&[("tls.crt", &first.certificate_pem), ("tls.key", &first.key_pem)], |files| {
        let [certificate, key] = [0, 1].map(|at| files[at].clone());
        let named = vec![CertificateFiles { certificate, key, names: vec![] }];
        Front { serving: ServingOptions { named, ..ServingOptions::default() }, ..Front::default() }
    })
    .await;
    let fine = async |ca: &Authority, name: &str| Line::open(&server, ca.certificate_pem(), name, None).await.is_ok();
    for name in ["api.example.com", "a.apps.example.com"] {
        assert!(fine(&one, name).await && !fine(&two, name).await, "{name}");
    }
    assert!(fine(&server.pki.ca, "kubernetes.default.svc").await && fine(&server.pki.ca, "127.0.0.1").await);
    // One after the other: between them they do not fit, and the old ones stay.
    put(&files[1], &second.key_pem);
    put(&files[0], &second.certificate_pem);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !fine(&two, "api.example.com").await {
        assert!(Instant::now() < deadline, "the new certificate is not shown");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(fine(&server.pki.ca, "127.0.0.1").await);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_takes_the_place_of_the_servers_own_and_is_exchanged() {
    let [one, two] = ["one", "two"].map(|name| Authority::create(name).unwrap());
    let [first, second] =
        [&one, &two].map(|ca| leaf(ca, "api", Usage::ServerAuth, &["127.0.0.1", "kubernetes.default.svc"]));
    let (server, files) = start(&[("tls.crt", &first.certificate_pem), ("tls.key", &first.key_pem)], |files| {
        let [certificate, key] = [0, 1].map(|at| files[at].clone());
        let default = Some(CertificateFiles { certificate, key, names: vec![] });
        let tls = TlsOptions { min_version: TlsVersion::Tls13, suites: vec![] };
        Front { serving: ServingOptions { default, tls, ..ServingOptions::default() }, ..Front::default() }
    })
    .await;
    let fine = async |ca: &Authority, name: &str| Line::open(&server, ca.certificate_pem(), name, None).await.is_ok();
    for name in ["kubernetes.default.svc", "127.0.0.1"] {
        assert!(fine(&one, name).await && !fine(&server.pki.ca, name).await, "{name}");
    }
    put(&files[1], &second.key_pem);
    put(&files[0], &second.certificate_pem);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !fine(&two, "127.0.0.1").await {
        assert!(Instant::now() < deadline, "the new certificate is not shown");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_and_suites_of_tls_are_those_of_the_flags() {
    let suite = |name: &str| name.parse::<CipherSuite>().unwrap();
    let chacha = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256";
    let (tls12, tls13): ([_; 1], [_; 1]) = ([&rustls::version::TLS12], [&rustls::version::TLS13]);
    for (min_version, suites, versions, fine) in [
        (TlsVersion::Tls12, vec![], &tls12, true),
        (TlsVersion::Tls13, vec![], &tls12, false),
        (TlsVersion::Tls13, vec![], &tls13, true),
        (TlsVersion::Tls12, vec![suite(chacha)], &tls12, true),
        (TlsVersion::Tls12, vec![suite("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256")], &tls12, false),
        (TlsVersion::Tls12, vec![suite(chacha)], &tls13, true),
        (TlsVersion::Tls12, vec![suite("TLS_AES_128_GCM_SHA256")], &tls12, false),
    ] {
        let shown = format!("{min_version:?} {suites:?} {versions:?}");
        let tls = TlsOptions { min_version, suites };
        let serving = ServingOptions { tls, ..ServingOptions::default() };
        let server = TestServer::start_with(|_| Front { serving, ..Front::default() }).await;
        let mut roots = RootCertStore::empty();
        let ca = server.pki.ca.certificate_pem().as_bytes();
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(ca).map(Result::unwrap));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let stream = TcpStream::connect(server.address).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        assert_eq!(TlsConnector::from(Arc::new(config)).connect(name, stream).await.is_ok(), fine, "{shown}");
        server.stop().await;
    }
}
