//! Only the API server, for trying things by hand: `cargo run -p kube1-apiserver --example serve -- DIR PORT`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use kube1_apiserver::server::{ApiServer, Config};
use kube1_pki::{Credential, Kubeconfig, ServerPki, ServerPkiConfig};
use kube1_store::EmbeddedStore;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().ok_or("name a data directory")?);
    let port: u16 = args.next().ok_or("name a port")?.parse()?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let pki = Arc::new(ServerPki::open(ServerPkiConfig {
        data_dir: dir.clone(),
        node_name: "node-1".into(),
        addresses: vec![address.ip()],
        service_ip: Some("10.43.0.1".parse()?),
        cluster_domain: "cluster.local".into(),
        extra_names: vec![],
    })?);
    let admin = pki.admin()?;
    let kubeconfig = Kubeconfig {
        name: "kube1".into(),
        server: format!("https://{address}"),
        ca_pem: pki.ca.certificate_pem().to_owned(),
        credential: Credential::Embedded { certificate_pem: admin.certificate_pem, key_pem: admin.key_pem },
    };
    kubeconfig.write(&dir.join("kubeconfig"))?;
    let api = ApiServer::new(Config {
        store: Arc::new(EmbeddedStore::open(&dir.join("store"))?),
        pki,
        secret_key: None,
        advertise_address: address.ip(),
        port,
        service_cidr: "10.43.0.0/16".parse()?,
        node_ports: 30000..=32767,
        cluster_domain: "cluster.local".into(),
        front: Default::default(),
    })
    .await?;
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let signal = async move {
        let _ = tokio::signal::ctrl_c().await;
        stop.cancel();
    };
    let (served, ()) = tokio::join!(api.serve(TcpListener::bind(address).await?, shutdown), signal);
    served?;
    Ok(())
}
