//! Keys of service-account tokens that come from files: any that kube-apiserver takes, but for P-521.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::rsa::KeyPair as RsaPair;
use ring::signature::{self as sig, EcdsaKeyPair, KeyPair, UnparsedPublicKey};
use rustls_pki_types::pem::{PemObject, SectionKind};
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::PkiError;
use crate::service_account::key_id;

const RSA_ENCRYPTION: &[u64] = &[1, 2, 840, 113_549, 1, 1, 1];
const EC_PUBLIC_KEY: &[u64] = &[1, 2, 840, 10045, 2, 1];
const P256: &[u64] = &[1, 2, 840, 10045, 3, 1, 7];
const P384: &[u64] = &[1, 3, 132, 0, 34];

/// A public key by which tokens are verified.
#[derive(Clone, Debug)]
pub(crate) struct Verifier {
    pub id: String,
    material: Material,
}

#[derive(Clone, Debug)]
enum Material {
    /// The PKCS#1 RSAPublicKey, its modulus and its exponent.
    Rsa {
        der: Vec<u8>,
        n: Vec<u8>,
        e: Vec<u8>,
    },
    P256(Vec<u8>),
    P384(Vec<u8>),
}

/// What signs tokens.
pub(crate) enum Signer {
    Rsa(Box<RsaPair>),
    P256(Box<EcdsaKeyPair>),
    P384(Box<EcdsaKeyPair>),
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.algorithm())
    }
}

impl Verifier {
    /// The key of a DER SubjectPublicKeyInfo.
    pub fn from_info(info: &[u8]) -> Result<Self, PkiError> {
        let refused = |why: &str| PkiError::Key(why.to_owned());
        let (_, parsed) = SubjectPublicKeyInfo::from_der(info).map_err(|e| PkiError::Key(e.to_string()))?;
        let curve = parsed.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok());
        let material = match parsed.parsed().map_err(|e| PkiError::Key(e.to_string()))? {
            PublicKey::RSA(key) => Material::Rsa {
                der: parsed.subject_public_key.data.to_vec(),
                n: significant(key.modulus),
                e: significant(key.exponent),
            },
            PublicKey::EC(point) => match curve.map(|oid| oid.to_id_string()).as_deref() {
                Some("1.2.840.10045.3.1.7") => Material::P256(point.data().to_vec()),
                Some("1.3.132.0.34") => Material::P384(point.data().to_vec()),
                _ => return Err(refused("elliptic curves other than P-256 and P-384 are not supported")),
            },
            _ => return Err(refused("neither an RSA nor an ECDSA key")),
        };
        Ok(Self { id: key_id(info), material })
    }

    /// Whether the signature was made with this key, by the one algorithm that keys of its kind are used with.
    pub fn verify(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        let (expected, parameters, key): (_, &dyn sig::VerificationAlgorithm, _) = match &self.material {
            Material::Rsa { der, .. } => ("RS256", &sig::RSA_PKCS1_2048_8192_SHA256, der),
            Material::P256(point) => ("ES256", &sig::ECDSA_P256_SHA256_FIXED, point),
            Material::P384(point) => ("ES384", &sig::ECDSA_P384_SHA384_FIXED, point),
        };
        algorithm == expected && UnparsedPublicKey::new(parameters, key).verify(message, signature).is_ok()
    }

    /// The algorithm's name in tokens.
    pub fn algorithm(&self) -> &'static str {
        match self.material {
            Material::Rsa { .. } => "RS256",
            Material::P256(_) => "ES256",
            Material::P384(_) => "ES384",
        }
    }

    /// The JSON web key.
    pub fn jwk(&self) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut key = json!({"use": "sig", "kid": self.id, "alg": self.algorithm()});
        match &self.material {
            Material::Rsa { n, e, .. } => {
                (key["kty"], key["n"], key["e"]) = (json!("RSA"), json!(text(n)), json!(text(e)));
            }
            Material::P256(point) | Material::P384(point) => {
                let (x, y) = point[1..].split_at(point.len() / 2);
                let curve = if x.len() == 32 { "P-256" } else { "P-384" };
                (key["kty"], key["crv"]) = (json!("EC"), json!(curve));
                (key["x"], key["y"]) = (json!(text(x)), json!(text(y)));
            }
        }
        key
    }
}

/// DER integers may begin with a zero for their sign.
fn significant(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().skip_while(|byte| **byte == 0).copied().collect()
}

