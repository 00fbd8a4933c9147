//! Metadata that every object has.

use serde_json::Value;

use super::at::{At, same};
use super::{Errors, format};
use crate::field::FieldError;
use crate::resource::{NameRule, Resource};

const MAX_ANNOTATION_BYTES: usize = 256 * 1024;
const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];

/// Metadata of a new object.
pub(super) fn on_create(resource: &Resource, object: &At, errors: &mut Errors) {
    let meta = object.get("metadata");
    let (name, generate_name) = (meta.get("name"), meta.get("generateName"));
    base_of_name(resource, &generate_name, errors);
    if name.is_empty() {
        name.required(errors, "name or generateName is required");
    } else {
        name.check(errors, name_problems(resource, name.text()));
    }
    namespace(resource, &meta.get("namespace"), errors);
    meta.get("generation").not_negative(errors);
    contents(resource, &meta, None, errors);
}

/// The server appends to a generateName: it may end with a dash.
fn base_of_name(resource: &Resource, base: &At, errors: &mut Errors) {
    let text = base.text();
    // As upstream has it, the character before the dash is not looked at.
    let masked = text.strip_suffix('-').and_then(|rest| rest.get(..rest.len().checked_sub(1)?));
    let masked = masked.map_or_else(|| text.to_owned(), |rest| format!("{rest}a"));
    if !base.is_empty() {
        base.check(errors, name_rule(resource, &masked));
    }
}

/// By group and kind: whose updates are checked like new objects, their names included.
const CHECKED_WHOLE: &[(&str, &[&str])] = &[
    ("admissionregistration.k8s.io", &[]),
    ("apiregistration.k8s.io", &[]),
    ("apps", &["ControllerRevision"]),
    ("batch", &["Job"]),
    ("certificates.k8s.io", &[]),
    ("discovery.k8s.io", &[]),
    ("flowcontrol.apiserver.k8s.io", &[]),
    ("networking.k8s.io", &["Ingress", "IngressClass"]),
    ("rbac.authorization.k8s.io", &[]),
    ("resource.k8s.io", &["ResourceClaim"]),
    ("storage.k8s.io", &["CSINode", "VolumeAttachment", "VolumeAttributesClass"]),
];

fn is_checked_whole(resource: &Resource) -> bool {
    CHECKED_WHOLE
        .iter()
        .any(|(group, kinds)| resource.group == *group && (kinds.is_empty() || kinds.contains(&resource.kind.as_str())))
}

/// Kind and metadata of a resource inside of another. It need not have a name.
pub(super) fn embedded(object: &At, errors: &mut Errors) {
    for name in ["apiVersion", "kind"] {
        let field = object.get(name);
        match field.text() {
            _ if !field.is_set() => field.required(errors, ""),
            "" => field.invalid(errors, "must not be empty"),
            text if name == "apiVersion" && text.matches('/').count() > 1 => {
                field.invalid(errors, format!("unexpected GroupVersion string: {text}"));
            }
            text if name == "kind" => {
                let problems = format::dns1035_label(&text.to_lowercase());
                let problems = problems.iter().map(|p| format!("may have mixed case, but should otherwise match: {p}"));
                field.check(errors, problems.collect());
            }
            _ => {}
        }
    }
    let meta = object.get("metadata");
    for name in ["name", "generateName"].map(|name| meta.get(name)).iter().filter(|n| !n.is_empty()) {
        name.check(errors, format::path_segment(name.text()));
    }
    let namespace = meta.get("namespace");
    if !namespace.is_empty() {
        namespace.check(errors, format::dns_label(namespace.text()));
    }
    meta.get("generation").not_negative(errors);
    labels(&meta.get("labels"), errors);
    annotations(&meta.get("annotations"), errors);
    owners(&meta.get("ownerReferences"), errors);
}

/// Metadata of a changed object.
pub(super) fn on_update(resource: &Resource, object: &At, old: &At, errors: &mut Errors) {
    let (meta, old_meta) = (object.get("metadata"), old.get("metadata"));
    for field in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        meta.get(field).immutable(&old_meta.get(field), errors);
    }
    if !resource.unconditional_update && meta.get("resourceVersion").is_empty() {
        meta.get("resourceVersion").invalid_value(errors, "", "must be specified for an update");
    }
    let generation = meta.get("generation");
    if generation.int().unwrap_or(0) < old_meta.get("generation").int().unwrap_or(0) {
        generation.invalid(errors, "must not be decremented");
    }
    if old_meta.get("deletionTimestamp").is_set() {
        no_new_finalizers(&meta.get("finalizers"), old_meta.get("finalizers").list(), errors);
    }
    contents(resource, &meta, Some(&old_meta), errors);
    let base = meta.get("generateName");
    base.check(errors, format::path_segment_prefix(base.text()));
    if is_checked_whole(resource) {
        base_of_name(resource, &base, errors);
    }
}

/// Labels, annotations, owners and finalizers. What an update leaves alone is not checked again.
fn contents(resource: &Resource, meta: &At, old: Option<&At>, errors: &mut Errors) {
    let changed = |name: &'static str| old.is_none_or(|old| !same(meta.get(name).value, old.get(name).value));
    if changed("labels") {
        labels(&meta.get("labels"), errors);
    }
    if changed("annotations") {
        annotations(&meta.get("annotations"), errors);
    }
    if changed("ownerReferences") {
        owners(&meta.get("ownerReferences"), errors);
    }
    if changed("finalizers") {
        finalizers(resource, &meta.get("finalizers"), errors);
    }
}

