//! Spans of requests that a collector gets, and what webhooks are told of their trace.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Request;
use kube::Client;
use kube1_apiserver::server::Front;
use parking_lot::Mutex;
use prost::Message;
use serde_json::{Value, json};
use support::grpc;
use support::{TestServer, neighbour};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

#[derive(Clone, PartialEq, prost::Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<OfResource>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct OfResource {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<Scope>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<Attribute>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Scope {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(fixed64, tag = "7")]
    start: u64,
    #[prost(fixed64, tag = "8")]
    end: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<Attribute>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Attribute {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AnyValue {
    #[prost(string, tag = "1")]
    text: String,
    #[prost(int64, tag = "3")]
    number: i64,
}

fn attribute(attributes: &[Attribute], name: &str) -> AnyValue {
    attributes.iter().find(|a| a.name == name).and_then(|a| a.value.clone()).unwrap_or_default()
}

async fn send(client: &Client, method: &str, path: &str, flags: &str, body: &Value) -> Value {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .header("traceparent", format!("00-{TRACE}-{PARENT}-{flags}"));
    client.request(request.body(body.to_string().into_bytes()).unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_traced_request_is_told_with_its_parts_and_webhooks_learn_of_it() {
    let got: Arc<Mutex<Vec<OfResource>>> = Arc::default();
    let running = std::cell::RefCell::new(None);
    let server = TestServer::start_with(|dir| {
        let (socket, file, got) = (dir.join("otlp.sock"), dir.join("tracing.yaml"), got.clone());
        *running.borrow_mut() = Some(grpc::serve(&socket, move |path, message| {
            assert_eq!(path, "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
            got.lock().extend(Export::decode(message).unwrap().resources);
            Ok(Vec::new())
        }));
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: TracingConfiguration\nendpoint: unix://{}\nsamplingRatePerMillion: 0\n",
            socket.display()
        );
        std::fs::write(&file, text).unwrap();
        Front { tracing_config_file: Some(file), ..Front::default() }
    })
    .await;
    let _running = running.into_inner();
    let admin = server.admin().await;
    let hook = neighbour::serve(&server, "hook.default.svc", |_, _, traceparent, review| {
        let allowed = traceparent.starts_with(&format!("00-{TRACE}-")) && traceparent.ends_with("-01");
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": {
            "uid": review["request"]["uid"], "allowed": allowed,
            "status": {"message": format!("told {traceparent:?}")}}})
    })
    .await;
    let configuration = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "traced"}, "webhooks": [{"name": "w.example.com", "sideEffects": "None",
        "admissionReviewVersions": ["v1"], "clientConfig": {"url": format!("https://127.0.0.1:{}/", hook.port()),
            "caBundle": base64::Engine::encode(&base64::engine::general_purpose::STANDARD, server.pki.ca.certificate_pem())},
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]}]});
    let path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
    send(&admin, "POST", path, "00", &configuration).await;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}});
    send(&admin, "POST", "/api/v1/namespaces/default/configmaps", "01", &map).await;
    send(&admin, "GET", "/api/v1/namespaces/default/configmaps/m", "00", &json!({})).await;

    let deadline = Instant::now() + Duration::from_secs(60);
    while got.lock().iter().flat_map(|r| &r.scopes).all(|s| s.spans.iter().all(|s| !s.name.starts_with("POST"))) {
        assert!(Instant::now() < deadline, "nothing came: {:?}", got.lock());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let all = got.lock().clone();
    let resource = all[0].resource.clone().unwrap().attributes;
    assert_eq!(attribute(&resource, "service.name").text, "apiserver");
    assert!(attribute(&resource, "service.instance.id").text.starts_with("apiserver-"));
    let spans: Vec<Span> = all.into_iter().flat_map(|r| r.scopes).flat_map(|s| s.spans).collect();
    let names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
    let find = |name: &str| spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("{name}: {names:?}"));
    let request = find("POST /api/v1/namespaces/{:namespace}/configmaps");
    assert_eq!(hex::encode(&request.parent), PARENT);
    assert_eq!(attribute(&request.attributes, "http.response.status_code").number, 201);
    assert_eq!(attribute(&request.attributes, "http.target").text, "/api/v1/namespaces/default/configmaps");
    assert!(!attribute(&request.attributes, "audit-id").text.is_empty());
    let create = find("Create");
    assert_eq!(create.parent, request.id);
    for name in ["Call validating webhook", "Create etcd3"] {
        assert_eq!(find(name).parent, create.id, "{name}");
    }
    assert!(spans.iter().all(|s| hex::encode(&s.trace) == TRACE && s.start <= s.end && s.start > 0), "{spans:?}");
    assert!(names.iter().all(|name| !name.starts_with("GET")), "that was not asked for: {names:?}");
    let metrics = admin.request_text(Request::get("/metrics").body(Vec::new()).unwrap()).await.unwrap();
    assert!(metrics.contains("kube1_trace_spans_total{result=\"sent\"} 4"), "{metrics}");
    server.stop().await;
}
