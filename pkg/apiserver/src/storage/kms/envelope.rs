//! Values encrypted by keys that a key management service keeps for us: KEP-3299's envelope.

use bytes::Bytes;
use kube1_api::field::FieldPath;
use kube1_api::validate::qualified_domain;
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Prk};
use sha2::{Digest, Sha256};

use super::wire::{Annotations, EncryptedObject};

/// Of seeds, and of what a value's key is derived by.
const SEED: usize = 32;
const ANNOTATIONS_MAX: usize = 32 << 10;
const KEY_ID_MAX: usize = 1 << 10;
const ENCRYPTED_KEY_MAX: usize = 1 << 10;
/// The types of encrypted keys.
const PLAIN_KEY: i32 = 0;
pub const DERIVED_KEY: i32 = 1;

/// What decrypts values, once the service has decrypted it.
pub enum Opener {
    /// Of which each value's key is derived.
    Seed(Prk),
    Key(Box<LessSafeKey>),
}

/// A new seed, and the secret of it for the service.
pub fn new_seed() -> (Opener, Vec<u8>) {
    let secret: [u8; SEED] = rand::random();
    (Opener::Seed(Prk::new_less_safe(HKDF_SHA256, &secret)), secret.to_vec())
}

impl Opener {
    /// `secret` is what the service decrypted.
    pub fn new(source_type: i32, secret: &[u8]) -> Result<Self, String> {
        if source_type == DERIVED_KEY {
            if secret.len() < SEED {
                return Err(format!("invalid seed length {} used for key generation", secret.len()));
            }
            return Ok(Self::Seed(Prk::new_less_safe(HKDF_SHA256, secret)));
        }
        let algorithm = if secret.len() == 16 { &AES_128_GCM } else { &AES_256_GCM };
        let key = UnboundKey::new(algorithm, secret);
        key.map(|key| Self::Key(Box::new(LessSafeKey::new(key))))
            .map_err(|_| format!("invalid key size {}", secret.len()))
    }

    /// Bound to the storage key. Only seeds encrypt, by a key used once.
    pub fn seal(&self, key: &[u8], plain: &[u8]) -> Option<Bytes> {
        let Self::Seed(seed) = self else { return None };
        let info: [u8; SEED] = rand::random();
        let nonce: [u8; NONCE_LEN] = rand::random();
        let mut sealed = plain.to_vec();
        let cipher = derive(seed, &info)?;
        cipher.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(key), &mut sealed).ok()?;
        Some([&info[..], &nonce, &sealed].concat().into())
    }

    pub fn open(&self, key: &[u8], sealed: &[u8]) -> Option<Bytes> {
        let derived;
        let (cipher, sealed) = match self {
            Self::Key(cipher) => (&**cipher, sealed),
            Self::Seed(seed) => {
                let (info, sealed) = sealed.split_at_checked(SEED)?;
                derived = derive(seed, info)?;
                (&derived, sealed)
            }
        };
        let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut plain = sealed.to_vec();
        let length = cipher.open_in_place(nonce, Aad::from(key), &mut plain).ok()?.len();
        plain.truncate(length);
        Some(plain.into())
    }
}

struct KeyLength;

impl KeyType for KeyLength {
    fn len(&self) -> usize {
        SEED
    }
}

fn derive(seed: &Prk, info: &[u8]) -> Option<LessSafeKey> {
    let mut key = [0; SEED];
    seed.expand(&[info], KeyLength).ok()?.fill(&mut key).ok()?;
    Some(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).ok()?))
}

/// What tells apart the keys that the service decrypts: all that it is shown of one.
pub fn fingerprint(object: &EncryptedObject) -> [u8; 32] {
    let mut digest = Sha256::new();
    let mut add = |part: &[u8]| {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    };
    add(&object.encrypted_dek_source_type.to_be_bytes());
    add(&object.encrypted_dek_source);
    add(object.key_id.as_bytes());
    for (name, value) in &object.annotations {
        add(name.as_bytes());
        add(value);
    }
    digest.finalize().into()
}

/// `Err` says what is wrong with an object, in upstream's words.
pub fn check(object: &EncryptedObject) -> Result<(), String> {
    if object.encrypted_data.is_empty() {
        return Err("encrypted data is empty".to_owned());
    }
    check_source(object)
}

/// The same without its data.
pub fn check_source(object: &EncryptedObject) -> Result<(), String> {
    if !matches!(object.encrypted_dek_source_type, PLAIN_KEY | DERIVED_KEY) {
        return Err(format!("unknown encryptedDEKSourceType: {}", object.encrypted_dek_source_type));
    }
    let source = match object.encrypted_dek_source.len() {
        0 => Err("encrypted DEK source is empty".to_owned()),
        size if size > ENCRYPTED_KEY_MAX => {
            Err(format!("encrypted DEK source is {size} bytes, which exceeds the max size of {ENCRYPTED_KEY_MAX}"))
        }
        _ => Ok(()),
    };
    source.map_err(|why| format!("failed to validate encrypted DEK source: {why}"))?;
    check_key_id(&object.key_id).map_err(|(_, why)| format!("failed to validate key id: {why}"))?;
    check_annotations(&object.annotations).map_err(|why| format!("failed to validate annotations: {why}"))
}

