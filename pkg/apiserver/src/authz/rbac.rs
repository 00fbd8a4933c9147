//! Role-based access control.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use kube1_api::resource::ResourceTable;
use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use super::policy::{GROUP, Policy, PolicyChange, RoleRef};
use super::rule::Rule;
use super::{Authorizer, Decision, Rules};
use crate::request_info::RequestInfo;
use crate::storage::{Collection, Storage};
use crate::user::UserInfo;

/// A role that cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum RbacError {
    #[error("{kind}.rbac.authorization.k8s.io {name:?} not found")]
    RoleNotFound { kind: String, name: String },
}

/// Authorizes by the roles and bindings in storage, or by those it was told of with [`Rbac::apply`].
#[derive(Default)]
pub struct Rbac {
    policy: RwLock<Policy>,
    sources: Vec<Source>,
}

/// A collection of roles or bindings.
struct Source {
    plural: String,
    collection: Arc<Collection>,
    /// Revision up to which the policy has its changes.
    seen: AtomicU64,
    /// Taken by the one who brings the policy up to date.
    catching_up: Mutex<()>,
}

impl Rbac {
    /// An authorizer that is always as new as `storage`: each request first takes over what changed, which is nothing
    /// almost always.
    pub fn of_storage(storage: &Storage, table: &ResourceTable) -> Self {
        let rows = table.iter().filter(|row| row.group == GROUP && row.is_stored() && row.is_storage_version());
        let sources = rows.map(|row| Source {
            plural: row.plural.clone(),
            collection: storage.collection(row),
            seen: AtomicU64::new(0),
            catching_up: Mutex::new(()),
        });
        Self { policy: RwLock::default(), sources: sources.collect() }
    }

    /// The policy with all changes that readers of the storage see.
    fn current(&self) -> RwLockReadGuard<'_, Policy> {
        for source in &self.sources {
            if source.collection.revision() != source.seen.load(Ordering::Acquire) {
                self.catch_up(source);
            }
        }
        self.policy.read()
    }

    fn catch_up(&self, source: &Source) {
        let _turn = source.catching_up.lock();
        let changes = source.collection.changes_since(source.seen.load(Ordering::Acquire));
        // Parsed before the lock is taken, so that others are not kept waiting.
        let parsed: Vec<_> = changes.objects.iter().map(|(o, deleted)| (o, (!deleted).then(|| o.value()))).collect();
        let mut policy = self.policy.write();
        if changes.complete {
            policy.clear(&source.plural);
        }
        for (object, value) in &parsed {
            let (namespace, name) = (object.namespace(), object.name());
            policy.apply(PolicyChange { plural: &source.plural, namespace, name, object: value.as_ref() });
        }
        source.seen.store(changes.revision, Ordering::Release);
    }

    /// Takes over the newest state of a role or binding; the next request is decided by it.
    pub fn apply(&self, change: PolicyChange<'_>) {
        self.policy.write().apply(change);
    }

    /// Every rule `user` has in the cluster and in `namespace`, and what could not be resolved.
    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> (Vec<Rule>, Vec<String>) {
        let policy = self.current();
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
        match self.current().role(home, &role.name) {
            Some(rules) => Ok(rules.to_vec()),
            None => Err(RbacError::RoleNotFound { kind: role.kind.to_lowercase(), name: role.name.clone() }),
        }
    }

    fn decide(&self, user: &UserInfo, request: &RequestInfo, explain: bool) -> (Decision, String) {
        let policy = self.current();
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

    fn authorize_now(&self, user: &UserInfo, request: &RequestInfo) -> Option<Decision> {
        Some(self.decide(user, request, false).0)
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
#[allow(clippy::unwrap_used)]
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
    async fn a_stored_binding_counts_at_once_and_a_deleted_one_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let table = ResourceTable::builtin();
        let store = Arc::new(kube1_store::EmbeddedStore::open(dir.path()).unwrap());
        let storage = Storage::open(store, &table, None).await.unwrap();
        let rbac = Rbac::of_storage(&storage, &table);
        let row = |plural| storage.collection(&table.stored(GROUP, plural).unwrap());
        let alice = UserInfo::authenticated("alice", &[]);
        let request = RequestInfo { verb: "get".into(), path: "/metrics".into(), ..RequestInfo::default() };
        assert_ne!(rbac.authorize(&alice, &request).await, Decision::Allow);
        let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "m"},
            "rules": [{"verbs": ["get"], "nonResourceURLs": ["/metrics"]}]});
        row("clusterroles").create(role).await.unwrap();
        let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": "m"},
            "subjects": [{"kind": "User", "name": "alice"}]});
        let made = row("clusterrolebindings").create(binding).await.unwrap();
        assert_eq!(rbac.authorize(&alice, &request).await, Decision::Allow);
        assert_eq!(Rbac::of_storage(&storage, &table).authorize(&alice, &request).await, Decision::Allow);
        row("clusterrolebindings").delete("", "b", made.revision()).await.unwrap();
        assert_ne!(rbac.authorize(&alice, &request).await, Decision::Allow);
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
