//! Kubeconfig files as they describe servers outside, and how this one proves to them who it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use kube1_pki::{Leaf, ReloadingCertificate};
use rustls::client::ResolvesClientCert;
use serde::Deserialize;

/// Why a kubeconfig file describes no server.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the kubeconfig {} cannot be used: {reason}", path.display())]
    Invalid { path: PathBuf, reason: String },
}

impl RemoteError {
    pub(super) fn invalid(path: &Path, reason: impl Into<String>) -> Self {
        Self::Invalid { path: path.into(), reason: reason.into() }
    }
}

/// What a file says, and where it is: paths in it are relative to its folder.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Kubeconfig {
    #[serde(default)]
    pub clusters: Vec<Named<Cluster>>,
    #[serde(default)]
    pub users: Vec<Named<User>>,
    #[serde(default)]
    pub contexts: Vec<Named<Context>>,
    #[serde(default)]
    pub current_context: String,
    #[serde(skip)]
    pub dir: PathBuf,
}

#[derive(Deserialize)]
pub(super) struct Named<T> {
    pub name: String,
    #[serde(alias = "cluster", alias = "user", alias = "context")]
    pub value: T,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(super) struct Cluster {
    pub server: String,
    pub certificate_authority: String,
    pub certificate_authority_data: String,
    pub insecure_skip_tls_verify: bool,
    pub tls_server_name: String,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(super) struct User {
    client_certificate: String,
    client_certificate_data: String,
    client_key: String,
    client_key_data: String,
    token: String,
    #[serde(rename = "tokenFile")]
    token_file: String,
    username: String,
    password: String,
    #[serde(rename = "as")]
    impersonate: String,
    as_uid: String,
    as_groups: Vec<String>,
    as_user_extra: std::collections::BTreeMap<String, Vec<String>>,
    exec: Option<serde::de::IgnoredAny>,
    auth_provider: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
pub(super) struct Context {
    #[serde(default)]
    pub cluster: String,
    #[serde(default)]
    pub user: String,
}

impl Kubeconfig {
    pub fn read(path: &Path) -> Result<Self, RemoteError> {
        let text = std::fs::read_to_string(path).map_err(|source| RemoteError::Read { path: path.into(), source })?;
        let file: Self =
            serde_saphyr::from_str(&text).map_err(|error| RemoteError::invalid(path, error.to_string()))?;
        Ok(Self { dir: path.parent().unwrap_or(Path::new(".")).to_owned(), ..file })
    }

    /// The cluster and user of the current context, or the only ones there are. A context may do without a user.
    pub fn current(&self) -> Result<(Cluster, User), String> {
        let context = self.contexts.iter().find(|c| c.name == self.current_context).or(self.contexts.first());
        let Some(context) = context.map(|c| &c.value) else {
            let cluster = self.clusters.first().ok_or("it names no cluster")?;
            return Ok((cluster.value.clone(), self.users.first().map(|u| u.value.clone()).unwrap_or_default()));
        };
        let cluster = self.clusters.iter().find(|c| c.name == context.cluster).map(|c| c.value.clone());
        let cluster = cluster.ok_or_else(|| format!("there is no cluster {:?}", context.cluster))?;
        Ok((cluster, self.user(&context.user).cloned().unwrap_or_default()))
    }

    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.iter().find(|u| u.name == name).map(|u| &u.value)
    }
}

/// What is shown to the other side.
#[derive(Clone, Default)]
pub struct Credential {
    headers: HeaderMap,
    token_file: Option<PathBuf>,
    pub identity: Option<Arc<dyn ResolvesClientCert>>,
    /// Files that it was made of.
    pub(super) files: Vec<PathBuf>,
}

impl Credential {
    pub(super) fn new(user: &User, dir: &Path) -> Result<Self, String> {
        if user.exec.is_some() || user.auth_provider.is_some() {
            return Err("exec and auth-provider credentials are not supported: use a certificate or a token".into());
        }
        let mut headers = HeaderMap::new();
        let authorization = match (user.token.as_str(), user.username.as_str()) {
            ("", "") => None,
            ("", name) => Some(format!("Basic {}", STANDARD.encode(format!("{name}:{}", user.password)))),
            (token, _) => Some(format!("Bearer {token}")),
        };
        let mut put = |name: HeaderName, text: &str| {
            let value =
                HeaderValue::from_str(text).map_err(|_| format!("what would be sent as {name} has a line break"));
            value.map(|value| headers.append(name, value))
        };
        if let Some(text) = authorization {
            put(AUTHORIZATION, &text)?;
        }
        for (name, text) in user.impersonation() {
            let name = HeaderName::try_from(name).map_err(|error| format!("as-user-extra: {error}"))?;
            put(name, text)?;
        }
        let mut files = Vec::new();
        let certificate = pem(&user.client_certificate_data, &user.client_certificate, dir, &mut files)?;
        let key = pem(&user.client_key_data, &user.client_key, dir, &mut files)?;
        let identity = match (certificate, key) {
            (Some(certificate_pem), Some(key_pem)) => {
                let shown = ReloadingCertificate::new(&Leaf { certificate_pem, key_pem });
                let shown = shown.map_err(|error| format!("the client certificate: {error}"))?;
                Some(Arc::new(shown) as Arc<dyn ResolvesClientCert>)
            }
            (None, None) => None,
            _ => return Err("a client certificate needs its key, and a key its certificate".into()),
        };
        let token_file = (!user.token_file.is_empty() && user.token.is_empty()).then(|| dir.join(&user.token_file));
        Ok(Self { headers, token_file, identity, files })
    }

    /// What goes with a request. A token in a file is read each time, since whoever writes it replaces it.
    pub async fn headers(&self) -> HeaderMap {
        let mut headers = self.headers.clone();
        if let Some(path) = &self.token_file
            && let Ok(token) = tokio::fs::read_to_string(path).await
            && let Ok(value) = HeaderValue::from_str(&format!("Bearer {}", token.trim()))
        {
            headers.insert(AUTHORIZATION, value);
        }
        headers
    }
}

impl User {
    fn impersonation(&self) -> Vec<(String, &str)> {
        let one = |name: &str, text| (name.to_owned(), text);
        let mut all = Vec::new();
        if !self.impersonate.is_empty() {
            all.push(one("impersonate-user", self.impersonate.as_str()));
        }
        if !self.as_uid.is_empty() {
            all.push(one("impersonate-uid", self.as_uid.as_str()));
        }
        all.extend(self.as_groups.iter().map(|group| one("impersonate-group", group.as_str())));
        for (key, values) in &self.as_user_extra {
            let key = percent_encoding::utf8_percent_encode(key, percent_encoding::NON_ALPHANUMERIC);
            let name = format!("impersonate-extra-{key}").to_ascii_lowercase();
            all.extend(values.iter().map(|value| (name.clone(), value.as_str())));
        }
        all
    }
}

/// The PEM that is embedded, or else in a file, which is noted.
pub(super) fn pem(data: &str, file: &str, dir: &Path, files: &mut Vec<PathBuf>) -> Result<Option<String>, String> {
    let bytes = match (data, file) {
        ("", "") => return Ok(None),
        ("", file) => {
            files.push(dir.join(file));
            std::fs::read(dir.join(file)).map_err(|error| format!("{file}: {error}"))?
        }
        (data, _) => STANDARD.decode(data).map_err(|error| format!("embedded data: {error}"))?,
    };
    String::from_utf8(bytes).map(Some).map_err(|_| "embedded data is no PEM".into())
}

/// Every user of a kubeconfig file with what is shown for it.
pub struct Users {
    pub named: Vec<(String, Credential)>,
    /// The name of the current context's; empty for none.
    pub current: String,
    /// Files that they were made of.
    pub files: Vec<PathBuf>,
}

impl Users {
    pub fn read(path: &Path) -> Result<Self, RemoteError> {
        let config = Kubeconfig::read(path)?;
        let (mut files, mut named) = (vec![path.to_owned()], Vec::new());
        for Named { name, value } in &config.users {
            let credential = Credential::new(value, &config.dir);
            let credential = credential.map_err(|why| RemoteError::invalid(path, format!("user {name:?}: {why}")))?;
            files.extend(credential.files.iter().cloned());
            named.push((name.clone(), credential));
        }
        let current = config.contexts.iter().find(|context| context.name == config.current_context);
        Ok(Self { named, current: current.map(|context| context.value.user.clone()).unwrap_or_default(), files })
    }
}
