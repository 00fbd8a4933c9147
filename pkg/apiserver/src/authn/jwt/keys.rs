//! Public keys of an issuer, and signatures by them.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{self as sig, RsaPublicKeyComponents, UnparsedPublicKey};
use serde_json::Value;

/// One usable key of a JSON web key set.
struct Key {
    id: String,
    material: Material,
}

enum Material {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

/// The signing keys of an issuer.
#[derive(Default)]
pub struct KeySet {
    keys: Vec<Key>,
}

/// A signed token, taken apart.
pub struct Signed<'a> {
    message: &'a [u8],
    signature: Vec<u8>,
    algorithm: String,
    key_id: String,
    pub claims: Value,
}

impl<'a> Signed<'a> {
    /// `None` when the text is not a JSON web token.
    pub fn parse(token: &'a str) -> Option<Self> {
        let (message, signature) = token.rsplit_once('.')?;
        let (header, claims) = message.split_once('.')?;
        let json = |part: &str| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(part).ok()?).ok();
        let header = json(header)?;
        Some(Self {
            message: message.as_bytes(),
            signature: URL_SAFE_NO_PAD.decode(signature).ok()?,
            algorithm: header["alg"].as_str()?.to_owned(),
            key_id: header["kid"].as_str().unwrap_or_default().to_owned(),
            claims: json(claims)?,
        })
    }
}

impl KeySet {
    /// The keys of a JWKS document that are for signatures and of a kind that is known.
    pub fn from_jwks(document: &Value) -> Self {
        let keys = document["keys"].as_array().into_iter().flatten();
        Self { keys: keys.filter(|key| key["use"].as_str().is_none_or(|u| u == "sig")).filter_map(read).collect() }
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether the set has the key that the token names; a token that names none fits every set.
    pub fn knows(&self, token: &Signed<'_>) -> bool {
        token.key_id.is_empty() || self.keys.iter().any(|key| key.id == token.key_id)
    }

    /// Whether a key of the set, the named one if one is named, made the signature.
    pub fn verify(&self, token: &Signed<'_>) -> bool {
        let candidates = self.keys.iter().filter(|key| token.key_id.is_empty() || key.id == token.key_id);
        candidates.into_iter().any(|key| key.material.verify(token))
    }
}

fn read(key: &Value) -> Option<Key> {
    let bytes = |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str()?.trim_end_matches('=')).ok();
    let point = || {
        let mut point = vec![4];
        point.extend(bytes("x")?);
        point.extend(bytes("y")?);
        Some(point)
    };
    let material = match (key["kty"].as_str()?, key["crv"].as_str().unwrap_or_default()) {
        ("RSA", _) => Material::Rsa { n: bytes("n")?, e: bytes("e")? },
        ("EC", "P-256") => Material::P256(point()?),
        ("EC", "P-384") => Material::P384(point()?),
        ("OKP", "Ed25519") => Material::Ed25519(bytes("x")?),
        _ => return None,
    };
    Some(Key { id: key["kid"].as_str().unwrap_or_default().to_owned(), material })
}

impl Material {
    /// The key's kind decides which algorithms may be named, so that one cannot be passed off as another.
    fn verify(&self, token: &Signed<'_>) -> bool {
        let (message, signature) = (token.message, token.signature.as_slice());
        match (self, token.algorithm.as_str()) {
            (Self::Rsa { n, e }, algorithm) => {
                let parameters: &sig::RsaParameters = match algorithm {
                    "RS256" => &sig::RSA_PKCS1_2048_8192_SHA256,
                    "RS384" => &sig::RSA_PKCS1_2048_8192_SHA384,
                    "RS512" => &sig::RSA_PKCS1_2048_8192_SHA512,
                    "PS256" => &sig::RSA_PSS_2048_8192_SHA256,
                    "PS384" => &sig::RSA_PSS_2048_8192_SHA384,
                    "PS512" => &sig::RSA_PSS_2048_8192_SHA512,
                    _ => return false,
                };
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).is_ok()
            }
            (Self::P256(key), "ES256") => {
                UnparsedPublicKey::new(&sig::ECDSA_P256_SHA256_FIXED, key).verify(message, signature).is_ok()
            }
            (Self::P384(key), "ES384") => {
                UnparsedPublicKey::new(&sig::ECDSA_P384_SHA384_FIXED, key).verify(message, signature).is_ok()
            }
            (Self::Ed25519(key), "EdDSA") => {
                UnparsedPublicKey::new(&sig::ED25519, key).verify(message, signature).is_ok()
            }
            _ => false,
        }
    }
}
