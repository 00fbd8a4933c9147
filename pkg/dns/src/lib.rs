//! Cluster DNS, in the process on every node.
//!
//! The cluster's DNS address is an address of every node, so that a pod's queries never leave its node and are answered
//! from the last known state when the API server is away.

mod cache;
mod forward;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod message;
mod meters;
mod records;
mod server;
mod zone;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hickory_proto::rr::Name;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube1_client::{Informers, ObjectKey};
use kube1_network::rtnl::{Mac, NetlinkError, RouteSocket};
use kube1_network::{DNS_INTERFACE, ServiceChanges, slices_of};
use kube1_supervisor::{BoxError, Component, Context};
use parking_lot::RwLock;
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

use forward::Forwarder;
use message::Domain;
use meters::Meters;
pub use records::{Host, Port, Records};
use server::Resolver;
pub use zone::{Found, Snapshot, Zone};

const PORT: u16 = 53;
const MTU: u32 = 1500;
const MAC: u8 = 0x35;
/// How soon after a change the state is written to disk; many changes are written once.
const SAVE: Duration = Duration::from_secs(60);

/// Why the DNS server cannot run.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    #[error("{0} is not a domain name")]
    Domain(String),
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error("cannot serve DNS on {address} port {PORT} (does something else use it?)")]
    Listen { address: IpAddr, source: std::io::Error },
    #[error("the DNS server stopped by itself")]
    Stopped,
}

/// What the DNS server needs to know.
#[derive(Clone, Debug)]
pub struct DnsConfig {
    /// The cluster IP of the cluster's DNS service.
    pub address: IpAddr,
    /// The cluster's domain, normally `cluster.local`.
    pub domain: String,
    /// Names the servers to ask for everything else, normally `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
    /// The node's data directory; the last known state is in `dns` below it.
    pub data_dir: PathBuf,
    /// Where to tell monitoring what was asked and answered; CoreDNS uses port 9153.
    pub metrics: Option<SocketAddr>,
}

/// The node's DNS server as a component.
pub struct Dns {
    informers: Informers,
    config: DnsConfig,
    meters: Arc<Meters>,
}

impl Dns {
    /// `informers` act as the node and may be shared with its other components.
    pub fn new(informers: Informers, config: DnsConfig) -> Self {
        Self { informers, config, meters: Arc::default() }
    }

    fn state_file(&self) -> PathBuf {
        self.config.data_dir.join("dns/zone.json")
    }

    fn resolver(&self) -> Result<Arc<Resolver>, DnsError> {
        let name = Name::from_ascii(format!("{}.", self.config.domain.trim_end_matches('.')));
        let name = name.map_err(|_| DnsError::Domain(self.config.domain.clone()))?;
        let zone = read_zone(&self.state_file());
        Ok(Arc::new(Resolver {
            zone: RwLock::new(zone),
            domain: Domain { name, server: self.config.address },
            forwarder: Forwarder::new(self.config.resolv_conf.clone(), self.config.address, Arc::clone(&self.meters)),
            meters: Arc::clone(&self.meters),
        }))
    }

    fn records(&self, key: &ObjectKey) -> Option<Records> {
        let service = self.informers.all::<Service>().get(key)?;
        let slices = slices_of(&self.informers, key);
        Records::of(&service, slices.iter().map(AsRef::as_ref))
    }

    /// Keeps the zone as the API says. Never returns.
    async fn follow(&self, resolver: &Resolver) {
        let changes = ServiceChanges::follow(&self.informers);
        let (services, slices) = (self.informers.all::<Service>(), self.informers.all::<EndpointSlice>());
        tokio::join!(services.synced(), slices.synced());
        let mut zone = Zone::default();
        for service in services.list() {
            let key = ObjectKey::of(service.as_ref());
            zone.set(&key, self.records(&key));
        }
        *resolver.zone.write() = Some(zone);
        let mut save_at = tokio::time::Instant::now();
        let mut unsaved = true;
        loop {
            tokio::select! {
                () = changes.changed() => {
                    for key in changes.take() {
                        let records = self.records(&key);
                        resolver.zone.write().get_or_insert_default().set(&key, records);
                    }
                    if !unsaved {
                        (unsaved, save_at) = (true, tokio::time::Instant::now() + SAVE);
                    }
                }
                () = tokio::time::sleep_until(save_at), if unsaved => {
                    self.save(resolver);
                    unsaved = false;
                }
            }
        }
    }

