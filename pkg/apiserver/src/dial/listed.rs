//! Trust in certificates that a CA bundle lists themselves.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Takes what the authorities have signed and, as upstream does, a certificate that is itself in the bundle: the usual
/// self-signed certificate of a webhook is marked as an authority, and is what the bundle holds.
#[derive(Debug)]
pub(super) struct BundleVerifier {
    pub signed: Arc<WebPkiServerVerifier>,
    pub listed: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for BundleVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if !self.listed.iter().any(|listed| listed == end_entity) {
            return self.signed.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        }
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        may_serve(end_entity, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signed.supported_verify_schemes()
    }
}

/// Checks the times of a certificate, and that it may be used by servers.
fn may_serve(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), CertificateError> {
    let (_, certificate) = X509Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let validity = certificate.validity();
    if now < validity.not_before.timestamp() {
        return Err(CertificateError::NotValidYet);
    }
    if now > validity.not_after.timestamp() {
        return Err(CertificateError::Expired);
    }
    let usage = certificate.extended_key_usage().map_err(|_| CertificateError::BadEncoding)?;
    match usage.is_none_or(|usage| usage.value.any || usage.value.server_auth) {
        true => Ok(()),
        false => Err(CertificateError::InvalidPurpose),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use rustls::RootCertStore;
    use rustls::pki_types::pem::PemObject;

    use super::*;

    /// A self-signed authority for hook.shop.svc, from 2026-01-01 to 2026-02-01.
    const HOOK: &str = "-----BEGIN CERTIFICATE-----
MIIBOTCB4KADAgECAgEBMAoGCCqGSM49BAMCMA8xDTALBgNVBAMMBGhvb2swHhcN
MjYwMTAxMDAwMDAwWhcNMjYwMjAxMDAwMDAwWjAPMQ0wCwYDVQQDDARob29rMFkw
EwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE0ksU0wFYZwJsevz/P/6OJuxx+KUIfAcn
XJLvNZbXVxnzUBkq68E5sHMZDdCgAzb+V0s5EVlhmgMS3p5vfIYOb6MtMCswDwYD
VR0TAQH/BAUwAwEB/zAYBgNVHREEETAPgg1ob29rLnNob3Auc3ZjMAoGCCqGSM49
BAMCA0gAMEUCIQDRIBYYp7t5hN0FWeZRiv6cswb/XOaKU54mj8iLjkgCcgIgZ/r/
9y4JwVOfR96ixAxdAF5ZpXbDFOcuwTTpX5R36J8=
-----END CERTIFICATE-----";
    /// The same for nobody's client.
    const CLIENT: &str = "-----BEGIN CERTIFICATE-----
MIIBTTCB9aADAgECAgEBMAoGCCqGSM49BAMCMA8xDTALBgNVBAMMBGhvb2swHhcN
MjYwMTAxMDAwMDAwWhcNMjYwMjAxMDAwMDAwWjAPMQ0wCwYDVQQDDARob29rMFkw
EwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEpuCs9Cwf/kVx+4IJuiB3SG7SG9f+FW8w
M0RqI3U+a0t0AMNc24sq3oNKfIc8t5xOp+K8A4D52CX6ESF0j+LtZ6NCMEAwDwYD
VR0TAQH/BAUwAwEB/zAYBgNVHREEETAPgg1ob29rLnNob3Auc3ZjMBMGA1UdJQQM
MAoGCCsGAQUFBwMCMAoGCCqGSM49BAMCA0cAMEQCIDK1Rmg/BLfNzZqDSwD3bTfw
qDRi3LuU8KTttQ43KmgIAiAmwVoCxpZ8cooMv/Y6aOtYlDW83BMtKaHCevlE83Ts
ZQ==
-----END CERTIFICATE-----";
    const IN_TIME: u64 = 1_768_000_000;

    fn verify(bundle: &[&str], shown: &str, name: &str, now: u64) -> Result<(), Error> {
        let der = |pem: &&str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let listed: Vec<_> = bundle.iter().map(der).collect();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(listed.iter().cloned());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let signed = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let verifier = BundleVerifier { signed, listed };
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
        verifier.verify_server_cert(&der(&shown), &[], &name.try_into().unwrap(), &[], now).map(|_| ())
    }

    #[test]
    fn a_self_signed_certificate_is_trusted_where_the_bundle_holds_it() {
        let name = "hook.shop.svc";
        assert_eq!(verify(&[HOOK], HOOK, name, IN_TIME), Ok(()));
        let refused = |bundle, shown, name, now| match verify(bundle, shown, name, now) {
            Err(Error::InvalidCertificate(why)) => why,
            other => panic!("{other:?}"),
        };
        assert!(matches!(
            refused(&[HOOK], HOOK, "other.shop.svc", IN_TIME),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
        ));
        assert_eq!(refused(&[HOOK], HOOK, name, 1_780_000_000), CertificateError::Expired);
        assert_eq!(refused(&[HOOK], HOOK, name, 1_700_000_000), CertificateError::NotValidYet);
        assert_eq!(refused(&[CLIENT], CLIENT, name, IN_TIME), CertificateError::InvalidPurpose);
        assert!(verify(&[CLIENT], HOOK, name, IN_TIME).is_err(), "what is not listed must be signed");
    }
}
