//! Upstream's start objects, from a table.

use kube1_api::name::GroupResource;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::own::own_objects;
use crate::authn::Trust;

const RBAC: &str = "rbac.authorization.k8s.io";
pub(super) const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
pub(super) const AUTOUPDATE_SPEC: &str = "apf.kubernetes.io/autoupdate-spec";

/// An object that the server makes sure of at start.
#[derive(Clone, Debug, PartialEq)]
pub struct BootObject {
    pub resource: GroupResource,
    /// Kept as it is here, against all edits.
    pub mandatory: bool,
    pub object: Value,
}

impl BootObject {
    pub(super) fn new(resource: (&str, &str), object: Value) -> Self {
        Self { resource: GroupResource::new(resource.0, resource.1), mandatory: false, object }
    }

    pub fn namespace(&self) -> &str {
        self.object["metadata"]["namespace"].as_str().unwrap_or_default()
    }

    pub fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }
}

/// A line of the table; which members it has depends on the kind.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    kind: String,
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    labels: Vec<String>,
    #[serde(default)]
    aggregate: Vec<String>,
    #[serde(default)]
    rules: Vec<String>,
    #[serde(default)]
    role_ref: String,
    #[serde(default)]
    subjects: Vec<String>,
    #[serde(default)]
    mandatory: bool,
    #[serde(default)]
    spec: Value,
    #[serde(default)]
    value: i64,
}

/// Every start object: namespaces first, then upstream's other objects, then this program's own.
///
/// The rules of aggregated roles are filled in.
pub fn objects() -> Vec<BootObject> {
    let rows: Vec<Row> =
        serde_json::from_str(include_str!("../data/bootstrap.json")).expect("the generated table is valid");
    let mut all: Vec<BootObject> = rows.iter().map(expand).collect();
    all.extend(own_objects());
    fill_aggregated(&mut all);
    all
}

fn expand(row: &Row) -> BootObject {
    let (group, plural, version) = match row.kind.as_str() {
        "Namespace" => ("", "namespaces", "v1"),
        "PriorityClass" => ("scheduling.k8s.io", "priorityclasses", "v1"),
        "FlowSchema" => ("flowcontrol.apiserver.k8s.io", "flowschemas", "v1"),
        "PriorityLevelConfiguration" => ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations", "v1"),
        "ClusterRole" => (RBAC, "clusterroles", "v1"),
        "Role" => (RBAC, "roles", "v1"),
        "ClusterRoleBinding" => (RBAC, "clusterrolebindings", "v1"),
        "RoleBinding" => (RBAC, "rolebindings", "v1"),
        other => unreachable!("the generator writes no {other}"),
    };
    let mut object = json!({"apiVersion": kube1_api::name::api_version(group, version), "kind": row.kind,
        "metadata": {"name": row.name}});
    if !row.namespace.is_empty() {
        object["metadata"]["namespace"] = row.namespace.as_str().into();
    }
    match row.kind.as_str() {
        "Namespace" => {
            object["metadata"]["labels"] = json!({"kubernetes.io/metadata.name": row.name});
            object["spec"] = json!({"finalizers": ["kubernetes"]});
            object["status"] = json!({"phase": "Active"});
        }
        "PriorityClass" => {
            object["value"] = row.value.into();
            object["preemptionPolicy"] = "PreemptLowerPriority".into();
            object["description"] = "Reserved for system pods; no pod of a lower class is kept at their cost.".into();
        }
        "FlowSchema" | "PriorityLevelConfiguration" => {
            object["metadata"]["annotations"] = json!({AUTOUPDATE_SPEC: "true"});
            object["spec"] = row.spec.clone();
        }
        "ClusterRole" | "Role" => role(&mut object, row),
        _ => binding(&mut object, &row.role_ref, &row.subjects.iter().map(String::as_str).collect::<Vec<_>>()),
    }
    BootObject { resource: GroupResource::new(group, plural), mandatory: row.mandatory, object }
}

/// Marks an object of RBAC as kept up by the server.
pub(super) fn mark_rbac(object: &mut Value) {
    object["metadata"]["annotations"] = json!({AUTOUPDATE: "true"});
    object["metadata"]["labels"]["kubernetes.io/bootstrapping"] = "rbac-defaults".into();
}

fn role(object: &mut Value, row: &Row) {
    mark_rbac(object);
    for label in &row.labels {
        object["metadata"]["labels"][label.as_str()] = "true".into();
    }
    if !row.aggregate.is_empty() {
        let selectors: Vec<Value> = row.aggregate.iter().map(|label| json!({"matchLabels": {label: "true"}})).collect();
        object["aggregationRule"] = json!({"clusterRoleSelectors": selectors});
    }
    object["rules"] = row.rules.iter().map(|text| rule(text)).collect();
}

/// A rule from its line: `groups;resources;verbs[;names]`, or `paths;verbs`.
pub(super) fn rule(text: &str) -> Value {
    let parts: Vec<Vec<&str>> = text.split(';').map(|part| part.split(',').collect()).collect();
    match &parts[..] {
        [urls, verbs] => json!({"nonResourceURLs": urls, "verbs": verbs}),
        [groups, resources, verbs] => json!({"apiGroups": groups, "resources": resources, "verbs": verbs}),
        [groups, resources, verbs, names] => {
            json!({"apiGroups": groups, "resources": resources, "verbs": verbs, "resourceNames": names})
        }
        _ => unreachable!("a rule has two to four parts"),
    }
}

