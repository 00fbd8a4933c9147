//! Webhooks over real TLS connections.

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube1_pki::{AltName, Authority, LeafProfile, ReloadingCertificate, Subject, Usage};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
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
        "/remove" => {
            response["patchType"] = "JSONPatch".into();
            response["patch"] = STANDARD.encode(r#"[{"op": "remove", "path": "/data/none"}]"#).into();
        }
        "/unknown" => {
            let patch = json!([{"op": "add", "path": "/data", "value": {"a": "b"}}, {"op": "add", "path": "/nothing", "value": 1}]);
            response["patchType"] = "JSONPatch".into();
            response["patch"] = STANDARD.encode(patch.to_string()).into();
        }
        "/count" => {
            let seen = request["object"]["data"]["seen"].as_str().unwrap_or_default();
            let patch = json!([{"op": "add", "path": "/data", "value": {"seen": format!("{seen}x")}}]);
            response["patchType"] = "JSONPatch".into();
            response["patch"] = STANDARD.encode(patch.to_string()).into();
        }
        "/deny" => {
            response["warnings"] = json!(["denied"]);
            response["auditAnnotations"] = json!({"why": "so"});
            response["allowed"] = false.into();
            response["status"] = json!({"code": 403, "message": format!("no {}", request["name"].as_str().unwrap())});
        }
        "/who" => {
            response["allowed"] = false.into();
            response["status"] = json!({"code": 403, "message": review["shown"]});
        }
        _ => return json!({}),
    }
    json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response})
}

/// A certificate for localhost, and who signed it.
fn acceptor() -> (tokio_rustls::TlsAcceptor, String) {
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
    (tokio_rustls::TlsAcceptor::from(Arc::new(config)), STANDARD.encode(authority.certificate_pem()))
}

/// Answers one question and is gone without a word.
async fn abrupt() -> Hooks {
    let (acceptor, ca) = acceptor();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(stream).await.unwrap();
        let mut read = Vec::new();
        while !read.ends_with(b"}}") {
            assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0);
        }
        stream
            .write_all(b"HTTP/1.0 200 OK\r\n\r\n{\"response\":{\"allowed\":true,\"warnings\":[\"bye\"]}}")
            .await
            .unwrap();
        stream.flush().await.unwrap();
    });
    Hooks { address, ca, _serving: serving }
}

async fn serve() -> Hooks {
    let (acceptor, ca) = acceptor();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let service = service_fn(|request: http::Request<hyper::body::Incoming>| async move {
                let path = request.uri().path().to_owned();
                let shown = request.headers().get("authorization").map(|value| value.to_str().unwrap().to_owned());
                let body = request.into_body().collect().await?.to_bytes();
                let mut review: Value = serde_json::from_slice(&body).unwrap();
                review["shown"] = shown.into();
                Ok::<_, hyper::Error>(http::Response::new(Full::new(bytes::Bytes::from(
                    answer(&path, &review).to_string(),
                ))))
            });
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        }
    });
    Hooks { address, ca, _serving: serving }
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
    let admission = Admission::new(world.configured().plugins(&PluginConfig::default()));
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
    let noted = |of: &str| good.audit_annotations[&format!("{of}.webhook.admission.k8s.io/round_0_index_0")].as_str();
    assert_eq!(noted("mutation"), r#"{"configuration":"a","webhook":"label.x.y","mutated":true}"#);
    assert_eq!(
        noted("patch"),
        r#"{"configuration":"a","webhook":"label.x.y","patch":[{"op":"add","path":"/metadata/labels","value":{"by":"hook"}}],"patchType":"JSONPatch"}"#
    );
    let mut secret = world.create("", "secrets", json!({"metadata": {"name": "bad"}}));
    admit(&world, &mut secret).await.unwrap();
    let refused = admit(&world, &mut map("bad")).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (403, "admission webhook \"deny.x.y\" denied the request: no bad"));

    let mut bad = map("bad");
    admit(&world, &mut bad).await.unwrap_err();
    assert_eq!(bad.warnings, ["labelled", "denied"]);
    assert_eq!(bad.audit_annotations["deny.x.y/why"], "so");

    put(validating, "d", hooks.hook("broken.x.y", "/broken", json!({"failurePolicy": "Ignore"}))).await;
    admit(&world, &mut map("good")).await.unwrap();
    put(validating, "e", hooks.hook("fatal.x.y", "/broken", json!({}))).await;
    let failed = admit(&world, &mut map("good")).await.unwrap_err();
    assert!(
        failed.message().starts_with("Internal error occurred: failed calling webhook \"fatal.x.y\": "),
        "{failed}"
    );
}

