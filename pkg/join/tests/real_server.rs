//! Joining a whole control plane: its token, its approval, its signature.

#![allow(clippy::unwrap_used)]

use std::net::Ipv4Addr;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube1_controllers::{ControllerManager, ControllerManagerConfig};
use kube1_join::{CertificateRotation, JoinConfig, JoinError, NewToken, create_token, delete_token, join, list_tokens};
use kube1_supervisor::{Component, Context};
use kube1_test_support::{account_clients, admin, api_server, client_as};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

struct ControlPlane {
    admin: kube::Client,
    token: NewToken,
    _tasks: JoinSet<()>,
    dir: tempfile::TempDir,
}

async fn control_plane() -> ControlPlane {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (api, pki) = api_server(&dir.path().join("server"), address, Default::default()).await;
    let admin = admin(&api);
    let mut tasks = JoinSet::new();
    let served = api.clone();
    tasks.spawn(async move { served.serve(listener, CancellationToken::new()).await.unwrap() });
    let manager = ControllerManager::new(ControllerManagerConfig {
        client: client_as(&api, "system:kube-controller-manager", &[]),
        clients: account_clients(&api),
        ca: pki.ca.clone(),
        service_account_keys: pki.service_account_keys.clone(),
        root_ca_pem: pki.ca.certificate_pem().to_owned(),
        cluster_cidr: "10.42.0.0/16".parse().unwrap(),
    });
    tasks.spawn(async move { manager.run(Context::new(CancellationToken::new()).0).await.unwrap() });
    let token = NewToken {
        description: "test".into(),
        ttl: Some(Duration::from_secs(600)),
        servers: vec![address.to_string()],
        ca_hash: pki.ca.hash(),
    };
    ControlPlane { admin, token, _tasks: tasks, dir }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_gets_both_certificates() {
    let plane = control_plane().await;
    let token = create_token(&plane.admin, &plane.token).await.unwrap();
    let listed = list_tokens(&plane.admin).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert!(listed[0].id == token.id && listed[0].for_joining && !listed[0].is_expired);

    let stop = CancellationToken::new();
    let config = |name: &str| JoinConfig {
        data_dir: plane.dir.path().join(name),
        node_name: name.into(),
        token: Some(token.to_string().parse().unwrap()),
    };
    let own = config("n");
    let joining = join(&own, &stop);
    let node = tokio::time::timeout(Duration::from_secs(30), joining).await.expect("joined in time").unwrap();
    let nodes: Api<Node> = Api::all(node.client.clone());
    let object: Node = serde_json::from_value(json!({"metadata": {"name": "n"}})).unwrap();
    nodes.create(&PostParams::default(), &object).await.unwrap();
    let addresses = json!({"status": {"addresses": [
        {"type": "InternalIP", "address": "192.0.2.7"}, {"type": "Hostname", "address": "n"}]}});
    nodes.patch_status("n", &PatchParams::default(), &Patch::Merge(addresses)).await.unwrap();

    let rotation = CertificateRotation::new(node, vec!["192.0.2.7".parse().unwrap()]);
    let (ctx, _) = Context::new(CancellationToken::new());
    let shutdown = ctx.shutdown.clone();
    let pki = plane.dir.path().join("n/agent/pki");
    let issued = async {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        while kube1_pki::Leaf::read(&pki, "kubelet-serving").unwrap().is_none() {
            assert!(tokio::time::Instant::now() < deadline, "no serving certificate in time");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        shutdown.cancel();
    };
    let (result, ()) = tokio::join!(rotation.run(ctx), issued);
    result.unwrap();

    delete_token(&plane.admin, &token.id).await.unwrap();
    assert!(matches!(delete_token(&plane.admin, &token.id).await.unwrap_err(), JoinError::NoSuchToken(_)));
    let error = join(&config("m"), &stop).await.err().unwrap();
    assert!(matches!(error, JoinError::TokenRefused), "a deleted token is of no use: {error}");
}
