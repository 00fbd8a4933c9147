//! Webhooks that decide about requests and know tokens, and files that change while the server runs.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube1_apiserver::authn::{AuthenticationOptions, TokenWebhookOptions};
use kube1_apiserver::authz::AuthorizationOptions;
use kube1_apiserver::server::Front;
use serde_json::{Value, json};
use support::TestServer;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Answers reviews over plain HTTP; counts them.
async fn webhook(answer: impl Fn(&Value) -> Value + Clone + Send + 'static) -> (String, Arc<AtomicUsize>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/review", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let (counter, mut tasks) = (count.clone(), JoinSet::new());
    tasks.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (answer, counter) = (answer.clone(), counter.clone());
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let (answer, counter) = (answer.clone(), counter.clone());
                async move {
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let mut review: Value = serde_json::from_slice(&body).unwrap();
                    review["status"] = answer(&review);
                    counter.fetch_add(1, Ordering::SeqCst);
                    Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from(review.to_string()))))
                }
            });
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        }
    });
    (url, count, tasks)
}

fn kubeconfig(dir: &Path, url: &str) -> std::path::PathBuf {
    let path = dir.join("webhook.kubeconfig");
    std::fs::write(&path, format!("clusters: [{{name: a, cluster: {{server: '{url}'}}}}]\n")).unwrap();
    path
}

fn config(hook: &Path, policy: &str) -> String {
    let hook = hook.display();
    format!(
        r#"
apiVersion: apiserver.config.k8s.io/v1
kind: AuthorizationConfiguration
authorizers:
- type: Webhook
  name: hook.example
  webhook:
    timeout: 3s
    subjectAccessReviewVersion: v1
    matchConditionSubjectAccessReviewVersion: v1
    failurePolicy: {policy}
    connectionInfo: {{type: KubeConfigFile, kubeConfigFile: {hook}}}
    matchConditions:
    - expression: "has(request.resourceAttributes)"
    - expression: "!('system:masters' in request.groups) && request.user != 'bob'"
- {{type: RBAC, name: rbac}}
"#
    )
}

async fn code(client: &kube::Client, path: &str, user: &str) -> (u16, String) {
    let request = Request::get(path).header("impersonate-user", user).body(Vec::new()).unwrap();
    match client.request_text(request).await {
        Ok(text) => (200, text),
        Err(kube::Error::Api(status)) => (status.code, status.message.clone()),
        Err(error) => panic!("{error}"),
    }
}