#[tokio::test]
async fn patches_are_completed_and_seen_again_by_those_who_want() {
    let hooks = serve().await;
    let if_needed = json!({"reinvocationPolicy": "IfNeeded"});
    for (listed, expected) in [
        (vec![("a", "/count", json!({})), ("b", "/label", json!({}))], Ok(json!({"seen": "x"}))),
        (vec![("a", "/count", if_needed.clone()), ("b", "/label", json!({}))], Ok(json!({"seen": "xx"}))),
        (vec![("a", "/label", json!({})), ("b", "/count", if_needed.clone())], Ok(json!({"seen": "x"}))),
        (vec![("a", "/unknown", json!({}))], Ok(json!({"a": "b"}))),
        (
            vec![("a", "/remove", json!({"failurePolicy": "Ignore"}))],
            Err(
                "Internal error occurred: remove operation does not apply: doc is missing path: \"/data/none\": missing value",
            ),
        ),
    ] {
        let world = World::new().await;
        for (name, path, more) in &listed {
            let hook = hooks.hook(&format!("{name}.x.y"), path, more.clone());
            let configuration = json!({"metadata": {"name": name}, "webhooks": [hook]});
            world.put("admissionregistration.k8s.io", "mutatingwebhookconfigurations", configuration).await;
        }
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}});
        let mut attributes = world.create("", "configmaps", map);
        let found = admit(&world, &mut attributes).await;
        let object = attributes.object.unwrap();
        let found = found.map(|()| object["data"].clone()).map_err(|status| status.message().to_owned());
        assert_eq!(found, expected.map_err(str::to_owned), "{listed:?}");
        assert!(object.get("nothing").is_none(), "{listed:?}");
    }
}

#[tokio::test]
async fn a_webhook_may_hang_up_after_its_answer() {
    let (world, hooks) = (World::new().await, abrupt().await);
    let hook = hooks.hook("old.x.y", "/", json!({"admissionReviewVersions": ["v1beta1"]}));
    let configuration = json!({"metadata": {"name": "a"}, "webhooks": [hook]});
    world.put("admissionregistration.k8s.io", "validatingwebhookconfigurations", configuration).await;
    let mut map = world.create("", "configmaps", json!({"metadata": {"name": "m"}}));
    admit(&world, &mut map).await.unwrap();
    assert_eq!(map.warnings, ["bye"]);
}

#[tokio::test]
async fn webhooks_are_shown_who_asks() {
    let world = World::new().await;
    let hooks = serve().await;
    let configuration = json!({"metadata": {"name": "a"}, "webhooks": [hooks.hook("who.x.y", "/who", json!({}))]});
    world.put("admissionregistration.k8s.io", "validatingwebhookconfigurations", configuration).await;
    let dir = tempfile::tempdir().unwrap();
    let (kubeconfig, file) = (dir.path().join("webhooks"), dir.path().join("admission"));
    let port = hooks.address.port();
    std::fs::write(&kubeconfig, format!("users: [{{name: 'localhost:{port}', user: {{username: u, password: p}}}}]\n"))
        .unwrap();
    let plugin = |name: &str| {
        json!({"name": name, "configuration": {"apiVersion": "apiserver.config.k8s.io/v1",
            "kind": "WebhookAdmissionConfiguration", "kubeConfigFile": kubeconfig}})
    };
    for (name, expected) in [("ValidatingAdmissionWebhook", "Basic dTpw"), ("MutatingAdmissionWebhook", "")] {
        let config = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration",
            "plugins": [plugin(name)]});
        std::fs::write(&file, config.to_string()).unwrap();
        let options = AdmissionOptions { config_file: Some(file.clone()), ..AdmissionOptions::default() };
        let config = PluginConfig::read(&options).unwrap();
        let admission = Admission::new(world.configured().plugins(&config));
        let mut map = world.create("", "configmaps", json!({"metadata": {"name": "m"}}));
        let refused = admission.validate(&mut map).await.unwrap_err();
        assert!(
            refused.message().contains("denied the request") && refused.message().ends_with(expected),
            "{refused:?}"
        );
        assert_eq!(refused.message().contains("Basic"), !expected.is_empty());
    }
}
