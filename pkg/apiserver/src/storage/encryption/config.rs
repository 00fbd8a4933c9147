//! The file that says how values are kept, checked as upstream checks it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube1_api::field::{FieldError, FieldPath};
use serde::Deserialize;

use super::super::kms::{Kms, KmsSettings, hash_of};
use super::transformer::{Cipher, Transformer};
use super::{EncryptionError, Rule, Rules, covers};
use crate::http::requests::parse_duration;

const KMS_V1: &str = "KMSv1 is deprecated and will only receive security updates going forward. Use KMSv2 instead.  Set --feature-gates=KMSv1=true to use the deprecated KMSv1 feature.";

/// Services that are known already, which new rules go on using.
pub(super) type Providers = Vec<Arc<Kms>>;

/// The file as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    resources: Vec<Entry>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Entry {
    resources: Vec<String>,
    providers: Vec<Provider>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Provider {
    identity: Option<serde_json::Value>,
    aesgcm: Option<Keys>,
    aescbc: Option<Keys>,
    secretbox: Option<Keys>,
    kms: Option<KmsEntry>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Keys {
    keys: Vec<Key>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Key {
    name: String,
    secret: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct KmsEntry {
    api_version: String,
    name: String,
    cachesize: Option<i32>,
    endpoint: String,
    timeout: Option<String>,
}

/// Reads and checks the file; services that it names as before are those of `known`.
pub(super) fn read(path: &Path, known: &Providers) -> Result<Rules, EncryptionError> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|source| EncryptionError::Read { path: shown.clone(), source })?;
    let file: File = serde_saphyr::from_str(&text)
        .map_err(|error| EncryptionError::Parse { path: shown.clone(), reason: error.to_string() })?;
    let rules = Rules { hash: hash_of(&text), ..Rules::default() };
    let mut reader = Reader { known, problems: Vec::new(), names: HashSet::new(), rules };
    reader.file(file);
    let Reader { problems, rules, .. } = reader;
    if problems.is_empty() { Ok(rules) } else { Err(EncryptionError::Invalid { path: shown, problems }) }
}

struct Reader<'a> {
    known: &'a Providers,
    problems: Vec<String>,
    /// Of services.
    names: HashSet<String>,
    rules: Rules,
}

