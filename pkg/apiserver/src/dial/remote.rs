//! Servers outside the cluster that a kubeconfig file describes: webhooks for tokens, permissions and audit events.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use kube1_pki::{Leaf, ReloadingCertificate};
use rustls::ClientConfig;
use rustls::client::ResolvesClientCert;
use rustls_pki_types::ServerName;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::connect::{Address, DialError, Response, Target, Trust, send, tls_config};

/// Bundles of the host's own authorities, where systems keep them.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// By how much pauses between attempts grow, and how much longer one may be by chance.
const FACTOR: f64 = 1.5;
const JITTER: f64 = 0.2;

/// Why a kubeconfig file describes no server.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the kubeconfig {} cannot be used: {reason}", path.display())]
    Invalid { path: PathBuf, reason: String },
}

/// A server, and how this one proves to it who it is. Requests go to the very path of the kubeconfig's `server`.
#[derive(Clone)]
pub struct Remote {
    url: String,
    host: String,
    port: u16,
    path: String,
    /// None for plain HTTP.
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    credential: Option<String>,
    token_file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    clusters: Vec<Named<Cluster>>,
    #[serde(default)]
    users: Vec<Named<User>>,
    #[serde(default)]
    contexts: Vec<Named<Context>>,
    #[serde(default)]
    current_context: String,
}

