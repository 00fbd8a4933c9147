//! What is audited, over HTTPS: the log file and the webhook.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, ServiceAccount};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube1_apiserver::audit::{AuditOptions, BatchOptions, LogOptions, Mode, WebhookOptions};
use kube1_apiserver::server::Front;
use parking_lot::Mutex;
use serde_json::{Value, json};
use support::TestServer;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitManagedFields: true
rules:
- {level: RequestResponse, resources: [{group: "", resources: [configmaps]}], omitStages: [RequestReceived]}
- {level: Request, resources: [{group: "", resources: [pods]}]}
- {level: Metadata, users: ["system:anonymous"]}
- {level: Metadata, verbs: [impersonate-me, list], resources: [{group: "", resources: [nodes]}]}
- {level: None, userGroups: ["system:masters"]}
- {level: Metadata, nonResourceURLs: ["/version"]}
"#;

fn options(dir: &Path) -> AuditOptions {
    let policy = dir.join("policy.yaml");
    std::fs::write(&policy, POLICY).unwrap();
    AuditOptions {
        policy_file: Some(policy),
        log: Some(LogOptions { path: dir.join("audit.log"), ..LogOptions::default() }),
        log_mode: Mode::BlockingStrict,
        ..AuditOptions::default()
    }
}

fn events(dir: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(dir.join("audit.log")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The events that are as told, by members of their first level.
fn like(events: &[Value], verb: &str, resource: &str, stage: &str) -> Vec<Value> {
    let fits = |e: &&Value| e["verb"] == verb && e["objectRef"]["resource"] == resource && e["stage"] == stage;
    events.iter().filter(fits).cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn levels_and_stages_are_as_the_policy_says() {
    let server = TestServer::start_with(|dir| Front { audit: options(dir), ..Front::default() }).await;
    let admin = server.admin().await;
    let maps: Api<ConfigMap> = Api::namespaced(admin.clone(), "default");
    let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "m"}, "data": {"a": "1"}})).unwrap();
    maps.create(&PostParams::default(), &map).await.unwrap();
    maps.patch("m", &PatchParams::default(), &Patch::Merge(json!({"data": {"a": "2"}}))).await.unwrap();
    maps.list(&Default::default()).await.unwrap();
    maps.create(&PostParams::default(), &map).await.unwrap_err();
    let watch = WatchParams::default().fields("metadata.name=m");
    let mut changes = maps.watch(&watch, "0").await.unwrap().boxed();
    assert!(matches!(changes.next().await.unwrap().unwrap(), WatchEvent::Added(_)));
    let during = events(server.dir());
    assert_eq!(like(&during, "watch", "configmaps", "ResponseStarted").len(), 1);
    assert!(like(&during, "watch", "configmaps", "ResponseComplete").is_empty());
    maps.delete("m", &DeleteParams::default()).await.unwrap();
    drop(changes);
    let accounts: Api<ServiceAccount> = Api::namespaced(admin.clone(), "default");
    let account = serde_json::from_value(json!({"metadata": {"name": "default"}})).unwrap();
    accounts.create(&PostParams::default(), &account).await.unwrap();
    let pods: Api<Pod> = Api::namespaced(admin.clone(), "default");
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    admin.request_text(Request::get("/version").body(Vec::new()).unwrap()).await.unwrap();
    let mut nobody = kube::Config::new(format!("https://{}", server.address).parse().unwrap());
    nobody.root_cert = Some(vec![server.pki.ca.certificate_der().to_vec()]);
    let bearer = |token: &str| kube::config::AuthInfo { token: Some(token.to_owned().into()), ..Default::default() };
    let anonymous = kube::Client::try_from(nobody.clone()).unwrap();
    anonymous.request_text(Request::get("/api/v1/secrets").body(Vec::new()).unwrap()).await.unwrap_err();
    nobody.auth_info = bearer("x");
    let rubbish = kube::Client::try_from(nobody).unwrap();
    rubbish.request_text(Request::get("/version").body(Vec::new()).unwrap()).await.unwrap_err();
    let acting = Request::get("/api/v1/nodes").header("impersonate-user", "alice").body(Vec::new()).unwrap();
    admin.request_text(acting).await.unwrap_err();

    drop((admin, maps, pods, accounts, anonymous, rubbish));
    let dir = server.stop().await;
    let all = events(dir.path());
    let created = &like(&all, "create", "configmaps", "ResponseComplete")[0];
    assert!(like(&all, "create", "configmaps", "RequestReceived").is_empty());
    assert_eq!((&created["level"], &created["responseStatus"]["code"]), (&json!("RequestResponse"), &json!(201)));
    assert_eq!(created["requestObject"]["data"]["a"], "1");
    assert_eq!(created["responseObject"]["data"]["a"], "1");
    assert!(created["responseObject"]["metadata"].get("managedFields").is_none());
    assert_eq!(
        created["objectRef"],
        json!({"resource": "configmaps", "namespace": "default", "name": "m", "apiVersion": "v1"})
    );
    assert_eq!(created["annotations"]["authorization.k8s.io/decision"], "allow");
    assert_eq!(created["sourceIPs"], json!(["127.0.0.1"]));
    let patched = &like(&all, "patch", "configmaps", "ResponseComplete")[0];
    assert_eq!(patched["requestObject"], json!({"data": {"a": "2"}}));
    let listed = &like(&all, "list", "configmaps", "ResponseComplete")[0];
    assert_eq!(listed["responseObject"]["kind"], "ConfigMapList");
    let refused = &like(&all, "create", "configmaps", "ResponseComplete")[1];
    assert_eq!(refused["responseStatus"]["reason"], "AlreadyExists");
    assert_eq!(refused["responseObject"]["kind"], "Status");
    assert_eq!(like(&all, "watch", "configmaps", "ResponseComplete").len(), 1);
    assert_eq!(like(&all, "create", "pods", "RequestReceived").len(), 1);
    let pod = &like(&all, "create", "pods", "ResponseComplete")[0];
    assert_eq!(pod["requestObject"]["spec"]["containers"][0]["image"], "i");
    assert!(pod.get("responseObject").is_none());
    assert_eq!(pod["annotations"]["pod-security.kubernetes.io/enforce-policy"], "privileged:latest");
    let anonymous = &like(&all, "list", "secrets", "ResponseComplete")[0];
    assert_eq!(anonymous["annotations"]["authorization.k8s.io/decision"], "forbid");
    let failed = all.iter().find(|e| e["responseStatus"]["code"] == 401).unwrap();
    assert_eq!(failed["responseStatus"]["message"], "Authentication failed, attempted: bearer");
    assert_eq!((&failed["stage"], &failed["user"]), (&json!("ResponseStarted"), &json!({})));
    let acting = &like(&all, "list", "nodes", "ResponseComplete")[0];
    assert_eq!(acting["impersonatedUser"]["username"], "alice");
    assert_eq!(acting["responseStatus"]["code"], 403);
    let versions = all.iter().filter(|e| e["requestURI"] == "/version");
    assert_eq!(versions.count(), 1, "the administrator's requests are left out");
}

