//! What keeps pods running: deployments, replica sets, stateful sets, daemon sets, replication controllers.

use serde_json::{Map, Value};

use super::at::{At, same};
use super::selector::label_selector;
use super::{Errors, format, pod, storage};
use crate::selector::LabelSelector;

pub(super) const MISMATCH: &str = "`selector` does not match template `labels`";

pub(super) fn deployment(object: &At, old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    spec.get("replicas").not_negative(errors);
    selected_template(&spec, old, &DEPLOYMENT, errors);
    let strategy = spec.get("strategy");
    let rolling = strategy.get("rollingUpdate");
    match strategy.str("type") {
        "Recreate" if rolling.is_set() => {
            rolling.forbidden(errors, "may not be specified when strategy `type` is 'Recreate'");
        }
        "Recreate" => {}
        "RollingUpdate" => {
            let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
            count_or_percent(&unavailable, errors);
            count_or_percent(&surge, errors);
            if is_zero(&unavailable) && is_zero(&surge) {
                unavailable.invalid(errors, "may not be 0 when `maxSurge` is 0");
            }
            at_most_everything(&unavailable, errors);
        }
        _ => strategy.not_supported(errors, &["Recreate", "RollingUpdate"]),
    }
    let deadline = spec.get("progressDeadlineSeconds");
    for count in [spec.get("minReadySeconds"), spec.get("revisionHistoryLimit"), deadline] {
        count.not_negative(errors);
    }
    if deadline.int().is_some_and(|d| d <= spec.number("minReadySeconds")) {
        deadline.invalid(errors, "must be greater than minReadySeconds");
    }
    fixed_selector(&spec, old, errors);
}

pub(super) fn replica_set(object: &At, old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    spec.get("replicas").not_negative(errors);
    spec.get("minReadySeconds").not_negative(errors);
    selected_template(&spec, old, &DEPLOYMENT, errors);
    fixed_selector(&spec, old, errors);
}

pub(super) fn stateful_set(object: &At, old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    let management = spec.get("podManagementPolicy");
    if management.need(errors) && !["OrderedReady", "Parallel"].contains(&management.text()) {
        management.invalid(errors, "must be 'OrderedReady' or 'Parallel'");
    }
    let strategy = spec.get("updateStrategy");
    let rolling = strategy.get("rollingUpdate");
    match strategy.str("type") {
        "" => strategy.required(errors, ""),
        "OnDelete" if rolling.is_set() => {
            rolling.invalid(errors, "only allowed for updateStrategy 'RollingUpdate'");
        }
        "OnDelete" => {}
        "RollingUpdate" => {
            rolling.get("partition").not_negative(errors);
            let unavailable = rolling.get("maxUnavailable");
            count_or_percent(&unavailable, errors);
            if unavailable.is_set() && is_zero(&unavailable) {
                unavailable.invalid(errors, "cannot be 0");
            }
            at_most_everything(&unavailable, errors);
        }
        _ => strategy.invalid(errors, "must be 'RollingUpdate' or 'OnDelete'"),
    }
    for field in ["whenDeleted", "whenScaled"] {
        spec.get("persistentVolumeClaimRetentionPolicy").get(field).one_of(errors, &["Retain", "Delete"]);
    }
    for field in ["replicas", "minReadySeconds", "ordinals.start"] {
        spec.get(field).not_negative(errors);
    }
    let service = spec.get("serviceName");
    if old.is_none() && !service.is_empty() {
        service.check(errors, format::dns_label(service.text()));
    }
    let claims = spec.get("volumeClaimTemplates");
    let claim_names: Vec<&str> = claims.list().iter().filter_map(|c| c["metadata"]["name"].as_str()).collect();
    let kind = Kind { claims: &claim_names, ..STATEFUL_SET };
    selected_template(&spec, old, &kind, errors);
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
    selected_template(&spec, old, &DAEMON_SET, errors);
    spec.get("minReadySeconds").not_negative(errors);
    daemon_strategy(&spec.get("updateStrategy"), errors);
    spec.get("revisionHistoryLimit").not_negative(errors);
    fixed_selector(&spec, old, errors);
}

