//! What keeps pods running: deployments, replica sets, stateful sets, daemon sets, replication controllers.

use serde_json::{Map, Value};

use super::at::{At, same};
use super::selector::label_selector;
use super::{Errors, format, metadata, pod, storage};
use crate::selector::LabelSelector;

pub(super) const MISMATCH: &str = "`selector` does not match template `labels`";

pub(super) fn deployment(object: &At, old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    common(&spec, old, &Kind { name: "deployment", pods_of: "ReplicaSet", claims: &[] }, errors);
    fixed_selector(&spec, old, errors);
    let ready = spec.get("minReadySeconds");
    let deadline = spec.get("progressDeadlineSeconds");
    spec.get("revisionHistoryLimit").not_negative(errors);
    deadline.not_negative(errors);
    if deadline.int().is_some_and(|d| d <= ready.int().unwrap_or(0)) {
        deadline.invalid(errors, "must be greater than minReadySeconds");
    }
    let strategy = spec.get("strategy");
    let rolling = strategy.get("rollingUpdate");
    strategy.get("type").need(errors);
    match strategy.str("type") {
        "Recreate" if rolling.is_set() => {
            rolling.forbidden(errors, "may not be specified when strategy `type` is 'Recreate'");
        }
        "RollingUpdate" if rolling.is_set() => {
            let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
            count_or_percent(&unavailable, errors);
            count_or_percent(&surge, errors);
            at_most_everything(&unavailable, errors);
            if is_zero(&unavailable) && is_zero(&surge) {
                unavailable.invalid(errors, "may not be 0 when `maxSurge` is 0");
            }
        }
        _ => {}
    }
}

pub(super) fn replica_set(object: &At, old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    common(&spec, old, &Kind { name: "deployment", pods_of: "ReplicaSet", claims: &[] }, errors);
    fixed_selector(&spec, old, errors);
}

pub(super) fn stateful_set(object: &At, old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    spec.get("podManagementPolicy").need(errors);
    let strategy = spec.get("updateStrategy");
    let rolling = strategy.get("rollingUpdate");
    strategy.get("type").need(errors);
    match strategy.str("type") {
        "OnDelete" if rolling.is_set() => {
            rolling.invalid(errors, "only allowed for updateStrategy 'RollingUpdate'");
        }
        "RollingUpdate" => {
            rolling.get("partition").not_negative(errors);
            let unavailable = rolling.get("maxUnavailable");
            count_or_percent(&unavailable, errors);
            at_most_everything(&unavailable, errors);
            if unavailable.is_set() && is_zero(&unavailable) {
                unavailable.invalid(errors, "cannot be 0");
            }
        }
        _ => {}
    }
    for field in ["whenDeleted", "whenScaled"] {
        spec.get("persistentVolumeClaimRetentionPolicy").get(field).one_of(errors, &["Retain", "Delete"]);
    }
    spec.get("ordinals.start").not_negative(errors);
    spec.get("revisionHistoryLimit").not_negative(errors);
    let claims = spec.get("volumeClaimTemplates");
    let claim_names: Vec<&str> = claims.list().iter().filter_map(|c| c["metadata"]["name"].as_str()).collect();
    common(&spec, old, &Kind { name: "statefulset", pods_of: "StatefulSet", claims: &claim_names }, errors);
    match old {
        None => {
            for template in claims.items() {
                storage::claim_spec(&template.get("spec"), errors);
            }
        }
        Some(old) => stateful_set_change(&spec, &old.get("spec"), errors),
    }
}

const MUTABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

fn stateful_set_change(spec: &At, old: &At, errors: &mut Errors) {
    let fixed = |at: &At| -> Map<String, Value> {
        let members = at.members().into_iter().flatten().filter(|(key, _)| !MUTABLE.contains(&key.as_str()));
        members.map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    if !same(&fixed(spec).into(), &fixed(old).into()) {
        let names: Vec<String> = MUTABLE[..6].iter().map(|name| format!("'{name}'")).collect();
        let detail = format!(
            "updates to statefulset spec for fields other than {} and 'minReadySeconds' are forbidden",
            names.join(", ")
        );
        spec.forbidden(errors, detail);
    }
}

pub(super) fn daemon_set(object: &At, old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    common(&spec, old, &Kind { name: "daemonset", pods_of: "DaemonSet", claims: &[] }, errors);
    fixed_selector(&spec, old, errors);
    spec.get("revisionHistoryLimit").not_negative(errors);
    let strategy = spec.get("updateStrategy");
    strategy.get("type").need(errors);
    if strategy.str("type") != "RollingUpdate" {
        return;
    }
    let rolling = strategy.get("rollingUpdate");
    if !rolling.need(errors) {
        return;
    }
    let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
    for bound in [unavailable, surge] {
        count_or_percent(&bound, errors);
        at_most_everything(&bound, errors);
    }
    match (is_zero(&unavailable), is_zero(&surge)) {
        (false, false) => surge.invalid(errors, "may not be set when maxUnavailable is non-zero"),
        (true, true) => unavailable.required(errors, "cannot be 0 when maxSurge is 0"),
        _ => {}
    }
}

pub(super) fn replication_controller(object: &At, old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    spec.get("replicas").not_negative(errors);
    spec.get("minReadySeconds").not_negative(errors);
    let (selector, template) = (spec.get("selector"), spec.get("template"));
    selector.need(errors);
    metadata::labels(&selector, errors);
    if !template.need(errors) {
        return;
    }
    let labels = template.get("metadata.labels");
    if selector.entries().any(|(key, value)| labels.value.get(key) != Some(value.value)) {
        labels.invalid(errors, MISMATCH);
    }
    controlled_template(&template, old.map(|o| &o.value["spec"]["template"]), &RC, errors);
}

/// What messages call a workload, and what it gives its pods.
struct Kind<'a> {
    name: &'a str,
    pods_of: &'a str,
    claims: &'a [&'a str],
}

