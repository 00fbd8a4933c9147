//! `kube1 server`: the control plane and, unless told otherwise, a worker beside it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::Context;
use ipnet::IpNet;
use kube1_apiserver::server::{ApiServer, Config, Front};
use kube1_apiserver::storage::SecretKey;
use kube1_apiserver::user::UserInfo;
use kube1_controllers::{ControllerManager, ControllerManagerConfig};
use kube1_pki::{Credential, Kubeconfig, ReloadingCertificate, ServerPki, ServerPkiConfig};
use kube1_scheduler::Scheduler;
use kube1_store::EmbeddedStore;
use kube1_supervisor::{ComponentState, Supervisor};
use tokio::net::TcpListener;

use crate::addons::Addons;
use crate::certificates::CertificateRenewal;
use crate::cli::{GlobalArgs, Part, ServerArgs};
use crate::frontend::Frontend;
use crate::layout::Layout;
use crate::node::{Node, run_until_stopped};
use crate::node_identity;
use crate::process_guard::ProcessGuard;
use crate::snapshot::SnapshotService;
use crate::worker::{Runtime, Worker, WorkerCredentials};

/// Runs until SIGTERM or SIGINT. What can be wrong with the host or the flags is said before anything is started.
pub async fn run(global: &GlobalArgs, args: &ServerArgs) -> anyhow::Result<()> {
    validate(args)?;
    let layout = Layout::new(&global.data_dir);
    let node = Node::find(layout.clone(), &args.node)?;
    let runtime = if args.disable_agent { None } else { Some(Runtime::prepare(&args.node)?) };
    let _guard = ProcessGuard::take(&layout)?;
    let advertise = args.advertise_address.unwrap_or_else(|| advertised(args.bind_address, node.address));
    let listener = listen(args).await?;
    let pki = Arc::new(open_pki(&layout, args, &node, advertise)?);
    let api = open_api(&layout, args, &pki, advertise).await?;
    write_kubeconfigs(&layout, args, &pki, advertise)?;

    let mut supervisor = Supervisor::new();
    supervisor.start(Arc::new(Frontend::new(api.clone(), listener)));
    supervisor.start(Arc::new(CertificateRenewal::new(Arc::clone(&pki))));
    supervisor.start(Arc::new(SnapshotService::new(layout.clone(), api.server().config.store.clone())));
    start_controllers(&mut supervisor, args, &api, &pki);
    show_components(&supervisor, &api);
    let admin = component_client(&api, &UserInfo::authenticated("system:kube1", &["system:masters"]));
    supervisor.start(Arc::new(Addons::new(admin, &args.node)));
    if let Some(runtime) = runtime {
        let user = UserInfo::authenticated(format!("system:node:{}", node.name), &["system:nodes"]);
        let node_pki = pki.node(&node.name, &[node.address])?;
        let credentials = WorkerCredentials {
            client: component_client(&api, &user),
            serving: Arc::new(ReloadingCertificate::new(&node_pki.serving)?),
            ca_pem: node_pki.ca_pem,
        };
        Worker { node: &node, args: &args.node, runtime: &runtime, credentials }.start(&mut supervisor)?;
    }
    run_until_stopped("server", &node, supervisor).await
}

fn component_client(api: &ApiServer, user: &UserInfo) -> kube::Client {
    kube1_client::in_process(api.in_process(user.clone()))
}

/// Names of components in ComponentStatus, and here.
const SHOWN: [(&str, &str); 2] = [("controller-manager", "kube-controller-manager"), ("scheduler", "kube-scheduler")];

/// Lets clients see whether the control plane's components are well.
fn show_components(supervisor: &Supervisor, api: &ApiServer) {
    for (shown, name) in SHOWN {
        let board = supervisor.board();
        api.server().components.add(shown, move || {
            let component = board.snapshot().into_iter().find(|c| c.name == name);
            let component = component.ok_or_else(|| "it is switched off on this server".to_owned())?;
            match component.state {
                ComponentState::Ready => Ok(()),
                state => Err(component.last_error.unwrap_or_else(|| format!("{state:?}").to_lowercase())),
            }
        });
    }
}

fn start_controllers(supervisor: &mut Supervisor, args: &ServerArgs, api: &ApiServer, pki: &Arc<ServerPki>) {
    let user = |name: &str| UserInfo::authenticated(format!("system:{name}"), &[]);
    if !args.node.disable.contains(&Part::ControllerManager) {
        let by_account = api.clone();
        let clients = move |account: &str| component_client(&by_account, &service_account(account));
        let mut controllers = ControllerManager::new(ControllerManagerConfig {
            client: component_client(api, &user("kube-controller-manager")),
            clients: Arc::new(clients),
            ca: Arc::clone(&pki.ca),
            service_account_keys: Arc::clone(&pki.service_account_keys),
            root_ca_pem: pki.ca.certificate_pem().to_owned(),
            cluster_cidr: args.node.cluster_cidr,
        });
        if args.node.disable.contains(&Part::Servicelb) {
            controllers = controllers.without("service-lb-controller");
        }
        supervisor.start(Arc::new(controllers));
    }
    if !args.node.disable.contains(&Part::Scheduler) {
        supervisor.start(Arc::new(Scheduler::new(component_client(api, &user("kube-scheduler")))));
    }
}

