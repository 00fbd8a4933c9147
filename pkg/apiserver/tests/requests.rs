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
    let requests = RequestOptions { shutdown_delay: Duration::from_millis(500), ..RequestOptions::default() };
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
