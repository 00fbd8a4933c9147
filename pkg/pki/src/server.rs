//! The certificates of a server and of the node in the same process.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::authority::Authority;
use crate::certificate::{AltName, Subject, Usage};
use crate::leaf::{Leaf, LeafProfile};
use crate::service_account::ServiceAccountKeys;
use crate::serving::ReloadingCertificate;
use crate::{PkiError, clock, create_private_dir};

/// Where the files of this crate are below the data directory.
#[derive(Clone, Debug)]
pub struct Layout {
    data_dir: PathBuf,
}

impl Layout {
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self { data_dir: data_dir.into() }
    }

    /// `server/tls`: authorities, the server's certificates and the service-account keys.
    pub fn server_tls(&self) -> PathBuf {
        self.data_dir.join("server/tls")
    }

    /// `agent/pki`: the node's certificates, on servers and agents alike.
    pub fn node_pki(&self) -> PathBuf {
        self.data_dir.join("agent/pki")
    }

    /// The kubelet's kubeconfig.
    pub fn kubelet_kubeconfig(&self) -> PathBuf {
        self.data_dir.join("agent/kubelet.kubeconfig")
    }

    /// The cluster's CA as this node knows it.
    pub fn node_ca(&self) -> PathBuf {
        self.node_pki().join("ca.crt")
    }
}

/// What the names in a server's certificates come from.
#[derive(Clone, Debug)]
pub struct ServerPkiConfig {
    pub data_dir: PathBuf,
    pub node_name: String,
    /// Addresses clients may use: the advertised one and the node's own.
    pub addresses: Vec<IpAddr>,
    /// Address of the Service `kubernetes`.
    pub service_ip: Option<IpAddr>,
    pub cluster_domain: String,
    /// `--tls-san`.
    pub extra_names: Vec<String>,
}

/// Authorities, keys and certificates of a server.
#[derive(Debug)]
pub struct ServerPki {
    config: ServerPkiConfig,
    layout: Layout,
    /// Signs serving and client certificates of the whole cluster; its certificate is the `kube-root-ca.crt` of pods.
    pub ca: Arc<Authority>,
    /// Signs the front proxy's client certificate, and nothing else, so that no ordinary client can pose as the proxy.
    pub request_header_ca: Arc<Authority>,
    pub service_account_keys: Arc<ServiceAccountKeys>,
    /// What the apiserver shows; replaced by [`ServerPki::renew`].
    pub serving: Arc<ReloadingCertificate>,
    /// What the apiserver shows to kubelets.
    pub kubelet_client: Arc<ReloadingCertificate>,
    /// What the apiserver shows to aggregated servers.
    pub proxy_client: Arc<ReloadingCertificate>,
}

/// The outcome of [`ServerPki::renew`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// Names of the certificates that were issued.
    pub renewed: Vec<String>,
    /// Seconds since 1970 at which the next one is due.
    pub next: i64,
}

const SERVING: &str = "kube-apiserver";
const KUBELET_CLIENT: &str = "apiserver-kubelet-client";
const PROXY_CLIENT: &str = "front-proxy-client";

