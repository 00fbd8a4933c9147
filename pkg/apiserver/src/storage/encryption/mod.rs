//! Encryption of stored values as an EncryptionConfiguration (`apiserver.config.k8s.io/v1`) says; without one, of Secrets
//! by a key of the server's own.

mod config;
mod meters;
mod transformer;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::future::join_all;
use tokio::sync::Notify;

use super::cipher::{MARK, SecretKey};
use super::kms::{Kms, Unreadable};
use config::Providers;
use transformer::{Cipher, Transformer, kms_mark_of};

/// What values begin with that a file's providers keep.
const KEPT: &[u8] = b"k8s:enc:";
const KMS: &[u8] = b"k8s:enc:kms:v2:";

/// A file that cannot be used; every problem that was found is told.
#[derive(Debug, thiserror::Error)]
pub enum EncryptionError {
    #[error("cannot read the encryption configuration {path}")]
    Read { path: String, source: std::io::Error },
    #[error("the encryption configuration {path} does not parse: {reason}")]
    Parse { path: String, reason: String },
    #[error("the encryption configuration {path} is invalid: {}", problems.join("; "))]
    Invalid { path: String, problems: Vec<String> },
    #[error("key management services of the encryption configuration {path} are not well: {reason}")]
    Unhealthy { path: String, reason: String },
}

/// Resources, and how their values are kept: the first transformer writes, all can read.
struct Rule {
    resources: Vec<String>,
    transformers: Vec<Arc<Transformer>>,
}

/// What a file says.
#[derive(Default)]
struct Rules {
    rules: Vec<Rule>,
    services: Vec<Arc<Kms>>,
    /// Of the file's text.
    hash: String,
}

/// How the values of all resources are kept; by default as they are.
#[derive(Default)]
pub struct Encryption {
    own: Option<SecretKey>,
    file: Option<PathBuf>,
    rules: ArcSwap<Rules>,
    /// There are values whose keys a service must decrypt.
    pub(super) locked: Notify,
}

impl Encryption {
    /// `own` keeps Secrets when there is no file, and always reads what it once wrote. Asks no service yet.
    pub fn open(own: Option<SecretKey>, file: Option<PathBuf>) -> Result<Self, EncryptionError> {
        let rules = file.as_deref().map(|file| config::read(file, &Providers::default())).transpose()?;
        if let Some(rules) = &rules {
            meters::applied("", &rules.hash);
        }
        Ok(Self { own, file, rules: ArcSwap::from_pointee(rules.unwrap_or_default()), locked: Notify::new() })
    }

    /// Takes the file over again; on error nothing changes. New services must be well.
    pub async fn reload(&self) -> Result<(), EncryptionError> {
        let Some(file) = &self.file else { return Ok(()) };
        let old = self.rules.load_full();
        let rules = config::read(file, &old.services)?;
        let new = rules.services.iter().filter(|kms| !old.services.iter().any(|known| Arc::ptr_eq(known, kms)));
        let failed = join_all(new.map(|kms| kms.check())).await.into_iter().find_map(Result::err);
        if let Some(reason) = failed {
            return Err(EncryptionError::Unhealthy { path: file.display().to_string(), reason });
        }
        rules.services.iter().for_each(Kms::poll);
        meters::applied(&old.hash, &rules.hash);
        self.rules.store(Arc::new(rules));
        // What could not be read may be readable now.
        self.locked.notify_one();
        Ok(())
    }

    /// Gets first keys from the services, as far as they are well, and keeps them fresh from then on.
    pub(super) async fn prime(&self) {
        let rules = self.rules.load_full();
        join_all(rules.services.iter().map(|kms| kms.check())).await;
        rules.services.iter().for_each(Kms::poll);
    }

    /// Whether key management services are used now.
    pub fn has_services(&self) -> bool {
        !self.rules.load().services.is_empty()
    }

    /// Whether all key management services are well.
    pub async fn check(&self) -> Result<(), String> {
        let rules = self.rules.load_full();
        let mut problems = Vec::new();
        for (index, kms) in rules.services.iter().enumerate() {
            problems.extend(kms.check().await.err().map(|error| format!("kms-provider-{index}: {error}")));
        }
        super::kms::aggregate(problems)
    }

