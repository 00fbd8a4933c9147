//! A node's way into the cluster, and its identity there.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kube1_pki::{
    AltName, Authority, Credential, Kubeconfig, Layout, Leaf, LeafProfile, PrivateKey, ReloadingCertificate, Subject,
    Usage, clock, create_private_dir, write_private,
};
use tokio_util::sync::CancellationToken;

use crate::csr::{CertificateWish, request_certificate};
use crate::servers::{Identity, Servers, connect};
use crate::{JoinError, JoinToken, fetch_ca, verify_ca};

pub(crate) const CLIENT: &str = "kubelet-client";
pub(crate) const SERVING: &str = "kubelet-serving";
const SERVERS: &str = "servers";
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(15);

/// What a node needs to know to join.
#[derive(Clone, Debug)]
pub struct JoinConfig {
    pub data_dir: PathBuf,
    pub node_name: String,
    /// Needed the first time only.
    pub token: Option<JoinToken>,
}

/// A node that has its client certificate.
#[derive(Clone)]
pub struct JoinedNode {
    /// Acts as `system:node:NAME`, always with the newest certificate.
    pub client: kube::Client,
    /// What the kubelet's HTTPS API is to show: a makeshift certificate until the cluster has signed one.
    pub serving: Arc<ReloadingCertificate>,
    /// The cluster's CA, which is also the authority of the kubelet's clients.
    pub ca_pem: String,
    pub servers: Servers,
    pub node_name: String,
    pub(crate) identity: Arc<ReloadingCertificate>,
    pub(crate) layout: Layout,
}

/// Joins the cluster, or goes on as the member that this node is already.
///
/// While no server can be reached it tries again, logging why; everything else ends it with an error that says what to do.
/// Cancel-safe: the next call goes on where this one stopped.
pub async fn join(config: &JoinConfig, stop: &CancellationToken) -> Result<JoinedNode, JoinError> {
    let layout = Layout::new(&config.data_dir);
    let dir = layout.node_pki();
    create_private_dir(&dir)?;
    clock::raise_floor_from(&dir);
    if let Some(known) = Membership::read(&layout)? {
        known.check(config)?;
        return known.open(config, layout);
    }
    let token = config.token.as_ref().ok_or(JoinError::NoToken)?;
    let mut delay = RETRY_MIN;
    loop {
        let attempt = stop.run_until_cancelled(join_once(config, token, &layout)).await;
        match attempt.ok_or(JoinError::Stopped)? {
            Ok(membership) => return membership.open(config, layout),
            Err(error) if error.is_final() => return Err(error),
            Err(error) => tracing::warn!(error = %kube1_supervisor::chain(&error), "cannot join yet; trying again"),
        }
        stop.run_until_cancelled(tokio::time::sleep(delay)).await.ok_or(JoinError::Stopped)?;
        delay = (delay * 2).min(RETRY_MAX);
    }
}

async fn join_once(config: &JoinConfig, token: &JoinToken, layout: &Layout) -> Result<Membership, JoinError> {
    let ca_pem = fetch_ca(token).await?;
    // Only now is it known that this node's clock is about right.
    if token.expires.is_some_and(|at| at <= clock::unix_now()) {
        return Err(JoinError::TokenExpired);
    }
    let servers = Servers::new(token.servers.iter().cloned());
    let client = connect(servers.clone(), &ca_pem, Identity::Token(token.bearer()))?;
    let key = pending_key(layout, CLIENT)?;
    tracing::info!(node = config.node_name, "asking for a client certificate with the join token");
    let leaf = request_certificate(&client, &client_wish(&config.node_name), &key).await?;
    let membership = Membership { client: leaf, ca_pem, servers: servers.addresses().to_vec() };
    membership.write(layout)?;
    forget_pending_key(layout, CLIENT);
    tracing::info!(node = config.node_name, "joined the cluster");
    Ok(membership)
}

/// The certificate a kubelet authenticates with.
pub(crate) fn client_wish(node_name: &str) -> CertificateWish<'static> {
    CertificateWish {
        signer: "kubernetes.io/kube-apiserver-client-kubelet",
        usage: "client auth",
        subject: subject(node_name),
        alt_names: Vec::new(),
    }
}

/// The certificate a kubelet's HTTPS API shows.
pub(crate) fn serving_wish(node_name: &str, addresses: &[IpAddr]) -> CertificateWish<'static> {
    let mut alt_names = vec![AltName::Dns(node_name.to_owned())];
    alt_names.extend(addresses.iter().copied().map(AltName::Ip));
    CertificateWish {
        signer: "kubernetes.io/kubelet-serving",
        usage: "server auth",
        subject: subject(node_name),
        alt_names,
    }
}

fn subject(node_name: &str) -> Subject {
    Subject::new(format!("system:node:{node_name}"), &["system:nodes"])
}