/// Answers every POST and keeps what it brought, the first with a failure.
async fn receiver() -> (String, Arc<Mutex<Vec<Value>>>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/events", listener.local_addr().unwrap());
    let lists: Arc<Mutex<Vec<Value>>> = Arc::default();
    let kept = lists.clone();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let calls = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        while let Ok((stream, _)) = listener.accept().await {
            let (kept, calls) = (kept.clone(), calls.clone());
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let (kept, calls) = (kept.clone(), calls.clone());
                async move {
                    assert_eq!(request.headers()["authorization"], "Bearer t");
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let first = calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0;
                    if !first {
                        kept.lock().push(serde_json::from_slice(&body).unwrap());
                    }
                    let code = if first { 503 } else { 200 };
                    Ok::<_, std::convert::Infallible>(
                        Response::builder().status(code).body(Full::<Bytes>::default()).unwrap(),
                    )
                }
            });
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.unwrap();
        }
    });
    (url, lists, tasks)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_gets_events_in_batches_and_again_after_a_failure() {
    let (url, lists, _tasks) = receiver().await;
    let server = TestServer::start_with(|dir| {
        let config = dir.join("webhook.yaml");
        let text = format!(
            "clusters: [{{name: a, cluster: {{server: '{url}'}}}}]\nusers: [{{name: u, user: {{token: t}}}}]\n"
        );
        std::fs::write(&config, text).unwrap();
        let webhook = WebhookOptions {
            config_file: config,
            mode: Mode::Batch,
            batch: BatchOptions { max_size: 4, max_wait: Duration::from_millis(50), ..BatchOptions::default() },
            initial_backoff: Duration::from_millis(10),
        };
        Front { audit: AuditOptions { log: None, webhook: Some(webhook), ..options(dir) }, ..Front::default() }
    })
    .await;
    let admin = server.admin().await;
    let maps: Api<ConfigMap> = Api::namespaced(admin.clone(), "default");
    for index in 0..10 {
        let map = json!({"metadata": {"name": format!("m{index}")}});
        maps.create(&PostParams::default(), &serde_json::from_value(map).unwrap()).await.unwrap();
    }
    let text = admin.request_text(Request::get("/metrics").body(Vec::new()).unwrap()).await.unwrap();
    let counted = text.lines().find_map(|l| l.strip_prefix("apiserver_audit_event_total "));
    let counted = counted.unwrap_or_else(|| panic!("{text}"));
    assert!(counted.parse::<u64>().unwrap() >= 10, "{counted}");
    server.stop().await;
    let lists = lists.lock();
    let names = lists.iter().flat_map(|l| l["items"].as_array().unwrap()).filter(|e| e["verb"] == "create");
    assert_eq!(names.count(), 10);
    assert!(lists.iter().all(|l| l["kind"] == "EventList" && l["items"].as_array().unwrap().len() <= 4));
}
