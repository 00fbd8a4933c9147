//! A whole server over HTTPS in a temporary directory.

#![allow(dead_code, clippy::unwrap_used)]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use kube1_apiserver::server::{ApiServer, Config};
use kube1_pki::{Credential, Kubeconfig, ServerPki, ServerPkiConfig};
use kube1_store::EmbeddedStore;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A running server; dropping it stops it.
pub struct TestServer {
    pub api: ApiServer,
    pub pki: Arc<ServerPki>,
    pub address: SocketAddr,
    pub dir: TempDir,
    shutdown: CancellationToken,
    serving: Option<JoinHandle<()>>,
}

impl TestServer {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let pki = ServerPki::open(ServerPkiConfig {
            data_dir: dir.path().to_owned(),
            node_name: "node-1".into(),
            addresses: vec![address.ip()],
            service_ip: Some("10.43.0.1".parse().unwrap()),
            cluster_domain: "cluster.local".into(),
            extra_names: vec![],
        });
        let pki = Arc::new(pki.unwrap());
        let store = EmbeddedStore::open(&dir.path().join("store")).unwrap();
        let api = ApiServer::new(Config {
            store: Arc::new(store),
            pki: pki.clone(),
            secret_key: None,
            advertise_address: address.ip(),
            port: address.port(),
            service_cidr: "10.43.0.0/16".parse().unwrap(),
            node_ports: 30000..=32767,
            cluster_domain: "cluster.local".into(),
            authentication: None,
            audit_log: None,
        });
        let api = api.await.unwrap();
        let shutdown = CancellationToken::new();
        let (served, stop) = (api.clone(), shutdown.clone());
        let serving = tokio::spawn(async move { served.serve(listener, stop).await.unwrap() });
        Self { api, pki, address, dir, shutdown, serving: Some(serving) }
    }

    /// An administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        let path = self.dir.path().join("admin.kubeconfig");
        let admin = self.pki.admin().unwrap();
        let kubeconfig = Kubeconfig {
            server: format!("https://{}", self.address),
            ca_pem: self.pki.ca.certificate_pem().to_owned(),
            name: "admin".into(),
            credential: Credential::Embedded { certificate_pem: admin.certificate_pem, key_pem: admin.key_pem },
        };
        kubeconfig.write(&path).unwrap();
        path
    }

    /// A client over HTTPS as the administrator.
    pub async fn admin(&self) -> kube::Client {
        kube1_client::from_kubeconfig(&self.kubeconfig()).await.unwrap()
    }

    /// Stops the server and waits until it has.
    pub async fn stop(mut self) {
        self.shutdown.cancel();
        if let Some(serving) = self.serving.take() {
            serving.await.unwrap();
        }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}