fn daemon_strategy(strategy: &At, errors: &mut Errors) {
    let rolling = strategy.get("rollingUpdate");
    match strategy.str("type") {
        "OnDelete" => return,
        "RollingUpdate" if !rolling.is_set() => return rolling.required(errors, ""),
        "RollingUpdate" => {}
        _ => return strategy.not_supported(errors, &["RollingUpdate", "OnDelete"]),
    }
    let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
    for bound in [unavailable, surge] {
        count_or_percent(&bound, errors);
    }
    for bound in [unavailable, surge] {
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
    spec.get("minReadySeconds").not_negative(errors);
    let (selector, template) = (spec.get("selector"), spec.get("template"));
    selector.need(errors);
    spec.get("replicas").not_negative(errors);
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
    needs_selector: bool,
    /// What is said of a selector that cannot be understood; its template is then not looked at.
    bad_selector: Option<&'a str>,
}

const DEPLOYMENT: Kind = Kind {
    name: "deployment",
    pods_of: "ReplicaSet",
    claims: &[],
    needs_selector: true,
    bad_selector: Some("invalid label selector"),
};
const STATEFUL_SET: Kind = Kind { name: "statefulset", pods_of: "StatefulSet", bad_selector: Some(""), ..DEPLOYMENT };
const DAEMON_SET: Kind =
    Kind { name: "daemonset", pods_of: "DaemonSet", needs_selector: false, bad_selector: None, ..DEPLOYMENT };
const RC: Kind = Kind { name: "replicationcontroller", pods_of: "ReplicationController", ..DAEMON_SET };

/// Selector and template.
fn selected_template(spec: &At, old: Option<&At>, kind: &Kind, errors: &mut Errors) {
    let (selector, template) = (spec.get("selector"), spec.get("template"));
    let before = errors.len();
    label_selector(&selector, errors);
    let understood = errors.len() == before;
    if !selector.is_set() {
        if kind.needs_selector {
            selector.required(errors, "");
        }
    } else if selector.get("matchLabels").is_empty() && selector.get("matchExpressions").is_empty() {
        selector.invalid(errors, format!("empty selector is invalid for {}", kind.name));
    }
    match kind.bad_selector {
        _ if understood => selects(&selector, &template, errors),
        Some(words) => return selector.invalid(errors, words),
        None => {}
    }
    controlled_template(&template, old.map(|o| &o.value["spec"]["template"]), kind, errors);
}

fn fixed_selector(spec: &At, old: Option<&At>, errors: &mut Errors) {
    if let Some(old) = old {
        spec.get("selector").immutable(&old.get("spec.selector"), errors);
    }
}

/// The selector must match the labels of its template; one that is missing matches nothing.
pub(super) fn selects(selector: &At, template: &At, errors: &mut Errors) {
    let labels = template.get("metadata.labels");
    let nothing = !selector.is_set();
    if nothing || LabelSelector::from_value(selector.value).is_ok_and(|s| !s.matches_value(labels.value)) {
        labels.invalid(errors, MISMATCH);
    }
}

/// A template whose pods are restarted forever.
fn controlled_template(template: &At, old: Option<&Value>, kind: &Kind, errors: &mut Errors) {
    if old.is_none_or(|old| !same(old, template.value)) {
        pod::template_with_claims(template, kind.claims, errors);
    }
    let (policy, deadline) = (template.get("spec.restartPolicy"), template.get("spec.activeDeadlineSeconds"));
    policy.exactly_one_of(errors, &["Always"]);
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

/// What may not exceed what, in which words.
const BOUNDS: [(&str, &str); 6] = [
    ("fullyLabeledReplicas", "replicas"),
    ("updatedReplicas", "replicas"),
    ("readyReplicas", "replicas"),
    ("currentReplicas", "replicas"),
    ("availableReplicas", "replicas"),
    ("availableReplicas", "readyReplicas"),
];

/// Status of any of them: counts are not negative, and collisions are only added.
pub(super) fn status(object: &At, old: &At, errors: &mut Errors) {
    let status = object.get("status");
    for (name, value) in status.members().into_iter().flatten() {
        if value.is_number() {
            status.get(name).not_negative(errors);
        }
    }
    let named_whole = object.str("kind") == "StatefulSet";
    for (name, bound) in BOUNDS {
        let count = status.get(name);
        if count.int().is_some_and(|n| n > status.number(bound)) {
            let place = if bound == "replicas" || named_whole { "status." } else { "" };
            count.invalid(errors, format!("cannot be greater than {place}{bound}"));
        }
    }
    let collisions = status.get("collisionCount");
    if collisions.int().unwrap_or(0) < old.get("status").number("collisionCount") {
        collisions.invalid_value(errors, collisions.int().unwrap_or(0), "cannot be decremented");
    }
}
