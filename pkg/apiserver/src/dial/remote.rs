//! Servers outside the cluster that a kubeconfig file describes: webhooks for tokens, permissions, images and audit events.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::connect::{Address, DialError, Response, Target, Trust, send, tls_config};
use super::kubeconfig::{Cluster, Credential, Kubeconfig, RemoteError, User, pem};
use crate::reload::{Fresh, Made};

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

/// A server, and how this one proves to it who it is. Requests go to the very path of the kubeconfig's `server`. The file,
/// and the certificates and keys it names, are read again when they change.
#[derive(Clone)]
pub struct Remote(Arc<Fresh<Server>>);

/// What the files say.
struct Server {
    url: String,
    host: String,
    port: u16,
    path: String,
    /// None for plain HTTP.
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    credential: Credential,
}

impl Remote {
    /// Reads the file's current context.
    pub fn from_kubeconfig(path: &Path) -> Result<Self, RemoteError> {
        let first = Server::read(path)?;
        let path = path.to_owned();
        Ok(Self(Arc::new(Fresh::new(first, move || Server::read(&path).map_err(|error| error.to_string())))))
    }

    pub fn url(&self) -> String {
        self.0.get().url.clone()
    }

    /// Sends a JSON body over a connection of its own and reads the answer, all within `timeout`.
    pub async fn post(&self, body: Bytes, timeout: Duration) -> Result<Response, DialError> {
        let server = self.0.get();
        tokio::time::timeout(timeout, server.exchange(body)).await.map_err(|_| DialError::Deadline)?
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
}

impl Server {
    fn read(path: &Path) -> Result<Made<Self>, RemoteError> {
        let config = Kubeconfig::read(path)?;
        let mut files = vec![path.to_owned()];
        let read = config.current().and_then(|(cluster, user)| Self::new(&cluster, &user, &config.dir, &mut files));
        let value = read.map_err(|reason| RemoteError::invalid(path, reason))?;
        Ok(Made { value, files })
    }

    fn new(cluster: &Cluster, user: &User, dir: &Path, files: &mut Vec<PathBuf>) -> Result<Self, String> {
        let uri: http::Uri = cluster.server.parse().map_err(|error| format!("server {:?}: {error}", cluster.server))?;
        let host = uri.host().ok_or_else(|| format!("server {:?} has no host", cluster.server))?;
        let host = host.trim_matches(['[', ']']).to_owned();
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(format!("server {:?} must begin with https://", cluster.server)),
        };
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let credential = Credential::new(user, dir)?;
        files.extend(credential.files.iter().cloned());
        Ok(Self {
            tls: if secure { Some(tls(cluster, &credential, dir, &host, files)?) } else { None },
            url: cluster.server.clone(),
            path: uri.path_and_query().map_or("/", |p| p.as_str()).to_owned(),
            host,
            port,
            credential,
        })
    }

    async fn exchange(&self, body: Bytes) -> Result<Response, DialError> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(&self.path)
            .header(HOST, format!("{}:{}", self.host, self.port))
            .header(USER_AGENT, "kube-apiserver-admission")
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json")
            .body(Full::new(body))?;
        request.headers_mut().extend(self.credential.headers().await);
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(DialError::Connect)?;
        stream.set_nodelay(true).map_err(DialError::Connect)?;
        let Some((config, name)) = &self.tls else { return send(stream, request).await };
        let connector = TlsConnector::from(config.clone());
        send(connector.connect(name.clone(), stream).await.map_err(DialError::Tls)?, request).await
    }
}

fn tls(
    cluster: &Cluster,
    credential: &Credential,
    dir: &Path,
    host: &str,
    files: &mut Vec<PathBuf>,
) -> Result<(Arc<ClientConfig>, ServerName<'static>), String> {
    let trust = match pem(&cluster.certificate_authority_data, &cluster.certificate_authority, dir, files)? {
        _ if cluster.insecure_skip_tls_verify => Trust::Anything,
        Some(bundle) => Trust::Authorities(bundle.into_bytes()),
        None => Trust::Authorities(system_authorities()),
    };
    let server_name = if cluster.tls_server_name.is_empty() { host } else { &cluster.tls_server_name }.to_owned();
    let name = ServerName::try_from(server_name.clone());
    let name = name.map_err(|_| format!("{server_name:?} is no name a certificate could have"))?;
    let identity = credential.identity.clone();
    let target = Target { address: Address::Host(host.to_owned(), 0), server_name, trust, identity };
    let config = tls_config(&target).map_err(|error| format!("the certificate authorities: {error}"))?;
    Ok((Arc::new(config), name))
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

    #[tokio::test]
    async fn a_kubeconfig_names_one_server() {
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
        let plain = plain.0.get();
        assert_eq!((plain.host.as_str(), plain.port, plain.path.as_str()), ("127.0.0.1", 8080, "/authorize?x=1"));
        assert_eq!(plain.credential.headers().await["authorization"], "Bearer t");
        assert!(plain.tls.is_none());
        let secure =
            read("clusters: [{name: a, cluster: {server: 'https://h', insecure-skip-tls-verify: true}}]\n").unwrap();
        let secure = secure.0.get();
        assert!(secure.tls.is_some() && secure.port == 443 && secure.path == "/");
        let unnamed = "clusters: [{name: a, cluster: {server: 'http://h'}}]\ncontexts: [{name: c, context: {cluster: a}}]\n\
             users: [{name: u, user: {token: t}}]\ncurrent-context: c\n";
        assert!(read(unnamed).unwrap().0.get().credential.headers().await.is_empty(), "a context without a user");
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
    #[tokio::test(start_paused = true)]
    async fn changed_files_are_read_again_and_bad_ones_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        let put = |server: &str| {
            let text = format!("clusters: [{{name: a, cluster: {{server: '{server}'}}}}]\n");
            std::fs::write(dir.path().join("new"), text).unwrap();
            std::fs::rename(dir.path().join("new"), &path).unwrap();
        };
        put("http://a");
        let remote = Remote::from_kubeconfig(&path).unwrap();
        assert_eq!(remote.url(), "http://a");
        for (server, expected) in [("http://bb", "http://bb"), ("ftp://c", "http://bb"), ("http://dddd", "http://dddd")]
        {
            put(server);
            tokio::time::advance(Duration::from_secs(2)).await;
            assert_eq!(remote.url(), expected);
        }
    }
}
