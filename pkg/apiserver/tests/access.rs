//! Who gets in and what they may do, over HTTPS.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use http::Request;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::{Api, PostParams};
use kube::config::AuthInfo;
use serde_json::{Value, json};
use support::TestServer;

/// A client with a bearer token, or without any credential.
fn client(server: &TestServer, token: Option<&str>) -> kube::Client {
    let mut config = kube::Config::new(format!("https://{}", server.address).parse().unwrap());
    config.root_cert = Some(vec![server.pki.ca.certificate_der().to_vec()]);
    config.auth_info = AuthInfo { token: token.map(|t| t.to_owned().into()), ..AuthInfo::default() };
    kube::Client::try_from(config).unwrap()
}

/// The answer, or the code and message of the failure.
async fn call(client: &kube::Client, method: &str, path: &str, body: Value) -> Result<Value, (u16, String)> {
    call_as(client, method, path, body, &[]).await
}

async fn call_as(
    client: &kube::Client,
    method: &str,
    path: &str,
    body: Value,
    headers: &[(&str, &str)],
) -> Result<Value, (u16, String)> {
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let mut request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    match client.request::<Value>(request.body(body).unwrap()).await {
        Ok(value) => Ok(value),
        Err(kube::Error::Api(status)) => Err((status.code, status.message)),
        Err(error) => panic!("{error}"),
    }
}

const SELF: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

