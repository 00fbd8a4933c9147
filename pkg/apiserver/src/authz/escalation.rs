//! Nobody may hand out permissions that they do not have.

use kube1_api::name::GroupResource;
use kube1_api::status::Status;
use serde_json::Value;

use super::policy::{GROUP, role_ref, rules_of};
use super::{Authorizer, Decision, Rbac, Rule, compact, missing};
use crate::request_info::RequestInfo;
use crate::user::{MASTERS, UserInfo};

/// A write of a role or binding.
#[derive(Clone, Copy, Debug)]
pub struct RoleWrite<'a> {
    /// `roles`, `clusterroles`, `rolebindings` or `clusterrolebindings`.
    pub plural: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub object: &'a Value,
    pub old: Option<&'a Value>,
}

/// Refuses (403) a role with rules, or a binding to a role, that `user` does not hold in that scope. Verb `escalate` on the
/// role or `bind` on the bound role permits it, and members of `system:masters` are not asked.
pub async fn check_escalation(
    rbac: &Rbac,
    authorizer: &dyn Authorizer,
    user: &UserInfo,
    write: RoleWrite<'_>,
) -> Result<(), Status> {
    if user.in_group(MASTERS) || write.old.is_some_and(|old| is_only_bookkeeping(write.object, old)) {
        return Ok(());
    }
    let refuse = |cause: String| Status::forbidden(&GroupResource::new(GROUP, write.plural), write.name, cause);
    let (verb, plural, name) = match write.plural {
        "roles" | "clusterroles" => ("escalate", write.plural, write.name.to_owned()),
        _ => {
            let role = role_ref(write.object).ok_or_else(|| refuse("the binding has no roleRef".into()))?;
            ("bind", if role.kind == "Role" { "roles" } else { "clusterroles" }, role.name)
        }
    };
    let request = RequestInfo {
        is_resource: true,
        verb: verb.into(),
        group: GROUP.into(),
        version: "v1".into(),
        resource: plural.into(),
        namespace: write.namespace.into(),
        name,
        ..RequestInfo::default()
    };
    if authorizer.authorize(user, &request).await == Decision::Allow {
        return Ok(());
    }
    let (held, errors) = rbac.rules_for(user, write.namespace);
    let lacking = compact(&missing(&held, &granted(rbac, write)?));
    if lacking.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = lacking.iter().map(ToString::to_string).collect();
    let mut cause = format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        super::rule::quoted(&user.groups),
        lines.join("\n")
    );
    if !errors.is_empty() {
        cause.push_str(&format!("; resolution errors: [{}]", errors.join(", ")));
    }
    Err(refuse(cause))
}

/// The permissions that the write gives away.
fn granted(rbac: &Rbac, write: RoleWrite<'_>) -> Result<Vec<Rule>, Status> {
    if write.plural.ends_with("bindings") {
        let Some(role) = role_ref(write.object) else { return Ok(Vec::new()) };
        let plural = if role.kind == "Role" { "roles" } else { "clusterroles" };
        return rbac
            .rules_of_role(&role, write.namespace)
            .map_err(|_| Status::not_found(&GroupResource::new(GROUP, plural), &role.name));
    }
    let aggregates = |role: &Value| {
        role["aggregationRule"]["clusterRoleSelectors"].as_array().is_some_and(|selectors| !selectors.is_empty())
    };
    let mut rules = rules_of(write.object);
    if aggregates(write.object) || write.old.is_some_and(aggregates) {
        // Whoever may label roles decides what an aggregated role grants, so this is like granting everything.
        rules.push(Rule::resources(&["*"], &["*"], &["*"], &[]));
        rules.push(Rule { verbs: vec!["*".into()], non_resource_urls: vec!["*".into()], ..Rule::default() });
    }
    Ok(rules)
}

