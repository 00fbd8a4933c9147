//! Certificate authorities, leaf certificates, service-account keys and kubeconfigs.
//!
//! [`ServerPki`] owns a server's `tls` directory: it creates what is missing, keeps what is valid and issues again what
//! nears its end or lacks a name. Everything here is synchronous and keeps no task; callers decide when to renew.
//! Certificates are encoded here rather than by rcgen because a subject may hold several organizations (a user's groups),
//! which rcgen's names cannot express.

mod any_server;
mod authority;
mod certificate;
pub mod clock;
mod csr;
mod error;
mod file;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod inventory;
mod key;
mod kubeconfig;
mod leaf;
mod pem;
mod server;
mod service_account;
mod serving;
mod token_key;

pub use any_server::AnyServer;
pub use authority::{Authority, CSR_BACKDATE, CsrSigning, LEAF_LIFETIME};
pub use certificate::{AltName, KeyUsage, Subject, Usage};
pub use csr::{CertificateRequest, create_csr};
pub use error::PkiError;
pub use file::{create_private_dir, write_private};
pub use inventory::{CertificateInfo, describe_pem, list_expiries};
pub use key::PrivateKey;
pub use kubeconfig::{Credential, Kubeconfig};
pub use leaf::{Leaf, LeafProfile};
pub use pem::{certificates_from_pem, to_pem};
pub use server::{Layout, NodePki, Renewal, ServerPki, ServerPkiConfig};
pub use service_account::{ExternalKey, JwtError, ServiceAccountKeyFiles, ServiceAccountKeys, VerifiedJwt, key_id};
pub use serving::{CertificateFiles, ReloadingCertificate, ServingCertificates};
