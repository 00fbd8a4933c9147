//! How a server's front is set up.

use crate::audit::AuditOptions;
use crate::authn::AuthenticationOptions;
use crate::authz::AuthorizationOptions;
use crate::http::requests::RequestOptions;

/// Options of the front, each with upstream's defaults.
#[derive(Clone, Debug, Default)]
pub struct Front {
    pub requests: RequestOptions,
    pub authentication: AuthenticationOptions,
    pub authorization: AuthorizationOptions,
    pub audit: AuditOptions,
}
