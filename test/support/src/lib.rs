//! A real API server in the process, for the tests of every crate that talks to one.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use kube::Client;
use kube1_apiserver::server::{ApiServer, Config, Front};
use kube1_apiserver::user::UserInfo;
use kube1_pki::{ServerPki, ServerPkiConfig};
use kube1_store::EmbeddedStore;

/// The node that the server is on.
pub const NODE: &str = "node-1";

/// An API server that says it is at `address`, with its keys; both keep what they have in `dir`. Nothing listens yet.
pub async fn api_server(dir: &Path, address: SocketAddr, front: Front) -> (ApiServer, Arc<ServerPki>) {
    let pki = ServerPki::open(ServerPkiConfig {
        data_dir: dir.to_owned(),
        node_name: NODE.into(),
        addresses: vec![address.ip()],
        service_ip: Some("10.43.0.1".parse().unwrap()),
        cluster_domain: "cluster.local".into(),
        extra_names: vec![],
    });
    let pki = Arc::new(pki.unwrap());
    let api = ApiServer::new(Config {
        store: Arc::new(EmbeddedStore::open(&dir.join("store")).unwrap()),
        pki: pki.clone(),
        secret_key: None,
        advertise_address: address.ip(),
        port: address.port(),
        service_cidr: "10.43.0.0/16".parse().unwrap(),
        node_ports: 30000..=32767,
        cluster_domain: "cluster.local".into(),
        front,
    });
    (api.await.unwrap(), pki)
}

/// A client in the process, as this user.
pub fn client_as(api: &ApiServer, name: impl Into<String>, groups: &[&str]) -> Client {
    kube1_client::in_process(api.in_process(UserInfo::authenticated(name, groups)))
}

/// The same as one who may do everything.
pub fn admin(api: &ApiServer) -> Client {
    client_as(api, "admin", &["system:masters"])
}

/// Clients as service accounts of `kube-system`, by the account's name: what controllers write with.
pub fn account_clients(api: &ApiServer) -> Arc<dyn Fn(&str) -> Client + Send + Sync> {
    let api = api.clone();
    Arc::new(move |account| {
        let groups = ["system:serviceaccounts", "system:serviceaccounts:kube-system"];
        client_as(&api, format!("system:serviceaccount:kube-system:{account}"), &groups)
    })
}
