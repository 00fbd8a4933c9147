//! Service-account signing keys and the JSON web tokens made with them.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::PkiError;
use crate::file::{read_optional, write_private};
use crate::key::PrivateKey;

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
}

/// The claims of a token whose signature is right; times, audience and the rest are for the caller to check.
#[derive(Clone, Debug)]
pub struct VerifiedJwt {
    pub claims: Value,
}

/// The keys that sign and verify service-account tokens: the first signs, all verify.
#[derive(Debug)]
pub struct ServiceAccountKeys {
    signer: PrivateKey,
    verifiers: Vec<Verifier>,
}

#[derive(Debug)]
struct Verifier {
    id: String,
    point: Vec<u8>,
}

impl Verifier {
    fn of(key: &PrivateKey) -> Self {
        Self { id: key_id(&key.public_key_info()), point: key.public_point().to_vec() }
    }
}

/// The `kid` of a key: base64url of the SHA-256 of its DER SubjectPublicKeyInfo.
pub fn key_id(public_key_info: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(public_key_info))
}

impl ServiceAccountKeys {
    pub fn new(signer: PrivateKey) -> Self {
        Self { verifiers: vec![Verifier::of(&signer)], signer }
    }

    /// Accepts tokens of `key` as well, for the time of a key rotation.
    pub fn also_accept(&mut self, key: &PrivateKey) {
        self.verifiers.push(Verifier::of(key));
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
        let header = json!({"alg": "ES256", "kid": self.verifiers[0].id});
        let mut token = URL_SAFE_NO_PAD.encode(header.to_string());
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = self.signer.sign_fixed(token.as_bytes())?;
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
        if header["alg"] != "ES256" {
            return Err(JwtError::Algorithm);
        }
        let kid = header["kid"].as_str().unwrap_or_default();
        let named = self.verifiers.iter().filter(|v| kid == v.id);
        let others = self.verifiers.iter().filter(|v| kid != v.id);
        let good = named.chain(others).any(|v| {
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &v.point).verify(signed.as_bytes(), &signature).is_ok()
        });
        if good { Ok(VerifiedJwt { claims }) } else { Err(JwtError::Signature) }
    }

    /// The JSON web key set (`/openid/v1/jwks`).
    pub fn jwks(&self) -> Value {
        let keys: Vec<Value> = self
            .verifiers
            .iter()
            .map(|v| {
                let (x, y) = v.point[1..].split_at(32);
                json!({"use": "sig", "kty": "EC", "kid": v.id, "crv": "P-256", "alg": "ES256",
                       "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)})
            })
            .collect();
        json!({ "keys": keys })
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
