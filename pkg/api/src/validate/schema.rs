//! What the field table itself demands: closed lists of values.

use serde_json::Value;

use super::Errors;
use crate::field::{FieldError, FieldPath};
use crate::schema::{Field, Shape};

/// Types whose lists are checked by rules of their own begin so.
const OWN_RULES: [&str; 2] =
    ["io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.ValidationRule", "io.k8s.api.core.v1."];

/// Fields whose lists are checked by the rules of their kind, with other words or elsewhere.
const OWN_FIELDS: [(&str, &str); 20] = [
    ("io.k8s.api.admissionregistration.v1.MutatingWebhook", "sideEffects"),
    ("io.k8s.api.admissionregistration.v1.ValidatingWebhook", "sideEffects"),
    ("io.k8s.api.apps.v1.DaemonSetUpdateStrategy", "type"),
    ("io.k8s.api.apps.v1.DeploymentStrategy", "type"),
    ("io.k8s.api.apps.v1.StatefulSetSpec", "podManagementPolicy"),
    ("io.k8s.api.apps.v1.StatefulSetUpdateStrategy", "type"),
    ("io.k8s.api.autoscaling.v1.MetricSpec", "type"),
    ("io.k8s.api.batch.v1.JobSpec", "completionMode"),
    ("io.k8s.api.batch.v1.JobSpec", "podReplacementPolicy"),
    ("io.k8s.api.discovery.v1.EndpointPort", "protocol"),
    ("io.k8s.api.discovery.v1.EndpointSlice", "addressType"),
    ("io.k8s.api.networking.v1.HTTPIngressPath", "pathType"),
    ("io.k8s.api.networking.v1.NetworkPolicyPort", "protocol"),
    ("io.k8s.api.networking.v1.NetworkPolicySpec", "policyTypes"),
    ("io.k8s.api.policy.v1.PodDisruptionBudgetSpec", "unhealthyPodEvictionPolicy"),
    ("io.k8s.api.resource.v1.DeviceAllocationConfiguration", "source"),
    ("io.k8s.api.resource.v1.DeviceSubRequest", "allocationMode"),
    ("io.k8s.api.resource.v1.ExactDeviceRequest", "allocationMode"),
    ("io.k8s.api.storage.v1.StorageClass", "reclaimPolicy"),
    ("io.k8s.api.scheduling.v1.PriorityClass", "preemptionPolicy"),
];

/// Reports values outside the closed lists of their fields, except in metadata, status, and what did not change.
pub(super) fn closed_lists(shape: Shape, object: &Value, old: Option<&Value>, errors: &mut Errors) {
    for (name, value) in object.as_object().into_iter().flatten() {
        if !matches!(name.as_str(), "metadata" | "status") {
            member(shape, name, value, old, &mut vec![Step::Root], errors);
        }
    }
}

enum Step<'a> {
    Root,
    Member(&'a str),
    Index(usize),
    Key(&'a str),
}

fn member<'a>(
    shape: Shape,
    name: &'a str,
    value: &'a Value,
    old: Option<&'a Value>,
    path: &mut Vec<Step<'a>>,
    errors: &mut Errors,
) {
    let Some(field) = shape.field(name) else { return };
    let listed = match field.shape() {
        Shape::List(list) => &list.item_values,
        _ => &field.values,
    };
    if !listed.is_empty() && matches!(shape, Shape::Struct(ty) if OWN_FIELDS.contains(&(ty.name, name))) {
        return;
    }
    path.push(Step::Member(name));
    visit(field.shape(), Some(field), value, old.and_then(|old| old.get(name)), path, errors);
    path.pop();
}

fn visit<'a>(
    shape: Shape,
    field: Option<&'static Field>,
    value: &'a Value,
    old: Option<&'a Value>,
    path: &mut Vec<Step<'a>>,
    errors: &mut Errors,
) {
    match (shape, value) {
        (Shape::Scalar(_), Value::String(text)) => {
            let allowed = field.map_or(&[][..], |f| &f.values[..]);
            let meant = !text.is_empty() || field.is_some_and(|f| f.pointer);
            if !allowed.is_empty() && meant && !allowed.contains(&text.as_str()) && old != Some(value) {
                errors.push(FieldError::not_supported(&path_text(path), value.clone(), allowed));
            }
        }
        (Shape::Struct(ty), Value::Object(members)) if !OWN_RULES.iter().any(|own| ty.name.starts_with(own)) => {
            for (name, value) in members {
                member(shape, name, value, old, path, errors);
            }
        }
        (Shape::List(list), Value::Array(items)) => {
            for (index, item) in items.iter().enumerate() {
                path.push(Step::Index(index));
                let old = old.and_then(|old| old.get(index));
                let allowed = &list.item_values[..];
                match item.as_str() {
                    Some(text) if !allowed.is_empty() && !allowed.contains(&text) && old != Some(item) => {
                        errors.push(FieldError::not_supported(&path_text(path), item.clone(), allowed));
                    }
                    Some(_) => {}
                    None => visit(shape.item(), None, item, old, path, errors),
                }
                path.pop();
            }
        }
        (Shape::Map(map), Value::Object(members)) if map.proto == "message" => {
            for (key, value) in members {
                path.push(Step::Key(key));
                visit(map.element(), None, value, old.and_then(|old| old.get(key)), path, errors);
                path.pop();
            }
        }
        _ => {}
    }
}

fn path_text(path: &[Step]) -> FieldPath {
    path.iter().fold(FieldPath::default(), |text, step| match step {
        Step::Root => text,
        Step::Member(name) => text.child(name),
        Step::Index(index) => text.index(*index),
        Step::Key(key) => text.key(key),
    })
}
