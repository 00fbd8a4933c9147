//! Encryption of stored values as an EncryptionConfiguration (`apiserver.config.k8s.io/v1`) says; without one, of Secrets
//! by a key of the server's own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aes::{Aes128, Aes192, Aes256};
use aes_gcm::aead::consts::U12;
use aes_gcm::aead::{Aead, Generate, KeyInit, Payload};
use aes_gcm::{AesGcm, Nonce};
use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use cbc::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit, block_padding::Pkcs7};
use crypto_secretbox::XSalsa20Poly1305;
use crypto_secretbox::aead::{Aead as _, KeyInit as _};
use serde::Deserialize;

use super::cipher::{MARK, SecretKey};

const GCM_NONCE: usize = 12;
const CBC_IV: usize = 16;
const BOX_NONCE: usize = 24;

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
    kms: Option<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    keys: Vec<Key>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    name: String,
    secret: String,
}

/// A file that cannot be used; every problem that was found is told.
#[derive(Debug, thiserror::Error)]
pub enum EncryptionError {
    #[error("cannot read the encryption configuration {path}")]
    Read { path: String, source: std::io::Error },
    #[error("the encryption configuration {path} does not parse: {reason}")]
    Parse { path: String, reason: String },
    #[error("the encryption configuration {path} is invalid: {}", problems.join("; "))]
    Invalid { path: String, problems: Vec<String> },
}

/// One way to keep a value.
struct Transformer {
    /// What values kept by it begin with; empty for values as they are.
    mark: String,
    cipher: Cipher,
}

enum Cipher {
    Identity,
    Gcm128(Box<AesGcm<Aes128, U12>>),
    Gcm192(Box<AesGcm<Aes192, U12>>),
    Gcm256(Box<AesGcm<Aes256, U12>>),
    /// The key, of 16, 24 or 32 bytes.
    Cbc(Vec<u8>),
    Secretbox(Box<XSalsa20Poly1305>),
}

/// Resources, and how their values are kept: the first transformer writes, all can read.
struct Rule {
    resources: Vec<String>,
    transformers: Vec<Arc<Transformer>>,
}

/// How the values of all resources are kept; by default as they are.
#[derive(Default)]
pub struct Encryption {
    own: Option<SecretKey>,
    file: Option<PathBuf>,
    rules: ArcSwap<Vec<Rule>>,
}

impl Encryption {
    /// `own` keeps Secrets when there is no file, and always reads what it once wrote.
    pub fn open(own: Option<SecretKey>, file: Option<PathBuf>) -> Result<Self, EncryptionError> {
        let rules = file.as_deref().map(read).transpose()?.unwrap_or_default();
        Ok(Self { own, file, rules: ArcSwap::from_pointee(rules) })
    }

    /// Takes the file over again; on error nothing changes.
    pub fn reload(&self) -> Result<(), EncryptionError> {
        if let Some(file) = &self.file {
            self.rules.store(Arc::new(read(file)?));
        }
        Ok(())
    }

    /// Whether values of the resource may be kept otherwise than as they are.
    pub(super) fn concerns(&self, resource: &str) -> bool {
        self.file.is_some() || (self.own.is_some() && resource == "secrets")
    }

    /// The mark of values that are written now.
    pub(super) fn mark(&self, resource: &str) -> String {
        match self.rule(resource, |rule| rule.transformers.first().map(|t| t.mark.clone())) {
            Some(mark) => mark.unwrap_or_default(),
            None if self.file.is_none() && self.concerns(resource) => String::from_utf8_lossy(MARK).into_owned(),
            None => String::new(),
        }
    }

    fn rule<T>(&self, resource: &str, with: impl FnOnce(&Rule) -> T) -> Option<T> {
        let rules = self.rules.load();
        rules.iter().find(|rule| rule.resources.iter().any(|pattern| covers(pattern, resource))).map(with)
    }

