//! Whose client certificates are believed: the cluster's own authorities and those of files, which are followed while the
//! server runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::pki_types::CertificateDer;

use super::x509::{Authorities, AuthoritiesError, Judged, Peer};

/// The flags of client certificates and front proxies.
#[derive(Clone, Debug, Default)]
pub struct TrustOptions {
    /// `--client-ca-file`: authorities of users beside the cluster's own.
    pub client_ca_file: Option<PathBuf>,
    /// `--requestheader-client-ca-file`: authorities of front proxies beside the cluster's own.
    pub proxy_ca_file: Option<PathBuf>,
    /// `--requestheader-allowed-names`: common names that a proxy by that file's authorities may have; empty allows any.
    pub proxy_names: Vec<String>,
    pub headers: ProxyHeaders,
}

/// In which headers a front proxy names its user, lower-cased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyHeaders {
    pub user: Vec<String>,
    pub uid: Vec<String>,
    pub group: Vec<String>,
    pub extra_prefix: Vec<String>,
}

impl Default for ProxyHeaders {
    fn default() -> Self {
        let one = |name: &str| vec![name.to_owned()];
        Self {
            user: one("x-remote-user"),
            uid: one("x-remote-uid"),
            group: one("x-remote-group"),
            extra_prefix: one("x-remote-extra-"),
        }
    }
}

/// The common name that this cluster's own front proxy has.
const OWN_PROXY: &str = "front-proxy-client";

/// The authorities in effect.
pub struct Trust {
    own_clients: String,
    own_proxies: Option<String>,
    options: TrustOptions,
    current: ArcSwap<Trusted>,
}

/// One state of them.
pub(super) struct Trusted {
    /// Told apart from other states by this.
    pub generation: u64,
    pub clients: Authorities,
    pub proxies: Vec<Proxies>,
    client_bundle: String,
    proxy_bundle: String,
}

/// Authorities of front proxies with the names that they may have; none for any.
pub(super) struct Proxies {
    pub authorities: Authorities,
    pub names: Vec<String>,
}

impl Proxies {
    pub fn admit(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|n| n == name)
    }
}

impl Trust {
    /// The cluster's own authorities as PEM; without one of proxies only those of a file are trusted.
    pub fn open(own_clients: &str, own_proxies: Option<&str>, options: TrustOptions) -> Result<Self, AuthoritiesError> {
        let (own_clients, own_proxies) = (own_clients.to_owned(), own_proxies.map(str::to_owned));
        let trusted = Trusted::read(&own_clients, own_proxies.as_deref(), &options, 1)?;
        Ok(Self { own_clients, own_proxies, options, current: ArcSwap::from_pointee(trusted) })
    }

    /// The files that [`Trust::reload`] reads.
    pub fn files(&self) -> Vec<PathBuf> {
        self.options.client_ca_file.iter().chain(&self.options.proxy_ca_file).cloned().collect()
    }

    /// Takes the files over again, for connections that are open too; on error nothing changes.
    pub fn reload(&self) -> Result<(), AuthoritiesError> {
        let generation = self.current.load().generation + 1;
        let own_proxies = self.own_proxies.as_deref();
        let trusted = Trusted::read(&self.own_clients, own_proxies, &self.options, generation)?;
        self.current.store(Arc::new(trusted));
        Ok(())
    }

    pub(super) fn current(&self) -> arc_swap::Guard<Arc<Trusted>> {
        self.current.load()
    }

    /// Judges the certificates a client showed.
    pub fn peer(&self, chain: &[CertificateDer<'_>]) -> Peer {
        Peer::new(chain, &self.current.load())
    }

    /// What the client's certificates are worth now.
    pub(super) fn judge(&self, peer: &Peer) -> Arc<Judged> {
        peer.judged(&self.current.load())
    }

    pub fn headers(&self) -> &ProxyHeaders {
        &self.options.headers
    }

    /// What aggregated servers are told of front proxies: all authorities of clients and of proxies as PEM, and the names
    /// that proxies may have.
    pub fn published(&self) -> (String, String, Vec<String>) {
        let current = self.current.load();
        let mut names = Vec::new();
        if current.proxies.iter().all(|p| !p.names.is_empty()) {
            names = current.proxies.iter().flat_map(|p| p.names.clone()).collect();
        }
        (current.client_bundle.clone(), current.proxy_bundle.clone(), names)
    }
}

impl Trusted {
    fn read(
        own_clients: &str,
        own_proxies: Option<&str>,
        options: &TrustOptions,
        generation: u64,
    ) -> Result<Self, AuthoritiesError> {
        let client_file = options.client_ca_file.as_deref().map(read).transpose()?;
        let proxy_file = options.proxy_ca_file.as_deref().map(read).transpose()?;
        let client_bundle = joined(Some(own_clients), client_file.as_deref());
        let mut proxies = Vec::new();
        for (bundle, names) in
            [(own_proxies, &vec![OWN_PROXY.to_owned()]), (proxy_file.as_deref(), &options.proxy_names)]
        {
            if let Some(bundle) = bundle {
                proxies.push(Proxies { authorities: Authorities::from_pem(bundle)?, names: names.clone() });
            }
        }
        Ok(Self {
            generation,
            clients: Authorities::from_pem(&client_bundle)?,
            proxies,
            client_bundle,
            proxy_bundle: joined(own_proxies, proxy_file.as_deref()),
        })
    }
}

/// The text of a bundle that holds authorities and nothing wrong.
fn read(path: &Path) -> Result<String, AuthoritiesError> {
    let in_file = |source: AuthoritiesError| AuthoritiesError::InFile { path: path.into(), source: Box::new(source) };
    let text = std::fs::read_to_string(path).map_err(|source| in_file(AuthoritiesError::Open(source)))?;
    Authorities::from_pem(&text).map_err(in_file)?;
    Ok(text)
}

fn joined(one: Option<&str>, other: Option<&str>) -> String {
    let texts = [one, other].into_iter().flatten().map(str::trim_end);
    texts.map(|text| format!("{text}\n")).collect()
}
