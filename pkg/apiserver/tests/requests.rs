//! Limits of requests, and an end that loses none of them.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use futures::StreamExt;
use http::{Request, StatusCode};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, WatchEvent, WatchParams};
use kube1_apiserver::http::requests::RequestOptions;
use kube1_apiserver::server::{Front, InProcess};
use kube1_apiserver::user::UserInfo;
use serde_json::json;
use support::TestServer;
use tower_service::Service;

type Frame = http_body::Frame<bytes::Bytes>;

fn admin(server: &TestServer) -> InProcess {
    server.api.in_process(UserInfo::authenticated("root", &["system:masters"]))
}

type Body = http_body_util::combinators::UnsyncBoxBody<bytes::Bytes, std::io::Error>;

fn full(bytes: impl Into<bytes::Bytes>) -> Body {
    use http_body_util::BodyExt;
    Body::new(http_body_util::Full::new(bytes.into()).map_err(|e| match e {}))
}

async fn answer(server: &TestServer, request: Request<Body>) -> (StatusCode, String) {
    let reply = admin(server).call(request).await.unwrap();
    let (parts, body) = reply.into_parts();
    (parts.status, String::from_utf8(body.full().unwrap().to_vec()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_and_late_requests_are_refused() {
    let requests = RequestOptions { timeout: Duration::from_secs(1), ..RequestOptions::default() };
    let server = TestServer::start_with(|_| Front { requests, ..Front::default() }).await;
    let post = || Request::post("/api/v1/namespaces/default/configmaps").header("content-type", "application/json");
    let (code, text) = answer(&server, post().body(full(vec![b' '; 3 * 1024 * 1024 + 1])).unwrap()).await;
    assert_eq!(code, 413);
    assert!(text.contains("Request entity too large: limit is 3145728"), "{text}");
    let never = http_body_util::StreamBody::new(futures::stream::pending::<Result<Frame, std::io::Error>>());
    let (code, text) = answer(&server, post().body(Body::new(never)).unwrap()).await;
    assert_eq!(code, 504);
    assert!(text.contains("Timeout: request did not complete within the allotted timeout"), "{text}");
    let get = |target: &str| Request::get(target).body(full("")).unwrap();
    let (code, text) = answer(&server, get("/api/v1/pods?timeout=soon")).await;
    assert!(code == 400 && text.contains("invalid timeout specified in the request URL"), "{text}");
    let (code, text) = answer(&server, get("/readyz?verbose&exclude=shutdown")).await;
    assert!(code == 200 && text.contains("[+]ping ok") && text.contains("[+]shutdown excluded: ok"), "{text}");
    assert_eq!(answer(&server, get("/livez/ping")).await, (StatusCode::OK, "ok".into()));
    let (_, text) = answer(&server, get("/metrics/slis")).await;
    assert!(text.contains(r#"kubernetes_healthcheck{name="ping",type="livez"} 1"#), "{text}");
    let (_, text) = answer(&server, get("/statusz")).await;
    assert!(text.contains("kube-apiserver statusz"), "{text}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_says_so_first_and_then_finishes_what_began() {
    let requests = RequestOptions { shutdown_delay: Duration::from_secs(3), ..RequestOptions::default() };
    let server = TestServer::start_with(|_| Front { requests, ..Front::default() }).await;
    let client = server.admin().await;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let mut watch = maps.watch(&WatchParams::default().timeout(290), "0").await.unwrap().boxed();
    // Its body comes only after the end has begun.
    let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
    let late = futures::stream::once(async move {
        receiver.await.unwrap();
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late"}});
        Ok::<_, std::io::Error>(Frame::data(map.to_string().into()))
    });
    let request = Request::post("/api/v1/namespaces/default/configmaps").header("content-type", "application/json");
    let request = request.body(Body::new(http_body_util::StreamBody::new(late))).unwrap();
    let mut service = admin(&server);
    let writing = tokio::spawn(async move { service.call(request).await });
    let api = server.api.clone();
    let stopping = tokio::spawn(server.stop());
    api.server().stopping.cancelled().await;
    let refused = client.request_text(Request::get("/readyz").body(Vec::new()).unwrap()).await.unwrap_err();
    assert!(matches!(refused, kube::Error::Api(status) if status.code == 500), "not ready, and still answering");
    client.request_text(Request::get("/livez").body(Vec::new()).unwrap()).await.unwrap();
    sender.send(()).unwrap();
    assert_eq!(writing.await.unwrap().unwrap().status(), 201);
    // The watch tells what was written meanwhile and ends without an error.
    let mut told = Vec::new();
    while let Some(event) = watch.next().await {
        told.push(event.unwrap());
    }
    let late = |event: &WatchEvent<ConfigMap>| matches!(event, WatchEvent::Added(map) if map.metadata.name.as_deref() == Some("late"));
    assert!(told.iter().any(late), "{told:?}");
    drop(client);
    stopping.await.unwrap();
}

/// Writes objects until the server cannot be reached any more; gives how many were acknowledged and why it ended.
async fn writes(client: kube::Client, writer: usize) -> (usize, String) {
    let maps: Api<ConfigMap> = Api::namespaced(client, "default");
    for number in 0.. {
        let map = json!({"metadata": {"name": format!("w{writer}-{number}")}});
        let made = maps.create(&Default::default(), &serde_json::from_value(map).unwrap()).await;
        if let Err(error) = made {
            let (mut text, mut source) = (error.to_string(), std::error::Error::source(&error));
            while let Some(inner) = source {
                (text, source) = (format!("{text}: {inner}"), inner.source());
            }
            return (number, text);
        }
    }
    unreachable!("the numbers do not end")
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_under_load_loses_no_request() {
    let requests = RequestOptions { shutdown_delay: Duration::from_millis(300), ..RequestOptions::default() };
    let server = TestServer::start_with(|_| Front { requests, ..Front::default() }).await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..32 {
        let client = server.admin().await;
        writers.spawn(async move { (writer, writes(client, writer).await) });
    }
    let mut watchers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let maps: Api<ConfigMap> = Api::namespaced(server.admin().await, "default");
        let mut watch = maps.watch(&WatchParams::default().timeout(290), "0").await.unwrap().boxed();
        watchers.spawn(async move {
            let mut told = std::collections::HashSet::new();
            // It ends without an error.
            while let Some(event) = watch.next().await {
                if let WatchEvent::Added(map) = event.unwrap() {
                    told.insert(map.metadata.name.unwrap());
                }
            }
            told
        });
    }
    let maps: Api<ConfigMap> = Api::namespaced(server.admin().await, "default");
    while maps.list(&Default::default()).await.unwrap().items.len() < 500 {
        tokio::task::yield_now().await;
    }
    drop(maps);
    let server = server.restart_when(async || {
        let mut ended = Vec::new();
        while let Some(writer) = writers.join_next().await {
            ended.push(writer.unwrap());
        }
        for told in watchers.join_all().await {
            assert!(told.len() >= 500, "{} events", told.len());
        }
        ended
    });
    let (server, ended) = server.await;
    let maps: Api<ConfigMap> = Api::namespaced(server.admin().await, "default");
    let stored: std::collections::HashSet<String> =
        maps.list(&Default::default()).await.unwrap().items.into_iter().filter_map(|map| map.metadata.name).collect();
    for (writer, (count, why)) in ended {
        assert!(why.contains("client error (Connect)"), "writer {writer} lost a request: {why}");
        for number in 0..count {
            assert!(stored.contains(&format!("w{writer}-{number}")), "w{writer}-{number} was acknowledged");
        }
        assert!(!stored.contains(&format!("w{writer}-{count}")), "w{writer}-{count} was not acknowledged");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn methods_and_names_that_a_path_does_not_have() {
    let server = TestServer::start().await;
    let wire = support::wire::Wire::admin(&server).await;
    for (method, path, code) in [
        ("GET", "/", 200),
        ("HEAD", "/", 200),
        ("HEAD", "/livez", 200),
        ("HEAD", "/api/v1/pods", 405),
        ("HEAD", "/api/v1/namespaces/default", 405),
        ("OPTIONS", "/api/v1/pods", 405),
        ("GET", "/api/v1/namespaces/default/bindings", 405),
        ("GET", "/api/v1/namespaces/default/bindings/a", 404),
        ("PUT", "/api/v1/namespaces/default/bindings/a", 404),
        ("GET", "/apis/authorization.k8s.io/v1/subjectaccessreviews", 405),
        ("DELETE", "/apis/authorization.k8s.io/v1/subjectaccessreviews/a", 404),
    ] {
        assert_eq!(wire.send(method, path, &[], "").await.code, code, "{method} {path}");
    }
    let paths = wire.get("/").await.ok()["paths"].take();
    for path in ["/api", "/apis/apps/v1", "/livez", "/livez/ping", "/readyz/informer-sync", "/openid/v1/jwks"] {
        assert!(paths.as_array().unwrap().contains(&json!(path)), "{path} is not in {paths}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_known_by_its_lease_and_the_lost_are_forgotten() {
    let server = TestServer::start().await;
    let wire = support::wire::Wire::admin(&server).await;
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
    let of = |labels: &str| format!("{leases}?labelSelector={labels}");
    let all = of("apiserver.kubernetes.io/identity%3Dkube-apiserver");
    let found = wire.until(&all, |answer| answer.value()["items"].as_array().is_some_and(|i| i.len() == 1)).await;
    let own = found.value()["items"][0].clone();
    assert!(own["metadata"]["name"].as_str().unwrap().starts_with("apiserver-"), "{own}");
    assert_eq!(own["spec"]["leaseDurationSeconds"], 3600);
    let expired = "2020-01-01T00:00:00.000000Z";
    for (name, label, renewed) in [
        ("gone", "kube-apiserver", expired),
        ("other", "someone-else", expired),
        ("there", "kube-apiserver", "2100-01-01T00:00:00.000000Z"),
    ] {
        let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": name, "labels": {"apiserver.kubernetes.io/identity": label}},
            "spec": {"holderIdentity": name, "leaseDurationSeconds": 3600, "renewTime": renewed}});
        wire.json("POST", leases, &lease).await.ok();
    }
    let server = server.restart().await;
    let wire = support::wire::Wire::admin(&server).await;
    wire.until(&format!("{leases}/gone"), |answer| answer.code == 404).await;
    for name in ["other", "there", own["metadata"]["name"].as_str().unwrap()] {
        wire.get(&format!("{leases}/{name}")).await.ok();
    }
    assert_eq!(wire.get("/livez/poststarthook/start-kube-apiserver-identity-lease-controller").await.code, 200);
    server.stop().await;
}
