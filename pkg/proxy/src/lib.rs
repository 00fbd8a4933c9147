//! Services and EndpointSlices to nftables.

mod endpoints;
mod flows;
mod health;
mod rules;
mod saved;
mod service;
mod state;

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube1_client::{Informer, Informers, ObjectKey, Selection};
use kube1_network::nft::NftError;
use kube1_network::{PROXY_TABLE, ServiceChanges, slices_of};
use kube1_supervisor::{BoxError, Component, Context};
use kube1_telemetry::port;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

pub use endpoints::{Place, Targets, targets};
pub use flows::Fronts;
use health::{Health, HealthChecks};
pub use rules::{Fragment, fragment};
use saved::SavedService;
pub use service::{ServicePort, health_check_port, ports_of};
pub use state::TableState;

const ZONE: &str = "topology.kubernetes.io/zone";
/// How often the table is looked for, in case other software removed it, and the last known state is written.
const CHECK: Duration = Duration::from_secs(30);

/// Why the proxy stopped; it starts again with a table made anew.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    #[error(transparent)]
    Nft(#[from] NftError),
    #[error("nftables table {PROXY_TABLE} was removed by somebody else")]
    Removed,
    #[error("cannot serve health checks on {address}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("the proxy was interrupted")]
    Interrupted(#[from] tokio::task::JoinError),
}

/// What a proxy needs to know of its node.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    pub node_name: String,
    /// Addresses of pods, at most one range for each IP family.
    pub cluster_cidrs: Vec<IpNet>,
    /// Cluster IPs that this node serves by itself, such as that of the cluster's DNS.
    pub served_here: Vec<IpAddr>,
    /// The node's data directory; the last known services are in `proxy` below it.
    pub data_dir: PathBuf,
    /// Where to say that the proxy is healthy; upstream uses port 10256.
    pub healthz: Option<SocketAddr>,
    /// Where to tell the administrator how it works; upstream uses port 10249 of the loopback address.
    pub status: Option<SocketAddr>,
}

/// The service proxy as a component. Its table stays in the kernel when it stops.
pub struct Proxy {
    informers: Informers,
    config: ProxyConfig,
    health: Arc<Health>,
}

/// What is computed from one service's objects.
#[derive(Default)]
struct Computed {
    fragment: Fragment,
    health: Option<(u16, usize)>,
}

impl Proxy {
    /// `informers` act as the node and may be shared with its other components.
    pub fn new(informers: Informers, config: ProxyConfig) -> Self {
        Self { informers, config, health: Arc::default() }
    }

    fn own_node(&self) -> Informer<Node> {
        let field_selector = format!("metadata.name={}", self.config.node_name);
        self.informers.select(Selection { field_selector, ..Selection::default() })
    }

    fn place(&self) -> Place {
        let own = self.own_node().get(&ObjectKey::new("", &*self.config.node_name));
        let zone = own.and_then(|node| node.metadata.labels.as_ref()?.get(ZONE).cloned());
        Place { node: self.config.node_name.clone(), zone }
    }

    /// The ports of a service and where each leads.
    fn ports(&self, service: &Service, place: &Place) -> Vec<(ServicePort, Targets)> {
        let slices = slices_of(&self.informers, &ObjectKey::of(service));
        let here = |port: &ServicePort| self.config.served_here.contains(&port.cluster_ip);
        let ports = ports_of(service).into_iter().filter(|port| !here(port));
        ports
            .map(|port| {
                let targets = targets(&port, slices.iter().map(AsRef::as_ref), place);
                (port, targets)
            })
            .collect()
    }

    fn fragment(&self, ports: &[(ServicePort, Targets)]) -> Fragment {
        let mut whole = Fragment::default();
        for (port, targets) in ports {
            let part = fragment(port, targets, &self.config.cluster_cidrs);
            whole.own.sets.extend(part.own.sets);
            whole.own.chains.extend(part.own.chains);
            whole.shared.extend(part.shared);
        }
        whole
    }

    fn compute(&self, key: &ObjectKey, place: &Place, fronts: &mut Fronts) -> Computed {
        let Some(service) = self.informers.all::<Service>().get(key) else { return Computed::default() };
        let ports = self.ports(&service, place);
        ports.iter().for_each(|(port, targets)| fronts.add(port, targets));
        let ready_here = ports.iter().map(|(_, targets)| targets.ready_here).max().unwrap_or_default();
        let health = health_check_port(&service).map(|port| (port, ready_here));
        Computed { fragment: self.fragment(&ports), health }
    }

    /// Serves the last known services if the kernel has none, as after a reboot.
    async fn restore(&self) -> Result<(), ProxyError> {
        let Some(saved) = saved::read(&self.config.data_dir) else { return Ok(()) };
        let mut state = TableState::new(PROXY_TABLE, &self.config.cluster_cidrs);
        let fragments = saved.iter().map(|service| (service.key(), self.fragment(&service.ports))).collect();
        let restored =
            tokio::task::spawn_blocking(move || if state.is_there()? { Ok(()) } else { state.replace(fragments) });
        Ok(restored.await??)
    }

