//! What can go wrong with keys and certificates.

use std::path::PathBuf;

/// A failure of this crate. Display covers its own level; the cause is the source.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("cannot {action} {path}")]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{path} is damaged: {reason}; restore it from a backup, or remove it to have it made again")]
    Damaged { path: PathBuf, reason: String },
    #[error("{} cannot be used", path.display())]
    InFile { path: PathBuf, source: Box<PkiError> },
    #[error("not a usable certificate: {0}")]
    Certificate(String),
    #[error("not a usable private key: {0}")]
    Key(String),
    #[error("not a usable certificate signing request: {0}")]
    Request(String),
    #[error("the system's random source failed")]
    Random,
    #[error("TLS set-up failed")]
    Tls(#[from] rustls::Error),
}
