//! Certificate signing requests: made for nodes, read for the signer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::X509Name;
use yasna::Tag;

use crate::PkiError;
use crate::certificate::{AltName, Subject, alt_names_der, extension, sign_body};
use crate::key::PrivateKey;
use crate::pem::to_pem;
use yasna::models::ObjectIdentifier;

/// Longest request that is looked at.
const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// A request in PEM for `subject` and `alt_names`, signed by `key`.
pub fn create_csr(subject: &Subject, alt_names: &[AltName], key: &PrivateKey) -> Result<String, PkiError> {
    let body = yasna::construct_der(|w| {
        w.write_sequence(|w| {
            w.next().write_u8(0);
            w.next().write_der(&subject.to_der());
            w.next().write_der(&key.public_key_info());
            w.next().write_tagged_implicit(Tag::context(0), |w| {
                w.write_set_of(|w| {
                    if !alt_names.is_empty() {
                        w.next().write_sequence(|w| {
                            w.next().write_oid(&ObjectIdentifier::from_slice(&[1, 2, 840, 113_549, 1, 9, 14]));
                            w.next().write_set_of(|w| {
                                w.next().write_sequence(|w| {
                                    extension(w, &[2, 5, 29, 17], false, &alt_names_der(alt_names))
                                });
                            });
                        });
                    }
                });
            });
        });
    });
    Ok(to_pem("CERTIFICATE REQUEST", &sign_body(&body, key)?))
}

/// A parsed request whose own signature is right.
#[derive(Clone, Debug)]
pub struct CertificateRequest {
    subject: Subject,
    subject_der: Vec<u8>,
    public_key_info: Vec<u8>,
    alt_names: Vec<AltName>,
}

impl CertificateRequest {
    /// Reads a PEM request and checks its signature.
    pub fn from_pem(pem: &str) -> Result<Self, PkiError> {
        if pem.len() > REQUEST_BYTES_MAX {
            return Err(PkiError::Request(format!("larger than {REQUEST_BYTES_MAX} bytes")));
        }
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes())
            .map_err(|e| PkiError::Request(e.to_string()))?;
        let (_, request) = X509CertificationRequest::from_der(&der).map_err(|e| PkiError::Request(e.to_string()))?;
        request.verify_signature().map_err(|_| PkiError::Request("its signature does not match its key".into()))?;
        let info = &request.certification_request_info;
        let mut alt_names = Vec::new();
        for parsed in request.requested_extensions().into_iter().flatten() {
            if let ParsedExtension::SubjectAlternativeName(san) = parsed {
                for name in &san.general_names {
                    alt_names.push(alt_name(name)?);
                }
            }
        }
        Ok(Self {
            subject: subject_from(&info.subject)?,
            subject_der: info.subject.as_raw().to_vec(),
            public_key_info: info.subject_pki.raw.to_vec(),
            alt_names,
        })
    }

    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    pub fn alt_names(&self) -> &[AltName] {
        &self.alt_names
    }

    /// DER SubjectPublicKeyInfo of the requester's key.
    pub fn public_key_info(&self) -> &[u8] {
        &self.public_key_info
    }

    pub(crate) fn subject_der(&self) -> &[u8] {
        &self.subject_der
    }
}

fn alt_name(name: &GeneralName<'_>) -> Result<AltName, PkiError> {
    Ok(match name {
        GeneralName::DNSName(s) => AltName::Dns((*s).to_owned()),
        GeneralName::RFC822Name(s) => AltName::Email((*s).to_owned()),
        GeneralName::URI(s) => AltName::Uri((*s).to_owned()),
        GeneralName::IPAddress(bytes) => AltName::Ip(ip_address(bytes)?),
        _ => return Err(PkiError::Request("it asks for an alternative name of an unsupported kind".into())),
    })
}

fn ip_address(bytes: &[u8]) -> Result<IpAddr, PkiError> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Ok(Ipv4Addr::from(v4).into());
    }
    let v6 = <[u8; 16]>::try_from(bytes).map_err(|_| PkiError::Request("an IP address is 4 or 16 bytes".into()))?;
    Ok(Ipv6Addr::from(v6).into())
}

/// User name and groups of a DER certificate.
pub(crate) fn subject_of(certificate: &[u8]) -> Result<Subject, PkiError> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|e| PkiError::Certificate(e.to_string()))?;
    subject_from(parsed.subject())
}

fn subject_from(name: &X509Name<'_>) -> Result<Subject, PkiError> {
    let text = |a: &x509_parser::x509::AttributeTypeAndValue<'_>| {
        a.as_str().map(str::to_owned).map_err(|_| PkiError::Certificate("a name in the subject is not text".into()))
    };
    let common_name = name.iter_common_name().last().map(text).transpose()?.unwrap_or_default();
    let organizations = name.iter_organization().map(text).collect::<Result<_, _>>()?;
    Ok(Subject { common_name, organizations })
}

impl Subject {
    /// User name (common name) and groups (organizations) of a DER certificate.
    pub fn of_certificate(der: &[u8]) -> Result<Self, PkiError> {
        subject_of(der)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_request_signed_by_another_key_is_refused() {
        let (key, other) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
        let honest = create_csr(&Subject::new("jane", &[]), &[], &key).unwrap();
        CertificateRequest::from_pem(&honest).unwrap();
        let body = yasna::construct_der(|w| {
            w.write_sequence(|w| {
                w.next().write_u8(0);
                w.next().write_der(&Subject::new("jane", &[]).to_der());
                w.next().write_der(&key.public_key_info());
                w.next().write_tagged_implicit(Tag::context(0), |w| w.write_set_of(|_| ()));
            });
        });
        let forged = to_pem("CERTIFICATE REQUEST", &sign_body(&body, &other).unwrap());
        assert!(CertificateRequest::from_pem(&forged).unwrap_err().to_string().contains("signature"));
    }

    #[test]
    fn rubbish_is_refused() {
        assert!(CertificateRequest::from_pem("hello").is_err());
        assert!(CertificateRequest::from_pem(&to_pem("CERTIFICATE REQUEST", b"nonsense")).is_err());
        assert!(CertificateRequest::from_pem(&"x".repeat(REQUEST_BYTES_MAX + 1)).is_err());
    }
}
