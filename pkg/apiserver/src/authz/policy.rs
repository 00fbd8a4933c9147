//! Roles and bindings, indexed by subject.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::rule::Rule;
use crate::user::UserInfo;

/// The API group of roles and bindings.
pub const GROUP: &str = "rbac.authorization.k8s.io";

/// A role or binding as it now is: `object` is `None` once it is deleted.
#[derive(Clone, Copy, Debug)]
pub struct PolicyChange<'a> {
    /// `roles`, `clusterroles`, `rolebindings` or `clusterrolebindings`; others are ignored.
    pub plural: &'a str,
    /// Empty for the cluster-scoped ones.
    pub namespace: &'a str,
    pub name: &'a str,
    pub object: Option<&'a Value>,
}

/// Which role a binding gives.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct RoleRef {
    pub kind: String,
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    User(String),
    Group(String),
}

#[derive(Debug)]
struct Binding {
    namespace: String,
    name: String,
    role: RoleRef,
    subjects: Vec<Subject>,
}

/// The bindings of one scope: a namespace, or the cluster.
#[derive(Debug, Default)]
struct Scope {
    bindings: HashMap<String, Arc<Binding>>,
    users: HashMap<String, Vec<Arc<Binding>>>,
    groups: HashMap<String, Vec<Arc<Binding>>>,
}

/// All roles and bindings of a cluster. A question costs a look-up for the user's name and each group.
#[derive(Debug, Default)]
pub struct Policy {
    /// By namespace and name; cluster roles have no namespace.
    roles: HashMap<String, HashMap<String, Arc<[Rule]>>>,
    scopes: HashMap<String, Scope>,
}

/// A role that a user has by a binding.
#[derive(Debug)]
pub struct Grant<'a> {
    /// `None` when the role does not exist.
    pub rules: Option<&'a Arc<[Rule]>>,
    binding: &'a Binding,
    group: Option<&'a str>,
}

impl Grant<'_> {
    /// Why a request is allowed.
    pub fn reason(&self, user: &UserInfo) -> String {
        let binding = self.binding;
        let (kind, name) = match binding.namespace.as_str() {
            "" => ("ClusterRoleBinding", binding.name.clone()),
            namespace => ("RoleBinding", format!("{}/{namespace}", binding.name)),
        };
        let subject = match (self.group, user.name.strip_prefix("system:serviceaccount:")) {
            (Some(group), _) => format!("Group {group:?}"),
            (None, Some(account)) => {
                let (namespace, name) = account.split_once(':').unwrap_or_default();
                format!("ServiceAccount {:?}", format!("{name}/{namespace}"))
            }
            (None, None) => format!("User {:?}", user.name),
        };
        format!("RBAC: allowed by {kind} {name:?} of {} {:?} to {subject}", binding.role.kind, binding.role.name)
    }

    /// What to say about a role that does not exist.
    pub fn not_found(&self) -> String {
        format!("{}.{GROUP} {:?} not found", self.binding.role.kind.to_lowercase(), self.binding.role.name)
    }
}

impl Policy {
    /// Takes over the newest state of one object.
    pub fn apply(&mut self, change: PolicyChange<'_>) {
        match change.plural {
            "roles" | "clusterroles" => self.apply_role(change),
            "rolebindings" | "clusterrolebindings" => self.apply_binding(change),
            _ => {}
        }
    }

    /// Forgets all objects of one resource.
    pub fn clear(&mut self, plural: &str) {
        // Cluster-scoped ones are under the empty namespace.
        let in_cluster = plural.starts_with("cluster");
        if plural.ends_with("bindings") {
            self.scopes.retain(|namespace, _| namespace.is_empty() != in_cluster);
        } else {
            self.roles.retain(|namespace, _| namespace.is_empty() != in_cluster);
        }
    }

    fn apply_role(&mut self, change: PolicyChange<'_>) {
        let scope = self.roles.entry(change.namespace.to_owned()).or_default();
        match change.object {
            Some(object) => scope.insert(change.name.to_owned(), rules_of(object).into()),
            None => scope.remove(change.name),
        };
    }

    fn apply_binding(&mut self, change: PolicyChange<'_>) {
        let scope = self.scopes.entry(change.namespace.to_owned()).or_default();
        scope.remove(change.name);
        if let Some(binding) = change.object.and_then(|object| Binding::read(change.namespace, change.name, object)) {
            scope.insert(Arc::new(binding));
        }
    }

    /// The rules of a role; empty namespace for a cluster role.
    pub fn role(&self, namespace: &str, name: &str) -> Option<&Arc<[Rule]>> {
        self.roles.get(namespace)?.get(name)
    }

    /// Roles the user has in the whole cluster, then those it has in `namespace`.
    pub fn grants<'a>(&'a self, user: &'a UserInfo, namespace: &'a str) -> impl Iterator<Item = Grant<'a>> {
        let scoped = if namespace.is_empty() { None } else { self.scopes.get(namespace) };
        self.scopes.get("").into_iter().chain(scoped).flat_map(move |scope| scope.of(user)).map(|(binding, group)| {
            let home = if binding.role.kind == "Role" { binding.namespace.as_str() } else { "" };
            Grant { rules: self.role(home, &binding.role.name), binding, group }
        })
    }
}

