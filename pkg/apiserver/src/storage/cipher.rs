//! Encryption of secrets in the store: AES-256-GCM, bound to the key under which the value is kept.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aes_gcm::aead::{Aead, Generate, Key, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use bytes::Bytes;

pub(super) const MARK: &[u8] = b"kube1:aesgcm:v1:";
const NONCE: usize = 12;
const KEY: usize = 32;

/// The key that secrets are encrypted with.
pub struct SecretKey(Aes256Gcm);

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("could not read or write the key file {}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the key file {} must hold {KEY} bytes: put the original back", path.display())]
    Length { path: PathBuf },
}

impl SecretKey {
    /// Reads the key file, or makes it with a new key, readable only by its owner.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyError> {
        let file = |source| KeyError::File { path: path.to_owned(), source };
        match fs::read(path) {
            Ok(bytes) => {
                let cipher = Aes256Gcm::new_from_slice(&bytes);
                cipher.map(Self).map_err(|_| KeyError::Length { path: path.to_owned() })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let key = Key::<Aes256Gcm>::generate();
                let partial = path.with_extension("partial");
                let options = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial);
                let mut target = options.map_err(file)?;
                target.write_all(&key).and_then(|()| target.sync_all()).map_err(file)?;
                fs::rename(&partial, path).map_err(file)?;
                Ok(Self(Aes256Gcm::new(&key)))
            }
            Err(error) => Err(file(error)),
        }
    }

    pub(super) fn encrypt(&self, key: &[u8], plain: &[u8]) -> Option<Bytes> {
        let nonce = Nonce::generate();
        let sealed = self.0.encrypt(&nonce, Payload { msg: plain, aad: key }).ok()?;
        Some([MARK, &nonce, &sealed].concat().into())
    }

    /// Values that are not encrypted come back as they are.
    pub(super) fn decrypt(&self, key: &[u8], value: &Bytes) -> Option<Bytes> {
        let Some(sealed) = value.strip_prefix(MARK) else { return Some(value.clone()) };
        let (nonce, sealed) = sealed.split_at_checked(NONCE)?;
        let nonce = Nonce::try_from(nonce).ok()?;
        self.0.decrypt(&nonce, Payload { msg: sealed, aad: key }).ok().map(Bytes::from)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn values_are_bound_to_their_key() {
        let dir = std::env::temp_dir().join(format!("kube1-cipher-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("key");
        let sealed = SecretKey::load_or_create(&path).unwrap().encrypt(b"a", b"secret").unwrap();
        let key = SecretKey::load_or_create(&path).unwrap();
        assert_eq!(key.decrypt(b"a", &sealed).unwrap(), "secret");
        assert!(key.decrypt(b"b", &sealed).is_none());
        assert_eq!(key.decrypt(b"a", &Bytes::from("{}")).unwrap(), "{}");
        assert!(!sealed.windows(6).any(|w| w == b"secret"));
        fs::write(&path, "short").unwrap();
        assert!(matches!(SecretKey::load_or_create(&path), Err(KeyError::Length { .. })));
        fs::remove_dir_all(&dir).unwrap();
    }
}