async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "not in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_decides_where_its_conditions_hold() {
    let (url, count, tasks) = webhook(|review| {
        assert_eq!(review["apiVersion"], "authorization.k8s.io/v1");
        let attributes = &review["spec"]["resourceAttributes"];
        match (review["spec"]["user"].as_str().unwrap(), attributes["resource"].as_str().unwrap()) {
            (_, "secrets") => json!({"allowed": false, "denied": true, "reason": "no secrets"}),
            ("alice", _) => json!({"allowed": true}),
            _ => json!({"allowed": false}),
        }
    })
    .await;
    let file = std::cell::RefCell::new(Default::default());
    let server = TestServer::start_with(|dir| {
        let path = dir.join("authorization.yaml");
        std::fs::write(&path, config(&kubeconfig(dir, &url), "Deny")).unwrap();
        *file.borrow_mut() = path.clone();
        let authorization = AuthorizationOptions { config_file: Some(path), ..AuthorizationOptions::default() };
        Front { authorization, ..Front::default() }
    })
    .await;
    let file = file.into_inner();
    let admin = server.admin().await;
    let (pods, secrets) = ("/api/v1/namespaces/default/pods", "/api/v1/namespaces/default/secrets");
    assert_eq!(code(&admin, pods, "alice").await.0, 200);
    assert_eq!(code(&admin, pods, "alice").await.0, 200);
    assert_eq!(count.load(Ordering::SeqCst), 1, "answers are remembered");
    assert_eq!(code(&admin, pods, "carol").await.0, 403);
    let (refused, message) = code(&admin, secrets, "alice").await;
    assert!(refused == 403 && message.ends_with(": no secrets"), "{message}");
    assert_eq!(code(&admin, pods, "bob").await.0, 403, "not asked, and RBAC knows nothing of him");
    assert_eq!(count.load(Ordering::SeqCst), 3);
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {"user": "alice",
        "resourceAttributes": {"verb": "get", "resource": "secrets", "namespace": "default"}}});
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let request = Request::post(path).header("content-type", "application/json").body(review.to_string().into_bytes());
    let review: Value = admin.request(request.unwrap()).await.unwrap();
    assert_eq!(review["status"], json!({"allowed": false, "denied": true, "reason": "no secrets"}));
    let (_, text) = code(&admin, "/metrics", "").await;
    drop(text);
    let text = admin.request_text(Request::get("/metrics").body(Vec::new()).unwrap()).await.unwrap();
    for wanted in [
        r#"apiserver_authorization_decisions_total{type="Webhook",name="hook.example",decision="denied"}"#,
        r#"apiserver_authorization_webhook_evaluations_total{name="hook.example",result="success"}"#,
        r#"apiserver_authorization_match_condition_exclusions_total{type="Webhook",name="hook.example"}"#,
    ] {
        assert!(text.contains(wanted), "{wanted}");
    }
    // A webhook that does not answer refuses, until the file says otherwise.
    drop(tasks);
    assert_eq!(code(&admin, pods, "dave").await.0, 403);
    std::fs::write(&file, "apiVersion: apiserver.config.k8s.io/v1\nkind: Nonsense\n").unwrap();
    let reloaded_once = async |status: &str| {
        let text = admin.request_text(Request::get("/metrics").body(Vec::new()).unwrap()).await.unwrap();
        let counter =
            format!(r#"apiserver_authorization_config_controller_automatic_reloads_total{{status="{status}","#);
        text.lines().any(|line| line.starts_with(&counter) && line.ends_with(" 1"))
    };
    until(async || reloaded_once("failure").await).await;
    assert_eq!(code(&admin, pods, "alice").await.0, 200, "a bad file changes nothing");
    std::fs::write(
        &file,
        "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\n\
        authorizers: [{type: AlwaysAllow, name: all}]\n",
    )
    .unwrap();
    until(async || code(&admin, pods, "dave").await.0 == 200).await;
    assert!(reloaded_once("success").await);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_of_a_file_decide() {
    let server = TestServer::start_with(|dir| {
        let path = dir.join("policies.jsonl");
        let policy = |spec: Value| {
            json!({"apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy", "spec": spec})
                .to_string()
        };
        let all = [
            "# Who may do what.".to_owned(),
            policy(json!({"user": "alice", "namespace": "default", "resource": "pods", "readonly": true})),
            policy(json!({"group": "system:authenticated", "nonResourcePath": "/version", "readonly": true})),
        ];
        std::fs::write(&path, all.join("\n")).unwrap();
        let modes = vec!["ABAC".into()];
        let authorization = AuthorizationOptions { modes, policy_file: Some(path), ..AuthorizationOptions::default() };
        Front { authorization, ..Front::default() }
    })
    .await;
    let admin = server.admin().await;
    for (path, user, expected) in [
        ("/api/v1/namespaces/default/pods", "alice", 200),
        ("/api/v1/namespaces/default/pods", "bob", 403),
        ("/api/v1/namespaces/default/secrets", "alice", 403),
        ("/api/v1/namespaces/kube-system/pods", "alice", 403),
        ("/version", "bob", 200),
        ("/metrics", "alice", 403),
    ] {
        let (found, message) = code(&admin, path, user).await;
        assert_eq!(found, expected, "{user} {path}: {message}");
        assert!(found == 200 || message.ends_with(": No policy matched."), "{message}");
    }
    let text = admin.request_text(Request::get("/metrics").body(Vec::new()).unwrap()).await.unwrap();
    assert!(text.contains(r#"kubernetes_feature_enabled{name="WatchList",stage="BETA"} 1"#));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_and_a_file_know_tokens() {
    const LIKE_BOOTSTRAP: &str = "abcdef.0123456789abcdef";
    let (url, count, _tasks) = webhook(|review| match review["spec"]["token"].as_str().unwrap() {
        "good" | LIKE_BOOTSTRAP => {
            json!({"authenticated": true, "user": {"username": "alice", "groups": ["dev"], "extra": {"a": ["b"]}}})
        }
        _ => json!({"authenticated": false}),
    })
    .await;
    let server = TestServer::start_with(|dir| {
        let options = TokenWebhookOptions {
            config_file: kubeconfig(dir, &url),
            version: "v1".into(),
            cache_ttl: Duration::from_secs(60),
        };
        let file = dir.join("tokens.csv");
        std::fs::write(&file, "of-a-file,carol,7,\"dev,ops\"\n").unwrap();
        let authentication = AuthenticationOptions {
            token_webhook: Some(options),
            token_file: Some(file),
            ..AuthenticationOptions::default()
        };
        Front { authentication, ..Front::default() }
    })
    .await;
    let client = |token: &str| {
        let mut config = kube::Config::new(format!("https://{}", server.address).parse().unwrap());
        config.root_cert = Some(vec![server.pki.ca.certificate_der().to_vec()]);
        config.auth_info.token = Some(token.to_owned().into());
        kube::Client::try_from(config).unwrap()
    };
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).to_string();
    let who = || {
        let request = Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews");
        request.header("content-type", "application/json").body(review.clone().into_bytes()).unwrap()
    };
    let answer: Value = client("good").request(who()).await.unwrap();
    let user = &answer["status"]["userInfo"];
    assert_eq!(
        (&user["username"], &user["groups"][0], &user["extra"]["a"][0]),
        (&json!("alice"), &json!("dev"), &json!("b"))
    );
    for _ in 0..3 {
        assert!(
            matches!(client("bad").request::<Value>(who()).await, Err(kube::Error::Api(status)) if status.code == 401)
        );
    }
    assert_eq!(count.load(Ordering::SeqCst), 2, "what is not known is remembered too");
    let answer: Value = client("of-a-file").request(who()).await.unwrap();
    let carol = json!({"username": "carol", "uid": "7", "groups": ["dev", "ops", "system:authenticated"]});
    let user = &answer["status"]["userInfo"];
    assert_eq!(
        ["username", "uid", "groups"].map(|key| &user[key]),
        ["username", "uid", "groups"].map(|key| &carol[key])
    );
    assert_eq!(count.load(Ordering::SeqCst), 2, "the webhook is not asked for the file's tokens");
    let answer: Value = client(LIKE_BOOTSTRAP).request(who()).await.unwrap();
    assert_eq!(answer["status"]["userInfo"]["username"], "alice", "no bootstrap token of ours, but the webhook's");
    server.stop().await;
}
