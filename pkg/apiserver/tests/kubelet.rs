//! Streams between a client and a kubelet, through the server.

#![allow(clippy::unwrap_used)]

mod support;

use std::net::Ipv4Addr;
use std::sync::Arc;

use futures::{SinkExt, StreamExt};
use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, LogParams, PatchParams, PostParams};
use kube1_apiserver::dial::{self, Target, Trust};
use kube1_pki::{AltName, Authority, LeafProfile, ReloadingCertificate, Subject, Usage};
use serde_json::json;
use support::TestServer;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

/// Reads a request's or an answer's head; returns its first line and whether `text` is in the rest.
async fn read_head(stream: &mut BufReader<impl AsyncRead + Unpin>, text: &str) -> (String, bool) {
    let (mut first, mut found) = (String::new(), false);
    stream.read_line(&mut first).await.unwrap();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        found |= line.to_lowercase().contains(text);
        if line.trim().is_empty() {
            return (first.trim().to_owned(), found);
        }
    }
}

/// Answers one connection as a kubelet would: a log, or an upgrade followed by an echo.
async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin) -> String {
    let mut stream = BufReader::new(stream);
    let (request, upgrade) = read_head(&mut stream, "upgrade: spdy/3.1").await;
    if !upgrade {
        let (code, text) =
            if request.contains("previous=true") { ("400 Bad Request", "not yet") } else { ("200 OK", "hello\n") };
        let head = format!("HTTP/1.1 {code}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n", text.len());
        stream.write_all(format!("{head}{text}").as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        return request;
    }
    let switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n";
    stream.write_all(switch).await.unwrap();
    stream.flush().await.unwrap();
    let mut said = [0; 4];
    stream.read_exact(&mut said).await.unwrap();
    said.reverse();
    stream.write_all(&said).await.unwrap();
    stream.flush().await.unwrap();
    request
}

/// Lets nobody attach to the input of a container.
async fn refuse_stdin(client: &kube::Client) {
    let rules =
        json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CONNECT"], "resources": ["pods/attach"]}]);
    let policy = json!({"metadata": {"name": "p"}, "spec": {"matchConstraints": {"resourceRules": rules}, "validations":
        [{"expression": "!has(object.stdin)", "messageExpression": "'no input for ' + object.container"}]}});
    let binding = json!({"metadata": {"name": "p"}, "spec": {"policyName": "p", "validationActions": ["Deny"]}});
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
    policies.create(&PostParams::default(), &serde_json::from_value(policy).unwrap()).await.unwrap();
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(client.clone());
    bindings.create(&PostParams::default(), &serde_json::from_value(binding).unwrap()).await.unwrap();
}

fn as_admin(server: &TestServer) -> Target {
    let admin = server.pki.admin().unwrap();
    Target {
        address: server.address.into(),
        server_name: "127.0.0.1".into(),
        trust: Trust::Authorities(server.pki.ca.certificate_pem().as_bytes().to_vec()),
        identity: Some(Arc::new(ReloadingCertificate::new(&admin).unwrap())),
    }
}

/// A pod on a node whose kubelet listens at the port.
async fn pod_on_node(client: &kube::Client, port: u16) -> (Api<Node>, Api<Pod>) {
    let nodes: Api<Node> = Api::all(client.clone());
    let object = json!({"metadata": {"name": "node-1"}});
    nodes.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}});
    nodes.patch_status("node-1", &PatchParams::default(), &kube::api::Patch::Merge(status)).await.unwrap();
    let accounts = Api::<k8s_openapi::api::core::v1::ServiceAccount>::namespaced(client.clone(), "default");
    let account = serde_json::from_value(json!({"metadata": {"name": "default"}})).unwrap();
    accounts.create(&PostParams::default(), &account).await.unwrap();
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"nodeName": "node-1", "containers": [{"name": "c", "image": "i"}]}});
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    (nodes, pods)
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_and_commands_reach_the_kubelet() {
    let server = TestServer::start().await;
    let client = server.admin().await;
    let node = server.pki.node("node-1", &[Ipv4Addr::LOCALHOST.into()]).unwrap();
    let certificate = Arc::new(ReloadingCertificate::new(&node.serving).unwrap());
    let verifier = server.api.server().authenticator.certificate_verifier();
    let tls = kube1_apiserver::http::tls::tls_config(certificate, verifier, &Default::default()).unwrap();
    let kubelet = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = kubelet.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        let mut requests = Vec::new();
        for _ in 0..5 {
            let (stream, _) = kubelet.accept().await.unwrap();
            let stream = TlsAcceptor::from(tls.clone()).accept(stream).await.unwrap();
            assert!(stream.get_ref().1.peer_certificates().is_some(), "the server shows its certificate");
            requests.push(answer(stream).await);
        }
        requests
    });

    let (nodes, pods) = pod_on_node(&client, port).await;
    let log = pods.logs("p", &LogParams { tail_lines: Some(5), ..LogParams::default() }).await.unwrap();
    assert_eq!(log, "hello\n");
    let none = pods.logs("p", &LogParams { previous: true, ..LogParams::default() }).await.unwrap_err();
    let kube::Error::Api(status) = none else { panic!("{none}") };
    assert_eq!((status.code, status.reason.as_str(), status.message.as_str()), (400, "BadRequest", "not yet"));

    refuse_stdin(&client).await;
    let attach = |query: &str| {
        let request = http::Request::get(format!("/api/v1/namespaces/default/pods/p/attach?{query}"));
        client.request::<serde_json::Value>(request.body(vec![]).unwrap())
    };
    let refused = attach("container=c&stdin=true").await.unwrap_err().to_string();
    assert!(refused.contains("no input for c"), "admission sees what a client connects to: {refused}");
    let allowed = attach("container=c&stdout=true").await.unwrap_err().to_string();
    assert!(allowed.contains("Upgrade request required"), "{allowed}");

    let target = as_admin(&server);
    let mut stream = BufReader::new(dial::connect(&target).await.unwrap());
    let request = "POST /api/v1/namespaces/default/pods/p/exec?command=ls&command=a%20b&stdin=true&stdout=true HTTP/1.1\r\n\
                   Host: kubernetes\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nContent-Length: 0\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let (first, version) = read_head(&mut stream, "x-stream-protocol-version: v4.channel.k8s.io").await;
    assert!(first.starts_with("HTTP/1.1 101") && version, "{first}");
    stream.write_all(b"ping").await.unwrap();
    stream.flush().await.unwrap();
    let mut echo = [0; 4];
    stream.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"gnip");

    let url = format!("wss://{}/api/v1/namespaces/default/pods/p/portforward", server.address);
    let mut request = url.into_client_request().unwrap();
    let offer = "SPDY/3.1+portforward.k8s.io".parse().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", offer);
    let stream = dial::connect(&target).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    socket.send(Message::binary("ping")).await.unwrap();
    let mut heard = Vec::new();
    while heard.len() < 4 {
        heard.extend_from_slice(&socket.next().await.unwrap().unwrap().into_data());
    }
    assert_eq!(heard, b"gnip", "a tunnel carries the bytes of the kubelet's connection");

    // A kubelet that says so gets the websocket itself.
    let status = json!({"status": {"declaredFeatures": ["ExtendWebSocketsToKubelet"]}});
    nodes.patch_status("node-1", &PatchParams::default(), &kube::api::Patch::Merge(status)).await.unwrap();
    let url = format!("wss://{}/api/v1/namespaces/default/pods/p/exec?command=ls&stdout=true", server.address);
    let mut request = url.into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "v5.channel.k8s.io".parse().unwrap());
    let stream = dial::connect(&target).await.unwrap();
    tokio_tungstenite::client_async(request, stream).await.expect_err("this one answers with a log");

    let requests = serving.await.unwrap();
    assert_eq!(requests[4], "GET /exec/default/p/c?command=ls&output=1 HTTP/1.1");
    assert_eq!(requests[3], "POST /portForward/default/p? HTTP/1.1");
    assert_eq!(requests[0], "GET /containerLogs/default/p/c?tailLines=5 HTTP/1.1");
    assert_eq!(requests[2], "POST /exec/default/p/c?command=ls&command=a%20b&input=1&output=1 HTTP/1.1");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_of_a_foreign_kubelet_are_read_only_when_asked_for() {
    let server = TestServer::start().await;
    let client = server.admin().await;
    let profile = LeafProfile {
        subject: Subject::new("system:node:node-1", &["system:nodes"]),
        usages: vec![Usage::ServerAuth],
        alt_names: vec![AltName::Ip(Ipv4Addr::LOCALHOST.into())],
    };
    let foreign = Authority::create("foreign").unwrap().issue(&profile).unwrap();
    let certificate = Arc::new(ReloadingCertificate::new(&foreign).unwrap());
    let verifier = server.api.server().authenticator.certificate_verifier();
    let tls = kube1_apiserver::http::tls::tls_config(certificate, verifier, &Default::default()).unwrap();
    let kubelet = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = kubelet.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        loop {
            let (stream, _) = kubelet.accept().await.unwrap();
            if let Ok(stream) = TlsAcceptor::from(tls.clone()).accept(stream).await {
                return answer(stream).await;
            }
        }
    });
    pod_on_node(&client, port).await;
    // By hand, since the client asks again and again where it is told that a service is unavailable.
    let read = async |query: &str| {
        let mut stream = dial::connect(&as_admin(&server)).await.unwrap();
        let path = format!("/api/v1/namespaces/default/pods/p/log{query}");
        let request = format!("GET {path} HTTP/1.1\r\nHost: kubernetes\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        let mut answer = Vec::new();
        // It may be closed without a goodbye.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    };
    let refused = read("").await;
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("certificate"), "{refused}");
    let log = read("?insecureSkipTLSVerifyBackend=true").await;
    assert!(log.starts_with("HTTP/1.1 200") && log.contains("hello\n"), "{log}");
    assert_eq!(serving.await.unwrap(), "GET /containerLogs/default/p/c? HTTP/1.1");
    server.stop().await;
}
