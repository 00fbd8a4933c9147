//! Service-account signing keys and the JSON web tokens made with them.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::PkiError;
use crate::file::{read_optional, write_private};
use crate::key::PrivateKey;
use crate::token_key::{self, Signer, Verifier};

/// Longest token that is looked at.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// Why a token is not one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    #[error("the token is not a JSON web token")]
    Malformed,
    #[error("the token is signed with an algorithm that is not accepted")]
    Algorithm,
    #[error("the token's signature is wrong")]
    Signature,
    /// The service that signs tokens has not told of this key, but may know it.
    #[error("the token's key is not known")]
    UnknownKey,
}

/// The claims of a token whose signature is right; times, audience and the rest are for the caller to check.
#[derive(Clone, Debug)]
pub struct VerifiedJwt {
    pub claims: Value,
}

/// The keys that sign and verify service-account tokens: the first signs, all verify. Those of files can be exchanged
/// while in use.
#[derive(Debug)]
pub struct ServiceAccountKeys {
    signer: PrivateKey,
    verifiers: Vec<Verifier>,
    from_files: ArcSwap<FromFiles>,
    external: ArcSwapOption<Vec<ExternalKey>>,
}

/// The issuer of tokens that are kept in Secrets, which the cluster always signs itself.
const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";
const KEY_ID_MAX: usize = 1024;

/// A key of the service that signs the cluster's tokens (`--service-account-signing-endpoint`).
#[derive(Debug)]
pub struct ExternalKey {
    verifier: Verifier,
    /// For tokens of former times: no new ones are signed with it, and the key set does not have it.
    hidden: bool,
}

impl ExternalKey {
    /// `info` is a DER SubjectPublicKeyInfo.
    pub fn new(id: &str, info: &[u8], hidden: bool) -> Result<Self, PkiError> {
        if id.is_empty() || id.len() > KEY_ID_MAX {
            return Err(PkiError::Key(format!("found invalid public key id {id:?}")));
        }
        if info.is_empty() {
            return Err(PkiError::Key("found empty public key".to_owned()));
        }
        let mut verifier = Verifier::from_info(info)?;
        id.clone_into(&mut verifier.id);
        Ok(Self { verifier, hidden })
    }
}

/// Files with keys beside the cluster's own (`--service-account-signing-key-file`, `--service-account-key-file`).
#[derive(Clone, Debug, Default)]
pub struct ServiceAccountKeyFiles {
    /// Signs new tokens instead of the cluster's own key.
    pub signing: Option<PathBuf>,
    /// Tokens by these are accepted; each may hold several, public or private.
    pub accepted: Vec<PathBuf>,
}

#[derive(Debug, Default)]
struct FromFiles {
    files: ServiceAccountKeyFiles,
    signer: Option<Signer>,
    /// That of the signer comes first.
    verifiers: Vec<Verifier>,
}

impl FromFiles {
    fn read(files: ServiceAccountKeyFiles) -> Result<Self, PkiError> {
        let mut read = Self { files, ..Self::default() };
        if let Some(path) = &read.files.signing {
            let (signer, verifier) = token_key::read_signer(path)?;
            (read.signer, read.verifiers) = (Some(signer), vec![verifier]);
        }
        for path in &read.files.accepted {
            read.verifiers.extend(token_key::read_verifiers(path)?);
        }
        let mut known = HashSet::new();
        read.verifiers.retain(|verifier| known.insert(verifier.id.clone()));
        Ok(read)
    }
}

/// The `kid` of a key: base64url of the SHA-256 of its DER SubjectPublicKeyInfo.
pub fn key_id(public_key_info: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(public_key_info))
}

fn verifier(key: &PrivateKey) -> Verifier {
    Verifier::from_info(&key.public_key_info()).expect("keys made here are P-256")
}

impl ServiceAccountKeys {
    pub fn new(signer: PrivateKey) -> Self {
        let verifiers = vec![verifier(&signer)];
        Self { verifiers, signer, from_files: ArcSwap::default(), external: ArcSwapOption::empty() }
    }

    /// Accepts tokens of `key` as well, for the time of a key rotation.
    pub fn also_accept(&mut self, key: &PrivateKey) {
        self.verifiers.push(verifier(key));
    }

    /// Takes the keys of these files too, which [`ServiceAccountKeys::reload`] reads again.
    pub fn use_files(&self, files: ServiceAccountKeyFiles) -> Result<(), PkiError> {
        self.from_files.store(Arc::new(FromFiles::read(files)?));
        Ok(())
    }

    /// The files that [`ServiceAccountKeys::reload`] reads.
    pub fn files(&self) -> Vec<PathBuf> {
        let from_files = self.from_files.load();
        from_files.files.signing.iter().chain(&from_files.files.accepted).cloned().collect()
    }

