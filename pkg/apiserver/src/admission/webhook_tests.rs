//! Webhooks over real TLS connections.

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube1_pki::{AltName, Authority, LeafProfile, ReloadingCertificate, Subject, Usage};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::tests::World;
use super::*;

/// A webhook server that answers by the request's path.
struct Hooks {
    address: SocketAddr,
    ca: String,
    _serving: JoinSet<()>,
}

fn answer(path: &str, review: &Value) -> Value {
    let request = &review["request"];
    let mut response = json!({"uid": request["uid"], "allowed": true});
    match path {
        "/label" => {
            let patch = json!([{"op": "add", "path": "/metadata/labels", "value": {"by": "hook"}}]);
            response["patchType"] = "JSONPatch".into();
            response["patch"] = STANDARD.encode(patch.to_string()).into();
            response["warnings"] = json!(["labelled"]);
        }
        "/deny" => {
            response["allowed"] = false.into();
            response["status"] = json!({"code": 403, "message": format!("no {}", request["name"].as_str().unwrap())});
        }
        _ => return json!({}),
    }
    json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response})
}

async fn serve() -> Hooks {
    let authority = Authority::create("hooks").unwrap();
    let alt_names = vec![AltName::Dns("localhost".into())];
    let profile = LeafProfile { subject: Subject::new("hooks", &[]), usages: vec![Usage::ServerAuth], alt_names };
    let leaf = authority.issue(&profile).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(ReloadingCertificate::new(&leaf).unwrap()));
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let service = service_fn(|request: http::Request<hyper::body::Incoming>| async move {
                let path = request.uri().path().to_owned();
                let body = request.into_body().collect().await?.to_bytes();
                let review: Value = serde_json::from_slice(&body).unwrap();
                Ok::<_, hyper::Error>(http::Response::new(Full::new(bytes::Bytes::from(
                    answer(&path, &review).to_string(),
                ))))
            });
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        }
    });
    Hooks { address, ca: STANDARD.encode(authority.certificate_pem()), _serving: serving }
}

impl Hooks {
    fn hook(&self, name: &str, path: &str, more: Value) -> Value {
        let url = format!("https://localhost:{}{path}", self.address.port());
        let rules =
            json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]);
        let mut hook = json!({"name": name, "clientConfig": {"url": url, "caBundle": self.ca}, "rules": rules,
            "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 5});
        hook.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        hook
    }
}

async fn admit(world: &World, attributes: &mut Attributes) -> Result<(), Status> {
    let admission = Admission::new(world.configured().plugins());
    admission.mutate(attributes).await?;
    admission.validate(attributes).await
}

#[tokio::test]
async fn webhooks_change_and_refuse() {
    let world = World::new().await;
    let hooks = serve().await;
    let put = async |plural: &str, name: &str, hook: Value| {
        world
            .put("admissionregistration.k8s.io", plural, json!({"metadata": {"name": name}, "webhooks": [hook]}))
            .await;
    };
    let (mutating, validating) = ("mutatingwebhookconfigurations", "validatingwebhookconfigurations");
    put(mutating, "a", hooks.hook("label.x.y", "/label", json!({}))).await;
    let only_bad =
        json!({"matchConditions": [{"name": "bad", "expression": "object.metadata.name.startsWith('bad')"}]});
    put(validating, "b", hooks.hook("deny.x.y", "/deny", only_bad)).await;
    let elsewhere = json!({"namespaceSelector": {"matchLabels": {"a": "b"}}});
    put(validating, "c", hooks.hook("elsewhere.x.y", "/deny", elsewhere)).await;
    let map = |name: &str| {
        world.create("", "configmaps", json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}))
    };

    let mut good = map("good");
    admit(&world, &mut good).await.unwrap();
    assert_eq!(good.object.as_ref().unwrap()["metadata"]["labels"], json!({"by": "hook"}));
    assert_eq!(good.warnings, ["labelled"]);
    let mut secret = world.create("", "secrets", json!({"metadata": {"name": "bad"}}));
    admit(&world, &mut secret).await.unwrap();
    let refused = admit(&world, &mut map("bad")).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (403, "admission webhook \"deny.x.y\" denied the request: no bad"));

    put(validating, "d", hooks.hook("broken.x.y", "/broken", json!({"failurePolicy": "Ignore"}))).await;
    admit(&world, &mut map("good")).await.unwrap();
    put(validating, "e", hooks.hook("fatal.x.y", "/broken", json!({}))).await;
    let failed = admit(&world, &mut map("good")).await.unwrap_err();
    assert!(
        failed.message().starts_with("Internal error occurred: failed calling webhook \"fatal.x.y\": "),
        "{failed}"
    );
}
