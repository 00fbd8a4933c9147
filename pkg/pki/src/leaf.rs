//! Leaf certificates kept in files.

use std::path::Path;

use rustls_pki_types::CertificateDer;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::authority::Authority;
use crate::certificate::{AltName, Subject, Usage};
use crate::file::{read_optional, write_private};
use crate::key::PrivateKey;
use crate::pem::certificates_from_pem;
use crate::{PkiError, clock};

/// What a leaf certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafProfile {
    pub subject: Subject,
    pub usages: Vec<Usage>,
    pub alt_names: Vec<AltName>,
}

/// A certificate (chain) and its key, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    pub certificate_pem: String,
    pub key_pem: String,
}

/// Seconds since 1970 at which a certificate valid in `[not_before, not_after]` is to be replaced: after four fifths of
/// its life, so that a node that is off for weeks still comes back with a valid one.
pub(crate) fn renewal_time(not_before: i64, not_after: i64) -> i64 {
    not_after - (not_after - not_before) / 5
}

impl Leaf {
    /// Reads `NAME.crt` and `NAME.key` of `dir`; `None` when either is missing.
    pub fn read(dir: &Path, name: &str) -> Result<Option<Self>, PkiError> {
        let certificate = read_optional(&dir.join(format!("{name}.crt")))?;
        let key = read_optional(&dir.join(format!("{name}.key")))?;
        Ok(certificate.zip(key).map(|(certificate_pem, key_pem)| Self { certificate_pem, key_pem }))
    }

    /// Writes both files. A crash in between leaves a pair that does not match, which [`Leaf::is_pair`] tells.
    pub fn write(&self, dir: &Path, name: &str) -> Result<(), PkiError> {
        write_private(&dir.join(format!("{name}.key")), self.key_pem.as_bytes())?;
        write_private(&dir.join(format!("{name}.crt")), self.certificate_pem.as_bytes())
    }

    /// The leaf certificate itself.
    pub fn certificate_der(&self) -> Result<CertificateDer<'static>, PkiError> {
        Ok(certificates_from_pem(&self.certificate_pem)?.swap_remove(0))
    }

    /// Whether certificate and key belong together.
    pub fn is_pair(&self) -> bool {
        let (Ok(der), Ok(key)) = (self.certificate_der(), PrivateKey::from_pem(&self.key_pem)) else { return false };
        X509Certificate::from_der(&der).is_ok_and(|(_, c)| c.public_key().raw == key.public_key_info())
    }

    /// Seconds since 1970 at which this certificate is to be replaced.
    pub fn renew_at(&self) -> Result<i64, PkiError> {
        let der = self.certificate_der()?;
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|e| PkiError::Certificate(e.to_string()))?;
        Ok(renewal_time(parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp()))
    }

    /// End of validity, in seconds since 1970.
    pub fn not_after(&self) -> Result<i64, PkiError> {
        let der = self.certificate_der()?;
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|e| PkiError::Certificate(e.to_string()))?;
        Ok(parsed.validity().not_after.timestamp())
    }

    /// The DNS names and addresses the certificate is for.
    pub fn alt_names(&self) -> Result<Vec<AltName>, PkiError> {
        let der = self.certificate_der()?;
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|e| PkiError::Certificate(e.to_string()))?;
        Ok(alt_names_of(&parsed))
    }

    /// Whether this is a certificate by `ca` as `profile` wants it, not yet due for renewal.
    pub(crate) fn serves(&self, ca: &Authority, profile: &LeafProfile) -> bool {
        self.is_pair() && self.certificate_der().is_ok_and(|der| certificate_serves(&der, ca, profile))
    }
}

