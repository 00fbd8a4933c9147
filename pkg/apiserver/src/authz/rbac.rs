//! Role-based access control.

use async_trait::async_trait;
use parking_lot::RwLock;

use super::policy::{Policy, PolicyChange, RoleRef};
use super::rule::Rule;
use super::{Authorizer, Decision, Rules};
use crate::request_info::RequestInfo;
use crate::user::UserInfo;

/// A role that cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum RbacError {
    #[error("{kind}.rbac.authorization.k8s.io {name:?} not found")]
    RoleNotFound { kind: String, name: String },
}

/// Authorizes by the roles and bindings it was told of with [`Rbac::apply`].
#[derive(Debug, Default)]
pub struct Rbac {
    policy: RwLock<Policy>,
}

impl Rbac {
    /// Takes over the newest state of a role or binding; the next request is decided by it.
    pub fn apply(&self, change: PolicyChange<'_>) {
        self.policy.write().apply(change);
    }

    /// Every rule `user` has in the cluster and in `namespace`, and what could not be resolved.
    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> (Vec<Rule>, Vec<String>) {
        let policy = self.policy.read();
        let (mut rules, mut errors) = (Vec::new(), Vec::new());
        for grant in policy.grants(user, namespace) {
            match grant.rules {
                Some(found) => rules.extend(found.iter().cloned()),
                None => errors.push(grant.not_found()),
            }
        }
        (rules, errors)
    }

    /// The rules a binding in `namespace` (empty: cluster-wide) would give.
    pub fn rules_of_role(&self, role: &RoleRef, namespace: &str) -> Result<Vec<Rule>, RbacError> {
        let home = if role.kind == "Role" { namespace } else { "" };
        match self.policy.read().role(home, &role.name) {
            Some(rules) => Ok(rules.to_vec()),
            None => Err(RbacError::RoleNotFound { kind: role.kind.to_lowercase(), name: role.name.clone() }),
        }
    }

    fn decide(&self, user: &UserInfo, request: &RequestInfo, explain: bool) -> (Decision, String) {
        let policy = self.policy.read();
        let mut errors = Vec::new();
        for grant in policy.grants(user, &request.namespace) {
            match grant.rules {
                Some(rules) if rules.iter().any(|rule| rule.allows(request)) => {
                    return (Decision::Allow, if explain { grant.reason(user) } else { String::new() });
                }
                Some(_) => {}
                None => errors.push(grant.not_found()),
            }
        }
        let reason = match &errors[..] {
            [] => String::new(),
            [one] => format!("RBAC: {one}"),
            many => format!("RBAC: [{}]", many.join(", ")),
        };
        (Decision::NoOpinion(reason), String::new())
    }
}

#[async_trait]
impl Authorizer for Rbac {
    async fn authorize(&self, user: &UserInfo, request: &RequestInfo) -> Decision {
        self.decide(user, request, false).0
    }

    async fn explain(&self, user: &UserInfo, request: &RequestInfo) -> (Decision, String) {
        self.decide(user, request, true)
    }

    async fn rules(&self, user: &UserInfo, namespace: &str) -> Rules {
        let (rules, errors) = self.rules_for(user, namespace);
        Rules { incomplete: !errors.is_empty(), rules, errors }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rbac() -> Rbac {
        let rbac = Rbac::default();
        let reader = json!({"rules": [{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}]});
        let paths = json!({"rules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/livez/*"]}]});
        let to = |role: &str, kind: &str, name: &str| json!({"roleRef": {"kind": "ClusterRole", "name": role}, "subjects": [{"kind": kind, "name": name}]});
        for (plural, namespace, name, object) in [
            ("clusterroles", "", "reader", reader),
            ("clusterroles", "", "paths", paths),
            ("rolebindings", "a", "r", to("reader", "User", "alice")),
            ("clusterrolebindings", "", "p", to("paths", "Group", "team")),
            ("clusterrolebindings", "", "x", to("gone", "User", "bob")),
        ] {
            rbac.apply(PolicyChange { plural, namespace, name, object: Some(&object) });
        }
        rbac
    }

    #[tokio::test]
    async fn requests_are_decided_by_bindings() {
        let rbac = rbac();
        let pods = |verb: &str, namespace: &str| RequestInfo {
            is_resource: true,
            verb: verb.into(),
            resource: "pods".into(),
            namespace: namespace.into(),
            ..RequestInfo::default()
        };
        let path = |path: &str| RequestInfo { verb: "get".into(), path: path.into(), ..RequestInfo::default() };
        let alice = UserInfo::authenticated("alice", &["team"]);
        let bob = UserInfo::authenticated("bob", &[]);
        let no = || Decision::NoOpinion(String::new());
        for (user, request, expected) in [
            (&alice, pods("list", "a"), Decision::Allow),
            (&alice, pods("list", "b"), no()),
            (&alice, pods("list", ""), no()),
            (&alice, pods("create", "a"), no()),
            (&alice, path("/livez/ping"), Decision::Allow),
            (&alice, path("/metrics"), no()),
            (
                &bob,
                path("/healthz"),
                Decision::NoOpinion(r#"RBAC: clusterrole.rbac.authorization.k8s.io "gone" not found"#.into()),
            ),
        ] {
            assert_eq!(rbac.authorize(user, &request).await, expected, "{request:?}");
        }
        let (_, reason) = rbac.explain(&alice, &pods("get", "a")).await;
        assert_eq!(reason, r#"RBAC: allowed by RoleBinding "r/a" of ClusterRole "reader" to User "alice""#);
        let rules = rbac.rules(&alice, "a").await;
        assert_eq!((rules.rules.len(), rules.incomplete), (2, false));
        assert!(rbac.rules(&bob, "a").await.incomplete);
    }
}
