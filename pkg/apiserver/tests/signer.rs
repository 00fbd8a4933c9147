//! Service-account tokens that a service over its socket signs (`v1.ExternalJWTSigner`).

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Request;
use kube::Client;
use kube1_apiserver::authn::{ExternalSigner, ServiceAccountOptions};
use kube1_apiserver::server::Front;
use kube1_pki::{PrivateKey, ServiceAccountKeys};
use parking_lot::Mutex;
use prost::Message;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use support::TestServer;
use support::grpc::{self, Answer, GrpcServer};

#[derive(Clone, PartialEq, prost::Message)]
struct Text {
    #[prost(string, tag = "1")]
    first: String,
    #[prost(string, tag = "2")]
    second: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Keys {
    #[prost(message, repeated, tag = "1")]
    keys: Vec<Key>,
    #[prost(message, optional, tag = "2")]
    at: Option<Number>,
    #[prost(int64, tag = "3")]
    hint: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Key {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(bytes = "vec", tag = "2")]
    info: Vec<u8>,
    #[prost(bool, tag = "3")]
    hidden: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Number {
    #[prost(int64, tag = "1")]
    number: i64,
}

struct Signer {
    pair: EcdsaKeyPair,
    state: Mutex<State>,
}

struct State {
    kid: &'static str,
    typ: &'static str,
    hint: i64,
    longest: i64,
    fetched: u32,
}

impl Signer {
    fn new() -> Arc<Self> {
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let made = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, made.as_ref(), &random).unwrap();
        let state = State { kid: "k1", typ: "JWT", hint: 120, longest: 7200, fetched: 0 };
        Arc::new(Self { pair, state: Mutex::new(state) })
    }

    fn serve(self: &Arc<Self>, dir: &Path) -> GrpcServer {
        let signer = self.clone();
        grpc::serve(&dir.join("signer.sock"), move |path, message| signer.answer(path, &message))
    }

    fn answer(&self, path: &str, message: &[u8]) -> Answer {
        let mut state = self.state.lock();
        match path {
            "/v1.ExternalJWTSigner/Sign" => {
                let claims = Text::decode(message).unwrap().first;
                let header = json!({"alg": "ES256", "typ": state.typ, "kid": state.kid}).to_string();
                let header = URL_SAFE_NO_PAD.encode(header);
                let signed = format!("{header}.{claims}");
                let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
                Ok(Text { first: header, second: URL_SAFE_NO_PAD.encode(signature) }.encode_to_vec())
            }
            "/v1.ExternalJWTSigner/FetchKeys" => {
                state.fetched += 1;
                let prefix = hex::decode("3059301306072a8648ce3d020106082a8648ce3d030107034200").unwrap();
                let info = [&prefix, self.pair.public_key().as_ref()].concat();
                let key = |id: &str, hidden| Key { id: id.to_owned(), info: info.clone(), hidden };
                let keys = vec![key(state.kid, false), key("hidden", true)];
                Ok(Keys { keys, at: Some(Number { number: 1_700_000_000 }), hint: state.hint }.encode_to_vec())
            }
            "/v1.ExternalJWTSigner/Metadata" => Ok(Number { number: state.longest }.encode_to_vec()),
            _ => Err((12, path.to_owned())),
        }
    }
}

async fn post(client: &Client, path: &str, body: &Value) -> Result<Value, String> {
    let request = Request::post(path).header("content-type", "application/json").body(body.to_string().into_bytes());
    client.request(request.unwrap()).await.map_err(|error| error.to_string())
}

async fn token(client: &Client, seconds: i64) -> Result<Value, String> {
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": seconds}});
    post(client, "/api/v1/namespaces/kube-system/serviceaccounts/a/token", &body).await
}

async fn review(client: &Client, token: &Value) -> Value {
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
    post(client, "/apis/authentication.k8s.io/v1/tokenreviews", &body).await.unwrap()["status"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_signed_and_verified_by_the_keys_of_the_service() {
    let signer = Signer::new();
    let running = std::cell::RefCell::new(None);
    let server = TestServer::start_with(|dir| {
        *running.borrow_mut() = Some(signer.serve(dir));
        let mut front = Front::default();
        front.authentication.service_accounts.signing_endpoint = Some(dir.join("signer.sock"));
        front
    })
    .await;
    let _running = running.into_inner();
    let admin = server.admin().await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a"}});
    post(&admin, "/api/v1/namespaces/kube-system/serviceaccounts", &account).await.unwrap();

    let made = token(&admin, 3600).await.unwrap()["status"]["token"].clone();
    let header = made.as_str().unwrap().split('.').next().unwrap();
    let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
    assert_eq!(header["kid"], "k1");
    assert_eq!(review(&admin, &made).await["user"]["username"], "system:serviceaccount:kube-system:a");
    let own = server.pki.service_account_keys.sign(&json!({"iss": "https://kubernetes.default.svc.cluster.local"}));
    assert!(review(&admin, &own.unwrap().into()).await["error"].is_string(), "the cluster's own key is none of them");

    let jwks = Request::get("/openid/v1/jwks").body(Vec::new()).unwrap();
    let jwks = admin.send(jwks.map(kube::client::Body::from)).await.unwrap();
    let kept = jwks.headers()["cache-control"].to_str().unwrap().strip_prefix("public, max-age=").unwrap().to_owned();
    assert!((60..=120).contains(&kept.parse::<u64>().unwrap()), "{kept}");
    let text = admin.request_text(Request::get("/openid/v1/jwks").body(Vec::new()).unwrap()).await.unwrap();
    assert!(text.contains("\"kid\":\"k1\"") && !text.contains("hidden"), "{text}");

    // A token lives no longer than the service says.
    let long = token(&admin, 86400).await.unwrap();
    assert_eq!(long["spec"]["expirationSeconds"], 7200);

    // A key that was not known is asked for.
    signer.state.lock().kid = "k2";
    let fetched = signer.state.lock().fetched;
    let made = token(&admin, 3600).await.unwrap()["status"]["token"].clone();
    assert_eq!(review(&admin, &made).await["authenticated"], true);
    assert_eq!(signer.state.lock().fetched, fetched + 1);

    for (kid, typ, expected) in [
        ("k2", "at+jwt", "failed to generate token: while validating header: bad type"),
        ("", "JWT", "key id missing"),
        ("hidden", "JWT", "key used for signing JWT (kid: hidden) is excluded from OIDC discovery docs"),
    ] {
        (signer.state.lock().kid, signer.state.lock().typ) = (kid, typ);
        let refused = token(&admin, 3600).await.unwrap_err();
        assert!(refused.contains(expected), "{refused}");
    }
    let metrics = admin.request_text(Request::get("/metrics").body(Vec::new()).unwrap()).await.unwrap();
    for line in [
        "apiserver_externaljwt_sign_request_total{code=\"OK\"} 3",
        "apiserver_externaljwt_sign_request_total{code=\"unknown-non-grpc\"} 3",
        "apiserver_externaljwt_fetch_keys_data_timestamp 1.7e+09",
    ] {
        assert!(
            metrics.contains(line) || metrics.contains(&line.replace("1.7e+09", "1700000000")),
            "{line}\n{metrics}"
        );
    }
    server.stop().await;
}

#[tokio::test]
async fn a_service_that_cannot_be_used_is_refused_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let signer = Signer::new();
    let _running = signer.serve(dir.path());
    assert!(ServiceAccountOptions::default().signing_endpoint.is_none());
    for (hint, longest, asked, expected) in [
        (60, 599, None, "max token life supported by external-jwt-signer (599s) is less than acceptable (min 600s)"),
        (0, 600, None, "found invalid refresh hint (0s)"),
        (60, 600, Some(Duration::from_secs(3600)), "cannot be set longer than the token expiration supported by"),
        (60, 600, Some(Duration::from_secs(600)), ""),
    ] {
        (signer.state.lock().hint, signer.state.lock().longest) = (hint, longest);
        let keys = Arc::new(ServiceAccountKeys::new(PrivateKey::generate().unwrap()));
        match ExternalSigner::connect(dir.path().join("signer.sock"), keys, asked).await {
            Ok(signer) => assert!(expected.is_empty() && signer.longest().as_secs() == 600),
            Err(error) => assert!(!expected.is_empty() && error.to_string().contains(expected), "{error}"),
        }
    }
}