    pub(super) fn encrypt(&self, resource: &str, key: &[u8], plain: &Bytes) -> Option<Bytes> {
        if let Some(sealed) = self.rule(resource, |rule| rule.transformers.first()?.seal(key, plain)) {
            return sealed;
        }
        match &self.own {
            Some(own) if self.file.is_none() && resource == "secrets" => own.encrypt(key, plain),
            _ => Some(plain.clone()),
        }
    }

    /// Values that are not encrypted come back as they are.
    pub(super) fn decrypt(&self, resource: &str, key: &[u8], value: &Bytes) -> Option<Bytes> {
        if value.starts_with(MARK) {
            return self.own.as_ref()?.decrypt(key, value);
        }
        if !value.starts_with(b"k8s:enc:") {
            return Some(value.clone());
        }
        let open = |rule: &Rule| {
            let fitting = rule.transformers.iter().filter(|t| !t.mark.is_empty());
            fitting.filter(|t| value.starts_with(t.mark.as_bytes())).find_map(|t| t.open(key, &value[t.mark.len()..]))
        };
        // A resource may have moved to another rule since.
        let own = self.rule(resource, open).flatten();
        own.or_else(|| self.rules.load().iter().find_map(open))
    }
}

/// What a kept value begins with.
pub(super) fn mark_of(value: &[u8]) -> String {
    let parts = if value.starts_with(b"k8s:enc:") { 5 } else { 3 };
    if parts == 3 && !value.starts_with(MARK) {
        return String::new();
    }
    let end = value.iter().enumerate().filter(|(_, b)| **b == b':').nth(parts - 1).map_or(0, |(at, _)| at + 1);
    String::from_utf8_lossy(&value[..end]).into_owned()
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

fn read(path: &Path) -> Result<Vec<Rule>, EncryptionError> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|source| EncryptionError::Read { path: shown.clone(), source })?;
    let file: File = serde_saphyr::from_str(&text)
        .map_err(|error| EncryptionError::Parse { path: shown.clone(), reason: error.to_string() })?;
    let mut problems = Vec::new();
    let rules = file.rules(&mut problems);
    if problems.is_empty() { Ok(rules) } else { Err(EncryptionError::Invalid { path: shown, problems }) }
}

impl File {
    fn rules(self, problems: &mut Vec<String>) -> Vec<Rule> {
        if (self.api_version.as_str(), self.kind.as_str()) != ("apiserver.config.k8s.io/v1", "EncryptionConfiguration")
        {
            problems.push("apiVersion and kind must be apiserver.config.k8s.io/v1 and EncryptionConfiguration".into());
        }
        if self.resources.is_empty() {
            problems.push("resources: Required value: at least one is needed".into());
        }
        let mut rules = Vec::new();
        for (index, entry) in self.resources.into_iter().enumerate() {
            let place = format!("resources[{index}]");
            for resource in &entry.resources {
                check_resource(resource, &place, problems);
            }
            if entry.resources.is_empty() {
                problems.push(format!("{place}.resources: Required value: at least one is needed"));
            }
            if entry.providers.is_empty() {
                problems.push(format!("{place}.providers: Required value: at least one is needed"));
            }
            let mut transformers = Vec::new();
            for (index, provider) in entry.providers.into_iter().enumerate() {
                match provider.transformers() {
                    Ok(more) => transformers.extend(more.into_iter().map(Arc::new)),
                    Err(problem) => problems.push(format!("{place}.providers[{index}]{problem}")),
                }
            }
            rules.push(Rule { resources: entry.resources, transformers });
        }
        rules
    }
}

fn check_resource(resource: &str, place: &str, problems: &mut Vec<String>) {
    let why = match resource {
        "" => "must be a resource",
        "*" => "use '*.' for the core group, or '*.*' for everything",
        _ if resource.strip_prefix("*.").unwrap_or(resource).contains('*') && resource != "*.*" => {
            "only whole groups may be '*'"
        }
        _ if resource.to_lowercase() != resource => "must be in lower case",
        _ if resource == "events" || resource == "events.events.k8s.io" => return,
        _ => return,
    };
    problems.push(format!("{place}.resources: Invalid value: {resource:?}: {why}"));
}