impl Scope {
    fn of<'a>(&'a self, user: &'a UserInfo) -> impl Iterator<Item = (&'a Binding, Option<&'a str>)> {
        let by_name = self.users.get(&user.name).into_iter().flatten().map(|b| (&**b, None));
        let by_group = user.groups.iter().flat_map(move |group| {
            self.groups.get(group).into_iter().flatten().map(move |b| (&**b, Some(group.as_str())))
        });
        by_name.chain(by_group)
    }

    fn insert(&mut self, binding: Arc<Binding>) {
        for subject in &binding.subjects {
            let list = match subject {
                Subject::User(name) => self.users.entry(name.clone()).or_default(),
                Subject::Group(name) => self.groups.entry(name.clone()).or_default(),
            };
            // The same subject may be listed twice.
            if !list.iter().any(|b| Arc::ptr_eq(b, &binding)) {
                list.push(binding.clone());
            }
        }
        self.bindings.insert(binding.name.clone(), binding);
    }

    fn remove(&mut self, name: &str) {
        let Some(old) = self.bindings.remove(name) else { return };
        for subject in &old.subjects {
            let (index, key) = match subject {
                Subject::User(name) => (&mut self.users, name),
                Subject::Group(name) => (&mut self.groups, name),
            };
            if let Some(list) = index.get_mut(key) {
                list.retain(|b| !Arc::ptr_eq(b, &old));
                if list.is_empty() {
                    index.remove(key);
                }
            }
        }
    }
}

impl Binding {
    fn read(namespace: &str, name: &str, object: &Value) -> Option<Self> {
        let subjects = object["subjects"].as_array().into_iter().flatten();
        Some(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            role: role_ref(object)?,
            subjects: subjects.filter_map(|s| Subject::read(s, namespace)).collect(),
        })
    }
}

impl Subject {
    fn read(subject: &Value, binding_namespace: &str) -> Option<Self> {
        let name = subject["name"].as_str()?;
        Some(match subject["kind"].as_str()? {
            "User" => Self::User(name.to_owned()),
            "Group" => Self::Group(name.to_owned()),
            "ServiceAccount" => {
                let namespace = subject["namespace"].as_str().filter(|n| !n.is_empty()).unwrap_or(binding_namespace);
                Self::User(format!("system:serviceaccount:{namespace}:{name}"))
            }
            _ => return None,
        })
    }
}

/// The rules of a role's object; what does not parse grants nothing.
pub fn rules_of(role: &Value) -> Vec<Rule> {
    role["rules"].as_array().into_iter().flatten().filter_map(|rule| Rule::deserialize(rule).ok()).collect()
}

/// The role of a binding's object.
pub fn role_ref(binding: &Value) -> Option<RoleRef> {
    RoleRef::deserialize(&binding["roleRef"]).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn binding(subjects: Value) -> Value {
        json!({"roleRef": {"kind": "ClusterRole", "name": "view"}, "subjects": subjects})
    }

    fn change<'a>(plural: &'a str, namespace: &'a str, name: &'a str, object: Option<&'a Value>) -> PolicyChange<'a> {
        PolicyChange { plural, namespace, name, object }
    }

    #[test]
    fn bindings_follow_their_objects() {
        let mut policy = Policy::default();
        let account = UserInfo::authenticated("system:serviceaccount:a:default", &["team"]);
        let count = |p: &Policy, namespace| p.grants(&account, namespace).filter(|g| g.rules.is_some()).count();
        let role = json!({"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]});
        policy.apply(change("clusterroles", "", "view", Some(&role)));
        let first = binding(json!([{"kind": "ServiceAccount", "name": "default"}, {"kind": "Group", "name": "team"}]));
        policy.apply(change("rolebindings", "a", "b", Some(&first)));
        assert_eq!((count(&policy, "a"), count(&policy, "b"), count(&policy, "")), (2, 0, 0));
        policy.apply(change("rolebindings", "a", "b", Some(&binding(json!([{"kind": "Group", "name": "team"}])))));
        assert_eq!(count(&policy, "a"), 1);
        policy.apply(change(
            "clusterrolebindings",
            "",
            "c",
            Some(&binding(json!([{"kind": "User", "name": "system:serviceaccount:a:default"}]))),
        ));
        assert_eq!((count(&policy, "a"), count(&policy, "")), (2, 1));
        policy.apply(change("clusterroles", "", "view", None));
        assert_eq!(count(&policy, "a"), 0);
        let text = policy.grants(&account, "").next().map(|g| g.not_found());
        assert_eq!(text.as_deref(), Some(r#"clusterrole.rbac.authorization.k8s.io "view" not found"#));
        policy.apply(change("rolebindings", "a", "b", None));
        policy.apply(change("clusterrolebindings", "", "c", None));
        assert_eq!(policy.grants(&account, "a").count(), 0);
        assert!(policy.scopes["a"].groups.is_empty(), "nothing is left behind");
    }
}
