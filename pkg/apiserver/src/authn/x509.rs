//! Client certificates.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use kube1_pki::{PkiError, Subject, certificates_from_pem, clock};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::trust::Trusted;
use crate::user::{AUTHENTICATED, UserInfo};

/// Certificates of a subject may carry the user's uid in an attribute of this type.
const UID_OID: &str = "1.3.6.1.4.1.57683.2";
/// Member of a user's extra that names the credential.
pub const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// Verifies chains up to one bundle of authorities.
#[derive(Clone, Debug)]
pub struct Authorities {
    verifier: Arc<dyn ClientCertVerifier>,
}

/// A bundle of authorities that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthoritiesError {
    #[error("the bundle of client authorities cannot be read")]
    Read(#[from] PkiError),
    #[error("the bundle of client authorities has a certificate that is no authority")]
    Root(#[from] rustls::Error),
    #[error("the bundle of client authorities is empty")]
    Empty(#[from] rustls::server::VerifierBuilderError),
    #[error("the file cannot be read")]
    Open(#[source] std::io::Error),
    #[error("{} cannot be used", path.display())]
    InFile { path: PathBuf, source: Box<AuthoritiesError> },
}

impl Authorities {
    pub fn from_pem(bundle: &str) -> Result<Self, AuthoritiesError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates_from_pem(bundle)? {
            roots.add(certificate)?;
        }
        let provider = Arc::new(ring::default_provider());
        Ok(Self { verifier: WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build()? })
    }

    /// Checks the chain, its times and that it is for clients.
    fn verify(&self, chain: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        let Some((leaf, intermediates)) = chain.split_first() else {
            return Err(rustls::Error::NoCertificatesPresented);
        };
        let now = u64::try_from(clock::unix_now()).unwrap_or_default();
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now));
        self.verifier.verify_client_cert(leaf, intermediates, now).map(|_| ())
    }
}

/// What a connection's client certificate says; made once for a connection, checked for expiry with every request and
/// judged again once other authorities are trusted.
#[derive(Debug, Default)]
pub struct Peer {
    chain: Vec<CertificateDer<'static>>,
    not_after: i64,
    judged: ArcSwap<Judged>,
}

/// What a certificate is worth to the authorities of one moment.
#[derive(Debug, Default)]
pub(super) struct Judged {
    generation: u64,
    pub user: Option<Arc<UserInfo>>,
    /// The certificate is that of a front proxy.
    pub is_proxy: bool,
    /// A certificate was shown that no authority accepts.
    pub rejected: bool,
}

impl Peer {
    /// How long the certificate can still be used; none without one.
    pub fn lifetime(&self) -> Option<std::time::Duration> {
        let left = self.not_after.saturating_sub(clock::unix_now());
        self.has_certificate().then(|| std::time::Duration::from_secs(u64::try_from(left).unwrap_or(0)))
    }

    /// Whether the client showed any certificate.
    pub fn has_certificate(&self) -> bool {
        !self.chain.is_empty()
    }

