//! Watches for clients that speak websockets.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use futures::StreamExt;
use kube1_apiserver::dial::{self, Target, Trust};
use kube1_pki::ReloadingCertificate;
use serde_json::Value;
use support::TestServer;

#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_a_message() {
    let server = TestServer::start().await;
    let target = Target {
        address: server.address.into(),
        server_name: "127.0.0.1".into(),
        trust: Trust::Authorities(server.pki.ca.certificate_pem().as_bytes().to_vec()),
        identity: Some(Arc::new(ReloadingCertificate::new(&server.pki.admin().unwrap()).unwrap())),
    };
    let stream = dial::connect(&target).await.unwrap();
    let url = format!("wss://{}/api/v1/namespaces?watch=true&timeoutSeconds=1", server.address);
    let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
    let mut names = Vec::new();
    while let Some(Ok(message)) = socket.next().await {
        let Ok(text) = message.to_text() else { continue };
        let Ok(event) = serde_json::from_str::<Value>(text) else { continue };
        assert_eq!(event["type"], "ADDED");
        names.push(event["object"]["metadata"]["name"].as_str().unwrap().to_owned());
    }
    assert_eq!(names, ["default", "kube-node-lease", "kube-public", "kube-system"]);
    server.stop().await;
}