/// The key of a request that may be under way; kept in a file so that a restart goes on with it.
pub(crate) fn pending_key(layout: &Layout, name: &str) -> Result<PrivateKey, JoinError> {
    let path = layout.node_pki().join(format!("{name}.pending"));
    if let Some(key) = std::fs::read_to_string(&path).ok().and_then(|pem| PrivateKey::from_pem(&pem).ok()) {
        return Ok(key);
    }
    let key = PrivateKey::generate()?;
    write_private(&path, key.to_pem().as_bytes())?;
    Ok(key)
}

pub(crate) fn forget_pending_key(layout: &Layout, name: &str) {
    // When it stays, the next request uses the key once more, which harms nobody.
    let _ = std::fs::remove_file(layout.node_pki().join(format!("{name}.pending")));
}

/// What a node that has joined keeps in files.
struct Membership {
    client: Leaf,
    ca_pem: String,
    servers: Vec<String>,
}

impl Membership {
    /// `None` when this node has not joined, or when its certificate has expired.
    fn read(layout: &Layout) -> Result<Option<Self>, JoinError> {
        let dir = layout.node_pki();
        let (Some(client), Ok(ca_pem), Ok(servers)) = (
            Leaf::read(&dir, CLIENT)?,
            std::fs::read_to_string(layout.node_ca()),
            std::fs::read_to_string(dir.join(SERVERS)),
        ) else {
            return Ok(None);
        };
        let usable = client.is_pair() && client.not_after().is_ok_and(|end| end > clock::unix_now());
        if !usable {
            tracing::warn!("this node's client certificate has expired or is damaged; a join token is needed");
            return Ok(None);
        }
        Ok(Some(Self { client, ca_pem, servers: servers.lines().map(str::to_owned).collect() }))
    }

    fn write(&self, layout: &Layout) -> Result<(), JoinError> {
        let dir = layout.node_pki();
        write_private(&layout.node_ca(), self.ca_pem.as_bytes())?;
        write_private(&dir.join(SERVERS), self.servers.join("\n").as_bytes())?;
        let path = |suffix: &str| dir.join(format!("{CLIENT}.{suffix}")).display().to_string();
        let kubeconfig = Kubeconfig {
            name: "kube1".into(),
            server: format!("https://{}", self.servers.first().map_or("", String::as_str)),
            ca_pem: self.ca_pem.clone(),
            credential: Credential::Files { certificate: path("crt"), key: path("key") },
        };
        kubeconfig.write(&layout.kubelet_kubeconfig())?;
        // The certificate comes last: with it the node has joined.
        Ok(self.client.write(&dir, CLIENT)?)
    }

    /// Whether what the command line says fits to what this node is.
    fn check(&self, config: &JoinConfig) -> Result<(), JoinError> {
        if let Some(token) = &config.token {
            verify_ca(&self.ca_pem, &token.ca_hash).map_err(|_| JoinError::OtherCluster)?;
        }
        let name = Subject::of_certificate(&self.client.certificate_der()?)?.common_name;
        let found = name.strip_prefix("system:node:").unwrap_or_default();
        if found != config.node_name {
            return Err(JoinError::OtherName { found: found.to_owned(), wanted: config.node_name.clone() });
        }
        Ok(())
    }

    fn open(self, config: &JoinConfig, layout: Layout) -> Result<JoinedNode, JoinError> {
        let known = self.servers.clone();
        let mut addresses: Vec<String> = config.token.iter().flat_map(|t| t.servers.clone()).collect();
        addresses.extend(self.servers.into_iter().filter(|s| !s.is_empty()));
        let mut seen = std::collections::HashSet::new();
        addresses.retain(|a| seen.insert(a.clone()));
        if addresses != known {
            // A new token is also how a node learns that its servers have moved.
            write_private(&layout.node_pki().join(SERVERS), addresses.join("\n").as_bytes())?;
        }
        let servers = Servers::new(addresses);
        let identity = Arc::new(ReloadingCertificate::new(&self.client)?);
        let serving = match Leaf::read(&layout.node_pki(), SERVING)?.filter(Leaf::is_pair) {
            Some(leaf) => leaf,
            None => makeshift(&config.node_name)?,
        };
        Ok(JoinedNode {
            client: connect(servers.clone(), &self.ca_pem, Identity::Certificate(identity.clone()))?,
            serving: Arc::new(ReloadingCertificate::new(&serving)?),
            ca_pem: self.ca_pem,
            servers,
            node_name: config.node_name.clone(),
            identity,
            layout,
        })
    }
}

/// A certificate that nobody trusts, for the time until there is a real one.
fn makeshift(node_name: &str) -> Result<Leaf, JoinError> {
    let profile = LeafProfile {
        subject: subject(node_name),
        usages: vec![Usage::ServerAuth],
        alt_names: vec![AltName::Dns(node_name.to_owned())],
    };
    Ok(Authority::create("kubelet-makeshift")?.issue(&profile)?)
}