fn certificate_serves(der: &[u8], ca: &Authority, profile: &LeafProfile) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return false };
    let Ok((_, issuer)) = X509Certificate::from_der(ca.certificate_der()) else { return false };
    let (not_before, not_after) =
        (certificate.validity().not_before.timestamp(), certificate.validity().not_after.timestamp());
    let mut wanted = profile.alt_names.clone();
    wanted.sort();
    wanted.dedup();
    let mut held = alt_names_of(&certificate);
    held.sort();
    held.dedup();
    let usages_fit = certificate.extended_key_usage().ok().flatten().is_some_and(|e| {
        profile.usages.iter().all(|u| match u {
            Usage::ServerAuth => e.value.server_auth,
            Usage::ClientAuth => e.value.client_auth,
        })
    });
    certificate.verify_signature(Some(issuer.public_key())).is_ok()
        && certificate.subject().as_raw() == profile.subject.to_der()
        && usages_fit
        && wanted == held
        && clock::unix_now() < renewal_time(not_before, not_after)
        && not_before <= clock::unix_now()
}

fn alt_names_of(certificate: &X509Certificate<'_>) -> Vec<AltName> {
    let mut names = Vec::new();
    for extension in certificate.extensions() {
        let ParsedExtension::SubjectAlternativeName(san) = extension.parsed_extension() else { continue };
        for name in &san.general_names {
            match name {
                GeneralName::DNSName(s) => names.push(AltName::Dns((*s).to_owned())),
                GeneralName::IPAddress(b) => {
                    if let Ok(v4) = <[u8; 4]>::try_from(*b) {
                        names.push(AltName::Ip(v4.into()));
                    } else if let Ok(v6) = <[u8; 16]>::try_from(*b) {
                        names.push(AltName::Ip(v6.into()));
                    }
                }
                _ => {}
            }
        }
    }
    names
}

impl Authority {
    /// The certificate in `DIR/NAME.{crt,key}`, issued (again) when it is missing, damaged, from another authority, lacks
    /// or has too many names, or is near its end. Says whether it was issued now.
    pub fn ensure_leaf(&self, dir: &Path, name: &str, profile: &LeafProfile) -> Result<(Leaf, bool), PkiError> {
        if let Some(leaf) = Leaf::read(dir, name)?
            && leaf.serves(self, profile)
        {
            return Ok((leaf, false));
        }
        let leaf = self.issue(profile)?;
        leaf.write(dir, name)?;
        Ok((leaf, true))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn profile(names: &[&str]) -> LeafProfile {
        LeafProfile {
            subject: Subject::new("kube-apiserver", &[]),
            usages: vec![Usage::ServerAuth],
            alt_names: names.iter().map(|n| AltName::parse(n)).collect(),
        }
    }

    #[test]
    fn a_valid_certificate_is_kept_and_a_changed_address_issues_a_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let ca = Authority::create("kubernetes").unwrap();
        let (first, issued) = ca.ensure_leaf(dir.path(), "serving", &profile(&["localhost", "10.0.0.1"])).unwrap();
        assert!(issued);
        let (kept, issued) = ca.ensure_leaf(dir.path(), "serving", &profile(&["10.0.0.1", "localhost"])).unwrap();
        assert!(!issued, "the order of names does not matter");
        assert_eq!(first, kept);
        let (_, issued) = ca.ensure_leaf(dir.path(), "serving", &profile(&["localhost", "10.0.0.2"])).unwrap();
        assert!(issued);
    }

    #[test]
    fn another_authority_a_foreign_key_and_damage_all_issue_a_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let ca = Authority::create("kubernetes").unwrap();
        ca.ensure_leaf(dir.path(), "x", &profile(&["a"])).unwrap();
        let other = Authority::create("kubernetes").unwrap();
        assert!(other.ensure_leaf(dir.path(), "x", &profile(&["a"])).unwrap().1);
        write_private(&dir.path().join("x.key"), PrivateKey::generate().unwrap().to_pem().as_bytes()).unwrap();
        assert!(other.ensure_leaf(dir.path(), "x", &profile(&["a"])).unwrap().1);
        write_private(&dir.path().join("x.crt"), b"torn").unwrap();
        assert!(other.ensure_leaf(dir.path(), "x", &profile(&["a"])).unwrap().1);
        assert!(!other.ensure_leaf(dir.path(), "x", &profile(&["a"])).unwrap().1);
    }

    #[test]
    fn renewal_comes_after_four_fifths_of_the_life() {
        assert_eq!(renewal_time(0, 1000), 800);
    }
}
