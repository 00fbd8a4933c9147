//! How a server's front is set up.

use kube1_pki::CertificateFiles;

use crate::admission::AdmissionOptions;
use crate::audit::AuditOptions;
use crate::authn::AuthenticationOptions;
use crate::authz::AuthorizationOptions;
use crate::http::requests::RequestOptions;
use crate::http::tls::TlsOptions;

/// Options of the front, each with upstream's defaults.
#[derive(Clone, Debug, Default)]
pub struct Front {
    pub requests: RequestOptions,
    pub authentication: AuthenticationOptions,
    pub authorization: AuthorizationOptions,
    pub admission: AdmissionOptions,
    pub audit: AuditOptions,
    pub encryption: EncryptionOptions,
    pub serving: ServingOptions,
    /// A TracingConfiguration; without it nothing is traced.
    pub tracing_config_file: Option<std::path::PathBuf>,
    /// The flags in effect, for `/flagz`.
    pub flags: Vec<(String, String)>,
}

/// The flags of the listener's certificates.
#[derive(Clone, Debug, Default)]
pub struct ServingOptions {
    /// Shown instead of the cluster's own certificate; followed while the server runs.
    pub default: Option<CertificateFiles>,
    /// Shown to clients that ask for their names; followed while the server runs.
    pub named: Vec<CertificateFiles>,
    pub tls: TlsOptions,
}

/// The flags of encryption at rest.
#[derive(Clone, Debug, Default)]
pub struct EncryptionOptions {
    /// An EncryptionConfiguration; without it, Secrets are encrypted by a key of the server's own.
    pub config_file: Option<std::path::PathBuf>,
    /// Follow the file while the server runs.
    pub automatic_reload: bool,
}
