//! TLS certificates that can be replaced while in use.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;

use crate::PkiError;
use crate::leaf::Leaf;
use crate::pem::certificates_from_pem;

/// The certificate a server shows or a client authenticates with; [`ReloadingCertificate::replace`] takes effect for the
/// next handshake and leaves open connections alone.
#[derive(Debug)]
pub struct ReloadingCertificate {
    current: ArcSwap<CertifiedKey>,
}

impl ReloadingCertificate {
    pub fn new(leaf: &Leaf) -> Result<Self, PkiError> {
        Ok(Self { current: ArcSwap::from_pointee(certified_key(leaf)?) })
    }

    /// Shows `leaf` from now on; on error the old one stays.
    pub fn replace(&self, leaf: &Leaf) -> Result<(), PkiError> {
        self.current.store(Arc::new(certified_key(leaf)?));
        Ok(())
    }
}

fn certified_key(leaf: &Leaf) -> Result<CertifiedKey, PkiError> {
    let chain = certificates_from_pem(&leaf.certificate_pem)?;
    let key = PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes()).map_err(|e| PkiError::Key(e.to_string()))?;
    let key = rustls::crypto::ring::sign::any_supported_type(&key)?;
    let certified = CertifiedKey::new(chain, key);
    certified.keys_match()?;
    Ok(certified)
}

impl ResolvesServerCert for ReloadingCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

impl ResolvesClientCert for ReloadingCertificate {
    fn resolve(&self, _issuers: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{Authority, LeafProfile, Subject, Usage};

    #[test]
    fn a_replacement_is_shown_next_and_a_bad_one_changes_nothing() {
        let ca = Authority::create("kubernetes").unwrap();
        let profile =
            LeafProfile { subject: Subject::new("x", &[]), usages: vec![Usage::ClientAuth], alt_names: vec![] };
        let (a, b) = (ca.issue(&profile).unwrap(), ca.issue(&profile).unwrap());
        let shown = ReloadingCertificate::new(&a).unwrap();
        shown.replace(&b).unwrap();
        let mixed = Leaf { certificate_pem: a.certificate_pem.clone(), key_pem: b.key_pem.clone() };
        assert!(shown.replace(&mixed).is_err());
        let current = ResolvesClientCert::resolve(&shown, &[], &[]).unwrap();
        assert_eq!(current.cert[0], b.certificate_der().unwrap());
    }
}
