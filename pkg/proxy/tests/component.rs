#![allow(clippy::unwrap_used)]
//! The proxy as a component, from the API's objects to the kernel's table.

use std::convert::Infallible;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use http_body_util::Full;
use kube::client::Body;
use kube1_client::Informers;
use kube1_network::netns;
use kube1_network::nft::Table;
use kube1_proxy::{Proxy, ProxyConfig};
use kube1_supervisor::{Component, Context};
use serde_json::{Value, json};
use tokio_util::bytes::Bytes;
use tokio_util::sync::CancellationToken;

fn list(path: &str) -> Value {
    let meta = |name: &str| json!({"name": name, "namespace": "ns", "resourceVersion": "1"});
    let (version, kind, items) = match path {
        "/api/v1/services" => {
            let spec = json!({"type": "ClusterIP", "clusterIP": "10.43.0.5", "clusterIPs": ["10.43.0.5"],
                "ports": [{"port": 80}]});
            ("v1", "ServiceList", vec![json!({"metadata": meta("web"), "spec": spec})])
        }
        "/apis/discovery.k8s.io/v1/endpointslices" => {
            let mut meta = meta("web-1");
            meta["labels"] = json!({"kubernetes.io/service-name": "web"});
            let slice = json!({"metadata": meta, "addressType": "IPv4", "ports": [{"port": 8080, "protocol": "TCP"}],
                "endpoints": [{"addresses": ["10.42.0.9"], "conditions": {"ready": true}}]});
            ("discovery.k8s.io/v1", "EndpointSliceList", vec![slice])
        }
        "/api/v1/nodes" => ("v1", "NodeList", Vec::new()),
        other => panic!("unexpected request for {other}"),
    };
    json!({"apiVersion": version, "kind": kind, "metadata": {"resourceVersion": "1"}, "items": items})
}

/// An API server that has a service and to which nothing happens.
fn api() -> kube::Client {
    kube1_client::in_process(tower::service_fn(|request: http::Request<Body>| async move {
        if request.uri().query().is_some_and(|query| query.contains("watch=")) {
            std::future::pending::<()>().await;
        }
        let list = list(request.uri().path());
        Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from(list.to_string()))))
    }))
}

/// An API server that is away.
fn no_api() -> kube::Client {
    kube1_client::in_process(tower::service_fn(|_: http::Request<Body>| async {
        Err::<http::Response<Full<Bytes>>, _>(std::io::Error::other("away"))
    }))
}

fn serves_the_service() -> bool {
    let output = Command::new("nft").args(["list", "ruleset"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.contains("10.43.0.5 . tcp . 80 : goto service-") && text.contains("dnat ip to 10.42.0.9:8080")
}

/// Runs a proxy until the service is served.
async fn run_until_served(client: kube::Client, data_dir: &Path) {
    let shutdown = CancellationToken::new();
    let config = ProxyConfig {
        node_name: "here".into(),
        cluster_cidrs: vec!["10.42.0.0/16".parse().unwrap()],
        served_here: Vec::new(),
        data_dir: data_dir.to_owned(),
        healthz: None,
        status: None,
    };
    let proxy = Proxy::new(Informers::new(client, shutdown.clone()), config);
    let (context, _ready) = Context::new(shutdown.clone());
    let task = tokio::spawn(async move { proxy.run(context).await });
    let deadline = Instant::now() + Duration::from_secs(10);
    while !serves_the_service() {
        assert!(Instant::now() < deadline, "the service is not served");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    shutdown.cancel();
    task.await.unwrap().unwrap();
    assert!(serves_the_service(), "the table stays when the proxy stops");
}

#[test]
fn services_are_served_again_after_a_reboot_without_the_api() {
    let dir = tempfile::tempdir().unwrap();
    netns::within_new(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            run_until_served(api(), dir.path()).await;
            Table::new("kube1-proxy").delete().unwrap();
            run_until_served(no_api(), dir.path()).await;
        });
    })
    .unwrap();
}