    /// Has the keys of values decrypted that [`Encryption::decrypt`] could not read for want of them. Gives the first
    /// reason why a value still cannot be read.
    pub(super) async fn unlock<'a>(&self, values: impl Iterator<Item = &'a Bytes>) -> Result<(), String> {
        let rules = self.rules.load_full();
        let mut failed: Vec<(String, String)> = Vec::new();
        for value in values.filter(|value| value.starts_with(KMS)) {
            let all = rules.rules.iter().flat_map(|rule| &rule.transformers);
            let fits = |t: &&Arc<Transformer>| value.starts_with(t.prefix.as_bytes()) && !t.prefix.is_empty();
            let Some(Transformer { prefix, cipher: Cipher::Kms(kms) }) = all.clone().find(fits).map(|t| &**t) else {
                continue;
            };
            // One failure is enough of a service that is away: others would take as long.
            if failed.iter().any(|(of, _)| of == prefix) {
                continue;
            }
            if let Err(error) = kms.unlock(&value.slice(prefix.len()..)).await {
                failed.push((prefix.clone(), error));
            }
        }
        failed.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
    }

    /// Whether values of the resource may be kept otherwise than as they are.
    pub(super) fn concerns(&self, resource: &str) -> bool {
        self.file.is_some() || (self.own.is_some() && resource == "secrets")
    }

    /// The mark of values that are written now; none while that is not known.
    pub(super) fn mark(&self, resource: &str) -> Option<String> {
        match self.rule(resource, |rule| rule.transformers.first().map(|t| t.mark())) {
            Some(mark) => mark.unwrap_or_default(),
            None if self.file.is_none() && self.concerns(resource) => Some(String::from_utf8_lossy(MARK).into_owned()),
            None => Some(String::new()),
        }
    }

    fn rule<T>(&self, resource: &str, with: impl FnOnce(&Rule) -> T) -> Option<T> {
        let rules = self.rules.load();
        rules.rules.iter().find(|rule| rule.resources.iter().any(|pattern| covers(pattern, resource))).map(with)
    }

    /// An error says why, in upstream's words.
    pub(super) fn encrypt(&self, resource: &str, key: &[u8], plain: &Bytes) -> Result<Bytes, String> {
        let sealed = self.rule(resource, |rule| {
            let writer = rule.transformers.first()?;
            let started = Instant::now();
            let sealed = writer.seal(key, plain);
            meters::transformed(resource, "to_storage", writer.label(), sealed.is_ok(), started.elapsed());
            Some(sealed)
        });
        if let Some(sealed) = sealed.flatten() {
            return sealed;
        }
        match &self.own {
            Some(own) if self.file.is_none() && resource == "secrets" => {
                own.encrypt(key, plain).ok_or_else(|| "the value cannot be encrypted".to_owned())
            }
            _ => Ok(plain.clone()),
        }
    }

    /// Values that are not encrypted come back as they are.
    pub(super) fn decrypt(&self, resource: &str, key: &[u8], value: &Bytes) -> Result<Bytes, Unreadable> {
        let broken = || Unreadable::Broken("no matching prefix found".to_owned());
        if value.starts_with(MARK) {
            return self.own.as_ref().and_then(|own| own.decrypt(key, value)).ok_or_else(broken);
        }
        if !value.starts_with(KEPT) {
            return Ok(value.clone());
        }
        let open = |rule: &Rule| {
            let fitting = rule.transformers.iter().filter(|t| !t.prefix.is_empty());
            let mut failure = None;
            for reader in fitting.filter(|t| value.starts_with(t.prefix.as_bytes())) {
                let started = Instant::now();
                let opened = reader.open(key, &value.slice(reader.prefix.len()..));
                meters::transformed(resource, "from_storage", reader.label(), opened.is_ok(), started.elapsed());
                match opened {
                    Ok(plain) => return Some(Ok(plain)),
                    Err(error) => failure = Some(Err(error)),
                }
            }
            failure
        };
        // A resource may have moved to another rule since.
        let own = self.rule(resource, open).flatten();
        let opened = match own {
            Some(Ok(plain)) => return Ok(plain),
            own => self.rules.load().rules.iter().filter_map(open).find(Result::is_ok).or(own),
        };
        opened.unwrap_or_else(|| Err(broken()))
    }
}

