//! ECDSA P-256 private keys, the only kind made here.

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use yasna::models::ObjectIdentifier;

use crate::PkiError;
use crate::pem::to_pem;

/// An ECDSA P-256 key pair that signs certificates, requests and tokens.
pub struct PrivateKey {
    pkcs8: Vec<u8>,
    certificate_signer: EcdsaKeyPair,
    token_signer: EcdsaKeyPair,
    random: SystemRandom,
}

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PrivateKey(P-256)")
    }
}

impl PrivateKey {
    pub fn generate() -> Result<Self, PkiError> {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new())
            .map_err(|_| PkiError::Random)?;
        Self::from_pkcs8(pkcs8.as_ref())
    }

    /// Reads the first private key of a PEM text; it must be PKCS#8 with a P-256 key.
    pub fn from_pem(pem: &str) -> Result<Self, PkiError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|e| PkiError::Key(e.to_string()))?;
        Self::from_pkcs8(der.secret_pkcs8_der())
    }

    fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, PkiError> {
        let random = SystemRandom::new();
        let rejected = |e: ring::error::KeyRejected| PkiError::Key(e.to_string());
        Ok(Self {
            certificate_signer: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8, &random)
                .map_err(rejected)?,
            token_signer: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &random)
                .map_err(rejected)?,
            pkcs8: pkcs8.to_vec(),
            random,
        })
    }

    /// PKCS#8 PEM.
    pub fn to_pem(&self) -> String {
        to_pem("PRIVATE KEY", &self.pkcs8)
    }

    /// The key in the form rustls takes.
    pub fn to_rustls(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.pkcs8.clone()))
    }

    /// The uncompressed public point.
    pub fn public_point(&self) -> &[u8] {
        self.certificate_signer.public_key().as_ref()
    }

    /// DER SubjectPublicKeyInfo.
    pub fn public_key_info(&self) -> Vec<u8> {
        public_key_info(self.public_point())
    }

    /// ASN.1 signature, as certificates hold it.
    pub(crate) fn sign_asn1(&self, message: &[u8]) -> Result<Vec<u8>, PkiError> {
        Ok(self.certificate_signer.sign(&self.random, message).map_err(|_| PkiError::Random)?.as_ref().to_vec())
    }

    /// Fixed-length signature, as JSON web signatures hold it.
    pub(crate) fn sign_fixed(&self, message: &[u8]) -> Result<Vec<u8>, PkiError> {
        Ok(self.token_signer.sign(&self.random, message).map_err(|_| PkiError::Random)?.as_ref().to_vec())
    }
}

fn public_key_info(point: &[u8]) -> Vec<u8> {
    yasna::construct_der(|w| {
        w.write_sequence(|w| {
            w.next().write_sequence(|w| {
                w.next().write_oid(&ObjectIdentifier::from_slice(&[1, 2, 840, 10045, 2, 1]));
                w.next().write_oid(&ObjectIdentifier::from_slice(&[1, 2, 840, 10045, 3, 1, 7]));
            });
            w.next().write_bitvec_bytes(point, point.len() * 8);
        });
    })
}
