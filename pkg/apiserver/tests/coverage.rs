//! Every path and verb that OpenAPI documents name is really served over HTTPS.

#![allow(clippy::unwrap_used)]

mod support;

use futures::StreamExt;
use kube::client::Body;
use kube1_api::openapi::coverage::{Coverage, Route, coverage, routes};
use kube1_api::resource::ResourceTable;
use serde_json::Value;
use support::TestServer;

/// Requests that wait for their answer.
const AT_ONCE: usize = 16;

async fn answered(client: &kube::Client, route: &Route) -> bool {
    let probe = route.probe();
    let request = http::Request::builder().method(probe.method.as_str()).uri(&probe.target);
    let request = match probe.content_type {
        Some(media) => request.header("content-type", media).body(Body::from(b"{}".to_vec())),
        None => request.body(Body::empty()),
    };
    let response = client.send(request.unwrap()).await.unwrap();
    let code = response.status().as_u16();
    let body = if code == 404 { response.into_body().collect_bytes().await.unwrap() } else { bytes::Bytes::new() };
    probe.is_served(code, &body)
}

async fn ask(client: &kube::Client, document: &Value) -> Coverage {
    let routes = routes(document).unwrap();
    let asked = futures::stream::iter(&routes).map(async |route| (route.clone(), answered(client, route).await));
    let answers: Vec<(Route, bool)> = asked.buffer_unordered(AT_ONCE).collect().await;
    coverage(routes, |route| answers.contains(&(route.clone(), true)))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_documented_operation_is_served() {
    let server = TestServer::start().await;
    let client = server.admin().await;
    let own = http::Request::get("/openapi/v2").body(Vec::new()).unwrap();
    let mut documents = vec![client.request::<Value>(own).await.unwrap()];
    if let Some(facts) = std::env::var_os("KUBE1_API_FACTS") {
        let swagger = std::fs::read(std::path::Path::new(&facts).join("openapi/swagger.json")).unwrap();
        documents.push(serde_json::from_slice(&swagger).unwrap());
    }
    // What probes must leave alone.
    let kept = serde_json::json!({"metadata": {"name": "kept"}}).to_string();
    let create =
        http::Request::post("/api/v1/namespaces/default/configmaps").header("content-type", "application/json");
    client.request::<Value>(create.body(kept.into_bytes()).unwrap()).await.unwrap();
    let table = ResourceTable::builtin();
    let count = || -> usize { table.iter().map(|row| server.api.server().storage.collection(row).len()).sum() };
    let before = count();
    for document in &documents {
        let found = ask(&client, document).await;
        assert!(found.missing.is_empty(), "{:#?}", found.missing);
        assert!(found.served.len() > 700, "{}", found.served.len());
    }
    assert_eq!(count(), before);
    // A path that is not there must not pass for one.
    for (path, method) in
        [("/api/v1/ghosts", "get"), ("/apis/apps/v1/pods", "post"), ("/api/v1/componentstatuses", "put")]
    {
        let route = Route { path: path.into(), method: method.into(), action: String::new() };
        assert!(!answered(&client, &route).await, "{method} {path}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_planes_components_are_shown() {
    let server = TestServer::start().await;
    server.api.server().components.add("scheduler", || Err("it is tired".into()));
    let client = server.admin().await;
    let ask = async |path: &str, accept: &str| {
        let request = http::Request::get(format!("/api/v1/componentstatuses{path}")).header("accept", accept);
        client.request::<Value>(request.body(Vec::new()).unwrap()).await
    };
    let list = ask("", "application/json").await.unwrap();
    assert_eq!((&list["kind"], &list["metadata"]), (&"ComponentStatusList".into(), &serde_json::json!({})));
    let shown = |item: &Value| item["conditions"][0]["status"].as_str().unwrap().to_owned();
    assert_eq!(list["items"].as_array().unwrap().iter().map(shown).collect::<Vec<_>>(), ["False", "True"]);
    let one = ask("/etcd-0", "application/json;as=Table;g=meta.k8s.io;v=v1").await.unwrap();
    assert_eq!(one["rows"][0]["cells"], serde_json::json!(["etcd-0", "Healthy", "ok", ""]));
    assert!(matches!(ask("/none", "*/*").await, Err(kube::Error::Api(e)) if e.code == 404));
    server.stop().await;
}