impl Signer {
    /// The algorithm's name in tokens.
    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "RS256",
            Self::P256(_) => "ES256",
            Self::P384(_) => "ES384",
        }
    }

    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, PkiError> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&sig::RSA_PKCS1_SHA256, &random, message, &mut signature).map_err(|_| PkiError::Random)?;
                Ok(signature)
            }
            Self::P256(pair) | Self::P384(pair) => {
                Ok(pair.sign(&random, message).map_err(|_| PkiError::Random)?.as_ref().to_vec())
            }
        }
    }

    fn public_key_info(&self) -> Vec<u8> {
        match self {
            Self::Rsa(pair) => info(RSA_ENCRYPTION, None, pair.public().as_ref()),
            Self::P256(pair) => info(EC_PUBLIC_KEY, Some(P256), pair.public_key().as_ref()),
            Self::P384(pair) => info(EC_PUBLIC_KEY, Some(P384), pair.public_key().as_ref()),
        }
    }

    fn from_pkcs8(der: &[u8]) -> Result<Self, PkiError> {
        if let Ok(pair) = RsaPair::from_pkcs8(der) {
            return Ok(Self::Rsa(Box::new(pair)));
        }
        let random = SystemRandom::new();
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&sig::ECDSA_P256_SHA256_FIXED_SIGNING, der, &random) {
            return Ok(Self::P256(Box::new(pair)));
        }
        let pair = EcdsaKeyPair::from_pkcs8(&sig::ECDSA_P384_SHA384_FIXED_SIGNING, der, &random);
        let pair =
            pair.map_err(|_| PkiError::Key("neither an RSA key of 2048 bits or more nor P-256 or P-384".into()))?;
        Ok(Self::P384(Box::new(pair)))
    }

    fn from_section(kind: SectionKind, der: &[u8]) -> Option<Result<Self, PkiError>> {
        Some(match kind {
            SectionKind::PrivateKey => Self::from_pkcs8(der),
            SectionKind::RsaPrivateKey => {
                let pair = RsaPair::from_der(der).map_err(|e| PkiError::Key(e.to_string()));
                pair.map(|pair| Self::Rsa(Box::new(pair)))
            }
            // The same key in the wrapping that is read here.
            SectionKind::EcPrivateKey => {
                Self::from_pkcs8(&pkcs8(P256, der)).or_else(|_| Self::from_pkcs8(&pkcs8(P384, der)))
            }
            _ => return None,
        })
    }
}

/// The signing key of a PEM file, with its public half.
pub(crate) fn read_signer(path: &Path) -> Result<(Signer, Verifier), PkiError> {
    let found = sections(path)?.into_iter().find_map(|(kind, der)| Signer::from_section(kind, &der));
    let signer = found.unwrap_or_else(|| Err(PkiError::Key("no private key in the PEM text".into())));
    let signer = signer.map_err(|error| in_file(path, error))?;
    let verifier = Verifier::from_info(&signer.public_key_info())?;
    Ok((signer, verifier))
}

/// Every key of a PEM file: public ones, private ones of which the public half is taken, and those of certificates.
pub(crate) fn read_verifiers(path: &Path) -> Result<Vec<Verifier>, PkiError> {
    let mut found = Vec::new();
    for (kind, der) in sections(path)? {
        let info = match kind {
            SectionKind::PublicKey => Ok(der),
            SectionKind::Certificate => {
                let certificate = X509Certificate::from_der(&der).map_err(|e| PkiError::Certificate(e.to_string()));
                certificate.map(|(_, certificate)| certificate.public_key().raw.to_vec())
            }
            kind => match Signer::from_section(kind, &der) {
                Some(signer) => signer.map(|signer| signer.public_key_info()),
                None => continue,
            },
        };
        found.push(info.and_then(|info| Verifier::from_info(&info)).map_err(|error| in_file(path, error))?);
    }
    match found.is_empty() {
        true => Err(in_file(path, PkiError::Key("no key in the PEM text".into()))),
        false => Ok(found),
    }
}

fn sections(path: &Path) -> Result<Vec<(SectionKind, Vec<u8>)>, PkiError> {
    let text = std::fs::read(path).map_err(|source| PkiError::Io { action: "read", path: path.to_owned(), source })?;
    let all: Result<Vec<_>, _> = <(SectionKind, Vec<u8>)>::pem_slice_iter(&text).collect();
    all.map_err(|error| in_file(path, PkiError::Key(error.to_string())))
}

fn in_file(path: &Path, error: PkiError) -> PkiError {
    PkiError::InFile { path: PathBuf::from(path), source: Box::new(error) }
}

fn oid(parts: &[u64]) -> yasna::models::ObjectIdentifier {
    yasna::models::ObjectIdentifier::from_slice(parts)
}

fn info(algorithm: &[u64], curve: Option<&[u64]>, key: &[u8]) -> Vec<u8> {
    yasna::construct_der(|w| {
        w.write_sequence(|w| {
            w.next().write_sequence(|w| {
                w.next().write_oid(&oid(algorithm));
                match curve {
                    Some(curve) => w.next().write_oid(&oid(curve)),
                    None => w.next().write_null(),
                }
            });
            w.next().write_bitvec_bytes(key, key.len() * 8);
        });
    })
}

/// A SEC 1 private key as PKCS#8.
fn pkcs8(curve: &[u64], sec1: &[u8]) -> Vec<u8> {
    yasna::construct_der(|w| {
        w.write_sequence(|w| {
            w.next().write_u8(0);
            w.next().write_sequence(|w| {
                w.next().write_oid(&oid(EC_PUBLIC_KEY));
                w.next().write_oid(&oid(curve));
            });
            w.next().write_bytes(sec1);
        });
    })
}