/// Fills in a binding: `role_ref` is `Kind/name`, a subject `Kind:[namespace/]name`.
pub(super) fn binding(object: &mut Value, role_ref: &str, subjects: &[&str]) {
    mark_rbac(object);
    let (kind, name) = role_ref.split_once('/').expect("a role reference is Kind/name");
    object["roleRef"] = json!({"apiGroup": RBAC, "kind": kind, "name": name});
    let subjects: Vec<Value> = subjects
        .iter()
        .map(|text| {
            let (kind, name) = text.split_once(':').expect("a subject is Kind:name");
            match (kind, name.split_once('/')) {
                ("ServiceAccount", Some((namespace, name))) => {
                    json!({"kind": kind, "namespace": namespace, "name": name})
                }
                _ => json!({"apiGroup": RBAC, "kind": kind, "name": name}),
            }
        })
        .collect();
    if !subjects.is_empty() {
        object["subjects"] = subjects.into();
    }
}

/// Computes the rules of aggregated roles; repeated, since an aggregated role may be selected by another.
fn fill_aggregated(all: &mut [BootObject]) {
    let is_role = |o: &&BootObject| o.resource.resource == "clusterroles";
    for _ in 0..3 {
        let roles: Vec<Value> = all.iter().filter(is_role).map(|o| o.object.clone()).collect();
        for boot in all.iter_mut().filter(|o| o.object.get("aggregationRule").is_some()) {
            if let Some(rules) = super::aggregated_rules(&boot.object, roles.iter()) {
                boot.object["rules"] = rules;
            }
        }
    }
}

/// A header's name as it is usually written: `x-remote-user` as `X-Remote-User`.
fn capitalized(name: &str) -> String {
    let parts = name.split('-').map(|part| {
        let mut letters = part.chars();
        letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
    });
    parts.collect::<Vec<_>>().join("-")
}

/// The ConfigMap from which aggregated servers learn whom to trust as client and as front proxy.
pub fn authentication_config(trust: &Trust) -> BootObject {
    let (clients, proxies, names) = trust.published();
    let headers = trust.headers();
    let list = |names: &[String]| json!(names).to_string();
    let shown = |names: &[String]| list(&names.iter().map(|name| capitalized(name)).collect::<Vec<_>>());
    let mut data = Map::new();
    for (key, value) in [
        ("client-ca-file", clients),
        ("requestheader-client-ca-file", proxies),
        ("requestheader-allowed-names", list(&names)),
        ("requestheader-username-headers", shown(&headers.user)),
        ("requestheader-uid-headers", shown(&headers.uid)),
        ("requestheader-group-headers", shown(&headers.group)),
        ("requestheader-extra-headers-prefix", shown(&headers.extra_prefix)),
    ] {
        data.insert(key.into(), value.into());
    }
    let metadata = json!({"namespace": "kube-system", "name": "extension-apiserver-authentication"});
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data});
    BootObject { mandatory: true, ..BootObject::new(("", "configmaps"), object) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn find(all: &[BootObject], plural: &str, name: &str) -> Value {
        all.iter().find(|o| o.resource.resource == plural && o.name() == name).unwrap().object.clone()
    }

    #[test]
    fn rows_expand_to_objects() {
        let all = objects();
        let view = find(&all, "clusterroles", "view");
        assert_eq!(view["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-edit"], "true");
        assert_eq!(
            find(&all, "rolebindings", "system::leader-locking-kube-scheduler")["subjects"],
            json!([{"apiGroup": RBAC, "kind": "User", "name": "system:kube-scheduler"},
                {"kind": "ServiceAccount", "namespace": "kube-system", "name": "kube-scheduler"}])
        );
        assert_eq!(
            find(&all, "clusterroles", "system:public-info-viewer")["rules"],
            json!([{"nonResourceURLs": ["/healthz", "/livez", "/readyz", "/version", "/version/"], "verbs": ["get"]}])
        );
        assert_eq!(
            find(&all, "clusterroles", "system:certificates.k8s.io:kubelet-serving-approver")["rules"],
            json!([{"apiGroups": ["certificates.k8s.io"], "resources": ["signers"], "verbs": ["approve"],
                "resourceNames": ["kubernetes.io/kubelet-serving"]}])
        );
        assert!(find(&all, "clusterrolebindings", "system:node").get("subjects").is_none());
    }

    #[test]
    fn aggregated_roles_contain_each_other() {
        let all = objects();
        let rules = |name: &str| crate::authz::rules_of(&find(&all, "clusterroles", name));
        assert!(crate::authz::missing(&rules("admin"), &rules("edit")).is_empty());
        assert!(crate::authz::missing(&rules("edit"), &rules("view")).is_empty());
        assert!(!crate::authz::missing(&rules("view"), &rules("edit")).is_empty());
        assert!(!rules("view").is_empty());
    }

    #[test]
    fn every_binding_refers_to_a_role_of_the_table() {
        let all = objects();
        for boot in all.iter().filter(|o| o.resource.resource.ends_with("bindings")) {
            let role = crate::authz::role_ref(&boot.object).unwrap();
            let plural = if role.kind == "Role" { "roles" } else { "clusterroles" };
            assert!(all.iter().any(|o| o.resource.resource == plural && o.name() == role.name), "{}", boot.name());
        }
    }
}
