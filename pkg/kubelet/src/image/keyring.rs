//! Registry credentials from pull secrets.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Secret;
use kube1_cri::v1::AuthConfig;
use serde::Deserialize;

use super::pulled::{SecretSource, credential_hash};
use super::reference::registry_and_path;

/// Credentials by the registry (and path) that they are for.
#[derive(Default)]
pub struct Keyring {
    entries: Vec<(String, Credentials)>,
}

/// Credentials and where they are from.
#[derive(Clone, Debug)]
pub struct Credentials {
    pub auth: AuthConfig,
    pub source: SecretSource,
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, DockerAuth>,
}

#[derive(Deserialize)]
struct DockerAuth {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    auth: String,
    #[serde(default)]
    identitytoken: String,
}

impl Keyring {
    /// Adds a secret of one of the two Docker types; others are ignored.
    pub fn add(&mut self, secret: &Secret) {
        let data = |key: &str| secret.data.as_ref().and_then(|d| d.get(key)).map(|b| b.0.as_slice());
        let auths = match secret.type_.as_deref() {
            Some("kubernetes.io/dockerconfigjson") => data(".dockerconfigjson")
                .and_then(|text| serde_json::from_slice::<DockerConfig>(text).ok())
                .map(|config| config.auths),
            Some("kubernetes.io/dockercfg") => data(".dockercfg").and_then(|text| serde_json::from_slice(text).ok()),
            _ => None,
        };
        let meta = &secret.metadata;
        let credentials = |auth: AuthConfig| Credentials {
            source: SecretSource {
                uid: meta.uid.clone().unwrap_or_default(),
                namespace: meta.namespace.clone().unwrap_or_default(),
                name: meta.name.clone().unwrap_or_default(),
                credential_hash: credential_hash(&auth),
            },
            auth,
        };
        let auths = auths.into_iter().flatten();
        self.entries.extend(auths.map(|(place, auth)| (normalize(&place), credentials(auth.into_config()))));
        // The longest place fits best.
        self.entries.sort_by_key(|(place, _)| std::cmp::Reverse(place.len()));
    }

    /// Credentials for an image, the best first.
    pub fn lookup(&self, image: &str) -> Vec<Credentials> {
        let (host, path) = registry_and_path(image);
        let fits = |place: &str| {
            let (place_host, place_path) = place.split_once('/').unwrap_or((place, ""));
            let docker = |h: &str| if h == "docker.io" { "index.docker.io".to_owned() } else { h.to_owned() };
            host_matches(&docker(place_host), &docker(&host)) && path.starts_with(place_path)
        };
        self.entries.iter().filter(|(place, _)| fits(place)).map(|(_, auth)| auth.clone()).collect()
    }
}

impl DockerAuth {
    fn into_config(self) -> AuthConfig {
        let decoded = STANDARD.decode(self.auth.trim()).ok().and_then(|b| String::from_utf8(b).ok());
        let pair = decoded.as_deref().and_then(|d| d.split_once(':'));
        let (username, password) = match pair {
            Some((user, password)) if self.username.is_empty() => {
                (user.to_owned(), password.trim_end_matches('\0').to_owned())
            }
            _ => (self.username, self.password),
        };
        AuthConfig { username, password, identity_token: self.identitytoken, ..AuthConfig::default() }
    }
}

/// A place without scheme and API version.
fn normalize(place: &str) -> String {
    let place = place.strip_prefix("https://").or(place.strip_prefix("http://")).unwrap_or(place);
    let place = place.trim_end_matches('/');
    place.strip_suffix("/v1").or(place.strip_suffix("/v2")).unwrap_or(place).to_owned()
}

/// `*` stands for one part of a host's name, or a piece of it.
fn host_matches(pattern: &str, host: &str) -> bool {
    let (parts, host_parts): (Vec<&str>, Vec<&str>) = (pattern.split('.').collect(), host.split('.').collect());
    parts.len() == host_parts.len() && parts.iter().zip(host_parts).all(|(p, h)| part_matches(p, h))
}

fn part_matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => {
            text.len() >= before.len() + after.len() && text.starts_with(before) && text.ends_with(after)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_place_comes_first() {
        let text = r#"{"auths":{"https://r.io/v2/":{"auth":"dTpw"},"r.io/team":{"username":"t","password":"x"},
            "*.example.com":{"username":"w","password":"y"}}}"#;
        let secret: Secret = serde_json::from_value(serde_json::json!({
            "type": "kubernetes.io/dockerconfigjson",
            "data": {".dockerconfigjson": STANDARD.encode(text)},
        }))
        .expect("a secret");
        let mut keyring = Keyring::default();
        keyring.add(&secret);
        let users = |image: &str| keyring.lookup(image).into_iter().map(|c| c.auth.username).collect::<Vec<_>>();
        assert_eq!(users("r.io/team/app:1"), ["t", "u"]);
        assert_eq!(users("r.io/other"), ["u"]);
        assert_eq!(users("reg.example.com/a"), ["w"]);
        assert!(users("busybox").is_empty());
    }
}
