//! Which fields an endpoint lets its callers own.

use super::field_set::FieldSet;
use crate::resource::Resource;

/// Fields that no manager ever owns.
const UNOWNED: [&str; 11] = [
    "apiVersion",
    "kind",
    "metadata",
    "metadata.name",
    "metadata.namespace",
    "metadata.creationTimestamp",
    "metadata.selfLink",
    "metadata.uid",
    "metadata.generation",
    "metadata.managedFields",
    "metadata.resourceVersion",
];

/// Resources whose status endpoint takes no metadata.
const STATUS_ONLY: [&str; 8] = [
    "servicecidrs",
    "volumeattachments",
    "validatingadmissionpolicies",
    "resourceclaims",
    "flowschemas",
    "prioritylevelconfigurations",
    "podcertificaterequests",
    "storageversionmigrations",
];

/// Takes out the fields that are never recorded.
pub(super) fn strip(fields: &mut FieldSet) {
    UNOWNED.iter().for_each(|path| fields.remove(path, false));
}

/// Takes out what the endpoint does not change, whatever a request says.
pub(super) fn restrict(resource: &Resource, subresource: &str, fields: &mut FieldSet) {
    match subresource {
        "" if resource.kind == "CertificateSigningRequest" => drop(fields, &["spec", "status"]),
        "" if resource.has_status() => drop(fields, &["status"]),
        "" => {}
        "status" if resource.is_custom() || STATUS_ONLY.contains(&resource.plural.as_str()) => {
            fields.keep(&["f:status"]);
        }
        "status" => match resource.plural.as_str() {
            "deployments" => drop(fields, &["spec", "metadata.labels"]),
            "pods" => drop(fields, &["spec", "metadata.deletionTimestamp", "metadata.ownerReferences"]),
            "apiservices" => drop(fields, &["spec", "metadata"]),
            _ => drop(fields, &["spec"]),
        },
        "scale" if resource.is_custom() => fields.keep(&["f:spec"]),
        "scale" => fields.keep(&["f:spec/f:replicas"]),
        "ephemeralcontainers" => fields.keep(&["f:spec/f:ephemeralContainers"]),
        "resize" => fields.keep(&[
            "f:spec/f:containers/*/f:resources",
            "f:spec/f:containers/*/f:resizePolicy",
            "f:spec/f:initContainers/*/f:resources",
            "f:spec/f:initContainers/*/f:resizePolicy",
            "f:spec/f:resources",
        ]),
        "approval" => fields.keep(&["f:status/f:conditions"]),
        "finalize" => fields.keep(&["f:spec/f:finalizers"]),
        _ => {}
    }
}

fn drop(fields: &mut FieldSet, paths: &[&str]) {
    paths.iter().for_each(|path| fields.remove(path, true));
}
