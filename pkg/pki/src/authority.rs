//! Certificate authorities.

use std::path::Path;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::certificate::{AltName, KeyUsage, Subject, Template, Usage, key_identifier, sign};
use crate::csr::CertificateRequest;
use crate::file::{read_optional, write_private};
use crate::key::PrivateKey;
use crate::leaf::{Leaf, LeafProfile};
use crate::pem::{certificates_from_pem, to_pem};
use crate::{PkiError, clock};

/// How long leaf certificates are valid.
pub const LEAF_LIFETIME: Duration = Duration::from_secs(365 * DAY as u64);
/// How far the start of certificates signed for requests lies in the past.
pub const CSR_BACKDATE: Duration = Duration::from_secs(5 * 60);

const DAY: i64 = 24 * 3600;
const CA_LIFETIME: i64 = 3650 * DAY;
const CA_BACKDATE: i64 = DAY;

/// A certificate authority: its certificate and key.
#[derive(Debug)]
pub struct Authority {
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    key: PrivateKey,
    subject: Vec<u8>,
    key_id: Vec<u8>,
    not_before: i64,
    not_after: i64,
}

/// What to put into a certificate for a request, besides the request's own subject, names and key.
#[derive(Clone, Debug)]
pub struct CsrSigning {
    pub usages: Vec<Usage>,
    pub digital_signature: bool,
    pub key_encipherment: bool,
    pub lifetime: Duration,
}

impl Authority {
    /// A new self-signed authority, valid for ten years.
    pub fn create(common_name: &str) -> Result<Self, PkiError> {
        let key = PrivateKey::generate()?;
        let subject = Subject::new(format!("{common_name}@{}", clock::unix_now()), &[]).to_der();
        let info = key.public_key_info();
        let not_before = clock::unix_now() - CA_BACKDATE;
        let der = sign(
            &Template {
                issuer: &subject,
                issuer_key_id: &key_identifier(&info),
                subject: &subject,
                public_key_info: &info,
                not_before,
                not_after: not_before + CA_BACKDATE + CA_LIFETIME,
                is_ca: true,
                key_usage: KeyUsage { digital_signature: true, key_encipherment: true, cert_sign: true },
                usages: &[],
                alt_names: &[],
            },
            &key,
        )?;
        Self::from_parts(der.into(), key)
    }

    /// An authority from its certificate and key in PEM; the two must belong together.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, PkiError> {
        let mut chain = certificates_from_pem(certificate)?;
        Self::from_parts(chain.swap_remove(0), PrivateKey::from_pem(key)?)
    }

    fn from_parts(certificate: CertificateDer<'static>, key: PrivateKey) -> Result<Self, PkiError> {
        let bad = |e: x509_parser::asn1_rs::Err<_>| PkiError::Certificate(e.to_string());
        let (_, parsed) = X509Certificate::from_der(&certificate).map_err(bad)?;
        if parsed.public_key().raw != key.public_key_info() {
            return Err(PkiError::Certificate("the authority's certificate and key do not belong together".into()));
        }
        if !parsed.is_ca() {
            return Err(PkiError::Certificate("not the certificate of an authority".into()));
        }
        let subject = parsed.subject().as_raw().to_vec();
        let key_id = own_key_identifier(&parsed).unwrap_or_else(|| key_identifier(parsed.public_key().raw));
        let (not_before, not_after) =
            (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
        Ok(Self {
            certificate_pem: to_pem("CERTIFICATE", &certificate),
            subject,
            key_id,
            not_before,
            not_after,
            certificate,
            key,
        })
    }

    /// The authority kept in `DIR/NAME.crt` and `DIR/NAME.key`, made on first use.
    ///
    /// A half or damaged pair is an error and is left as it is: replacing an authority would cut off every node.
    pub fn load_or_create(dir: &Path, name: &str, common_name: &str) -> Result<Self, PkiError> {
        let (crt, key) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
        match (read_optional(&crt)?, read_optional(&key)?) {
            (Some(c), Some(k)) => {
                Self::from_pem(&c, &k).map_err(|e| PkiError::Damaged { path: crt, reason: e.to_string() })
            }
            // The key is written first: a key alone is what a crash in between leaves, and nothing was signed with it.
            (None, _) => {
                let made = Self::create(common_name)?;
                write_private(&key, made.key.to_pem().as_bytes())?;
                write_private(&crt, made.certificate_pem.as_bytes())?;
                Ok(made)
            }
            (Some(_), None) => {
                Err(PkiError::Damaged { path: key, reason: "the key of this certificate is missing".into() })
            }
        }
    }

    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    pub fn certificate_der(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Hex SHA-256 of the DER certificate, which join tokens carry.
    pub fn hash(&self) -> String {
        hex::encode(Sha256::digest(&self.certificate))
    }

    /// End of validity, in seconds since 1970.
    pub fn not_after(&self) -> i64 {
        self.not_after
    }

    /// Issues a certificate with a new key. Its validity starts with the authority's own, so that a node whose clock is
    /// behind accepts it, and ends with it at the latest.
    pub fn issue(&self, profile: &LeafProfile) -> Result<Leaf, PkiError> {
        let key = PrivateKey::generate()?;
        let der = self.sign_template(
            &profile.subject.to_der(),
            &key.public_key_info(),
            (self.not_before, clock::unix_now() + seconds(LEAF_LIFETIME)),
            KeyUsage { digital_signature: true, key_encipherment: true, cert_sign: false },
            &profile.usages,
            &profile.alt_names,
        )?;
        Ok(Leaf { certificate_pem: to_pem("CERTIFICATE", &der), key_pem: key.to_pem() })
    }

    /// Signs a request whose signature was checked on parsing; returns the certificate in PEM.
    pub fn sign_csr(&self, request: &CertificateRequest, signing: &CsrSigning) -> Result<String, PkiError> {
        let start = (clock::unix_now() - seconds(CSR_BACKDATE)).max(self.not_before);
        let der = self.sign_template(
            request.subject_der(),
            request.public_key_info(),
            (start, clock::unix_now() - seconds(CSR_BACKDATE) + seconds(signing.lifetime)),
            KeyUsage {
                digital_signature: signing.digital_signature,
                key_encipherment: signing.key_encipherment,
                cert_sign: false,
            },
            &signing.usages,
            request.alt_names(),
        )?;
        Ok(to_pem("CERTIFICATE", &der))
    }

    fn sign_template(
        &self,
        subject: &[u8],
        public_key_info: &[u8],
        (not_before, not_after): (i64, i64),
        key_usage: KeyUsage,
        usages: &[Usage],
        alt_names: &[AltName],
    ) -> Result<Vec<u8>, PkiError> {
        let template = Template {
            issuer: &self.subject,
            issuer_key_id: &self.key_id,
            subject,
            public_key_info,
            not_before,
            not_after: not_after.min(self.not_after),
            is_ca: false,
            key_usage,
            usages,
            alt_names,
        };
        sign(&template, &self.key)
    }
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX / 4)
}