    /// Exchanges the keys of files for what is in the files now; on error nothing changes.
    pub fn reload(&self) -> Result<(), PkiError> {
        self.use_files(self.from_files.load().files.clone())
    }

    /// The keys of `dir`: `service-account.key` signs, every `service-account-*.key` is accepted too.
    pub fn load_or_create(dir: &Path) -> Result<Self, PkiError> {
        let path = dir.join("service-account.key");
        let signer = match read_optional(&path)? {
            Some(pem) => PrivateKey::from_pem(&pem).map_err(|e| PkiError::Damaged { path, reason: e.to_string() })?,
            None => {
                let key = PrivateKey::generate()?;
                write_private(&path, key.to_pem().as_bytes())?;
                key
            }
        };
        let mut keys = Self::new(signer);
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with("service-account-")
                && name.ends_with(".key")
                && let Some(pem) = read_optional(&entry.path())?
            {
                keys.also_accept(
                    &PrivateKey::from_pem(&pem)
                        .map_err(|e| PkiError::Damaged { path: entry.path(), reason: e.to_string() })?,
                );
            }
        }
        Ok(keys)
    }

    /// A signed token with these claims.
    pub fn sign(&self, claims: &Value) -> Result<String, PkiError> {
        let from_files = self.from_files.load();
        let first = match &from_files.signer {
            Some(_) => &from_files.verifiers[0],
            None => &self.verifiers[0],
        };
        let header = json!({"alg": first.algorithm(), "kid": first.id});
        let mut token = URL_SAFE_NO_PAD.encode(header.to_string());
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = match &from_files.signer {
            Some(signer) => signer.sign(token.as_bytes())?,
            None => self.signer.sign_fixed(token.as_bytes())?,
        };
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(signature));
        Ok(token)
    }

    /// Checks the signature, with the key the token names or else with every key.
    pub fn verify(&self, token: &str) -> Result<VerifiedJwt, JwtError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(JwtError::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(JwtError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(JwtError::Malformed)?;
        let (header, claims) = (decode_json(header)?, decode_json(claims)?);
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| JwtError::Malformed)?;
        let algorithm = header["alg"].as_str().unwrap_or_default();
        if !["ES256", "ES384", "RS256"].contains(&algorithm) {
            return Err(JwtError::Algorithm);
        }
        let kid = header["kid"].as_str().unwrap_or_default();
        if let Some(external) = &*self.external.load()
            && claims["iss"] != LEGACY_ISSUER
        {
            let mut fitting = external.iter().filter(|key| kid.is_empty() || key.verifier.id == kid).peekable();
            fitting.peek().ok_or(JwtError::UnknownKey)?;
            let good = fitting.any(|key| key.verifier.verify(algorithm, signed.as_bytes(), &signature));
            return if good { Ok(VerifiedJwt { claims }) } else { Err(JwtError::Signature) };
        }
        let from_files = self.from_files.load();
        let all = || self.verifiers.iter().chain(&from_files.verifiers);
        let candidates = all().filter(|v| kid == v.id).chain(all().filter(|v| kid != v.id));
        let good = candidates.into_iter().any(|v| v.verify(algorithm, signed.as_bytes(), &signature));
        if good { Ok(VerifiedJwt { claims }) } else { Err(JwtError::Signature) }
    }

    /// Tokens are verified by these from now on, but for those that are kept in Secrets.
    pub fn use_external(&self, keys: Vec<ExternalKey>) {
        self.external.store(Some(Arc::new(keys)));
    }

    /// Whether new tokens may not be signed with the external key `id`.
    pub fn is_hidden(&self, id: &str) -> bool {
        self.external.load().as_ref().is_some_and(|keys| keys.iter().any(|key| key.verifier.id == id && key.hidden))
    }

    /// The JSON web key set (`/openid/v1/jwks`).
    pub fn jwks(&self) -> Value {
        json!({ "keys": self.shown(Verifier::jwk) })
    }

    /// The algorithms of the key set (`id_token_signing_alg_values_supported`), each once.
    pub fn algorithms(&self) -> Vec<&'static str> {
        self.shown(Verifier::algorithm).into_iter().collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Something of each key by which others may verify tokens.
    fn shown<T>(&self, of: impl Fn(&Verifier) -> T) -> Vec<T> {
        if let Some(external) = &*self.external.load() {
            return external.iter().filter(|key| !key.hidden).map(|key| of(&key.verifier)).collect();
        }
        self.verifiers.iter().chain(&self.from_files.load().verifiers).map(of).collect()
    }
}

