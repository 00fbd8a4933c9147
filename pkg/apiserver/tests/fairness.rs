//! Priority and fairness as clients meet it.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use http::{HeaderMap, Request};
use kube::Client;
use kube1_apiserver::http::requests::RequestOptions;
use kube1_apiserver::server::Front;
use kube1_apiserver::user::UserInfo;
use serde_json::{Value, json};
use support::TestServer;
use tower_service::Service;

const GROUP: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";

/// Code, headers and text of an answer.
async fn ask(client: &Client, method: &str, path: &str, body: Value, user: &str) -> (u16, HeaderMap, String) {
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    let request = if user.is_empty() { request } else { request.header("impersonate-user", user) };
    let reply = client.send(request.body(kube::client::Body::from(body)).unwrap()).await.unwrap();
    let (parts, body) = reply.into_parts();
    let bytes = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes();
    (parts.status.as_u16(), parts.headers, String::from_utf8(bytes.to_vec()).unwrap())
}

async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(40);
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "not in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn levels_follow_their_objects_and_turn_requests_away() {
    // So few seats that the level below has one.
    let requests = RequestOptions { max_inflight: 60, max_mutating_inflight: 60, ..RequestOptions::default() };
    let server = TestServer::start_with(|_| Front { requests, ..Front::default() }).await;
    let admin = server.admin().await;
    let schema = |level: &str| {
        json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema", "metadata": {"name": "few"},
            "spec": {"matchingPrecedence": 10, "priorityLevelConfiguration": {"name": level},
            "distinguisherMethod": {"type": "ByUser"}, "rules": [{"subjects": [{"kind": "User", "user": {"name": "few"}}],
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"]}]}]}})
    };
    let (code, _, text) = ask(&admin, "POST", &format!("{GROUP}/flowschemas"), schema("few"), "").await;
    assert_eq!(code, 201, "{text}");
    let dangling = async || {
        let (_, _, text) = ask(&admin, "GET", &format!("{GROUP}/flowschemas/few"), Value::Null, "").await;
        let schema: Value = serde_json::from_str(&text).unwrap();
        schema["status"]["conditions"][0]["status"].as_str().map(str::to_owned)
    };
    until(async || dangling().await.as_deref() == Some("True")).await;
    let level = json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration",
        "metadata": {"name": "few"}, "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 0, "borrowingLimitPercent": 0,
        "limitResponse": {"type": "Reject"}}}});
    let (code, _, text) = ask(&admin, "POST", &format!("{GROUP}/prioritylevelconfigurations"), level, "").await;
    assert_eq!(code, 201, "{text}");
    let uid: Value = serde_json::from_str(&text).unwrap();
    let uid = uid["metadata"]["uid"].as_str().unwrap().to_owned();
    until(async || dangling().await.as_deref() == Some("False")).await;

    // A watch that begins holds a seat only while it begins; a slow request would hold it for longer.
    let pods = "/api/v1/namespaces/default/pods";
    until(async || {
        let (_, headers, _) = ask(&admin, "GET", pods, Value::Null, "few").await;
        headers.get("x-kubernetes-pf-prioritylevel-uid").is_some_and(|v| *v == *uid)
    })
    .await;
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "few"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "User", "name": "few", "apiGroup": "rbac.authorization.k8s.io"}]});
    let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    assert_eq!(ask(&admin, "POST", bindings, binding, "").await.0, 201);
    until(async || ask(&admin, "GET", pods, Value::Null, "few").await.0 == 200).await;
    // Its body never ends, so neither does the request.
    let begin_slow = || {
        let endless = futures::stream::pending::<Result<http_body::Frame<bytes::Bytes>, std::io::Error>>();
        let body = http_body_util::StreamBody::new(endless);
        let request = Request::post(pods).header("content-type", "application/json").body(body).unwrap();
        let mut service = server.api.in_process(UserInfo::authenticated("few", &[]));
        tokio::spawn(async move { service.call(request).await })
    };
    let mut slow = begin_slow();
    // Not over kube's client, which tries again by itself.
    let mut few = server.api.in_process(UserInfo::authenticated("few", &[]));
    let mut refused = None;
    until(async || {
        let reply = few.call(Request::get(pods).body(http_body_util::Empty::new()).unwrap()).await.unwrap();
        refused = Some(reply).filter(|reply| reply.status() == 429);
        if slow.is_finished() {
            // It was turned away itself, for a request before it that had not quite ended.
            slow = begin_slow();
        }
        refused.is_some()
    })
    .await;
    slow.abort();
    let (parts, body) = refused.unwrap().into_parts();
    let (headers, text) = (parts.headers, body.full().unwrap().clone());
    assert_eq!(text, "Too many requests, please try again later.\n");
    assert_eq!(headers["retry-after"], "1");
    assert!(headers.contains_key("x-kubernetes-pf-flowschema-uid"));

    let dump = "/debug/api_priority_and_fairness/dump_priority_levels";
    let (_, _, text) = ask(&admin, "GET", dump, Value::Null, "").await;
    assert!(text.starts_with("PriorityLevelName,"), "{text}");
    assert!(text.lines().any(|l| l.starts_with("few,")) && text.contains("<none>"), "{text}");
    let (_, _, text) = ask(&admin, "GET", "/metrics", Value::Null, "").await;
    for wanted in [
        "apiserver_flowcontrol_rejected_requests_total{priority_level=\"few\",flow_schema=\"few\",reason=\"concurrency-limit\"}",
        "apiserver_flowcontrol_dispatched_requests_total{priority_level=\"few\"",
        "apiserver_flowcontrol_current_limit_seats{priority_level=\"few\"}",
        "apiserver_flowcontrol_request_wait_duration_seconds_bucket{",
    ] {
        assert!(text.contains(wanted), "{wanted}");
    }
    server.stop().await;
}

