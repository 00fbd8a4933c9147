//! Who may do what: the question asked of authorizers, their answers, and the authorizers themselves.

mod abac;
mod chain;
mod config;
mod configured;
mod covers;
mod escalation;
mod meters;
mod node;
mod policy;
mod rbac;
mod rule;
mod webhook;

use async_trait::async_trait;
use kube1_api::name::GroupResource;
use kube1_api::status::Status;

pub use chain::Chain;
pub use config::{AuthorizationConfiguration, AuthorizationError, AuthorizationOptions, WebhookFlags};
pub use configured::ConfiguredAuthorizer;
pub use covers::{compact, missing};
pub(crate) use escalation::is_only_bookkeeping;
pub use escalation::{RoleWrite, check_escalation};
pub use meters::AuthorizerMetrics;
pub use node::{NODES, NodeAuthorizer, NodeState, PodStamp, Reference, node_name, references};
pub use policy::{GROUP as RBAC_GROUP, Policy, PolicyChange, RoleRef, role_ref, rules_of};
pub use rbac::{Rbac, RbacError};
pub use rule::Rule;

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

/// What an authorizer lets a user do in one namespace, as far as it can be listed.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    pub rules: Vec<Rule>,
    /// Set when the list is not all of it.
    pub incomplete: bool,
    pub errors: Vec<String>,
}

/// Decides whether a user may make a request.
///
/// Cancel-safe: asking changes nothing.
#[async_trait]
pub trait Authorizer: Send + Sync + 'static {
    async fn authorize(&self, user: &UserInfo, request: &RequestInfo) -> Decision;

    /// The decision, if it can be had without asking anybody else; otherwise [`Authorizer::authorize`] must be asked.
    fn authorize_now(&self, _user: &UserInfo, _request: &RequestInfo) -> Option<Decision> {
        None
    }

    /// The decision together with the reason of an `Allow`, for reviews and the audit log.
    async fn explain(&self, user: &UserInfo, request: &RequestInfo) -> (Decision, String) {
        (self.authorize(user, request).await, String::new())
    }

    /// Everything `user` may do in `namespace` and outside namespaces.
    async fn rules(&self, _user: &UserInfo, _namespace: &str) -> Rules {
        Rules { incomplete: true, errors: vec!["an authorizer does not list its rules".into()], ..Rules::default() }
    }
}

/// The 403 for a request that no authorizer allowed.
pub fn forbidden(user: &UserInfo, request: &RequestInfo, reason: &str) -> Status {
    let mut cause = format!("User {:?} cannot {}", user.name, request.verb);
    if request.is_resource {
        let resource = match request.subresource.as_str() {
            "" => request.resource.clone(),
            sub => format!("{}/{sub}", request.resource),
        };
        cause.push_str(&format!(" resource {resource:?} in API group {:?}", request.group));
        match request.namespace.as_str() {
            "" => cause.push_str(" at the cluster scope"),
            namespace => cause.push_str(&format!(" in the namespace {namespace:?}")),
        }
    } else {
        cause.push_str(&format!(" path {:?}", request.path));
    }
    if !reason.is_empty() {
        cause.push_str(": ");
        cause.push_str(reason);
    }
    let about = if request.is_resource {
        GroupResource::new(&request.group, &request.resource)
    } else {
        GroupResource::new("", "")
    };
    Status::forbidden(&about, &request.name, cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_403_reads_as_upstreams() {
        let user = UserInfo::authenticated("alice", &[]);
        let mut request = RequestInfo {
            is_resource: true,
            verb: "list".into(),
            resource: "pods".into(),
            namespace: "default".into(),
            ..RequestInfo::default()
        };
        assert_eq!(
            forbidden(&user, &request, "").message(),
            r#"pods is forbidden: User "alice" cannot list resource "pods" in API group "" in the namespace "default""#
        );
        (request.namespace, request.name, request.subresource) = (String::new(), "n".into(), "status".into());
        (request.resource, request.group) = ("things".into(), "example.com".into());
        assert_eq!(
            forbidden(&user, &request, "because").message(),
            "things.example.com \"n\" is forbidden: User \"alice\" cannot list resource \"things/status\" in API group \
             \"example.com\" at the cluster scope: because"
        );
        let path = RequestInfo { verb: "get".into(), path: "/metrics".into(), ..RequestInfo::default() };
        assert_eq!(forbidden(&user, &path, "").message(), r#"forbidden: User "alice" cannot get path "/metrics""#);
    }
}