    fn save(&self, place: &Place) {
        let mut services: Vec<_> = self.informers.all::<Service>().list();
        services.sort_by_cached_key(|service| ObjectKey::of(service.as_ref()));
        let saved = services.iter().map(|service| {
            let ObjectKey { namespace, name } = ObjectKey::of(service.as_ref());
            SavedService { namespace, name, ports: self.ports(service, place) }
        });
        // Only the next start without a server would miss it.
        if let Err(error) = saved::write(&self.config.data_dir, &saved.collect::<Vec<_>>()) {
            tracing::warn!(%error, "cannot write the last known services");
        }
    }

    async fn serve(&self, ctx: &Context) -> Result<(), ProxyError> {
        let changes = ServiceChanges::follow(&self.informers);
        let (services, slices) = (self.informers.all::<Service>(), self.informers.all::<EndpointSlice>());
        let node = self.own_node();
        self.restore().await?;
        let synced = async { tokio::join!(services.synced(), slices.synced(), node.synced()) };
        if ctx.shutdown.run_until_cancelled(synced).await.is_none() {
            return Ok(());
        }
        let mut worker = Worker {
            state: Some(TableState::new(PROXY_TABLE, &self.config.cluster_cidrs)),
            health: HealthChecks::new(ctx.shutdown.clone()),
            ports: HashMap::new(),
        };
        let mut place = self.place();
        changes.take();
        let all = services.list().iter().map(|service| ObjectKey::of(service.as_ref())).collect();
        worker.apply(self, all, &place, true).await?;
        ctx.ready();
        let (mut unsaved, mut ticks) = (true, tokio::time::interval(CHECK));
        loop {
            tokio::select! {
                () = ctx.shutdown.cancelled() => {
                    self.save(&place);
                    return Ok(());
                }
                () = changes.changed() => {}
                _ = ticks.tick() => {
                    if !worker.is_there()? {
                        return Err(ProxyError::Removed);
                    }
                    if std::mem::take(&mut unsaved) {
                        self.save(&place);
                    }
                }
            }
            let mut keys = changes.take();
            let now = self.place();
            if now != place {
                place = now;
                keys.extend(services.list().iter().map(|service| ObjectKey::of(service.as_ref())));
            }
            if !keys.is_empty() {
                worker.apply(self, keys, &place, false).await?;
                unsaved = true;
            }
        }
    }
}

struct Worker {
    /// Absent only while a transaction runs on its own thread.
    state: Option<TableState>,
    health: HealthChecks,
    /// By service, its health check port and the number of its ready endpoints here.
    ports: HashMap<ObjectKey, (u16, usize)>,
}

impl Worker {
    async fn apply(
        &mut self,
        proxy: &Proxy,
        keys: HashSet<ObjectKey>,
        place: &Place,
        everything: bool,
    ) -> Result<(), ProxyError> {
        let (mut fronts, began) = (Fronts::default(), Instant::now());
        let mut fragments = Vec::with_capacity(keys.len());
        for key in keys {
            let computed = proxy.compute(&key, place, &mut fronts);
            match computed.health {
                Some(health) => self.ports.insert(key.clone(), health),
                None => self.ports.remove(&key),
            };
            fragments.push((key, computed.fragment));
        }
        let count = fragments.len();
        let mut state = self.state.take().unwrap_or_else(|| TableState::new(PROXY_TABLE, &proxy.config.cluster_cidrs));
        let transaction = tokio::task::spawn_blocking(move || {
            let result =
                if everything { state.replace(fragments.into_iter().collect()) } else { state.update(fragments) };
            result?;
            tracing::debug!(services = count, "services updated");
            // Without it clients of UDP services wait for a time-out; that is no reason to serve nobody.
            if !fronts.is_empty()
                && let Err(error) = fronts.forget_stale()
            {
                tracing::warn!(%error, "cannot forget UDP flows to endpoints that are gone");
            }
            Ok::<_, ProxyError>(state)
        });
        let done = transaction.await?;
        if done.is_err() {
            proxy.health.failed();
        }
        self.state = Some(done?);
        let wanted = self.ports.iter().map(|(key, (port, ready))| (*port, (key.clone(), *ready))).collect();
        self.health.set(&wanted).await;
        proxy.health.updated(everything, count, began.elapsed());
        Ok(())
    }

    fn is_there(&self) -> Result<bool, ProxyError> {
        match &self.state {
            Some(state) => Ok(state.is_there()?),
            None => Ok(false),
        }
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, ProxyError> {
    TcpListener::bind(address).await.map_err(|source| ProxyError::Listen { address, source })
}

#[async_trait]
impl Component for Proxy {
    fn name(&self) -> &str {
        "kube-proxy"
    }

    async fn run(&self, ctx: Context) -> Result<(), BoxError> {
        let mut servers = JoinSet::new();
        if let Some(address) = self.config.healthz {
            let health = Arc::clone(&self.health);
            let serving =
                port::serve(listen(address).await?, ctx.shutdown.child_token(), move |path| health.public(path));
            servers.spawn(serving);
        }
        if let Some(address) = self.config.status {
            let health = Arc::clone(&self.health);
            let serving =
                port::serve(listen(address).await?, ctx.shutdown.child_token(), move |path| health.local(path));
            servers.spawn(serving);
        }
        let result = self.serve(&ctx).await;
        servers.shutdown().await;
        Ok(result?)
    }
}