/// The identity of a controller, as upstream's controller-manager takes it for each of its loops.
fn service_account(name: &str) -> UserInfo {
    let groups = ["system:serviceaccounts", "system:serviceaccounts:kube-system"];
    UserInfo::authenticated(format!("system:serviceaccount:kube-system:{name}"), &groups)
}

fn validate(args: &ServerArgs) -> anyhow::Result<()> {
    let node = &args.node;
    anyhow::ensure!(
        node.service_cidr.contains(&node.cluster_dns),
        "--cluster-dns {} does not lie in --service-cidr {}",
        node.cluster_dns,
        node.service_cidr
    );
    let overlap = node.service_cidr.contains(&node.cluster_cidr) || node.cluster_cidr.contains(&node.service_cidr);
    anyhow::ensure!(!overlap, "--cluster-cidr {} and --service-cidr {} overlap", node.cluster_cidr, node.service_cidr);
    anyhow::ensure!(
        node.service_cidr.prefix_len() <= 28 && matches!(node.service_cidr, IpNet::V4(_)),
        "--service-cidr {} is not an IPv4 range of at least 16 addresses",
        node.service_cidr
    );
    Ok(())
}

async fn listen(args: &ServerArgs) -> anyhow::Result<TcpListener> {
    let address = SocketAddr::new(args.bind_address, args.https_listen_port);
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}: stop what uses the port, or choose another with --https-listen-port")
    })
}

/// Where others find a server that was not told: where it listens, unless that is everywhere or for this machine only.
fn advertised(bind: IpAddr, node: IpAddr) -> IpAddr {
    if bind.is_unspecified() || bind.is_loopback() { node } else { bind }
}

/// Where people on this machine reach it.
fn reached(bind: IpAddr, advertise: IpAddr) -> IpAddr {
    if bind.is_unspecified() { advertise } else { bind }
}

fn open_pki(layout: &Layout, args: &ServerArgs, node: &Node, advertise: IpAddr) -> anyhow::Result<ServerPki> {
    let mut addresses = vec![advertise, node.address, reached(args.bind_address, advertise)];
    addresses.extend(node_identity::host_addresses());
    addresses.sort();
    addresses.dedup();
    ServerPki::open(ServerPkiConfig {
        data_dir: layout.root().to_owned(),
        node_name: node.name.clone(),
        addresses,
        service_ip: args.node.service_cidr.hosts().next(),
        cluster_domain: args.node.cluster_domain.clone(),
        extra_names: args.tls_san.clone(),
    })
    .with_context(|| format!("cannot open the certificates in {}", layout.server().display()))
}

async fn open_api(
    layout: &Layout,
    args: &ServerArgs,
    pki: &Arc<ServerPki>,
    advertise: IpAddr,
) -> anyhow::Result<ApiServer> {
    let directory = layout.server().join("store");
    let store = tokio::task::spawn_blocking(move || EmbeddedStore::open(&directory)).await??;
    let secret_key = SecretKey::load_or_create(&layout.server().join("secrets.key"))?;
    let config = Config {
        store: Arc::new(store),
        pki: Arc::clone(pki),
        secret_key: Some(secret_key),
        advertise_address: advertise,
        port: args.https_listen_port,
        service_cidr: args.node.service_cidr,
        node_ports: args.service_node_port_range.first..=args.service_node_port_range.last,
        cluster_domain: args.node.cluster_domain.clone(),
        front: Front {
            flags: args.node.flags.clone(),
            tracing_config_file: args.node.tracing_config_file.clone(),
            ..args.front.front()
        },
    };
    Ok(ApiServer::new(config).await?)
}

fn write_kubeconfigs(layout: &Layout, args: &ServerArgs, pki: &ServerPki, advertise: IpAddr) -> anyhow::Result<()> {
    let admin = pki.admin()?;
    let kubeconfig = Kubeconfig {
        name: "kube1".into(),
        server: format!("https://{}", SocketAddr::new(reached(args.bind_address, advertise), args.https_listen_port)),
        ca_pem: pki.ca.certificate_pem().to_owned(),
        credential: Credential::Embedded { certificate_pem: admin.certificate_pem, key_pem: admin.key_pem },
    };
    kubeconfig.write(&layout.admin_kubeconfig())?;
    let public = &args.write_kubeconfig;
    if let Some(dir) = public.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    kubeconfig
        .write(public)
        .with_context(|| format!("cannot write {}: choose another place with --write-kubeconfig", public.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_looked_for_where_it_listens() {
        let [all, own, node, second] = [[0, 0, 0, 0], [127, 0, 0, 1], [10, 0, 0, 1], [10, 0, 0, 2]].map(IpAddr::from);
        for (bind, advertise, reach) in [(all, node, node), (own, node, own), (second, second, second)] {
            assert_eq!((advertised(bind, node), reached(bind, advertise)), (advertise, reach), "{bind}");
        }
    }
}
