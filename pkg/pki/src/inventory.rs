//! When certificates end, for `kube1 status`.

use std::path::{Path, PathBuf};

use x509_parser::prelude::{FromDer, X509Certificate};

use crate::pem::certificates_from_pem;
use crate::{PkiError, Subject};

/// What a person wants to know of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct CertificateInfo {
    pub path: PathBuf,
    pub common_name: String,
    pub is_ca: bool,
    /// Seconds since 1970.
    pub not_before: i64,
    /// Seconds since 1970.
    pub not_after: i64,
}

/// Describes the first certificate of a PEM text.
pub fn describe_pem(path: &Path, pem: &str) -> Result<CertificateInfo, PkiError> {
    let der = certificates_from_pem(pem)?.swap_remove(0);
    let (_, parsed) = X509Certificate::from_der(&der).map_err(|e| PkiError::Certificate(e.to_string()))?;
    Ok(CertificateInfo {
        path: path.to_owned(),
        common_name: Subject::of_certificate(&der)?.common_name,
        is_ca: parsed.is_ca(),
        not_before: parsed.validity().not_before.timestamp(),
        not_after: parsed.validity().not_after.timestamp(),
    })
}

/// All `*.crt` of the given directories, the first to end first. Missing directories and unreadable files are skipped:
/// the owners of the files report those.
pub fn list_expiries(dirs: &[&Path]) -> Vec<CertificateInfo> {
    let mut found = Vec::new();
    for entry in dirs.iter().filter_map(|d| std::fs::read_dir(d).ok()).flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|e| e == "crt")
            && let Ok(text) = std::fs::read_to_string(&path)
            && let Ok(info) = describe_pem(&path, &text)
        {
            found.push(info);
        }
    }
    found.sort_by(|a, b| (a.not_after, &a.path).cmp(&(b.not_after, &b.path)));
    found
}