async fn who_am_i(client: &kube::Client) -> Result<Value, (u16, String)> {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    call(client, "POST", SELF, review).await.map(|mut answer| answer["status"]["userInfo"].take())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_anonymous_see_only_what_is_public() {
    let server = TestServer::start().await;
    let nobody = client(&server, None);
    for path in ["/healthz", "/livez", "/readyz", "/version", "/cacerts"] {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        let ask = async || {
            let request = Request::get(path).header("accept", "application/vnd.kubernetes.protobuf");
            nobody.request_text(request.body(Vec::new()).unwrap()).await
        };
        // A server that has just started is not ready yet.
        while let Err(error) = ask().await {
            assert!(path == "/readyz" && tokio::time::Instant::now() < deadline, "{path}: {error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let refused = call(&nobody, "GET", "/api/v1/namespaces/default/pods", Value::Null).await.unwrap_err();
    let message = r#"pods is forbidden: User "system:anonymous" cannot list resource "pods" in API group "" in the namespace "default""#;
    assert_eq!(refused, (403, message.to_owned()));
    let refused = call(&client(&server, Some("rubbish")), "GET", "/version", Value::Null).await.unwrap_err();
    assert_eq!(refused, (401, "Unauthorized".to_owned()));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_account_does_what_its_bindings_say() {
    let server = TestServer::start().await;
    let admin = server.admin().await;
    let accounts: Api<ServiceAccount> = Api::namespaced(admin.clone(), "default");
    let account: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": "robot"}})).unwrap();
    accounts.create(&PostParams::default(), &account).await.unwrap();
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let path = "/api/v1/namespaces/default/serviceaccounts/robot/token";
    let answer = call(&admin, "POST", path, request).await.unwrap();
    let robot = client(&server, answer["status"]["token"].as_str());
    let me = who_am_i(&robot).await.unwrap();
    assert_eq!(me["username"], "system:serviceaccount:default:robot");
    assert_eq!(me["groups"][1], "system:serviceaccounts:default");

    let pods = "/api/v1/namespaces/default/pods";
    assert_eq!(call(&robot, "GET", pods, Value::Null).await.unwrap_err().0, 403);
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "b"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"},
        "subjects": [{"kind": "ServiceAccount", "namespace": "default", "name": "robot"}]});
    call(&admin, "POST", &format!("{rbac}/rolebindings"), binding.clone()).await.unwrap();
    call(&robot, "GET", pods, Value::Null).await.unwrap();
    assert_eq!(call(&robot, "GET", "/api/v1/namespaces/kube-system/pods", Value::Null).await.unwrap_err().0, 403);

    let role = |resource: &str| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": resource},
        "rules": [{"apiGroups": [""], "resources": [resource], "verbs": ["get"]}]})
    };
    call(&robot, "POST", &format!("{rbac}/roles"), role("pods")).await.unwrap();
    let (code, message) = call(&robot, "POST", &format!("{rbac}/roles"), role("nodes")).await.unwrap_err();
    assert_eq!(code, 403);
    assert!(message.contains("is attempting to grant RBAC permissions not currently held"), "{message}");
    let mut stronger = binding;
    stronger["metadata"]["name"] = "c".into();
    stronger["roleRef"]["name"] = "cluster-admin".into();
    assert_eq!(call(&robot, "POST", &format!("{rbac}/rolebindings"), stronger).await.unwrap_err().0, 403);

    let rules = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": "default"}});
    let rules = call(&robot, "POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", rules).await.unwrap();
    assert!(rules["status"]["resourceRules"].as_array().unwrap().len() > 10);
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {
        "user": "system:serviceaccount:default:robot", "resourceAttributes": {"verb": "list", "resource": "pods", "namespace": "default"}}});
    let review = call(&admin, "POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review).await.unwrap();
    assert_eq!(
        review["status"],
        json!({"allowed": true, "reason":
            r#"RBAC: allowed by RoleBinding "b/default" of ClusterRole "admin" to ServiceAccount "robot/default""#})
    );
    server.stop().await;
}

/// Asks until there is an answer that fits.
async fn eventually<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "not in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_secret_is_filled_and_goes_with_its_account() {
    let server = TestServer::start().await;
    let admin = server.admin().await;
    let accounts: Api<ServiceAccount> = Api::namespaced(admin.clone(), "default");
    let secrets: Api<Secret> = Api::namespaced(admin, "default");
    let account: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": "robot"}})).unwrap();
    accounts.create(&PostParams::default(), &account).await.unwrap();
    let annotations = json!({"kubernetes.io/service-account.name": "robot"});
    let secret =
        json!({"metadata": {"name": "t", "annotations": annotations}, "type": "kubernetes.io/service-account-token"});
    secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    let data = eventually(async || secrets.get("t").await.unwrap().data).await;
    assert_eq!(data["namespace"].0, b"default");
    assert_eq!(data["ca.crt"].0, server.pki.ca.certificate_pem().as_bytes());
    let robot = client(&server, std::str::from_utf8(&data["token"].0).ok());
    assert_eq!(who_am_i(&robot).await.unwrap()["username"], "system:serviceaccount:default:robot");
    accounts.delete("robot", &Default::default()).await.unwrap();
    eventually(async || secrets.get_opt("t").await.unwrap().is_none().then_some(())).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bootstrap_token_may_ask_for_a_certificate_and_nothing_else() {
    let server = TestServer::start().await;
    let admin = server.admin().await;
    let secrets: Api<Secret> = Api::namespaced(admin, "kube-system");
    let secret: Secret = serde_json::from_value(json!({"metadata": {"name": "bootstrap-token-abcdef"},
        "type": "bootstrap.kubernetes.io/token", "stringData": {"token-id": "abcdef", "token-secret": "0123456789abcdef",
        "usage-bootstrap-authentication": "true", "auth-extra-groups": "system:bootstrappers:kube1:default-node-token"}}))
    .unwrap();
    secrets.create(&PostParams::default(), &secret).await.unwrap();
    let node = client(&server, Some("abcdef.0123456789abcdef"));
    assert_eq!(who_am_i(&node).await.unwrap()["username"], "system:bootstrap:abcdef");
    let requests = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    call(&node, "GET", requests, Value::Null).await.unwrap();
    assert_eq!(call(&node, "GET", "/api/v1/nodes", Value::Null).await.unwrap_err().0, 403);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acting_as_a_node_shows_what_a_node_may_do() {
    let server = TestServer::start().await;
    let admin = server.admin().await;
    let node = [("impersonate-user", "system:node:n"), ("impersonate-group", "system:nodes")];
    let ask = async |method: &str, path: &str, body: Value| call_as(&admin, method, path, body, &node).await;
    let object = |name: &str| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
    ask("POST", "/api/v1/nodes", object("n")).await.unwrap();
    let (code, message) = ask("POST", "/api/v1/nodes", object("m")).await.unwrap_err();
    assert_eq!(code, 403);
    assert!(message.contains("is not allowed to modify node"), "{message}");
    ask("GET", "/api/v1/nodes/n", Value::Null).await.unwrap();
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}});
    call(&admin, "POST", "/api/v1/namespaces/default/secrets", secret).await.unwrap();
    assert_eq!(ask("GET", "/api/v1/namespaces/default/secrets/s", Value::Null).await.unwrap_err().0, 403);
    ask("GET", "/api/v1/services", Value::Null).await.unwrap();
    let account = json!({"metadata": {"name": "default"}});
    call(&admin, "POST", "/api/v1/namespaces/default/serviceaccounts", account).await.unwrap();
    // It evicts its own pods; the deletion that follows is not judged as another request of it.
    let pods = "/api/v1/namespaces/default/pods";
    for (name, on) in [("mine", "n"), ("other", "m")] {
        let container = json!({"name": "c", "image": "i"});
        let pod = json!({"metadata": {"name": name}, "spec": {"nodeName": on, "containers": [container]}});
        call(&admin, "POST", pods, pod).await.unwrap();
    }
    for (name, expected) in [("mine", 201), ("other", 403), ("none", 404)] {
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name},
            "deleteOptions": {"gracePeriodSeconds": 0}});
        let told = ask("POST", &format!("{pods}/{name}/eviction"), eviction).await;
        assert_eq!(told.map_or_else(|(code, _)| code, |_| 201), expected, "{name}");
    }
    assert_eq!(call(&admin, "GET", &format!("{pods}/mine"), Value::Null).await.unwrap_err().0, 404);
    let config = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let config = call(&admin, "GET", config, Value::Null).await.unwrap();
    assert_eq!(config["data"]["client-ca-file"], server.pki.ca.certificate_pem());
    server.stop().await;
}