    fn save(&self, resolver: &Resolver) {
        let path = self.state_file();
        let Some(snapshot) = resolver.zone.read().as_ref().map(Zone::snapshot) else { return };
        // Only the next start without a server would miss it.
        if let Err(error) = write_zone(&path, &snapshot) {
            tracing::warn!(path = %path.display(), %error, "cannot write the last known DNS state");
        }
    }

    async fn listen(&self) -> Result<(UdpSocket, TcpListener), DnsError> {
        add_address(self.config.address)?;
        let address = self.config.address;
        let failed = |source| DnsError::Listen { address, source };
        let udp = UdpSocket::bind((address, PORT)).await.map_err(failed)?;
        let tcp = TcpListener::bind((address, PORT)).await.map_err(failed)?;
        Ok((udp, tcp))
    }
}

/// Gives the host the address, on an interface of its own that leads nowhere.
fn add_address(address: IpAddr) -> Result<(), NetlinkError> {
    let mut socket = RouteSocket::open()?;
    let link = match socket.link(DNS_INTERFACE) {
        Err(error) if error.is_missing() => socket.create_bridge(DNS_INTERFACE, Mac::of(MAC, address), MTU)?,
        found => found?,
    };
    socket.set_up(link.index)?;
    socket.add_address(link.index, IpNet::from(address))
}

fn read_zone(path: &Path) -> Option<Zone> {
    serde_json::from_slice::<Snapshot>(&std::fs::read(path).ok()?).ok().map(Zone::from)
}

fn write_zone(path: &Path, snapshot: &Snapshot) -> std::io::Result<()> {
    let bytes = serde_json::to_vec(snapshot)?;
    if std::fs::read(path).is_ok_and(|now| now == bytes) {
        return Ok(());
    }
    std::fs::create_dir_all(path.parent().unwrap_or(path))?;
    let temporary = path.with_extension("new");
    std::fs::write(&temporary, bytes)?;
    std::fs::rename(temporary, path)
}

#[async_trait]
impl Component for Dns {
    fn name(&self) -> &str {
        "dns"
    }

    async fn run(&self, ctx: Context) -> Result<(), BoxError> {
        let resolver = self.resolver()?;
        let (udp, tcp) = self.listen().await?;
        let stop = ctx.shutdown.child_token();
        let (mut servers, mut meters) = (JoinSet::new(), JoinSet::new());
        servers.spawn(server::serve_udp(udp, Arc::clone(&resolver), stop.clone()));
        servers.spawn(server::serve_tcp(tcp, Arc::clone(&resolver), stop.clone()));
        if let Some(address) = self.config.metrics {
            match TcpListener::bind(address).await {
                Ok(listener) => drop(meters.spawn(meters::serve(listener, Arc::clone(&self.meters), stop.clone()))),
                // Names matter more than their count.
                Err(error) => tracing::warn!(%address, %error, "DNS metrics are not served"),
            }
        }
        ctx.ready();
        let work = async { tokio::join!(self.follow(&resolver), resolver.forwarder.probe_for_loops()) };
        // The servers end at shutdown too.
        let result = tokio::select! {
            biased;
            () = ctx.shutdown.cancelled() => Ok(()),
            _ = servers.join_next() => Err(DnsError::Stopped),
            _ = work => Err(DnsError::Stopped),
        };
        stop.cancel();
        while servers.join_next().await.is_some() {}
        while meters.join_next().await.is_some() {}
        self.save(&resolver);
        Ok(result?)
    }
}