    /// Judges the chain a client showed; an empty one is the absence of a certificate.
    pub(super) fn new(chain: &[CertificateDer<'_>], trusted: &Trusted) -> Self {
        let Some(leaf) = chain.first() else { return Self::default() };
        Self {
            chain: chain.iter().map(|certificate| certificate.clone().into_owned()).collect(),
            not_after: X509Certificate::from_der(leaf).map_or(0, |(_, c)| c.validity().not_after.timestamp()),
            judged: ArcSwap::from_pointee(Judged::new(chain, trusted)),
        }
    }

    /// The judgement by these authorities.
    pub(super) fn judged(&self, trusted: &Trusted) -> Arc<Judged> {
        let known = self.judged.load_full();
        if self.chain.is_empty() || known.generation == trusted.generation {
            return known;
        }
        let judged = Arc::new(Judged::new(&self.chain, trusted));
        self.judged.store(judged.clone());
        judged
    }

    pub(super) fn is_expired(&self) -> bool {
        self.not_after != 0 && clock::unix_now() > self.not_after
    }
}

impl Judged {
    fn new(chain: &[CertificateDer<'_>], trusted: &Trusted) -> Self {
        let Some(leaf) = chain.first() else { return Self::default() };
        let is_client = trusted.clients.verify(chain);
        let mut proxies = trusted.proxies.iter().filter(|proxies| proxies.authorities.verify(chain).is_ok()).peekable();
        let by_proxies = proxies.peek().is_some();
        if let (Err(error), false) = (&is_client, by_proxies) {
            tracing::debug!(%error, "client certificate rejected");
        }
        let name = || Subject::of_certificate(leaf).map(|subject| subject.common_name).unwrap_or_default();
        Self {
            generation: trusted.generation,
            user: if is_client.is_ok() { user_of(leaf).map(Arc::new) } else { None },
            is_proxy: by_proxies && proxies.any(|proxies| proxies.admit(&name())),
            rejected: is_client.is_err() && !by_proxies,
        }
    }
}

/// The user a certificate names: common name, organizations as groups; none without a common name.
pub(super) fn user_of(der: &[u8]) -> Option<UserInfo> {
    let subject = Subject::of_certificate(der).ok().filter(|s| !s.common_name.is_empty())?;
    let mut groups = subject.organizations;
    groups.push(AUTHENTICATED.into());
    let id = format!("X509SHA256={}", hex::encode(Sha256::digest(der)));
    Some(UserInfo {
        name: subject.common_name,
        uid: uid_of(der).unwrap_or_default(),
        groups,
        extra: [(CREDENTIAL_ID.to_owned(), vec![id])].into(),
    })
}

fn uid_of(der: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let attribute = certificate.subject().iter_attributes().find(|a| a.attr_type().to_id_string() == UID_OID)?;
    attribute.as_str().ok().map(str::to_owned)
}

/// Lets clients show a certificate, or none, and leaves judging its chain to [`Peer::new`], so that a bad certificate is
/// answered with a 401 that can be read rather than with a broken handshake.
#[derive(Debug)]
pub struct AnyClientCertificate {
    hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl AnyClientCertificate {
    /// Clients with several certificates are told to choose one of these authorities.
    pub fn new(authorities: &[&Authorities]) -> Self {
        let hints = authorities.iter().flat_map(|a| a.verifier.root_hint_subjects().to_vec()).collect();
        Self { hints, algorithms: ring::default_provider().signature_verification_algorithms }
    }
}

impl ClientCertVerifier for AnyClientCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use kube1_pki::{Authority, LeafProfile, Usage};

    use super::super::trust::{Trust, TrustOptions};
    use super::*;

    fn chain(ca: &Authority, usage: Usage) -> Vec<CertificateDer<'static>> {
        let subject = Subject::new("alice", &["dev", "ops"]);
        let leaf = ca.issue(&LeafProfile { subject, usages: vec![usage], alt_names: vec![] }).unwrap();
        vec![leaf.certificate_der().unwrap()]
    }

    #[test]
    fn the_authority_decides_whether_a_certificate_is_a_user_a_proxy_or_nothing() {
        let (ca, proxy_ca, other) =
            (Authority::create("a").unwrap(), Authority::create("b").unwrap(), Authority::create("c").unwrap());
        let trust =
            Trust::open(ca.certificate_pem(), Some(proxy_ca.certificate_pem()), TrustOptions::default()).unwrap();
        let peer = |ca: &Authority, usage| trust.peer(&chain(ca, usage)).judged(&trust.current());
        let user = peer(&ca, Usage::ClientAuth).user.clone().unwrap();
        assert_eq!((user.name.as_str(), &user.groups[..2]), ("alice", &["dev".to_owned(), "ops".to_owned()][..]));
        assert!(user.extra[CREDENTIAL_ID][0].starts_with("X509SHA256="));
        let proxy = peer(&proxy_ca, Usage::ClientAuth);
        assert_eq!((proxy.is_proxy, proxy.user.is_none(), proxy.rejected), (false, true, false), "by another name");
        assert!(peer(&other, Usage::ClientAuth).rejected);
        assert!(peer(&ca, Usage::ServerAuth).rejected);
        let none = trust.peer(&[]);
        let judged = none.judged(&trust.current());
        assert!(!judged.rejected && judged.user.is_none() && !none.is_expired());
    }
}