/// Whether nothing differs but what the garbage collector changes before it deletes an object.
pub(crate) fn is_only_bookkeeping(new: &Value, old: &Value) -> bool {
    let strip = |object: &Value| {
        let mut object = object.clone();
        if let Some(metadata) = object["metadata"].as_object_mut() {
            for key in ["ownerReferences", "finalizers", "managedFields", "resourceVersion", "generation"] {
                metadata.remove(key);
            }
        }
        object
    };
    strip(new) == strip(old)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::authz::PolicyChange;

    fn rbac() -> Rbac {
        let rbac = Rbac::default();
        let role = |verbs: &[&str], group: &str, resources: &[&str], names: &[&str]| json!({"rules": [Rule::resources(verbs, &[group], resources, names)]});
        let to = |role: &str, user: &str| json!({"roleRef": {"kind": "ClusterRole", "name": role}, "subjects": [{"kind": "User", "name": user}]});
        for (plural, namespace, name, object) in [
            ("clusterroles", "", "reader", role(&["get", "list"], "", &["pods"], &[])),
            ("clusterroles", "", "writer", role(&["create"], "", &["pods"], &[])),
            ("clusterroles", "", "escalator", role(&["escalate"], GROUP, &["roles"], &[])),
            ("clusterroles", "", "binder", role(&["bind"], GROUP, &["clusterroles"], &["writer"])),
            ("rolebindings", "a", "1", to("reader", "alice")),
            ("rolebindings", "a", "2", to("escalator", "eve")),
            ("rolebindings", "a", "3", to("binder", "bob")),
        ] {
            rbac.apply(PolicyChange { plural, namespace, name, object: Some(&object) });
        }
        rbac
    }

    #[tokio::test]
    async fn permissions_are_not_made_out_of_nothing() {
        let rbac = rbac();
        let rules = |verbs: &[&str]| json!({"rules": [Rule::resources(verbs, &[""], &["pods"], &[])]});
        let binding = |name: &str| json!({"roleRef": {"kind": "ClusterRole", "name": name}});
        let aggregated = json!({"aggregationRule": {"clusterRoleSelectors": [{}]}});
        for (user, plural, namespace, object, code) in [
            ("alice", "roles", "a", rules(&["get"]), 0),
            ("alice", "roles", "a", rules(&["get", "delete"]), 403),
            ("alice", "roles", "b", rules(&["get"]), 403),
            ("alice", "clusterroles", "", rules(&["get"]), 403),
            ("alice", "clusterroles", "", aggregated, 403),
            ("alice", "rolebindings", "a", binding("reader"), 0),
            ("alice", "rolebindings", "a", binding("writer"), 403),
            ("alice", "rolebindings", "a", binding("gone"), 404),
            ("alice", "clusterrolebindings", "", binding("reader"), 403),
            ("eve", "roles", "a", rules(&["delete"]), 0),
            ("bob", "rolebindings", "a", binding("writer"), 0),
            ("bob", "rolebindings", "a", binding("reader"), 403),
        ] {
            let user = UserInfo::authenticated(user, &[]);
            let write = RoleWrite { plural, namespace, name: "x", object: &object, old: None };
            let result = check_escalation(&rbac, &rbac, &user, write).await;
            assert_eq!(result.as_ref().err().map_or(0, Status::code), code, "{} {plural} {object}", user.name);
            let write = RoleWrite { old: Some(&object), ..write };
            check_escalation(&rbac, &rbac, &user, write).await.unwrap();
        }
        let object = rules(&["get", "delete"]);
        let write = RoleWrite { plural: "roles", namespace: "a", name: "x", object: &object, old: None };
        let status = check_escalation(&rbac, &rbac, &UserInfo::authenticated("alice", &[]), write).await.unwrap_err();
        assert_eq!(
            status.message(),
            "roles.rbac.authorization.k8s.io \"x\" is forbidden: user \"alice\" (groups=[\"system:authenticated\"]) is attempting \
             to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\"]}"
        );
    }
}
