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
            truncation: None,
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

/// A receiver of events over HTTPS that may be away.
struct Receiver {
    pki: kube1_pki::ServerPki,
    address: std::net::SocketAddr,
    lists: Arc<Mutex<Vec<Value>>>,
    _dir: tempfile::TempDir,
}

impl Receiver {
    /// It has an address, at which nobody answers yet.
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let pki = kube1_pki::ServerPki::open(kube1_pki::ServerPkiConfig {
            data_dir: dir.path().to_owned(),
            node_name: "receiver".into(),
            addresses: vec![address.ip()],
            service_ip: None,
            cluster_domain: "cluster.local".into(),
            extra_names: vec![],
        });
        Self { pki: pki.unwrap(), address, lists: Arc::default(), _dir: dir }
    }

    fn kubeconfig(&self) -> String {
        use base64::Engine;
        let ca = base64::engine::general_purpose::STANDARD.encode(self.pki.ca.certificate_pem());
        let server = format!("https://{}/events", self.address);
        format!(
            "clusters: [{{name: a, cluster: {{server: '{server}', certificate-authority-data: {ca}}}}}]\nusers: [{{name: u, user: {{token: t}}}}]\n"
        )
    }

    /// Answers from now on.
    async fn answer(&self) -> JoinSet<()> {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(self.address).unwrap();
        let listener = socket.listen(64).unwrap();
        let clients = rustls::server::WebPkiClientVerifier::no_client_auth();
        let tls =
            kube1_apiserver::http::tls::tls_config(self.pki.serving.clone(), clients, &Default::default()).unwrap();
        let (acceptor, kept) = (tokio_rustls::TlsAcceptor::from(tls), self.lists.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(stream) = acceptor.accept(stream).await else { continue };
                let kept = kept.clone();
                let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                    let kept = kept.clone();
                    async move {
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        kept.lock().push(serde_json::from_slice(&body).unwrap());
                        Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::default()))
                    }
                });
                // A client that goes is no failure.
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            }
        });
        tasks
    }

    fn events(&self) -> Vec<Value> {
        self.lists.lock().iter().flat_map(|list| list["items"].as_array().unwrap().clone()).collect()
    }
}

async fn counted(admin: &kube::Client, plugin: &str) -> u64 {
    let text = admin.request_text(Request::get("/metrics").body(Vec::new()).unwrap()).await.unwrap();
    let start = format!("apiserver_audit_error_total{{plugin=\"{plugin}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&start)?.parse().ok()).unwrap_or(0)
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(40);
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "{what}: not in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn create(admin: &kube::Client, name: &str, text: &str) -> Result<ConfigMap, kube::Error> {
    let map = json!({"metadata": {"name": name}, "data": {"a": text}});
    let maps: Api<ConfigMap> = Api::namespaced(admin.clone(), "default");
    maps.create(&PostParams::default(), &serde_json::from_value(map).unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_away_keeps_nobody_waiting_and_what_found_no_room_is_counted() {
    let receiver = Receiver::new().await;
    let server = TestServer::start_with(|dir| {
        let config = dir.join("webhook.yaml");
        std::fs::write(&config, receiver.kubeconfig()).unwrap();
        let batch = BatchOptions { buffer: 3, max_size: 1, max_wait: Duration::ZERO, throttle: None };
        let truncation = Some(kube1_apiserver::audit::Truncation { max_batch: 1 << 20, max_event: 4000 });
        let initial_backoff = Duration::from_millis(5);
        let webhook = WebhookOptions { config_file: config, mode: Mode::Batch, batch, truncation, initial_backoff };
        Front { audit: AuditOptions { log: None, webhook: Some(webhook), ..options(dir) }, ..Front::default() }
    })
    .await;
    let admin = server.admin().await;
    for number in 0..30 {
        create(&admin, &format!("away-{number}"), "x").await.unwrap();
    }
    until("dropped for want of room", async || counted(&admin, "buffered").await > 0).await;
    until("given up", async || counted(&admin, "webhook").await > 0).await;
    let _answering = receiver.answer().await;
    let mut number = 0;
    until("events again", async || {
        number += 1;
        create(&admin, &format!("back-{number}"), "x").await.unwrap();
        receiver.events().iter().any(|e| e["objectRef"]["name"].as_str().is_some_and(|n| n.starts_with("back-")))
    })
    .await;
    let is_long = |e: &Value| e["objectRef"]["name"].as_str().is_some_and(|name| name.starts_with("long-"));
    let long = || receiver.events().into_iter().find(is_long);
    until("the long event", async || {
        number += 1;
        create(&admin, &format!("long-{number}"), &"y".repeat(10_000)).await.unwrap();
        long().is_some()
    })
    .await;
    let long = long().unwrap();
    assert_eq!(long["annotations"]["audit.k8s.io/truncated"], "true");
    assert!(long.get("requestObject").is_none() && long.get("responseObject").is_none(), "{long}");
    let path = format!("/api/v1/namespaces/default/configmaps?labelSelector=a%3D{}", "z".repeat(60));
    let path = format!("{path}&fieldSelector={}", vec!["metadata.name!%3Db"; 300].join(","));
    // One of them may find no room.
    until("dropped for its length", async || {
        admin.request_text(Request::get(&path).body(Vec::new()).unwrap()).await.unwrap();
        counted(&admin, "truncate").await > 0
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_written_stops_requests_only_if_it_must() {
    for (mode, stops) in [(Mode::Blocking, false), (Mode::BlockingStrict, true), (Mode::Batch, false)] {
        let server = TestServer::start_with(|dir| {
            let text = POLICY.replace("omitStages: [RequestReceived]", "omitStages: []");
            let audit = options(dir);
            std::fs::write(audit.policy_file.as_ref().unwrap(), text).unwrap();
            let log = LogOptions { path: "/dev/full".into(), ..LogOptions::default() };
            Front { audit: AuditOptions { log: Some(log), log_mode: mode, ..audit }, ..Front::default() }
        })
        .await;
        let admin = server.admin().await;
        let made = create(&admin, "m", "x").await;
        match (made, stops) {
            (Ok(_), false) => {}
            (Err(kube::Error::Api(status)), true) if status.code == 500 => {
                assert!(status.message.contains("failed to store audit event"), "{}", status.message);
            }
            (other, _) => panic!("{mode:?}: {other:?}"),
        }
        until("errors are counted", async || counted(&admin, "log").await > 0).await;
        server.stop().await;
    }
}