fn name_rule(resource: &Resource, name: &str) -> Vec<String> {
    match resource.name_rule {
        NameRule::DnsSubdomain => format::dns_subdomain(name),
        NameRule::DnsLabel => format::dns_label(name),
        NameRule::PathSegment => format::path_segment(name),
    }
}

pub(super) fn name_problems(resource: &Resource, name: &str) -> Vec<String> {
    let mut problems = name_rule(resource, name);
    if resource.kind == "CronJob" && resource.group == "batch" && name.len() > 52 {
        problems.push("must be no more than 52 characters".into());
    }
    problems
}

fn namespace(resource: &Resource, namespace: &At, errors: &mut Errors) {
    match (resource.namespaced, namespace.is_empty()) {
        (true, true) => namespace.required(errors, ""),
        (true, false) => namespace.check(errors, format::dns_label(namespace.text())),
        (false, false) => namespace.forbidden(errors, "not allowed on this type"),
        (false, true) => {}
    }
}

pub(super) fn labels(labels: &At, errors: &mut Errors) {
    for (key, value) in labels.entries() {
        for problem in format::qualified_name(key) {
            labels.invalid_value(errors, key, problem);
        }
        for problem in format::label_value(value.text()) {
            labels.invalid_value(errors, value.text(), problem);
        }
    }
}

pub(super) fn annotations(annotations: &At, errors: &mut Errors) {
    let mut size = 0;
    for (key, value) in annotations.entries() {
        for problem in format::qualified_name(&key.to_lowercase()) {
            annotations.invalid_value(errors, key, problem);
        }
        size += key.len() + value.text().len();
    }
    if size > MAX_ANNOTATION_BYTES {
        annotations.too_long(errors, MAX_ANNOTATION_BYTES);
    }
}

fn owners(owners: &At, errors: &mut Errors) {
    let mut controller: Option<String> = None;
    for owner in owners.items() {
        // Upstream's paths do not say which reference it is.
        let path = owners.path();
        let mut wrong =
            |field: &str, why: &str| errors.push(FieldError::invalid(&path.child(field), owner.str(field), why));
        let (version, kind) = (owner.str("apiVersion"), owner.str("kind"));
        if version.rsplit('/').next().is_none_or(str::is_empty) || version.matches('/').count() > 1 {
            wrong("apiVersion", "version must not be empty");
        }
        for field in ["kind", "name", "uid"] {
            if owner.str(field).is_empty() {
                wrong(field, "must not be empty");
            }
        }
        if (version, kind) == ("v1", "Event") {
            let why = "/v1, Kind=Event is disallowed from being an owner";
            errors.push(FieldError::invalid(&path, owner.value.clone(), why));
        }
        if owner.get("controller").is_true() {
            let this = format!("{kind}/{}", owner.str("name"));
            match &controller {
                Some(first) => owners.invalid(
                    errors,
                    format!("Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"),
                ),
                None => controller = Some(this),
            }
        }
    }
}

fn finalizers(resource: &Resource, finalizers: &At, errors: &mut Errors) {
    // Where others add finalizers of their own, these may lack a prefix.
    const FREE: [&str; 5] = [
        "admissionregistration.k8s.io",
        "apiextensions.k8s.io",
        "apiregistration.k8s.io",
        "coordination.k8s.io",
        "node.k8s.io",
    ];
    let standard = !resource.is_custom() && !FREE.contains(&resource.group.as_str());
    for item in finalizers.list().iter().filter_map(Value::as_str) {
        for problem in format::qualified_name(item) {
            finalizers.invalid_value(errors, item, problem);
        }
    }
    let has = |name: &str| finalizers.list().iter().any(|f| f.as_str() == Some(name));
    if has("orphan") && has("foregroundDeletion") {
        finalizers.invalid(errors, "finalizer orphan and foregroundDeletion cannot be both set");
    }
    for item in finalizers.items().filter(|_| standard) {
        standard_finalizer(&item, errors);
    }
}

/// It has a prefix or is one of Kubernetes' own.
fn standard_finalizer(item: &At, errors: &mut Errors) {
    if !item.text().contains('/') && !STANDARD_FINALIZERS.contains(&item.text()) {
        item.invalid(errors, "name is neither a standard finalizer name nor is it fully qualified");
    }
}

/// A finalizer of a namespace's own list.
pub(super) fn finalizer(item: &At, errors: &mut Errors) {
    item.check(errors, format::qualified_name(item.text()));
    standard_finalizer(item, errors);
}

fn no_new_finalizers(finalizers: &At, old: &[Value], errors: &mut Errors) {
    let new: Vec<String> = finalizers.list().iter().filter(|f| !old.contains(f)).map(Value::to_string).collect();
    if !new.is_empty() {
        let detail = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
            new.join(", ")
        );
        finalizers.forbidden(errors, detail);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn owners_are_named_whole() {
        for (member, value, expected) in [
            ("uid", "u", ""),
            ("apiVersion", "", "metadata.ownerReferences.apiVersion: Invalid value: \"\": version must not be empty"),
            (
                "apiVersion",
                "a/b/c",
                "metadata.ownerReferences.apiVersion: Invalid value: \"a/b/c\": version must not be empty",
            ),
            ("name", "", "metadata.ownerReferences.name: Invalid value: \"\": must not be empty"),
        ] {
            let mut owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"});
            owner[member] = value.into();
            let object = json!({"metadata": {"ownerReferences": [owner]}});
            let mut errors = Vec::new();
            owners(&At::root(&object).get("metadata").get("ownerReferences"), &mut errors);
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "), expected);
        }
    }
}
