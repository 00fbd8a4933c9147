//! The node's part of the pod network: bridge, tunnel to the other nodes, routes, masquerading, CNI configuration.

mod devices;
mod files;
mod peers;
mod sysctl;
mod table;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ipnet::IpNet;
use kube1_client::{Informers, Keep, ObjectKey};
use kube1_supervisor::{BoxError, Component, Context};
use tokio::sync::Notify;

use crate::cni::{Addresses, AllocationError};
use crate::nft::{NftError, Table};
use crate::rtnl::{NetlinkError, RouteSocket};
use crate::{BRIDGE, TABLE, TUNNEL};
pub use files::State;
pub use peers::Peer;
use peers::PeerNode;

/// How often the kernel's state is compared with what it should be, in case somebody else changed it.
const RESYNC: Duration = Duration::from_secs(60);

/// Why the node's network could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error(transparent)]
    Nft(#[from] NftError),
    #[error(transparent)]
    Addresses(#[from] AllocationError),
    #[error("cannot write {}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("cannot set kernel parameter {name} (is /proc/sys writable?)")]
    Sysctl { name: String, source: std::io::Error },
    #[error("the node's pod network was interrupted while it was set up")]
    Interrupted(#[from] tokio::task::JoinError),
}

/// What an overlay needs to know of its node.
#[derive(Clone, Debug)]
pub struct OverlayConfig {
    pub node_name: String,
    pub node_ip: IpAddr,
    /// The node's data directory; the network's state is in `network` below it.
    pub data_dir: PathBuf,
    /// The addresses of all pods of the cluster.
    pub cluster_cidr: IpNet,
    /// The addresses of services. The host gets a route to them, as it may have no default route.
    pub service_cidrs: Vec<IpNet>,
    /// Where the container runtime looks for plugins and network configurations.
    pub cni_bin_dir: PathBuf,
    pub cni_conf_dir: PathBuf,
    /// The kube1 binary, which is also the plugins.
    pub executable: PathBuf,
}

/// The node's pod network as a component.
///
/// It starts from the last known state on disk, so that a node whose server is away has its network after a reboot too.
/// Stopping it leaves everything in the kernel; [`crate::cleanup`] removes it.
pub struct Overlay {
    informers: Informers,
    config: OverlayConfig,
}

impl Overlay {
    /// `informers` act as the node and may be shared with its other components.
    pub fn new(informers: Informers, config: OverlayConfig) -> Self {
        Self { informers, config }
    }

    /// What the Nodes say; nothing before this node has got its range of pod addresses.
    fn wanted(&self) -> Option<State> {
        let nodes = self.informers.all::<PeerNode>();
        let subnet = nodes.get(&ObjectKey::new("", &*self.config.node_name))?.subnet?;
        let all = nodes.list();
        let others = all.iter().filter(|node| node.full_name().1 != self.config.node_name);
        let mut peers: Vec<Peer> = others.filter_map(|node| node.peer()).collect();
        peers.sort_unstable();
        Some(State { node_ip: self.config.node_ip, subnet, peers })
    }

    async fn apply(&self, state: &State) -> Result<(), OverlayError> {
        let (config, state) = (self.config.clone(), state.clone());
        tokio::task::spawn_blocking(move || set_up(&config, &state)).await?
    }
}

#[async_trait]
impl Component for Overlay {
    fn name(&self) -> &str {
        "network"
    }

    async fn run(&self, ctx: Context) -> Result<(), BoxError> {
        let changed = Arc::new(Notify::new());
        let nodes = self.informers.all::<PeerNode>();
        let notify = Arc::clone(&changed);
        nodes.add_handler(move |_| notify.notify_one());
        let mut current =
            State::read(&state_dir(&self.config.data_dir)).filter(|state| state.node_ip == self.config.node_ip);
        if let Some(state) = &current {
            self.apply(state).await?;
            ctx.ready();
        }
        loop {
            let resync = tokio::select! {
                () = ctx.shutdown.cancelled() => return Ok(()),
                () = changed.notified() => false,
                () = tokio::time::sleep(RESYNC) => true,
            };
            let wanted = if nodes.has_synced() { self.wanted() } else { None };
            let changes = wanted.is_some() && wanted != current;
            if changes {
                current = wanted;
            }
            if let Some(state) = current.as_ref().filter(|_| changes || resync) {
                self.apply(state).await?;
                ctx.ready();
            }
        }
    }
}

/// Where a node keeps what it knows of its network.
fn state_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("network")
}

/// Makes the network of the calling thread's namespace as `state` says. Harmless to repeat.
pub fn set_up(config: &OverlayConfig, state: &State) -> Result<(), OverlayError> {
    let dir = state_dir(&config.data_dir);
    let mut socket = RouteSocket::open()?;
    let devices = devices::ensure(&mut socket, state)?;
    devices::route_services(&mut socket, &devices, state.subnet, &config.service_cidrs)?;
    sysctl::set_all(devices.tunnel.is_some())?;
    replace_table(&dir, config.cluster_cidr)?;
    table::pass_other_firewalls(config.cluster_cidr)?;
    sysctl::set_timeouts()?;
    if let Some(tunnel) = devices.tunnel {
        peers::program(&mut socket, tunnel, config.cluster_cidr, &state.peers)?;
    }
    state.write(&dir)?;
    // Last, since this is what makes the runtime say that its network is ready.
    files::write_cni(config, &dir, state.subnet, devices.mtu)
}

fn replace_table(dir: &Path, cluster_cidr: IpNet) -> Result<(), OverlayError> {
    // No plugin may add a pod's host ports between our reading of them and the transaction.
    let _lock = Addresses::lock(&files::pods_dir(dir))?;
    Ok(Table::new(TABLE).replace(&table::content(dir, cluster_cidr))?)
}

/// Removes interfaces, tables and state of the node's network, if this data directory's node has set one up.
pub async fn cleanup(data_dir: &Path) -> Result<(), OverlayError> {
    let dir = state_dir(data_dir);
    tokio::task::spawn_blocking(move || tear_down(&dir)).await?
}

fn tear_down(dir: &Path) -> Result<(), OverlayError> {
    if !dir.exists() {
        return Ok(());
    }
    let mut socket = RouteSocket::open()?;
    if let Ok(bridge) = socket.link(BRIDGE) {
        let ports = socket.links()?.into_iter().filter(|link| link.controller == Some(bridge.index));
        for port in ports.collect::<Vec<_>>() {
            socket.delete_link(&port.name)?;
        }
    }
    for name in [BRIDGE, TUNNEL, crate::DNS_INTERFACE] {
        socket.delete_link(name)?;
    }
    table::leave_other_firewalls()?;
    for name in [TABLE, crate::PROXY_TABLE, crate::POLICY_TABLE] {
        Table::new(name).delete()?;
    }
    std::fs::remove_dir_all(dir).map_err(|source| OverlayError::File { path: dir.to_owned(), source })
}