impl Reader<'_> {
    fn refuse(&mut self, error: FieldError) {
        self.problems.push(error.to_string());
    }

    fn required(&mut self, path: &FieldPath, what: impl std::fmt::Display) {
        self.refuse(FieldError::required(path, format!("at least one {what} is required")));
    }

    fn file(&mut self, file: File) {
        if (file.api_version.as_str(), file.kind.as_str()) != ("apiserver.config.k8s.io/v1", "EncryptionConfiguration")
        {
            self.problems
                .push("apiVersion and kind must be apiserver.config.k8s.io/v1 and EncryptionConfiguration".to_owned());
        }
        let root = FieldPath::new("resources");
        if file.resources.is_empty() {
            self.required(&root, &root);
        }
        for (index, entry) in file.resources.into_iter().enumerate() {
            self.entry(&root.index(index), entry);
        }
    }

    fn entry(&mut self, path: &FieldPath, entry: Entry) {
        let (resources, providers) = (path.child("resources"), path.child("providers"));
        if entry.resources.is_empty() {
            self.required(&resources, &resources);
        }
        self.overlaps(&resources, &entry.resources);
        for (index, resource) in entry.resources.iter().enumerate() {
            if let Some(why) = wrong_resource(resource) {
                self.refuse(FieldError::invalid(&resources.index(index), resource.as_str(), why));
            } else if let Some(mask) = self.mask(resource) {
                self.problems.push(format!("resource {resource:?} is masked by earlier rule {mask:?}"));
            }
        }
        if entry.providers.is_empty() {
            self.required(&providers, &providers);
        }
        let mut transformers = Vec::new();
        for (index, provider) in entry.providers.into_iter().enumerate() {
            transformers.extend(self.provider(&providers.index(index), provider).into_iter().map(Arc::new));
        }
        // Rules of one resource add up.
        for resource in entry.resources {
            let rules = &mut self.rules.rules;
            match rules.iter_mut().find(|rule| rule.resources == [resource.as_str()]) {
                Some(rule) => rule.transformers.extend(transformers.iter().cloned()),
                None => rules.push(Rule { resources: vec![resource], transformers: transformers.clone() }),
            }
        }
    }

    /// The earlier rule of a whole group, or of everything, that leaves nothing for one of `resource`.
    fn mask(&self, resource: &str) -> Option<String> {
        let wide = |pattern: &&String| pattern.starts_with("*.") && *pattern != resource;
        let sample = resource
            .strip_prefix("*.")
            .map(|group| if group.is_empty() { "x".to_owned() } else { format!("x.{group}") });
        let sample = sample.as_deref().unwrap_or(resource);
        let earlier = self.rules.rules.iter().flat_map(|rule| &rule.resources);
        earlier.filter(wide).find(|pattern| covers(pattern, sample)).cloned()
    }

    fn overlaps(&mut self, path: &FieldPath, resources: &[String]) {
        let pairs =
            || (0..resources.len()).flat_map(|a| (0..resources.len()).filter(move |b| a != *b).map(move |b| (a, b)));
        let group = |at: usize| resources[at].split_once('.').map_or("", |(_, group)| group);
        let wide = |at: usize| resources[at].starts_with("*.");
        let shown = serde_json::json!(resources);
        if pairs().any(|(a, b)| resources[a] == resources[b]) {
            let why = "the same resource cannot be specified multiple times";
            self.refuse(FieldError::invalid(path, shown.clone(), why));
        }
        let overlap = |a: usize, b: usize| {
            resources[a] != resources[b] && (resources[a] == "*.*" || (group(a) == group(b) && (wide(a) || wide(b))))
        };
        if pairs().any(|(a, b)| overlap(a, b)) {
            let why = "using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as they will be masked";
            self.refuse(FieldError::invalid(path, shown, why));
        }
    }

    fn provider(&mut self, path: &FieldPath, provider: Provider) -> Vec<Transformer> {
        let Provider { identity, aesgcm, aescbc, secretbox, kms } = provider;
        let count = [identity.is_some(), aesgcm.is_some(), aescbc.is_some(), secretbox.is_some(), kms.is_some()];
        let wrong = match count.iter().filter(|given| **given).count() {
            0 => "provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity",
            1 => "",
            _ => "more than one provider specified in a single element, should split into different list elements",
        };
        if !wrong.is_empty() {
            self.refuse(FieldError::invalid(path, serde_json::json!({}), wrong));
            return Vec::new();
        }
        match (aesgcm, aescbc, secretbox, kms) {
            (Some(keys), ..) => self.keys(path, "aesgcm", keys, &[16, 24, 32]),
            (_, Some(keys), ..) => self.keys(path, "aescbc", keys, &[16, 24, 32]),
            (_, _, Some(keys), _) => self.keys(path, "secretbox", keys, &[32]),
            (.., Some(entry)) => self.service(&path.child("kms"), entry).into_iter().collect(),
            _ => vec![Transformer::identity()],
        }
    }

    fn keys(&mut self, path: &FieldPath, kind: &str, keys: Keys, sizes: &[usize]) -> Vec<Transformer> {
        let path = path.child(kind).child("keys");
        if keys.keys.is_empty() {
            self.required(&path, "keys");
        }
        let mut found = Vec::new();
        for (index, key) in keys.keys.into_iter().enumerate() {
            let (path, prefix) = (path.index(index), format!("k8s:enc:{kind}:v1:{}:", key.name));
            if key.name.is_empty() {
                let path = path.child("name");
                self.refuse(FieldError::required(&path, "name is a mandatory field for a key"));
            } else if key.name.contains(':') {
                // It would not be found again in what it wrote.
                self.refuse(FieldError::invalid(&path.child("name"), key.name.as_str(), "must not contain ':'"));
            }
            let path = path.child("secret");
            let refuse = |why: String| FieldError::invalid(&path, "REDACTED", why);
            if key.secret.is_empty() {
                self.refuse(FieldError::required(&path, "secret is a mandatory field for a key"));
                continue;
            }
            let Ok(secret) = STANDARD.decode(key.secret.trim()) else {
                self.refuse(refuse("secrets must be base64 encoded".to_owned()));
                continue;
            };
            match Cipher::new(kind, &secret) {
                Some(cipher) => found.push(Transformer { prefix, cipher }),
                None => {
                    let sizes = sizes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
                    let got = secret.len();
                    self.refuse(refuse(format!(
                        "secret is not of the expected length, got {got}, expected one of [{sizes}]"
                    )));
                }
            }
        }
        found
    }

    fn service(&mut self, path: &FieldPath, entry: KmsEntry) -> Option<Transformer> {
        let before = self.problems.len();
        let name = path.child("name");
        let version = if entry.api_version.is_empty() { "v1" } else { &entry.api_version };
        if entry.name.is_empty() {
            self.refuse(FieldError::required(&name, "name is a mandatory field for a provider"));
        }
        if version != "v1" && entry.name.contains(':') {
            let why = format!("invalid KMS provider name {}, must not contain ':'", entry.name);
            self.refuse(FieldError::invalid(&name, entry.name.as_str(), why));
        }
        if !self.names.insert(entry.name.clone()) {
            let why = format!("duplicate KMS provider name {}, names must be unique", entry.name);
            self.refuse(FieldError::invalid(&name, entry.name.as_str(), why));
        }
        let timeout = entry.timeout.as_deref().map_or(Some(Duration::from_secs(3)), parse_duration);
        if timeout.is_none_or(|timeout| timeout.is_zero()) {
            let why = "timeout should be a positive value";
            self.refuse(FieldError::invalid(&path.child("timeout"), entry.timeout.as_deref(), why));
        }
        let socket = self.socket(&path.child("endpoint"), &entry.endpoint);
        if let Some(size) = entry.cachesize.filter(|_| version != "v1") {
            self.refuse(FieldError::invalid(&path.child("cachesize"), size, "cachesize is not supported in v2"));
        }
        match version {
            "v2" => {}
            "v1" => self.problems.push(format!("{path}: {KMS_V1}")),
            other => {
                let why = "unsupported apiVersion apiVersion for KMS provider, only v1 and v2 are supported";
                self.refuse(FieldError::invalid(&path.child("apiVersion"), other, why));
            }
        }
        if self.problems.len() > before {
            return None;
        }
        let settings = KmsSettings { name: entry.name, socket: socket?, timeout: timeout? };
        let prefix = format!("k8s:enc:kms:v2:{}:", settings.name);
        let known = self.known.iter().find(|kms| *kms.settings() == settings).cloned();
        let kms = known.unwrap_or_else(|| Arc::new(Kms::new(settings)));
        self.rules.services.push(kms.clone());
        Some(Transformer { prefix, cipher: Cipher::Kms(kms) })
    }

    /// `unix:///path`, or `unix:///@name` for one in the abstract namespace.
    fn socket(&mut self, path: &FieldPath, endpoint: &str) -> Option<PathBuf> {
        if endpoint.is_empty() {
            self.refuse(FieldError::invalid(path, "", "endpoint is a mandatory field for a kms"));
            return None;
        }
        let (scheme, rest) = endpoint.split_once(':').unwrap_or(("", endpoint));
        if scheme != "unix" {
            let why = format!("unsupported scheme {scheme:?} for KMS provider, only unix is supported");
            self.refuse(FieldError::invalid(path, endpoint, why));
            return None;
        }
        let socket = rest.strip_prefix("//").unwrap_or(rest);
        Some(PathBuf::from(if socket.starts_with("/@") { &socket[1..] } else { socket }))
    }
}

fn wrong_resource(resource: &str) -> Option<&'static str> {
    let group = resource.split_once('.').map_or("", |(_, group)| group);
    Some(match resource {
        _ if resource.to_lowercase() != resource => "resource name should not contain capital letters",
        "*" => "use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources",
        "" => "must be a resource",
        "apiserveripinfo" | "serviceipallocations" | "servicenodeportallocations" => {
            "resources which do not have REST API/s cannot be encrypted"
        }
        _ if group == "events.k8s.io" => {
            "'*.events.k8s.io' objects are stored using the 'events' API group in etcd. Use 'events' instead in the config file"
        }
        _ if group == "extensions" => "'extensions' group has been removed and cannot be used for encryption",
        _ if group == "*" && resource != "*.*" => "encrypting the same resource across groups is not supported",
        _ => return None,
    })
}