fn decode_json(part: &str) -> Result<Value, JwtError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| JwtError::Malformed)?;
    let value: Value = serde_json::from_slice(&bytes).map_err(|_| JwtError::Malformed)?;
    if value.is_object() { Ok(value) } else { Err(JwtError::Malformed) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_token_verifies_with_its_key_and_after_a_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let old = ServiceAccountKeys::load_or_create(dir.path()).unwrap();
        let token = old.sign(&json!({"sub": "x"})).unwrap();
        assert_eq!(ServiceAccountKeys::load_or_create(dir.path()).unwrap().verify(&token).unwrap().claims["sub"], "x");
        std::fs::rename(dir.path().join("service-account.key"), dir.path().join("service-account-1.key")).unwrap();
        let new = ServiceAccountKeys::load_or_create(dir.path()).unwrap();
        assert_eq!(new.jwks()["keys"].as_array().unwrap().len(), 2);
        new.verify(&token).unwrap();
    }

    /// What openssl made: an RSA key as PKCS#1, one on P-256 as SEC 1, one on P-384 as PKCS#8; each with its public half.
    const MADE: [(&str, &str, &str); 3] = [
        ("RS256", include_str!("testdata/rsa.pem"), include_str!("testdata/rsa.pub.pem")),
        ("ES256", include_str!("testdata/p256.pem"), include_str!("testdata/p256.pub.pem")),
        ("ES384", include_str!("testdata/p384.pem"), include_str!("testdata/p384.pub.pem")),
    ];

    #[test]
    fn keys_of_files_sign_and_verify_and_are_exchanged() {
        let dir = tempfile::tempdir().unwrap();
        let (signing, accepted) = (dir.path().join("signing.pem"), dir.path().join("accepted.pem"));
        std::fs::write(&signing, MADE[0].1).unwrap();
        std::fs::write(&accepted, MADE[1].2).unwrap();
        let own = ServiceAccountKeys::new(PrivateKey::generate().unwrap());
        let old = own.sign(&json!({"sub": "old"})).unwrap();
        let files = ServiceAccountKeyFiles { signing: Some(signing.clone()), accepted: vec![accepted.clone()] };
        own.use_files(files).unwrap();
        let keys = own;
        assert_eq!((keys.jwks()["keys"].as_array().unwrap().len(), keys.algorithms()), (3, vec!["ES256", "RS256"]));
        let mut last = String::new();
        for (algorithm, pem, public_pem) in MADE {
            std::fs::write(&signing, pem).unwrap();
            keys.reload().unwrap();
            let token = keys.sign(&json!({"sub": algorithm})).unwrap();
            assert_eq!(decode_json(token.split('.').next().unwrap()).unwrap()["alg"], algorithm);
            assert_eq!(keys.verify(&token).unwrap().claims["sub"], algorithm);
            // A verifier of another server knows the public half alone.
            let public = dir.path().join("public.pem");
            std::fs::write(&public, public_pem).unwrap();
            let files = ServiceAccountKeyFiles { signing: None, accepted: vec![public] };
            let other = ServiceAccountKeys::new(PrivateKey::generate().unwrap());
            other.use_files(files).unwrap();
            assert_eq!(other.verify(&token).unwrap().claims["sub"], algorithm);
            assert_eq!(other.verify(&old).unwrap_err(), JwtError::Signature);
            last = token;
        }
        std::fs::write(&signing, "torn").unwrap();
        assert!(keys.reload().is_err());
        keys.verify(&last).unwrap();
        std::fs::write(&signing, MADE[0].1).unwrap();
        keys.reload().unwrap();
        assert_eq!(keys.verify(&last).unwrap_err(), JwtError::Signature, "its key was taken away");
        keys.verify(&old).unwrap();
    }

    #[test]
    fn forged_unsigned_and_torn_tokens_are_told_apart() {
        let keys = ServiceAccountKeys::new(PrivateKey::generate().unwrap());
        let other = ServiceAccountKeys::new(PrivateKey::generate().unwrap());
        let token = keys.sign(&json!({"sub": "x"})).unwrap();
        assert_eq!(other.verify(&token).unwrap_err(), JwtError::Signature);
        let parts: Vec<&str> = token.split('.').collect();
        let changed = format!("{}.{}.{}", parts[0], URL_SAFE_NO_PAD.encode(r#"{"sub":"y"}"#), parts[2]);
        assert_eq!(keys.verify(&changed).unwrap_err(), JwtError::Signature);
        let unsigned = format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), parts[1]);
        assert_eq!(keys.verify(&unsigned).unwrap_err(), JwtError::Algorithm);
        assert_eq!(keys.verify("abc").unwrap_err(), JwtError::Malformed);
    }

    #[test]
    fn the_key_set_names_the_key_of_the_header() {
        let keys = ServiceAccountKeys::new(PrivateKey::generate().unwrap());
        let token = keys.sign(&json!({})).unwrap();
        let header = decode_json(token.split('.').next().unwrap()).unwrap();
        assert_eq!(header["kid"], keys.jwks()["keys"][0]["kid"]);
    }
}
