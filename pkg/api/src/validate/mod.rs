//! Validation of whole objects: metadata by common rules, the rest by a rule per kind.
//!
//! Objects come here decoded and defaulted. An update checks a part of the object again only when it changed, so that
//! what older rules let in can still be updated around.

mod at;
mod batch;
mod format;
mod metadata;
mod pod;
mod schedule;
mod schema;
mod selector;
mod service;
mod storage;
mod workload;

use serde_json::Value;

use crate::field::FieldError;
use crate::resource::Resource;
use at::{At, same};

type Errors = Vec<FieldError>;

/// Checks a new object, or a change to the old one.
type Rule = fn(&At, Option<&At>, &mut Errors);

/// Checks a change made through a subresource.
type SubresourceRule = fn(&At, &At, &mut Errors);

/// By group and kind.
const RULES: &[(&str, &str, Rule)] = &[
    ("", "Pod", pod::pod),
    ("", "PodTemplate", |new, _, errors| pod::template(&new.get("template"), errors)),
    ("", "ReplicationController", workload::replication_controller),
    ("", "Service", service::service),
    ("apps", "DaemonSet", workload::daemon_set),
    ("apps", "Deployment", workload::deployment),
    ("apps", "ReplicaSet", workload::replica_set),
    ("apps", "StatefulSet", workload::stateful_set),
    ("batch", "CronJob", batch::cron_job),
    ("batch", "Job", batch::job),
];

/// By group, kind and subresource.
const SUBRESOURCE_RULES: &[(&str, &str, &str, SubresourceRule)] = &[
    ("", "Pod", "status", pod::status),
    ("", "Pod", "ephemeralcontainers", pod::ephemeral_containers),
    ("", "Pod", "resize", pod::resize),
    ("", "ReplicationController", "status", workload::status),
    ("apps", "DaemonSet", "status", workload::status),
    ("apps", "Deployment", "status", workload::status),
    ("apps", "ReplicaSet", "status", workload::status),
    ("apps", "StatefulSet", "status", workload::status),
    ("batch", "Job", "status", batch::job_status),
];

/// What is wrong with a new object.
pub fn validate_create(resource: &Resource, object: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let new = At::root(object);
    metadata::on_create(resource, &new, &mut errors);
    schema::closed_lists(resource.shape(), object, None, &mut errors);
    if let Some(rule) = rule(resource) {
        rule(&new, None, &mut errors);
    }
    if let Some(custom) = &resource.custom_schema {
        errors.extend(custom.validate(object, None));
    }
    errors
}

/// What is wrong with a change to an object, made through the subresource (empty for the main endpoint).
pub fn validate_update(resource: &Resource, new: &Value, old: &Value, subresource: &str) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let (new_at, old_at) = (At::root(new), At::root(old));
    metadata::on_update(resource, &new_at, &old_at, &mut errors);
    if !subresource.is_empty() {
        let rules = SUBRESOURCE_RULES.iter();
        let mut matching = rules.filter(|r| (r.0, r.1, r.2) == (&*resource.group, &*resource.kind, subresource));
        if let Some((.., rule)) = matching.next() {
            rule(&new_at, &old_at, &mut errors);
        }
    } else if contents_changed(new, old) {
        schema::closed_lists(resource.shape(), new, Some(old), &mut errors);
        if let Some(rule) = rule(resource) {
            rule(&new_at, Some(&old_at), &mut errors);
        }
    }
    if let Some(custom) = &resource.custom_schema {
        errors.extend(custom.validate(new, Some(old)));
    }
    errors
}

/// Whether anything but metadata and status differs.
fn contents_changed(new: &Value, old: &Value) -> bool {
    let part = |value: &Value, key: &str| value.get(key).cloned().unwrap_or_default();
    let keys = [new, old].into_iter().filter_map(Value::as_object).flat_map(serde_json::Map::keys);
    keys.filter(|key| !matches!(key.as_str(), "metadata" | "status" | "kind" | "apiVersion"))
        .any(|key| new.get(key) != old.get(key) && !same(&part(new, key), &part(old, key)))
}

fn rule(resource: &Resource) -> Option<Rule> {
    RULES.iter().find(|r| (r.0, r.1) == (&*resource.group, &*resource.kind)).map(|r| r.2)
}

/// What is wrong with the metadata alone: of a new object, or of a change to `old`.
pub fn validate_metadata(resource: &Resource, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Errors::new();
    match old {
        Some(old) => metadata::on_update(resource, &At::root(object), &At::root(old), &mut errors),
        None => metadata::on_create(resource, &At::root(object), &mut errors),
    }
    errors
}
