//! One way to keep a value each.

use std::sync::Arc;

use aes::{Aes128, Aes192, Aes256};
use aes_gcm::aead::consts::U12;
use aes_gcm::aead::{Aead, Generate, KeyInit, Payload};
use aes_gcm::{AesGcm, Nonce};
use bytes::Bytes;
use cbc::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit, block_padding::Pkcs7};
use crypto_secretbox::XSalsa20Poly1305;
use crypto_secretbox::aead::{Aead as _, KeyInit as _};

use super::super::kms::{self, Kms, Unreadable};

const GCM_NONCE: usize = 12;
const CBC_IV: usize = 16;
const BOX_NONCE: usize = 24;

/// One way to keep a value.
pub(super) struct Transformer {
    /// What values kept by it begin with; empty for values as they are.
    pub prefix: String,
    pub cipher: Cipher,
}

pub(super) enum Cipher {
    Identity,
    Gcm128(Box<AesGcm<Aes128, U12>>),
    Gcm192(Box<AesGcm<Aes192, U12>>),
    Gcm256(Box<AesGcm<Aes256, U12>>),
    /// The key, of 16, 24 or 32 bytes.
    Cbc(Vec<u8>),
    Secretbox(Box<XSalsa20Poly1305>),
    Kms(Arc<Kms>),
}

impl Cipher {
    pub fn new(name: &str, key: &[u8]) -> Option<Self> {
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
    pub fn identity() -> Self {
        Self { prefix: String::new(), cipher: Cipher::Identity }
    }

    /// What values that it writes now are told by; none while that is not known.
    pub fn mark(&self) -> Option<String> {
        match &self.cipher {
            Cipher::Kms(kms) => Some(kms_mark(&self.prefix, &kms.key_id()?, true)),
            _ => Some(self.prefix.clone()),
        }
    }

    /// Its name in metrics, without that of a key.
    pub fn label(&self) -> &str {
        match &self.cipher {
            Cipher::Identity => "identity",
            Cipher::Kms(_) => &self.prefix,
            _ => self.prefix[..self.prefix.len() - 1]
                .rsplit_once(':')
                .map_or("", |(kind, _)| &self.prefix[..=kind.len()]),
        }
    }

    /// An error says why, in upstream's words.
    pub fn seal(&self, key: &[u8], plain: &Bytes) -> Result<Bytes, String> {
        match &self.cipher {
            Cipher::Kms(kms) => Ok([self.prefix.as_bytes(), &kms.seal(key, plain)?].concat().into()),
            _ => self.seal_here(key, plain).ok_or_else(|| "the value cannot be encrypted".to_owned()),
        }
    }

    fn seal_here(&self, key: &[u8], plain: &Bytes) -> Option<Bytes> {
        let (head, sealed) = match &self.cipher {
            Cipher::Identity | Cipher::Kms(_) => return Some(plain.clone()),
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
        Some([self.prefix.as_bytes(), &head, &sealed].concat().into())
    }

    /// `sealed` comes without the prefix.
    pub fn open(&self, key: &[u8], sealed: &Bytes) -> Result<Bytes, Unreadable> {
        match &self.cipher {
            Cipher::Kms(kms) => kms.open(key, sealed),
            _ => self.open_here(key, sealed).ok_or_else(|| Unreadable::Broken("the key does not fit".to_owned())),
        }
    }

    fn open_here(&self, key: &[u8], sealed: &[u8]) -> Option<Bytes> {
        let plain = match &self.cipher {
            Cipher::Identity | Cipher::Kms(_) => return None,
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

/// Values of a service are told apart by its keys too.
pub(super) fn kms_mark(prefix: &str, key_id: &str, derived: bool) -> String {
    format!("{prefix}{}:{key_id}", u8::from(derived))
}

/// The same of a stored value.
pub(super) fn kms_mark_of(prefix: &str, sealed: &Bytes) -> String {
    kms::written_with(sealed).map_or_else(|| prefix.to_owned(), |(id, derived)| kms_mark(prefix, &id, derived))
}
