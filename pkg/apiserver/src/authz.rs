//! The question asked of authorizers and the answers they may give.

use async_trait::async_trait;

use crate::request_info::RequestInfo;
use crate::user::UserInfo;

/// An authorizer's answer. The first `Allow` or `Deny` of the chain wins; no opinion from all is a 403.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow,
    Deny(String),
    /// Carries what a 403 should add to its message, possibly empty.
    NoOpinion(String),
}

/// Decides whether a user may make a request.
///
/// Cancel-safe: asking changes nothing.
#[async_trait]
pub trait Authorizer: Send + Sync + 'static {
    async fn authorize(&self, user: &UserInfo, request: &RequestInfo) -> Decision;
}
