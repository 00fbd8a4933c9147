//! TLS certificates that can be replaced while in use.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

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

/// What a server shows: to clients that name one of a few names a certificate of a file, to all others one of a file or
/// its own.
#[derive(Debug)]
pub struct ServingCertificates {
    own: Arc<ReloadingCertificate>,
    default: Option<CertificateFiles>,
    files: Vec<CertificateFiles>,
    read: ArcSwap<FromFiles>,
}

#[derive(Debug, Default)]
struct FromFiles {
    default: Option<Arc<CertifiedKey>>,
    named: Vec<Named>,
}

/// A certificate in files (`--tls-cert-file`, `--tls-sni-cert-key`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Names for which it is shown, such as `api.example.com` or `*.example.com`; empty for those in the certificate.
    pub names: Vec<String>,
}

#[derive(Debug)]
struct Named {
    names: Vec<String>,
    key: Arc<CertifiedKey>,
}

impl ServingCertificates {
    /// `default` is shown instead of `own`, where it is given.
    pub fn open(
        own: Arc<ReloadingCertificate>,
        default: Option<CertificateFiles>,
        files: Vec<CertificateFiles>,
    ) -> Result<Self, PkiError> {
        let serving = Self { own, default, files, read: ArcSwap::default() };
        serving.reload()?;
        Ok(serving)
    }

    /// The files that [`ServingCertificates::reload`] reads.
    pub fn files(&self) -> Vec<PathBuf> {
        let all = self.default.iter().chain(&self.files);
        all.flat_map(|files| [files.certificate.clone(), files.key.clone()]).collect()
    }

    /// Takes the files over again; on error nothing changes.
    pub fn reload(&self) -> Result<(), PkiError> {
        let default = self.default.as_ref().map(read_key).transpose()?.map(Arc::new);
        self.read.store(Arc::new(FromFiles { default, named: read_named(&self.files)? }));
        Ok(())
    }
}

impl ResolvesServerCert for ServingCertificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let FromFiles { default, named } = &**self.read.load();
        let asked = hello.server_name().and_then(|name| named.iter().find(|n| n.names.iter().any(|n| covers(n, name))));
        let given = asked.map(|named| &named.key).or(default.as_ref()).cloned();
        given.or_else(|| ResolvesServerCert::resolve(&*self.own, hello))
    }
}

/// Whether a name of a certificate, whose first label may be `*`, is that of the client.
fn covers(pattern: &str, name: &str) -> bool {
    match (pattern.strip_prefix("*."), name.split_once('.')) {
        (Some(parent), Some((first, rest))) => !first.is_empty() && parent.eq_ignore_ascii_case(rest),
        (Some(_), None) => false,
        (None, _) => pattern.eq_ignore_ascii_case(name),
    }
}

fn read_named(files: &[CertificateFiles]) -> Result<Vec<Named>, PkiError> {
    let named = files.iter().map(|files| {
        let key = read_key(files)?;
        let names = if files.names.is_empty() { names_of(&key) } else { files.names.clone() };
        Ok(Named { names, key: Arc::new(key) })
    });
    named.collect()
}

fn read_key(files: &CertificateFiles) -> Result<CertifiedKey, PkiError> {
    let read = |path: &PathBuf| {
        std::fs::read_to_string(path).map_err(|source| PkiError::Io { action: "read", path: path.clone(), source })
    };
    let leaf = Leaf { certificate_pem: read(&files.certificate)?, key_pem: read(&files.key)? };
    certified_key(&leaf).map_err(|error| PkiError::InFile { path: files.certificate.clone(), source: Box::new(error) })
}

/// The names of a certificate: its alternative names, or without any its common name.
fn names_of(key: &CertifiedKey) -> Vec<String> {
    let Some((_, leaf)) = key.cert.first().and_then(|der| X509Certificate::from_der(der).ok()) else {
        return Vec::new();
    };
    let alternative = leaf.subject_alternative_name().ok().flatten();
    let names: Vec<String> = alternative
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        })
        .collect();
    if !names.is_empty() {
        return names;
    }
    leaf.subject().iter_common_name().filter_map(|name| name.as_str().ok().map(str::to_owned)).collect()
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