/// What tells how a stored value is kept: its prefix, and for those of a key management service the key.
pub(super) fn mark_of(value: &Bytes) -> String {
    let parts = if value.starts_with(KEPT) { 5 } else { 3 };
    if parts == 3 && !value.starts_with(MARK) {
        return String::new();
    }
    let end = value.iter().enumerate().filter(|(_, b)| **b == b':').nth(parts - 1).map_or(0, |(at, _)| at + 1);
    let prefix = String::from_utf8_lossy(&value[..end]);
    if value.starts_with(KMS) { kms_mark_of(&prefix, &value.slice(end..)) } else { prefix.into_owned() }
}

/// `*.*` covers everything, `*.apps` a group, `*.` the core group.
fn covers(pattern: &str, resource: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some("*") => true,
        Some("") => !resource.contains('.'),
        Some(group) => resource.split_once('.').is_some_and(|(_, g)| g == group),
        None => pattern == resource,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    fn key(name: &str, length: usize) -> String {
        format!("{{name: {name}, secret: {}}}", STANDARD.encode(vec![7; length]))
    }

    fn open(dir: &Path, providers: &str) -> Result<Encryption, EncryptionError> {
        open_all(dir, &format!("- {{resources: [secrets, '*.apps'], providers: {providers}}}\n"))
    }

    fn open_all(dir: &Path, resources: &str) -> Result<Encryption, EncryptionError> {
        let path = dir.join("encryption.yaml");
        let text =
            format!("apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n{resources}");
        std::fs::write(&path, text).unwrap();
        Encryption::open(None, Some(path))
    }

    #[test]
    fn every_provider_opens_what_it_sealed_and_keys_rotate() {
        let dir = tempfile::tempdir().unwrap();
        let plain = Bytes::from(r#"{"data":"x"}"#);
        let (a, b) = (b"/registry/core/secrets/n/a", b"/registry/core/secrets/n/b");
        for (provider, lengths) in [("aesgcm", &[16, 24, 32][..]), ("aescbc", &[16, 24, 32]), ("secretbox", &[32])] {
            for length in lengths {
                let old = open(dir.path(), &format!("[{{{provider}: {{keys: [{}]}}}}]", key("old", *length))).unwrap();
                let sealed = old.encrypt("secrets", a, &plain).unwrap();
                let mark = format!("k8s:enc:{provider}:v1:old:");
                assert_eq!((mark_of(&sealed), old.mark("secrets")), (mark.clone(), Some(mark)));
                assert_eq!(old.decrypt("secrets", a, &sealed).unwrap(), plain);
                if provider == "aesgcm" {
                    assert!(old.decrypt("secrets", b, &sealed).is_err(), "bound to its key");
                }
                let keys = format!("[{}, {}]", key("new", *length), key("old", *length));
                let new = open(dir.path(), &format!("[{{{provider}: {{keys: {keys}}}}}, {{identity: {{}}}}]")).unwrap();
                assert_eq!(new.decrypt("secrets", a, &sealed).unwrap(), plain);
                assert_ne!(mark_of(&new.encrypt("secrets", a, &plain).unwrap()), mark_of(&sealed));
                assert_eq!(new.decrypt("secrets", a, &plain).unwrap(), plain, "from before encryption");
                assert_eq!(new.encrypt("pods", a, &plain).unwrap(), plain);
                assert_ne!(new.encrypt("deployments.apps", a, &plain).unwrap(), plain);
            }
        }
    }

    #[test]
    fn mistakes_are_named() {
        let dir = tempfile::tempdir().unwrap();
        for (providers, expected) in [
            ("[]", "resources[0].providers: Required value: at least one resources[0].providers is required"),
            (
                "[{}]",
                "provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity",
            ),
            ("[{identity: {}, aesgcm: {keys: []}}]", "more than one provider specified in a single element"),
            (
                "[{kms: {name: k, endpoint: 'unix:///a'}}]",
                "resources[0].providers[0].kms: KMSv1 is deprecated and will only receive security updates going forward. Use KMSv2 instead.",
            ),
            (
                "[{kms: {apiVersion: v3, name: k, endpoint: 'unix:///a'}}]",
                "unsupported apiVersion apiVersion for KMS provider, only v1 and v2 are supported",
            ),
            (
                "[{kms: {apiVersion: v2, endpoint: 'unix:///a'}}]",
                "kms.name: Required value: name is a mandatory field for a provider",
            ),
            (
                "[{kms: {apiVersion: v2, name: 'a:b', endpoint: 'unix:///a'}}]",
                "invalid KMS provider name a:b, must not contain ':'",
            ),
            (
                "[{kms: {apiVersion: v2, name: k, endpoint: 'tcp://a'}}]",
                "unsupported scheme \"tcp\" for KMS provider, only unix is supported",
            ),
            ("[{kms: {apiVersion: v2, name: k}}]", "endpoint is a mandatory field for a kms"),
            (
                "[{kms: {apiVersion: v2, name: k, endpoint: 'unix:///a', timeout: 0s}}]",
                "kms.timeout: Invalid value: \"0s\": timeout should be a positive value",
            ),
            (
                "[{kms: {apiVersion: v2, name: k, endpoint: 'unix:///a', cachesize: 5}}]",
                "kms.cachesize: Invalid value: 5: cachesize is not supported in v2",
            ),
            (
                "[{kms: {apiVersion: v2, name: k, endpoint: 'unix:///a'}}, {kms: {apiVersion: v2, name: k, endpoint: 'unix:///b'}}]",
                "duplicate KMS provider name k, names must be unique",
            ),
            ("[{aesgcm: {keys: []}}]", ".aesgcm.keys: Required value: at least one keys is required"),
            (
                "[{secretbox: {keys: [{name: a, secret: AAAA}]}}]",
                "secret is not of the expected length, got 3, expected one of [32]",
            ),
            ("[{aescbc: {keys: [{name: a, secret: '?'}]}}]", "\"REDACTED\": secrets must be base64 encoded"),
            (
                "[{aescbc: {keys: [{secret: AAAA}]}}]",
                "keys[0].name: Required value: name is a mandatory field for a key",
            ),
        ] {
            let error = open(dir.path(), providers).err().unwrap().to_string();
            assert!(error.contains(expected), "{error}");
        }
        for (resources, expected) in [
            (
                "[Secrets]",
                "resources[0].resources[0]: Invalid value: \"Secrets\": resource name should not contain capital letters",
            ),
            ("['*']", "use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources"),
            ("[secrets, '*.']", "using overlapping resources such as 'secrets' and '*.'"),
            ("[secrets, secrets]", "the same resource cannot be specified multiple times"),
            ("['secrets.*']", "encrypting the same resource across groups is not supported"),
            ("[a.events.k8s.io]", "'*.events.k8s.io' objects are stored using the 'events' API group in etcd"),
            ("[a.extensions]", "'extensions' group has been removed"),
            ("[apiserveripinfo]", "resources which do not have REST API/s cannot be encrypted"),
        ] {
            let error =
                open_all(dir.path(), &format!("- {{resources: {resources}, providers: [{{identity: {{}}}}]}}\n"));
            let error = error.err().unwrap().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let masked = "- {resources: ['*.'], providers: [{identity: {}}]}\n- {resources: [secrets], providers: [{identity: {}}]}\n";
        let error = open_all(dir.path(), masked).err().unwrap().to_string();
        assert!(error.contains("resource \"secrets\" is masked by earlier rule \"*.\""), "{error}");
        for (pattern, resource, fits) in [
            ("*.*", "pods", true),
            ("*.", "pods", true),
            ("*.", "deployments.apps", false),
            ("*.apps", "deployments.apps", true),
            ("secrets", "secrets", true),
            ("secrets", "secrets.example.com", false),
        ] {
            assert_eq!(covers(pattern, resource), fits, "{pattern} {resource}");
        }
    }
}