/// An error comes with its name in metrics.
pub fn check_key_id(id: &str) -> Result<(), (&'static str, String)> {
    match id.len() {
        0 => Err(("empty", "keyID is empty".to_owned())),
        size if size > KEY_ID_MAX => {
            Err(("too_long", format!("keyID is {size} bytes, which exceeds the max size of {KEY_ID_MAX}")))
        }
        _ => Ok(()),
    }
}

fn check_annotations(annotations: &Annotations) -> Result<(), String> {
    let path = FieldPath::new("annotations");
    let names = annotations.keys().filter_map(|name| qualified_domain(&path, name));
    let mut problems: Vec<String> = names.map(|problem| problem.to_string()).collect();
    let size: usize = annotations.iter().map(|(name, value)| name.len() + value.len()).sum();
    if size > ANNOTATIONS_MAX {
        problems.push(format!("total size of annotations is {size}, which exceeds the max size of {ANNOTATIONS_MAX}"));
    }
    aggregate(problems)
}

/// Several errors in one, as upstream writes them.
pub fn aggregate(mut problems: Vec<String>) -> Result<(), String> {
    match problems.len() {
        0 => Ok(()),
        1 => Err(problems.remove(0)),
        _ => Err(format!("[{}]", problems.join(", "))),
    }
}

pub fn hash_of(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("sha256:{}", hex::encode(Sha256::digest(text.as_bytes()))) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn values_are_bound_to_their_place_and_their_seed() {
        let (seed, secret) = new_seed();
        let sealed = seed.seal(b"/registry/a", b"plain").unwrap();
        let again = Opener::new(DERIVED_KEY, &secret).unwrap();
        assert_eq!(again.open(b"/registry/a", &sealed).unwrap(), "plain");
        assert_ne!(sealed, seed.seal(b"/registry/a", b"plain").unwrap(), "a key of its own each time");
        assert!(again.open(b"/registry/b", &sealed).is_none());
        assert!(new_seed().0.open(b"/registry/a", &sealed).is_none());
        assert!((0..sealed.len()).all(|end| again.open(b"/registry/a", &sealed[..end]).is_none()));
        for (kind, length, expected) in [
            (DERIVED_KEY, 31, Some("invalid seed length 31 used for key generation")),
            (DERIVED_KEY, 64, None),
            (PLAIN_KEY, 32, None),
            (PLAIN_KEY, 16, None),
            (PLAIN_KEY, 31, Some("invalid key size 31")),
        ] {
            assert_eq!(Opener::new(kind, &vec![7; length]).err().as_deref(), expected, "{kind} {length}");
        }
    }

    #[test]
    fn what_the_service_says_is_checked() {
        let fine = EncryptedObject {
            encrypted_data: Bytes::from_static(b"d"),
            key_id: "1".into(),
            encrypted_dek_source: vec![1],
            annotations: Annotations::from([("a.example.com".into(), vec![1])]),
            encrypted_dek_source_type: DERIVED_KEY,
        };
        assert_eq!(check(&fine), Ok(()));
        let with = |name: &str, size| Annotations::from([(name.to_owned(), vec![0; size])]);
        for (object, expected) in [
            (EncryptedObject { encrypted_data: Bytes::new(), ..fine.clone() }, "encrypted data is empty"),
            (EncryptedObject { encrypted_dek_source_type: 2, ..fine.clone() }, "unknown encryptedDEKSourceType: 2"),
            (
                EncryptedObject { encrypted_dek_source: vec![], ..fine.clone() },
                "failed to validate encrypted DEK source: encrypted DEK source is empty",
            ),
            (
                EncryptedObject { encrypted_dek_source: vec![0; 1025], ..fine.clone() },
                "failed to validate encrypted DEK source: encrypted DEK source is 1025 bytes, which exceeds the max size of 1024",
            ),
            (EncryptedObject { key_id: String::new(), ..fine.clone() }, "failed to validate key id: keyID is empty"),
            (
                EncryptedObject { key_id: "k".repeat(1025), ..fine.clone() },
                "failed to validate key id: keyID is 1025 bytes, which exceeds the max size of 1024",
            ),
            (
                EncryptedObject { annotations: with("foo", 1), ..fine.clone() },
                "failed to validate annotations: annotations: Invalid value: \"foo\": should be a domain with at least two segments separated by dots",
            ),
            (
                EncryptedObject { annotations: with("a.b", 32 << 10), ..fine.clone() },
                "failed to validate annotations: total size of annotations is 32771, which exceeds the max size of 32768",
            ),
        ] {
            assert_eq!(check(&object), Err(expected.to_owned()));
        }
        let other = EncryptedObject { annotations: with("b.example.com", 1), ..fine.clone() };
        assert_ne!(fingerprint(&fine), fingerprint(&other));
    }
}
