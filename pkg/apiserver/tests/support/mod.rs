//! A whole server over HTTPS in a temporary directory.

#![allow(dead_code, clippy::unwrap_used)]

pub mod grpc;
pub mod neighbour;
pub mod wire;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kube1_apiserver::server::{ApiServer, Front};
use kube1_pki::{Credential, Kubeconfig, ServerPki};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A running server; dropping it stops it.
pub struct TestServer {
    pub api: ApiServer,
    pub pki: Arc<ServerPki>,
    pub address: SocketAddr,
    dir: Option<TempDir>,
    shutdown: CancellationToken,
    serving: Option<JoinHandle<()>>,
}

impl TestServer {
    pub async fn start() -> Self {
        Self::start_with(|_| Front::default()).await
    }

    /// `front` is given the server's directory.
    pub async fn start_with(front: impl FnOnce(&Path) -> Front) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let front = front(dir.path());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        Self::start_in(dir, listener, front).await
    }

    /// Stops the server, waits for `over` and starts another with what it stored, at an address of its own.
    pub async fn restart_when<T>(self, over: impl AsyncFnOnce() -> T) -> (Self, T) {
        let (dir, told) = tokio::join!(self.stop(), over());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        (Self::start_in(dir, listener, Front::default()).await, told)
    }

    /// Stops the server and starts another with what it stored, at the same address.
    pub async fn restart(self) -> Self {
        let address = self.address;
        let dir = self.stop().await;
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        Self::start_in(dir, socket.listen(1024).unwrap(), Front::default()).await
    }

    /// Starts another server with what a stopped one stored, at an address of its own.
    pub async fn start_at(dir: TempDir, front: impl FnOnce(&Path) -> Front) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let front = front(dir.path());
        Self::start_in(dir, listener, front).await
    }

    async fn start_in(dir: TempDir, listener: TcpListener, front: Front) -> Self {
        let address = listener.local_addr().unwrap();
        let (api, pki) = kube1_test_support::api_server(dir.path(), address, front).await;
        let shutdown = CancellationToken::new();
        let (served, stop) = (api.clone(), shutdown.clone());
        let serving = tokio::spawn(async move { served.serve(listener, stop).await.unwrap() });
        Self { api, pki, address, dir: Some(dir), shutdown, serving: Some(serving) }
    }

    pub fn dir(&self) -> &Path {
        self.dir.as_ref().unwrap().path()
    }

    /// An administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        let path = self.dir().join("admin.kubeconfig");
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

    /// Stops the server and waits until it has; returns its directory.
    pub async fn stop(mut self) -> TempDir {
        self.shutdown.cancel();
        if let Some(serving) = self.serving.take() {
            serving.await.unwrap();
        }
        self.dir.take().unwrap()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}