impl ServerPki {
    /// Loads the server's files, making or renewing what is missing, unfit or due.
    pub fn open(config: ServerPkiConfig) -> Result<Self, PkiError> {
        let layout = Layout::new(&config.data_dir);
        let dir = layout.server_tls();
        create_private_dir(&dir)?;
        clock::raise_floor_from(&dir);
        let ca = Authority::load_or_create(&dir, "ca", "kubernetes-ca")?;
        let request_header_ca = Authority::load_or_create(&dir, "request-header-ca", "kubernetes-front-proxy-ca")?;
        let service_account_keys = Arc::new(ServiceAccountKeys::load_or_create(&dir)?);
        let (serving, _) = ca.ensure_leaf(&dir, SERVING, &serving_profile(&config))?;
        let (kubelet_client, _) =
            ca.ensure_leaf(&dir, KUBELET_CLIENT, &client("kube-apiserver-kubelet-client", &["system:masters"]))?;
        let (proxy_client, _) =
            request_header_ca.ensure_leaf(&dir, PROXY_CLIENT, &client("front-proxy-client", &[]))?;
        let pki = Self {
            serving: Arc::new(ReloadingCertificate::new(&serving)?),
            kubelet_client: Arc::new(ReloadingCertificate::new(&kubelet_client)?),
            proxy_client: Arc::new(ReloadingCertificate::new(&proxy_client)?),
            ca: Arc::new(ca),
            request_header_ca: Arc::new(request_header_ca),
            service_account_keys,
            config,
            layout,
        };
        pki.renew()?;
        Ok(pki)
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The administrator's certificate (group `system:masters`).
    pub fn admin(&self) -> Result<Leaf, PkiError> {
        Ok(self.ca.ensure_leaf(&self.layout.server_tls(), "admin", &client("kubernetes-admin", &["system:masters"]))?.0)
    }

    /// A component's client certificate, such as `kube-scheduler`, kept in `NAME.crt`.
    pub fn component(&self, name: &str) -> Result<Leaf, PkiError> {
        Ok(self.ca.ensure_leaf(&self.layout.server_tls(), name, &client(&format!("system:{name}"), &[]))?.0)
    }

    /// Issues again what is due or no longer fits, and shows it at once. Idempotent and cheap when nothing is due.
    pub fn renew(&self) -> Result<Renewal, PkiError> {
        let dir = self.layout.server_tls();
        let serving = serving_profile(&self.config);
        let mut renewal = Renewal { renewed: Vec::new(), next: i64::MAX };
        let live: [(&str, &Authority, LeafProfile, &ReloadingCertificate); 3] = [
            (SERVING, &self.ca, serving, &self.serving),
            (
                KUBELET_CLIENT,
                &self.ca,
                client("kube-apiserver-kubelet-client", &["system:masters"]),
                &self.kubelet_client,
            ),
            (PROXY_CLIENT, &self.request_header_ca, client("front-proxy-client", &[]), &self.proxy_client),
        ];
        for (name, ca, profile, shown) in live {
            let (leaf, issued) = ca.ensure_leaf(&dir, name, &profile)?;
            renewal.next = renewal.next.min(leaf.renew_at()?);
            if issued {
                shown.replace(&leaf)?;
                renewal.renewed.push(name.to_owned());
            }
        }
        self.renew_kept(&dir, &mut renewal)?;
        Ok(renewal)
    }

    /// Renews the client certificates that were once asked for and are only kept in files.
    fn renew_kept(&self, dir: &Path, renewal: &mut Renewal) -> Result<(), PkiError> {
        for name in ["admin", "kube-controller-manager", "kube-scheduler", "kube-proxy"] {
            let Some(old) = Leaf::read(dir, name)? else { continue };
            let kept = if name == "admin" { self.admin()? } else { self.component(name)? };
            renewal.next = renewal.next.min(kept.renew_at()?);
            if kept != old {
                renewal.renewed.push(name.to_owned());
            }
        }
        Ok(())
    }

    /// Certificates for the kubelet in this process, made without a request since the authority's key is at hand.
    pub fn node(&self, node_name: &str, addresses: &[IpAddr]) -> Result<NodePki, PkiError> {
        let dir = self.layout.node_pki();
        create_private_dir(&dir)?;
        let user = format!("system:node:{node_name}");
        let (client, _) = self.ca.ensure_leaf(&dir, "kubelet-client", &client(&user, &["system:nodes"]))?;
        let mut alt_names = vec![AltName::Dns(node_name.to_owned())];
        alt_names.extend(addresses.iter().copied().map(AltName::Ip));
        let profile =
            LeafProfile { subject: Subject::new(user, &["system:nodes"]), usages: vec![Usage::ServerAuth], alt_names };
        let (serving, _) = self.ca.ensure_leaf(&dir, "kubelet-serving", &profile)?;
        write_if_changed(&self.layout.node_ca(), self.ca.certificate_pem())?;
        Ok(NodePki { client, serving, ca_pem: self.ca.certificate_pem().to_owned() })
    }
}

/// A node's own certificates.
#[derive(Clone, Debug)]
pub struct NodePki {
    /// Client certificate of `system:node:NAME`.
    pub client: Leaf,
    /// What the kubelet's HTTPS API shows.
    pub serving: Leaf,
    pub ca_pem: String,
}

fn write_if_changed(path: &Path, text: &str) -> Result<(), PkiError> {
    if std::fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    crate::write_private(path, text.as_bytes())
}

fn client(common_name: &str, organizations: &[&str]) -> LeafProfile {
    LeafProfile {
        subject: Subject::new(common_name, organizations),
        usages: vec![Usage::ClientAuth],
        alt_names: vec![],
    }
}

fn serving_profile(config: &ServerPkiConfig) -> LeafProfile {
    let mut names: Vec<AltName> = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
        .iter()
        .map(|n| AltName::Dns((*n).to_owned()))
        .collect();
    names.push(AltName::Dns(format!("kubernetes.default.svc.{}", config.cluster_domain)));
    names.push(AltName::parse(&config.node_name));
    names.push(AltName::Ip(Ipv4Addr::LOCALHOST.into()));
    names.push(AltName::Ip(Ipv6Addr::LOCALHOST.into()));
    names.extend(config.addresses.iter().chain(&config.service_ip).copied().map(AltName::Ip));
    names.extend(config.extra_names.iter().map(|n| AltName::parse(n)));
    names.sort();
    names.dedup();
    LeafProfile { subject: Subject::new("kube-apiserver", &[]), usages: vec![Usage::ServerAuth], alt_names: names }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::list_expiries;

    fn config(data_dir: &Path) -> ServerPkiConfig {
        ServerPkiConfig {
            data_dir: data_dir.to_owned(),
            node_name: "node-1".into(),
            addresses: vec!["192.0.2.1".parse().unwrap()],
            service_ip: Some("10.43.0.1".parse().unwrap()),
            cluster_domain: "cluster.local".into(),
            extra_names: vec!["kube.example.com".into(), "203.0.113.4".into()],
        }
    }

    #[test]
    fn a_second_start_keeps_everything_and_a_new_address_renews_the_serving_certificate_only() {
        let dir = tempfile::tempdir().unwrap();
        let first = ServerPki::open(config(dir.path())).unwrap();
        let admin = first.admin().unwrap();
        let second = ServerPki::open(config(dir.path())).unwrap();
        assert_eq!(second.admin().unwrap(), admin);
        assert_eq!(second.renew().unwrap().renewed, Vec::<String>::new());
        assert_eq!(first.ca.hash(), second.ca.hash());
        let before = Leaf::read(&second.layout().server_tls(), SERVING).unwrap().unwrap();
        let mut moved = config(dir.path());
        moved.addresses = vec!["192.0.2.99".parse().unwrap()];
        let third = ServerPki::open(moved).unwrap();
        assert_ne!(Leaf::read(&third.layout().server_tls(), SERVING).unwrap().unwrap(), before);
        assert_eq!(third.admin().unwrap(), admin);
        crate::write_private(&third.layout().server_tls().join("admin.crt"), b"torn").unwrap();
        assert_eq!(third.renew().unwrap().renewed, ["admin"]);
        assert!(third.renew().unwrap().next > clock::unix_now() + 200 * 24 * 3600);
    }

    #[test]
    fn the_inventory_lists_every_certificate_soonest_first() {
        let dir = tempfile::tempdir().unwrap();
        let pki = ServerPki::open(config(dir.path())).unwrap();
        pki.admin().unwrap();
        pki.node("node-1", &[]).unwrap();
        let list = list_expiries(&[&pki.layout().server_tls(), &pki.layout().node_pki()]);
        assert_eq!(list.len(), 9, "{list:?}");
        assert!(list.is_sorted_by_key(|c| c.not_after));
        assert_eq!(list.iter().filter(|c| c.is_ca).count(), 3);
    }
}