#[derive(Deserialize)]
struct Named<T> {
    name: String,
    #[serde(alias = "cluster", alias = "user", alias = "context")]
    value: T,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Cluster {
    server: String,
    certificate_authority: String,
    certificate_authority_data: String,
    insecure_skip_tls_verify: bool,
    tls_server_name: String,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct User {
    client_certificate: String,
    client_certificate_data: String,
    client_key: String,
    client_key_data: String,
    token: String,
    #[serde(rename = "tokenFile")]
    token_file: String,
    username: String,
    password: String,
    exec: Option<serde::de::IgnoredAny>,
    auth_provider: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    #[serde(default)]
    user: String,
}

impl Remote {
    /// Reads the file's current context.
    pub fn from_kubeconfig(path: &Path) -> Result<Self, RemoteError> {
        let text = std::fs::read_to_string(path).map_err(|source| RemoteError::Read { path: path.into(), source })?;
        let read = || {
            let file: File = serde_saphyr::from_str(&text).map_err(|error| error.to_string())?;
            let (cluster, user) = file.current()?;
            Self::new(&cluster, &user, path.parent().unwrap_or(Path::new(".")))
        };
        read().map_err(|reason| RemoteError::Invalid { path: path.into(), reason })
    }

    fn new(cluster: &Cluster, user: &User, dir: &Path) -> Result<Self, String> {
        let uri: http::Uri = cluster.server.parse().map_err(|error| format!("server {:?}: {error}", cluster.server))?;
        let host = uri.host().ok_or_else(|| format!("server {:?} has no host", cluster.server))?;
        let host = host.trim_matches(['[', ']']).to_owned();
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(format!("server {:?} must begin with https://", cluster.server)),
        };
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        if user.exec.is_some() || user.auth_provider.is_some() {
            return Err("exec and auth-provider credentials are not supported: use a certificate or a token".into());
        }
        Ok(Self {
            tls: if secure { Some(tls(cluster, user, dir, &host)?) } else { None },
            url: cluster.server.clone(),
            path: uri.path_and_query().map_or("/", |p| p.as_str()).to_owned(),
            host,
            port,
            credential: match (user.token.as_str(), user.username.as_str()) {
                ("", "") => None,
                ("", name) => Some(format!("Basic {}", STANDARD.encode(format!("{name}:{}", user.password)))),
                (token, _) => Some(format!("Bearer {token}")),
            },
            token_file: (!user.token_file.is_empty()).then(|| dir.join(&user.token_file)),
        })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sends a JSON body over a connection of its own and reads the answer, all within `timeout`.
    pub async fn post(&self, body: Bytes, timeout: Duration) -> Result<Response, DialError> {
        tokio::time::timeout(timeout, self.exchange(body)).await.map_err(|_| DialError::Deadline)?
    }

    /// As [`Remote::post`], tried again when that fails for a reason that may pass. Only an answer of success is one.
    pub async fn post_with_retry(
        &self,
        body: Bytes,
        timeout: Duration,
        backoff: Duration,
        attempts: u32,
    ) -> Result<Bytes, DialError> {
        let mut pause = backoff;
        for attempt in 1.. {
            let (error, lasting) = match self.post(body.clone(), timeout).await {
                Ok(answer) if answer.status.is_success() => return Ok(answer.body),
                Ok(answer) => {
                    let lasting = answer.status.is_client_error() && answer.status != StatusCode::TOO_MANY_REQUESTS;
                    (DialError::Answer(format!("the status is {}", answer.status)), lasting)
                }
                // Whoever asked has waited long enough.
                Err(DialError::Deadline) => (DialError::Deadline, true),
                Err(error) => (error, false),
            };
            if lasting || attempt >= attempts {
                return Err(error);
            }
            tokio::time::sleep(pause.mul_f64(1.0 + rand::random::<f64>() * JITTER)).await;
            pause = pause.mul_f64(FACTOR);
        }
        Err(DialError::Deadline)
    }

    async fn exchange(&self, body: Bytes) -> Result<Response, DialError> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(&self.path)
            .header(HOST, format!("{}:{}", self.host, self.port))
            .header(USER_AGENT, "kube-apiserver-admission")
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json");
        if let Some(credential) = self.credential().await {
            request = request.header(AUTHORIZATION, credential);
        }
        let request = request.body(Full::new(body))?;
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(DialError::Connect)?;
        stream.set_nodelay(true).map_err(DialError::Connect)?;
        let Some((config, name)) = &self.tls else { return send(stream, request).await };
        let connector = TlsConnector::from(config.clone());
        send(connector.connect(name.clone(), stream).await.map_err(DialError::Tls)?, request).await
    }

    /// A token in a file is read each time, since whoever writes it replaces it.
    async fn credential(&self) -> Option<String> {
        if let Some(path) = &self.token_file
            && let Ok(token) = tokio::fs::read_to_string(path).await
        {
            return Some(format!("Bearer {}", token.trim()));
        }
        self.credential.clone()
    }
}

impl File {
    /// The cluster and user of the current context, or the only ones there are.
    fn current(self) -> Result<(Cluster, User), String> {
        let context = self.contexts.iter().find(|c| c.name == self.current_context).or(self.contexts.first());
        let Some(context) = context.map(|c| &c.value) else {
            let cluster = self.clusters.into_iter().next().ok_or("it names no cluster")?;
            return Ok((cluster.value, self.users.into_iter().next().map(|u| u.value).unwrap_or_default()));
        };
        let cluster = self.clusters.iter().find(|c| c.name == context.cluster).map(|c| c.value.clone());
        let cluster = cluster.ok_or_else(|| format!("there is no cluster {:?}", context.cluster))?;
        let user = self.users.iter().find(|u| u.name == context.user).map(|u| u.value.clone());
        Ok((cluster, user.unwrap_or_default()))
    }
}

fn tls(
    cluster: &Cluster,
    user: &User,
    dir: &Path,
    host: &str,
) -> Result<(Arc<ClientConfig>, ServerName<'static>), String> {
    let trust = match pem(&cluster.certificate_authority_data, &cluster.certificate_authority, dir)? {
        _ if cluster.insecure_skip_tls_verify => Trust::Anything,
        Some(bundle) => Trust::Authorities(bundle.into_bytes()),
        None => Trust::Authorities(system_authorities()),
    };
    let certificate = pem(&user.client_certificate_data, &user.client_certificate, dir)?;
    let key = pem(&user.client_key_data, &user.client_key, dir)?;
    let identity = match (certificate, key) {
        (Some(certificate_pem), Some(key_pem)) => {
            let shown = ReloadingCertificate::new(&Leaf { certificate_pem, key_pem });
            let shown = shown.map_err(|error| format!("the client certificate: {error}"))?;
            Some(Arc::new(shown) as Arc<dyn ResolvesClientCert>)
        }
        (None, None) => None,
        _ => return Err("a client certificate needs its key, and a key its certificate".into()),
    };
    let server_name = if cluster.tls_server_name.is_empty() { host } else { &cluster.tls_server_name }.to_owned();
    let name = ServerName::try_from(server_name.clone());
    let name = name.map_err(|_| format!("{server_name:?} is no name a certificate could have"))?;
    let target = Target { address: Address::Host(host.to_owned(), 0), server_name, trust, identity };
    let config = tls_config(&target).map_err(|error| format!("the certificate authorities: {error}"))?;
    Ok((Arc::new(config), name))
}

/// The PEM that is embedded, or else in a file.
fn pem(data: &str, file: &str, dir: &Path) -> Result<Option<String>, String> {
    let bytes = match (data, file) {
        ("", "") => return Ok(None),
        ("", file) => std::fs::read(dir.join(file)).map_err(|error| format!("{file}: {error}"))?,
        (data, _) => STANDARD.decode(data).map_err(|error| format!("embedded data: {error}"))?,
    };
    String::from_utf8(bytes).map(Some).map_err(|_| "embedded data is no PEM".into())
}

/// The authorities that the host believes, as PEM: those of `SSL_CERT_FILE`, or of the distribution; empty without any.
pub fn system_authorities() -> Vec<u8> {
    let configured = std::env::var_os("SSL_CERT_FILE").map(std::path::PathBuf::from);
    let mut files = configured.into_iter().chain(SYSTEM_BUNDLES.iter().map(std::path::PathBuf::from));
    files.find_map(|path| std::fs::read(path).ok()).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfig_names_one_server() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Remote::from_kubeconfig(&path)
        };
        let plain = read(
            "clusters: [{name: a, cluster: {server: 'http://127.0.0.1:8080/authorize?x=1'}}]\n\
             users: [{name: u, user: {token: t}}]\ncontexts: [{name: c, context: {cluster: a, user: u}}]\ncurrent-context: c\n",
        )
        .unwrap();
        assert_eq!((plain.host.as_str(), plain.port, plain.path.as_str()), ("127.0.0.1", 8080, "/authorize?x=1"));
        assert_eq!(plain.credential.as_deref(), Some("Bearer t"));
        assert!(plain.tls.is_none());
        let secure =
            read("clusters: [{name: a, cluster: {server: 'https://h', insecure-skip-tls-verify: true}}]\n").unwrap();
        assert!(secure.tls.is_some() && secure.port == 443 && secure.path == "/");
        for bad in [
            "clusters: []",
            "clusters: [{name: a, cluster: {server: 'ftp://h'}}]",
            "clusters: [{name: a, cluster: {server: 'https://h', certificate-authority: missing.pem}}]",
            "clusters: [{name: a, cluster: {server: 'https://h'}}]\nusers: [{name: u, user: {exec: {command: x}}}]",
            "clusters: [{name: a, cluster: {server: 'https://h'}}]\ncontexts: [{name: c, context: {cluster: b}}]",
        ] {
            assert!(matches!(read(bad), Err(RemoteError::Invalid { .. })), "{bad}");
        }
        assert!(matches!(Remote::from_kubeconfig(&dir.path().join("none")), Err(RemoteError::Read { .. })));
    }
}