impl Provider {
    fn transformers(self) -> Result<Vec<Transformer>, String> {
        let given = [self.identity.is_some(), self.aesgcm.is_some(), self.aescbc.is_some(), self.secretbox.is_some()];
        let count = given.iter().filter(|g| **g).count() + usize::from(self.kms.is_some());
        if count != 1 {
            return Err(": Invalid value: exactly one provider must be named".into());
        }
        if self.kms.is_some() {
            return Err(".kms: key management services are not supported by this server: use secretbox, aesgcm or \
                aescbc"
                .into());
        }
        let (name, keys) = match (self.aesgcm, self.aescbc, self.secretbox) {
            (Some(keys), ..) => ("aesgcm", keys),
            (_, Some(keys), _) => ("aescbc", keys),
            (.., Some(keys)) => ("secretbox", keys),
            _ => return Ok(vec![Transformer { mark: String::new(), cipher: Cipher::Identity }]),
        };
        if keys.keys.is_empty() {
            return Err(format!(".{name}.keys: Required value: at least one is needed"));
        }
        let mut found: Vec<Transformer> = Vec::new();
        for (index, key) in keys.keys.into_iter().enumerate() {
            let wrong = |why: &str| format!(".{name}.keys[{index}]: {why}");
            if key.name.is_empty() || key.name.contains(':') {
                return Err(wrong("the name must not be empty nor have a ':'"));
            }
            let mark = format!("k8s:enc:{name}:v1:{}:", key.name);
            if found.iter().any(|t| t.mark == mark) {
                return Err(wrong("the name is given twice"));
            }
            let secret = STANDARD.decode(key.secret.trim()).map_err(|_| wrong("the secret is no base64"))?;
            let cipher = Cipher::new(name, &secret).ok_or_else(|| {
                let sizes = if name == "secretbox" { "32" } else { "16, 24 or 32" };
                wrong(&format!("the secret must have {sizes} bytes, not {}", secret.len()))
            })?;
            found.push(Transformer { mark, cipher });
        }
        Ok(found)
    }
}

impl Cipher {
    fn new(name: &str, key: &[u8]) -> Option<Self> {
        Some(match (name, key.len()) {
            ("aesgcm", 16) => Self::Gcm128(Box::new(AesGcm::new_from_slice(key).ok()?)),
            ("aesgcm", 24) => Self::Gcm192(Box::new(AesGcm::new_from_slice(key).ok()?)),
            ("aesgcm", 32) => Self::Gcm256(Box::new(AesGcm::new_from_slice(key).ok()?)),
            ("aescbc", 16 | 24 | 32) => Self::Cbc(key.to_vec()),
            ("secretbox", 32) => Self::Secretbox(Box::new(XSalsa20Poly1305::new_from_slice(key).ok()?)),
            _ => return None,
        })
    }
}

impl Transformer {
    fn seal(&self, key: &[u8], plain: &Bytes) -> Option<Bytes> {
        let (head, sealed) = match &self.cipher {
            Cipher::Identity => return Some(plain.clone()),
            Cipher::Cbc(secret) => {
                let iv: [u8; CBC_IV] = rand::random();
                (iv.to_vec(), seal_cbc(secret, &iv, plain)?)
            }
            Cipher::Secretbox(cipher) => {
                let nonce: [u8; BOX_NONCE] = rand::random();
                (nonce.to_vec(), cipher.encrypt(&nonce.into(), &plain[..]).ok()?)
            }
            gcm => {
                let nonce = Nonce::<U12>::generate();
                let payload = Payload { msg: plain, aad: key };
                let sealed = match gcm {
                    Cipher::Gcm128(cipher) => cipher.encrypt(&nonce, payload),
                    Cipher::Gcm192(cipher) => cipher.encrypt(&nonce, payload),
                    Cipher::Gcm256(cipher) => cipher.encrypt(&nonce, payload),
                    _ => return None,
                };
                (nonce.to_vec(), sealed.ok()?)
            }
        };
        Some([self.mark.as_bytes(), &head, &sealed].concat().into())
    }