const RC: Kind = Kind { name: "replicationcontroller", pods_of: "ReplicationController", claims: &[] };

/// Replicas, selector and template.
fn common(spec: &At, old: Option<&At>, kind: &Kind, errors: &mut Errors) {
    spec.get("replicas").not_negative(errors);
    spec.get("minReadySeconds").not_negative(errors);
    let (selector, template) = (spec.get("selector"), spec.get("template"));
    if !selector.is_set() {
        selector.required(errors, "");
    } else if selector.is_empty() {
        selector.invalid(errors, format!("empty selector is invalid for {}", kind.name));
    } else {
        label_selector(&selector, errors);
        selects(&selector, &template, errors);
    }
    controlled_template(&template, old.map(|o| &o.value["spec"]["template"]), kind, errors);
}

fn fixed_selector(spec: &At, old: Option<&At>, errors: &mut Errors) {
    if let Some(old) = old {
        spec.get("selector").immutable(&old.get("spec.selector"), errors);
    }
}

/// The selector must match the labels of its template.
pub(super) fn selects(selector: &At, template: &At, errors: &mut Errors) {
    let labels = template.get("metadata.labels");
    if LabelSelector::from_value(selector.value).is_ok_and(|s| !s.matches_value(labels.value)) {
        labels.invalid_value(errors, labels.value.as_object().cloned().unwrap_or_default(), MISMATCH);
    }
}

/// A template whose pods are restarted forever.
fn controlled_template(template: &At, old: Option<&Value>, kind: &Kind, errors: &mut Errors) {
    if old.is_none_or(|old| !same(old, template.value)) {
        pod::template_with_claims(template, kind.claims, errors);
    }
    let (policy, deadline) = (template.get("spec.restartPolicy"), template.get("spec.activeDeadlineSeconds"));
    policy.one_of(errors, &["Always"]);
    if deadline.is_set() {
        deadline.forbidden(errors, format!("activeDeadlineSeconds in {} is not Supported", kind.pods_of));
    }
}

fn is_zero(at: &At) -> bool {
    match at.value {
        Value::String(text) => format::percent(text) == Ok(0),
        value => value.as_i64().unwrap_or(0) == 0,
    }
}

/// A number that is not negative, or a percentage.
pub(super) fn count_or_percent(at: &At, errors: &mut Errors) {
    match at.value.as_str() {
        Some(text) => at.check(errors, format::percent(text).err().into_iter().collect()),
        None => at.not_negative(errors),
    }
}

fn at_most_everything(at: &At, errors: &mut Errors) {
    if at.value.as_str().is_some_and(|text| format::percent(text).is_ok_and(|n| n > 100)) {
        at.invalid(errors, "must not be greater than 100%");
    }
}

/// Status of any of them: counts are not negative, and collisions are only added.
pub(super) fn status(object: &At, old: &At, errors: &mut Errors) {
    let status = object.get("status");
    for (name, value) in status.members().into_iter().flatten() {
        if value.is_number() {
            status.get(name).not_negative(errors);
        }
    }
    let collisions = status.get("collisionCount");
    if collisions.int().unwrap_or(0) < old.get("status.collisionCount").int().unwrap_or(0) {
        collisions.invalid_value(errors, collisions.int().unwrap_or(0), "cannot be decremented");
    }
    let replicas = status.get("replicas").int().unwrap_or(0);
    for name in ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"] {
        let count = status.get(name);
        if status.get("replicas").is_set() && count.int().is_some_and(|n| n > replicas) {
            count.invalid(errors, "cannot be greater than status.replicas");
        }
    }
}
