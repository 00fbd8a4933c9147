//! What nodes and pods use, from a kubelet through the server to an independent client.

#![allow(clippy::unwrap_used)]

mod support;

use std::net::Ipv4Addr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use kube::api::{Api, ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube1_pki::ReloadingCertificate;
use serde_json::{Value, json};
use support::TestServer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// A kubelet whose node uses half a processor more with every second that passes.
async fn kubelet(server: &TestServer) -> (u16, JoinHandle<()>) {
    let node = server.pki.node("node-1", &[Ipv4Addr::LOCALHOST.into()]).unwrap();
    let certificate = Arc::new(ReloadingCertificate::new(&node.serving).unwrap());
    let verifier = server.api.server().authenticator.certificate_verifier();
    let tls = kube1_apiserver::http::tls::tls_config(certificate, verifier, &Default::default()).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let start = std::time::Instant::now();
    let serving = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = TlsAcceptor::from(tls.clone()).accept(stream).await.unwrap();
            let mut request = [0; 1024];
            let length = stream.read(&mut request).await.unwrap();
            assert!(request[..length].starts_with(b"GET /stats/summary"));
            let used = u64::try_from(start.elapsed().as_nanos() / 2).unwrap();
            let stats = json!({"cpu": {"usageCoreNanoSeconds": used}, "memory": {"workingSetBytes": 3 << 20}});
            let container = json!({"name": "c", "cpu": stats["cpu"], "memory": stats["memory"]});
            let pod = json!({"podRef": {"namespace": "default", "name": "p"}, "containers": [container]});
            let body = json!({"node": stats, "pods": [pod]}).to_string();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all((head + &body).as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    (port, serving)
}

fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_and_pods_tell_what_they_use() {
    let server = TestServer::start().await;
    let client = server.admin().await;
    let (port, kubelet) = kubelet(&server).await;
    let (create, patch) = (PostParams::default(), PatchParams::default());
    let nodes: Api<Node> = Api::all(client.clone());
    for name in ["node-1", "silent"] {
        nodes.create(&create, &object(json!({"metadata": {"name": name, "labels": {"n": name}}}))).await.unwrap();
    }
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}});
    nodes.patch_status("node-1", &patch, &Patch::Merge(status)).await.unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
    accounts.create(&create, &object(json!({"metadata": {"name": "default"}}))).await.unwrap();
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    for (name, node) in [("p", json!("node-1")), ("unbound", Value::Null)] {
        let spec = json!({"nodeName": node, "containers": [{"name": "c", "image": "i"}]});
        pods.create(&create, &object(json!({"metadata": {"name": name}, "spec": spec}))).await.unwrap();
    }

    let of = |kind: &str, plural: &str| ApiResource {
        group: "metrics.k8s.io".into(),
        version: "v1beta1".into(),
        api_version: "metrics.k8s.io/v1beta1".into(),
        kind: kind.into(),
        plural: plural.into(),
    };
    let node_metrics: Api<DynamicObject> = Api::all_with(client.clone(), &of("NodeMetrics", "nodes"));
    let list = node_metrics.list(&ListParams::default()).await.unwrap();
    assert_eq!(list.items.len(), 1, "a node that does not answer is left out");
    let usage = &list.items[0].data["usage"];
    let cpu = kube1_api::quantity::Quantity::parse(usage["cpu"].as_str().unwrap()).unwrap().millis();
    assert!((400..600).contains(&cpu), "{usage}");
    assert_eq!(usage["memory"], "3Mi");
    assert!(node_metrics.get_opt("silent").await.unwrap().is_none());
    assert!(node_metrics.list(&ListParams::default().labels("n=other")).await.unwrap().items.is_empty());

    let pod_metrics: Api<DynamicObject> = Api::namespaced_with(client, "default", &of("PodMetrics", "pods"));
    let pod = pod_metrics.get("p").await.unwrap();
    assert_eq!(pod.data["containers"][0]["name"], "c");
    assert_eq!(pod.data["containers"][0]["usage"]["memory"], "3Mi");
    assert!(pod_metrics.get_opt("unbound").await.unwrap().is_none());
    kubelet.abort();
    server.stop().await;
}
