//! Roles and bindings.

use super::at::{At, same};
use super::selector::label_selector;
use super::{Errors, format};

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) fn role(object: &At, _old: Option<&At>, errors: &mut Errors) {
    for rule in object.get("rules").items() {
        policy_rule(&rule, true, errors);
    }
}

pub(super) fn cluster_role(object: &At, _old: Option<&At>, errors: &mut Errors) {
    for rule in object.get("rules").items() {
        policy_rule(&rule, false, errors);
    }
    let aggregation = object.get("aggregationRule");
    let selectors = aggregation.get("clusterRoleSelectors");
    if aggregation.is_set() && selectors.is_empty() {
        selectors.required(errors, "at least one clusterRoleSelector required if aggregationRule is non-nil");
    }
    for selector in selectors.items() {
        let before = errors.len();
        label_selector(&selector, errors);
        if errors.len() > before {
            selector.invalid_part(errors, "invalid label selector.");
        }
    }
}

fn policy_rule(rule: &At, namespaced: bool, errors: &mut Errors) {
    let (groups, resources, urls) = (rule.get("apiGroups"), rule.get("resources"), rule.get("nonResourceURLs"));
    if rule.get("verbs").is_empty() {
        rule.get("verbs").required(errors, "verbs must contain at least one value");
    }
    if !urls.is_empty() {
        if namespaced {
            urls.invalid(errors, "namespaced rules cannot apply to non-resource URLs");
        }
        if !groups.is_empty() || !resources.is_empty() || !rule.get("resourceNames").is_empty() {
            urls.invalid(errors, "rules cannot apply to both regular resources and non-resource URLs");
        }
        return;
    }
    if groups.is_empty() {
        groups.required(errors, "resource rules must supply at least one api group");
    }
    if resources.is_empty() {
        resources.required(errors, "resource rules must supply at least one resource");
    }
}

pub(super) fn role_binding(object: &At, old: Option<&At>, errors: &mut Errors) {
    binding(object, old, &["Role", "ClusterRole"], errors);
}

pub(super) fn cluster_role_binding(object: &At, old: Option<&At>, errors: &mut Errors) {
    binding(object, old, &["ClusterRole"], errors);
}

fn binding(object: &At, old: Option<&At>, kinds: &[&str], errors: &mut Errors) {
    let reference = object.get("roleRef");
    let (group, kind, name) = (reference.get("apiGroup"), reference.get("kind"), reference.get("name"));
    if group.text() != GROUP {
        group.not_supported(errors, &[GROUP]);
    }
    if !kinds.contains(&kind.text()) {
        kind.not_supported(errors, kinds);
    }
    if name.need(errors) {
        name.check(errors, format::path_segment(name.text()));
    }
    for subject in object.get("subjects").items() {
        self::subject(&subject, kinds.contains(&"Role"), errors);
    }
    if old.is_some_and(|old| !same(reference.value, old.get("roleRef").value)) {
        reference.invalid(errors, "cannot change roleRef");
    }
}

/// Accounts of bindings in a namespace are by default of that namespace.
fn subject(subject: &At, namespaced: bool, errors: &mut Errors) {
    let (kind, group, name) = (subject.get("kind"), subject.get("apiGroup"), subject.get("name"));
    name.need(errors);
    match kind.text() {
        "ServiceAccount" => {
            name.check(errors, if name.is_empty() { Vec::new() } else { format::dns_subdomain(name.text()) });
            if !group.is_empty() {
                group.not_supported(errors, &[""]);
            }
            if !namespaced {
                subject.get("namespace").need(errors);
            }
        }
        "User" | "Group" => {
            if group.text() != GROUP {
                group.not_supported(errors, &[GROUP]);
            }
        }
        _ => kind.not_supported(errors, &["ServiceAccount", "User", "Group"]),
    }
}