fn own_key_identifier(certificate: &X509Certificate<'_>) -> Option<Vec<u8>> {
    certificate.extensions().iter().find_map(|e| match e.parsed_extension() {
        x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls::server::WebPkiClientVerifier;
    use rustls_pki_types::{ServerName, UnixTime};

    use super::*;
    use crate::csr::create_csr;

    fn roots(ca: &Authority) -> Arc<rustls::RootCertStore> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(ca.certificate_der().clone()).unwrap();
        Arc::new(roots)
    }

    #[test]
    fn a_serving_certificate_is_accepted_for_its_names_only() {
        let ca = Authority::create("kubernetes").unwrap();
        let leaf = ca
            .issue(&LeafProfile {
                subject: Subject::new("kube-apiserver", &[]),
                usages: vec![Usage::ServerAuth],
                alt_names: vec![
                    AltName::Dns("kubernetes.default".into()),
                    AltName::parse("10.43.0.1"),
                    AltName::parse("fd00::1"),
                ],
            })
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(roots(&ca), provider).build().unwrap();
        let der = certificates_from_pem(&leaf.certificate_pem).unwrap().remove(0);
        let check = |name: &str| {
            verifier.verify_server_cert(
                &der,
                &[],
                &ServerName::try_from(name.to_owned()).unwrap(),
                &[],
                UnixTime::now(),
            )
        };
        check("kubernetes.default").unwrap();
        check("10.43.0.1").unwrap();
        check("fd00::1").unwrap();
        assert!(check("example.com").is_err());
        assert!(check("10.43.0.2").is_err());
    }

    #[test]
    fn a_client_certificate_carries_all_groups_and_is_refused_by_another_authority() {
        let (ca, other) = (Authority::create("a").unwrap(), Authority::create("b").unwrap());
        let subject = Subject::new("jane", &["dev", "ops", "system:masters"]);
        let leaf = ca
            .issue(&LeafProfile { subject: subject.clone(), usages: vec![Usage::ClientAuth], alt_names: vec![] })
            .unwrap();
        let der = certificates_from_pem(&leaf.certificate_pem).unwrap().remove(0);
        let verify = |ca: &Authority| {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let verifier = WebPkiClientVerifier::builder_with_provider(roots(ca), provider).build().unwrap();
            verifier.verify_client_cert(&der, &[], UnixTime::now())
        };
        verify(&ca).unwrap();
        assert!(verify(&other).is_err());
        assert_eq!(crate::csr::subject_of(&der).unwrap(), subject);
    }

    #[test]
    fn a_request_is_signed_with_its_own_subject_names_and_key() {
        let ca = Authority::create("kubernetes").unwrap();
        let key = PrivateKey::generate().unwrap();
        let names = [AltName::Dns("node-1".into()), AltName::parse("192.0.2.7")];
        let pem = create_csr(&Subject::new("system:node:node-1", &["system:nodes"]), &names, &key).unwrap();
        let request = CertificateRequest::from_pem(&pem).unwrap();
        assert_eq!(request.subject(), &Subject::new("system:node:node-1", &["system:nodes"]));
        assert_eq!(request.alt_names(), &names);
        let signing = CsrSigning {
            usages: vec![Usage::ServerAuth],
            digital_signature: true,
            key_encipherment: false,
            lifetime: Duration::from_secs(3600),
        };
        let cert = ca.sign_csr(&request, &signing).unwrap();
        let der = certificates_from_pem(&cert).unwrap().remove(0);
        let (_, parsed) = X509Certificate::from_der(&der).unwrap();
        assert_eq!(parsed.public_key().raw, key.public_key_info());
        assert_eq!(parsed.validity().not_after.timestamp() - parsed.validity().not_before.timestamp(), 3600);
        parsed
            .verify_signature(Some(
                &X509Certificate::from_der(ca.certificate_der()).unwrap().1.tbs_certificate.subject_pki,
            ))
            .unwrap();
    }

    #[test]
    fn an_authority_survives_a_restart_and_a_missing_key_is_not_papered_over() {
        let dir = tempfile::tempdir().unwrap();
        let first = Authority::load_or_create(dir.path(), "ca", "kubernetes").unwrap();
        let again = Authority::load_or_create(dir.path(), "ca", "kubernetes").unwrap();
        assert_eq!(first.hash(), again.hash());
        std::fs::remove_file(dir.path().join("ca.key")).unwrap();
        assert!(matches!(Authority::load_or_create(dir.path(), "ca", "kubernetes"), Err(PkiError::Damaged { .. })));
    }
}