/// The value of a level's metric.
async fn gauge(client: &Client, name: &str, level: &str) -> f64 {
    let (_, _, text) = ask(client, "GET", "/metrics", Value::Null, "").await;
    let start = format!("apiserver_flowcontrol_{name}{{priority_level=\"{level}\"");
    let values = text.lines().filter(|line| line.starts_with(&start));
    values.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_level_borrows_what_others_do_not_use() {
    let requests = RequestOptions { max_inflight: 100, max_mutating_inflight: 100, ..RequestOptions::default() };
    let server = TestServer::start_with(|_| Front { requests, ..Front::default() }).await;
    let admin = server.admin().await;
    let level = |name: &str, lendable: u8| {
        json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration", "metadata": {"name": name},
            "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 20, "lendablePercent": lendable,
            "limitResponse": {"type": "Reject"}}}})
    };
    for (name, lendable) in [("busy", 0), ("idle", 100)] {
        let (code, _, text) =
            ask(&admin, "POST", &format!("{GROUP}/prioritylevelconfigurations"), level(name, lendable), "").await;
        assert_eq!(code, 201, "{text}");
    }
    let schema = json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema", "metadata": {"name": "busy"},
        "spec": {"priorityLevelConfiguration": {"name": "busy"}, "matchingPrecedence": 50, "rules": [{"subjects": [{"kind": "User",
        "user": {"name": "busy"}}], "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"],
        "clusterScope": true}]}]}});
    let (code, _, text) = ask(&admin, "POST", &format!("{GROUP}/flowschemas"), schema, "").await;
    assert_eq!(code, 201, "{text}");
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "busy"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "User", "name": "busy", "apiGroup": "rbac.authorization.k8s.io"}]});
    assert_eq!(ask(&admin, "POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding, "").await.0, 201);
    until(async || gauge(&admin, "nominal_limit_seats", "busy").await > 0.0).await;
    let nominal = gauge(&admin, "nominal_limit_seats", "busy").await;
    // Requests that hold their seat, made again as soon as they are turned away.
    let stop = tokio_util::sync::CancellationToken::new();
    let mut load = tokio::task::JoinSet::new();
    for _ in 0..(2 * nominal as usize + 2) {
        let (mut service, stop) = (server.api.in_process(UserInfo::authenticated("busy", &[])), stop.clone());
        load.spawn(stop.run_until_cancelled_owned(async move {
            loop {
                let endless = futures::stream::pending::<Result<http_body::Frame<bytes::Bytes>, std::io::Error>>();
                let request =
                    Request::post("/api/v1/namespaces/default/pods").header("content-type", "application/json");
                let body = http_body_util::StreamBody::new(endless);
                let _ = service.call(request.body(body).unwrap()).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }));
    }
    until(async || gauge(&admin, "current_executing_requests", "busy").await > nominal).await;
    assert!(gauge(&admin, "current_limit_seats", "busy").await > nominal);
    assert!(gauge(&admin, "current_limit_seats", "idle").await < gauge(&admin, "nominal_limit_seats", "idle").await);
    stop.cancel();
    load.join_all().await;
    // What was lent comes back.
    until(async || gauge(&admin, "current_executing_requests", "busy").await == 0.0).await;
    server.stop().await;
}
