//! Objects over HTTPS with an independent client: kube-rs.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;

use futures::TryStreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use serde_json::{Value, json};
use support::TestServer;

fn config_map(name: &str, value: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name, "labels": {"app": name}}, "data": {"key": value}}))
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_live_their_lives() {
    let server = TestServer::start().await;
    let client = server.admin().await;
    assert_eq!(client.apiserver_version().await.unwrap().minor, "36");
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), "default");

    let first = api.create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
    let version = first.metadata.resource_version.clone().unwrap();
    assert!(first.metadata.uid.is_some() && first.metadata.creation_timestamp.is_some());
    let error = api.create(&PostParams::default(), &config_map("a", "1")).await.unwrap_err();
    assert!(matches!(error, kube::Error::Api(e) if e.code == 409 && e.reason == "AlreadyExists"));

    let events = api.watch(&WatchParams::default().timeout(20), &version).await.unwrap();
    let mut events = std::pin::pin!(events);

    let mut changed = first.clone();
    changed.data.as_mut().unwrap().insert("key".into(), "2".into());
    let second = api.replace("a", &PostParams::default(), &changed).await.unwrap();
    assert_ne!(second.metadata.resource_version, first.metadata.resource_version);
    let error = api.replace("a", &PostParams::default(), &changed).await.unwrap_err();
    assert!(matches!(error, kube::Error::Api(e) if e.code == 409 && e.reason == "Conflict"));
    changed.metadata.resource_version = Some("0".into());
    let same = api.replace("a", &PostParams::default(), &changed).await.unwrap();
    assert_eq!(same.metadata.resource_version, second.metadata.resource_version);

    let merge = Patch::Merge(json!({"data": {"key": null, "other": "3"}}));
    let third = api.patch("a", &PatchParams::default(), &merge).await.unwrap();
    assert_eq!(third.data, Some(BTreeMap::from([("other".to_owned(), "3".to_owned())])));
    let operations = json!([{"op": "replace", "path": "/data/other", "value": "4"}]);
    let patch = Patch::<Value>::Json(serde_json::from_value(operations).unwrap());
    api.patch("a", &PatchParams::default(), &patch).await.unwrap();

    api.create(&PostParams::default(), &config_map("b", "1")).await.unwrap();
    let list = api.list(&ListParams::default().labels("app=b")).await.unwrap();
    assert_eq!(list.items.len(), 1);
    let page = api.list(&ListParams::default().limit(1)).await.unwrap();
    assert_eq!(page.items[0].metadata.name.as_deref(), Some("a"));
    let token = page.metadata.continue_.unwrap();
    let rest = api.list(&ListParams::default().limit(1).continue_token(&token)).await.unwrap();
    assert_eq!(rest.items[0].metadata.name.as_deref(), Some("b"));

    api.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(api.get_opt("a").await.unwrap().is_none());
    let mut seen = Vec::new();
    while let Some(event) = events.try_next().await.unwrap() {
        match event {
            WatchEvent::Modified(o) => seen.push(format!("M {:?}", o.data.unwrap().into_values().next())),
            WatchEvent::Added(o) => seen.push(format!("A {}", o.metadata.name.unwrap())),
            WatchEvent::Deleted(o) => {
                seen.push(format!("D {}", o.metadata.name.unwrap()));
                break;
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(seen, ["M Some(\"2\")", "M Some(\"3\")", "M Some(\"4\")", "A b", "D a"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_pipeline_answers_without_a_connection() {
    let server = TestServer::start().await;
    let admin = kube1_apiserver::user::UserInfo::authenticated("system:admin", &["system:masters"]);
    let client = kube1_client::in_process(server.api.in_process(admin));
    let api: Api<Deployment> = Api::namespaced(client.clone(), "default");
    let deployment: Deployment = serde_json::from_value(json!({"metadata": {"generateName": "web-"}, "spec": {
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}}))
    .unwrap();
    let made = api.create(&PostParams::default(), &deployment).await.unwrap();
    assert!(made.metadata.name.unwrap().starts_with("web-"));
    assert_eq!(made.spec.unwrap().replicas, Some(1), "defaults are filled in");

    let nobody = kube1_apiserver::user::UserInfo::authenticated("nobody", &[]);
    let client = kube1_client::in_process(server.api.in_process(nobody));
    let error = Api::<Namespace>::all(client).list(&ListParams::default()).await.unwrap_err();
    assert!(matches!(error, kube::Error::Api(e) if e.code == 403));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn patches_may_not_say_a_field_twice() {
    let server = TestServer::start().await;
    let client = server.admin().await;
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    api.create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
    let patch = async |validation: &str| {
        let path = format!("/api/v1/namespaces/default/configmaps/a?fieldValidation={validation}");
        let request = http::Request::patch(path).header("content-type", "application/merge-patch+json");
        client.request::<Value>(request.body(br#"{"data":{"key":"2","key":"3"}}"#.to_vec()).unwrap()).await
    };
    let error = patch("Strict").await.unwrap_err();
    assert!(matches!(&error, kube::Error::Api(e) if e.code == 422), "{error}");
    assert!(error.to_string().contains("strict decoding error: duplicate field \"data.key\""), "{error}");
    assert_eq!(patch("Warn").await.unwrap()["data"]["key"], "3");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn patches_at_once_all_get_through() {
    let server = TestServer::start().await;
    let api: Api<ConfigMap> = Api::namespaced(server.admin().await, "default");
    api.create(&PostParams::default(), &config_map("many", "1")).await.unwrap();
    let patches = (0..60).map(|n| {
        let api = api.clone();
        async move {
            let patch = Patch::Merge(json!({"data": {format!("k{n}"): "v"}}));
            api.patch("many", &PatchParams::default(), &patch).await.map(drop)
        }
    });
    futures::future::try_join_all(patches).await.unwrap();
    assert_eq!(api.get("many").await.unwrap().data.unwrap().len(), 61);
    // A version that is named is a condition, and an identity cannot be patched.
    for (metadata, code) in [(json!({"resourceVersion": "1"}), 409), (json!({"uid": "other"}), 422)] {
        let error = api.patch("many", &PatchParams::default(), &Patch::Merge(json!({"metadata": metadata}))).await;
        assert!(matches!(error, Err(kube::Error::Api(e)) if e.code == code), "{metadata}");
    }
    // Whoever wants no record of owners empties it.
    let emptied = Patch::Merge(json!({"metadata": {"managedFields": []}}));
    api.patch("many", &PatchParams::default(), &emptied).await.unwrap();
    let after = api.patch("many", &PatchParams::default(), &Patch::Merge(json!({"data": {"k": "v"}}))).await.unwrap();
    assert_eq!(after.metadata.managed_fields, None);
    // An identity that is named cannot be made.
    let absent = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "absent", "uid": "u"}});
    let error = api.patch("absent", &PatchParams::apply("me"), &Patch::Apply(absent)).await.unwrap_err();
    assert!(matches!(error, kube::Error::Api(e) if e.code == 409));
}
