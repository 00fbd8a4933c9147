//! Names of resources, and the amounts that go with them.

use super::at::At;
use super::{Errors, format};

/// What is counted in namespaces.
const COUNTED: [&str; 9] = [
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];

const MEASURED: [&str; 10] = [
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
];

pub(super) fn is_huge_pages(name: &str) -> bool {
    name.starts_with("hugepages-")
}

fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && format::qualified_name(&format!("requests.{name}")).is_empty()
}

/// Whether more of it may be promised than there is.
pub(super) fn may_overcommit(name: &str) -> bool {
    is_native(name) && !is_huge_pages(name)
}

/// Whether a quota may name it without a prefix.
pub(super) fn is_standard_for_quota(name: &str) -> bool {
    COUNTED.contains(&name) || MEASURED.contains(&name) || is_huge_pages(name.strip_prefix("requests.").unwrap_or(name))
}

/// The name of any resource; tells whether it is fine.
pub(super) fn resource_name(at: &At, name: &str, errors: &mut Errors) -> bool {
    let problems = format::qualified_name(name);
    let known = name.contains('/') || name == "storage" || is_standard_for_quota(name);
    let fine = problems.is_empty() && known;
    if problems.is_empty() && !known {
        at.invalid_value(errors, name, "must be a standard resource type or fully qualified");
    }
    for problem in problems {
        at.invalid_value(errors, name, problem);
    }
    fine
}

/// A name under which a container may ask for something.
pub(super) fn container_resource_name(at: &At, name: &str, errors: &mut Errors) {
    resource_name(at, name, errors);
    if name.matches('/').count() == 0 {
        if !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !is_huge_pages(name) {
            at.invalid_value(errors, name, "must be a standard resource for containers");
        }
    } else if !is_native(name) && !is_extended(name) {
        at.invalid_value(errors, name, "doesn't follow extended resource name standard");
    }
}

/// A name under which a whole pod may ask for something.
pub(super) fn pod_resource_name(at: &At, name: &str, errors: &mut Errors) {
    if resource_name(at, name, errors) && !matches!(name, "cpu" | "memory") && !is_huge_pages(name) {
        at.check_supported(name, &["cpu", "hugepages-", "memory"], errors);
    }
}

pub(super) fn quota_resource_name(at: &At, name: &str, errors: &mut Errors) {
    resource_name(at, name, errors);
    if !name.contains('/') && !is_standard_for_quota(name) {
        at.invalid_value(errors, name, "must be a standard resource for quota");
    }
}

/// An amount: not negative, and whole where the resource is handed out in pieces.
pub(super) fn quantity(at: &At, name: &str, errors: &mut Errors) {
    let Some(amount) = at.quantity() else { return };
    if amount.is_negative() {
        at.invalid(errors, "must be greater than or equal to 0");
    }
    if (is_extended(name) || COUNTED.contains(&name)) && amount.millis() % 1000 != 0 {
        at.invalid(errors, "must be an integer");
    }
}