    /// `sealed` comes without the mark.
    fn open(&self, key: &[u8], sealed: &[u8]) -> Option<Bytes> {
        let plain = match &self.cipher {
            Cipher::Identity => return None,
            Cipher::Cbc(secret) => {
                let (iv, sealed) = sealed.split_at_checked(CBC_IV)?;
                open_cbc(secret, iv.try_into().ok()?, sealed)?
            }
            Cipher::Secretbox(cipher) => {
                let (nonce, sealed) = sealed.split_at_checked(BOX_NONCE)?;
                let nonce: [u8; BOX_NONCE] = nonce.try_into().ok()?;
                cipher.decrypt(&nonce.into(), sealed).ok()?
            }
            gcm => {
                let (nonce, sealed) = sealed.split_at_checked(GCM_NONCE)?;
                let nonce = Nonce::<U12>::try_from(nonce).ok()?;
                let payload = Payload { msg: sealed, aad: key };
                let opened = match gcm {
                    Cipher::Gcm128(cipher) => cipher.decrypt(&nonce, payload),
                    Cipher::Gcm192(cipher) => cipher.decrypt(&nonce, payload),
                    Cipher::Gcm256(cipher) => cipher.decrypt(&nonce, payload),
                    _ => return None,
                };
                opened.ok()?
            }
        };
        Some(plain.into())
    }
}

fn seal_cbc(key: &[u8], iv: &[u8; CBC_IV], plain: &[u8]) -> Option<Vec<u8>> {
    Some(match key.len() {
        16 => cbc::Encryptor::<Aes128>::new_from_slices(key, iv).ok()?.encrypt_padded_vec::<Pkcs7>(plain),
        24 => cbc::Encryptor::<Aes192>::new_from_slices(key, iv).ok()?.encrypt_padded_vec::<Pkcs7>(plain),
        _ => cbc::Encryptor::<Aes256>::new_from_slices(key, iv).ok()?.encrypt_padded_vec::<Pkcs7>(plain),
    })
}

fn open_cbc(key: &[u8], iv: &[u8; CBC_IV], sealed: &[u8]) -> Option<Vec<u8>> {
    match key.len() {
        16 => cbc::Decryptor::<Aes128>::new_from_slices(key, iv).ok()?.decrypt_padded_vec::<Pkcs7>(sealed).ok(),
        24 => cbc::Decryptor::<Aes192>::new_from_slices(key, iv).ok()?.decrypt_padded_vec::<Pkcs7>(sealed).ok(),
        _ => cbc::Decryptor::<Aes256>::new_from_slices(key, iv).ok()?.decrypt_padded_vec::<Pkcs7>(sealed).ok(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn key(name: &str, length: usize) -> String {
        format!("{{name: {name}, secret: {}}}", STANDARD.encode(vec![7; length]))
    }

    fn open(dir: &Path, providers: &str) -> Result<Encryption, EncryptionError> {
        let path = dir.join("encryption.yaml");
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
             - {{resources: [secrets, '*.apps'], providers: {providers}}}\n"
        );
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
                assert_eq!((mark_of(&sealed), old.mark("secrets")), (mark.clone(), mark));
                assert_eq!(old.decrypt("secrets", a, &sealed).unwrap(), plain);
                if provider == "aesgcm" {
                    assert!(old.decrypt("secrets", b, &sealed).is_none(), "bound to its key");
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
            ("[]", "resources[0].providers: Required value"),
            ("[{}]", "exactly one provider"),
            ("[{kms: {name: k}}]", "key management services are not supported"),
            ("[{aesgcm: {keys: []}}]", ".aesgcm.keys: Required value"),
            ("[{secretbox: {keys: [{name: a, secret: AAAA}]}}]", "must have 32 bytes, not 3"),
            ("[{aescbc: {keys: [{name: a, secret: '?'}]}}]", "no base64"),
        ] {
            let error = open(dir.path(), providers).err().unwrap().to_string();
            assert!(error.contains(expected), "{error}");
        }
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
