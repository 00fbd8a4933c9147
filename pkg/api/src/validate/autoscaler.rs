//! Horizontal autoscalers.

use super::at::{At, same};
use super::selector::label_selector;
use super::{Errors, format};
use crate::field::{FieldError, FieldPath};

const MAX_WINDOW_SECONDS: i64 = 3600;
const MAX_PERIOD_SECONDS: i64 = 1800;

pub(super) fn autoscaler(object: &At, old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    let (min, max) = (spec.get("minReplicas"), spec.get("maxReplicas"));
    // Zero may stay where it once was allowed.
    let lowest = i64::from(old.is_none_or(|old| old.get("spec.minReplicas").int() != Some(0)));
    if min.int().is_some_and(|n| n < lowest) {
        min.invalid(errors, format!("must be greater than or equal to {lowest}"));
    }
    let most = max.int().unwrap_or(0);
    if most < 1 {
        max.invalid_value(errors, most, "must be greater than 0");
    }
    if min.int().is_some_and(|n| most < n) {
        max.invalid_value(errors, most, "must be greater than or equal to `minReplicas`");
    }
    let target = spec.get("scaleTargetRef");
    let before = old.map(|old| old.get("spec.scaleTargetRef"));
    scaled_object(&target, errors);
    let same_kind = before.is_some_and(|old| ["apiVersion", "kind"].iter().all(|f| old.str(f) == target.str(f)));
    if !same_kind {
        group_version(&target.get("apiVersion"), target.str("kind") == "ReplicationController", errors);
    }
    metrics(&spec, old, errors);
    for direction in ["scaleUp", "scaleDown"] {
        scaling_rules(&spec.get("behavior").get(direction), errors);
    }
    old_utilization(&spec.get("targetCPUUtilizationPercentage"), errors);
}

/// The one target of version 1, which tells of it as upstream's own form has it.
fn old_utilization(target: &At, errors: &mut Errors) {
    if target.int().is_some_and(|n| n < 1) {
        let path = FieldPath::new("spec").child("metrics").index(0).child("resource").child("target");
        errors.push(FieldError::invalid(
            &path.child("averageUtilization"),
            target.value.clone(),
            "must be greater than 0",
        ));
    }
}

fn scaled_object(reference: &At, errors: &mut Errors) {
    for field in ["kind", "name"] {
        let field = reference.get(field);
        if field.need(errors) {
            field.check(errors, format::path_segment(field.text()));
        }
    }
}

fn group_version(version: &At, may_be_core: bool, errors: &mut Errors) {
    match version.text().split_once('/') {
        Some((_, rest)) if rest.contains('/') => {
            version.invalid(errors, format!("unexpected GroupVersion string: {}", version.text()));
        }
        Some((group, _)) if !group.is_empty() => {}
        _ if may_be_core => {}
        _ => version.invalid_value(errors, version.text(), "apiVersion must specify API group"),
    }
}

fn metrics(spec: &At, old: Option<&At>, errors: &mut Errors) {
    let metrics = spec.get("metrics");
    for metric in metrics.items() {
        metric_spec(&metric, errors);
        let unchanged = old.is_some_and(|old| same(old.get("spec.metrics").value, metrics.value));
        let object = metric.get("object.describedObject");
        if object.is_set() && !unchanged {
            group_version(&object.get("apiVersion"), true, errors);
        }
    }
    let of_something_else = |metric: &serde_json::Value| metric["type"] == "Object" || metric["type"] == "External";
    if spec.get("minReplicas").int() == Some(0) && !metrics.list().iter().any(of_something_else) {
        let words = "must specify at least one Object or External metric to support scaling to zero replicas";
        metrics.forbidden(errors, words);
    }
}

/// By type and member, in the order in which they are looked at.
const SOURCES: [(&str, &str); 5] = [
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];
const TYPES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];

fn metric_spec(metric: &At, errors: &mut Errors) {
    let kind = metric.get("type");
    if kind.is_empty() {
        kind.required(errors, "must specify a metric source type");
    }
    if !TYPES.contains(&kind.text()) {
        errors.push(FieldError::not_supported(&kind.path(), kind.text(), &TYPES));
    }
    let given = || SOURCES.iter().map(|(_, member)| *member).filter(|member| metric.get(member).is_set());
    if let Some(first) = given().next() {
        source(&metric.get(first), first, errors);
    }
    let expected = SOURCES.iter().find(|(name, _)| *name == kind.text()).map(|(_, member)| *member);
    if let Some(expected) = expected.filter(|member| !metric.get(member).is_set()) {
        metric.get(expected).required(errors, "must populate information for the given metric source");
    }
    if given().count() != 1 {
        for other in given().filter(|member| Some(*member) != expected) {
            metric.get(other).forbidden(errors, "must populate the given metric source only");
        }
    }
}

fn source(source: &At, member: &str, errors: &mut Errors) {
    if member == "object" {
        scaled_object(&source.get("describedObject"), errors);
    }
    let name = source.get("name");
    match member {
        "resource" | "containerResource" if name.is_empty() => name.required(errors, "must specify a resource name"),
        "containerResource" => super::resource_name::container_resource_name(&name, name.text(), errors),
        "resource" => {}
        _ => {
            let name = source.get("metric.name");
            match name.text() {
                "" => name.required(errors, "must specify a metric name"),
                text => name.check(errors, format::path_segment(text)),
            }
            label_selector(&source.get("metric.selector"), errors);
        }
    }
    if member == "containerResource" {
        let container = source.get("container");
        match container.text() {
            "" => container.required(errors, "must specify a container"),
            text => container.check(errors, format::dns_label(text)),
        }
    }
    let target = source.get("target");
    metric_target(&target, errors);
    target_of(&target, member, errors);
}

/// What a target for this source needs, and what not beside it.
fn target_of(target: &At, member: &str, errors: &mut Errors) {
    let (utilization, average, value) =
        (target.get("averageUtilization"), target.get("averageValue"), target.get("value"));
    let missing = match member {
        "resource" | "containerResource" => (
            !utilization.is_set() && !average.is_set(),
            utilization,
            "must set either a target raw value or a target utilization",
        ),
        "pods" => (!average.is_set(), average, "must specify a positive target averageValue"),
        "object" => (!average.is_set() && !value.is_set(), average, "must set either a target value or averageValue"),
        _ => (
            !average.is_set() && !value.is_set(),
            average,
            "must set either a target value for metric or a per-pod target",
        ),
    };
    if missing.0 {
        missing.1.required(errors, missing.2);
    }
    match member {
        "resource" | "containerResource" if utilization.is_set() && average.is_set() => {
            average.forbidden(errors, "may not set both a target raw value and a target utilization");
        }
        "external" if value.is_set() && average.is_set() => {
            value.forbidden(errors, "may not set both a target value for metric and a per-pod target");
        }
        _ => {}
    }
}

fn metric_target(target: &At, errors: &mut Errors) {
    let kind = target.get("type");
    if kind.is_empty() {
        kind.required(errors, "must specify a metric target type");
    }
    if !["Utilization", "Value", "AverageValue"].contains(&kind.text()) {
        kind.invalid_value(errors, kind.text(), "must be either Utilization, Value, or AverageValue");
    }
    for field in ["value", "averageValue"] {
        let amount = target.get(field);
        if amount.quantity().is_some_and(|q| q.is_zero() || q.is_negative()) {
            amount.invalid(errors, "must be positive");
        }
    }
    let utilization = target.get("averageUtilization");
    if utilization.int().is_some_and(|n| n < 1) {
        utilization.invalid(errors, "must be greater than 0");
    }
}

fn scaling_rules(rules: &At, errors: &mut Errors) {
    if !rules.is_set() {
        return;
    }
    let window = rules.get("stabilizationWindowSeconds");
    match window.int() {
        Some(s) if s < 0 => window.invalid(errors, "must be greater than or equal to zero"),
        Some(s) if s > MAX_WINDOW_SECONDS => {
            window.invalid(errors, format!("must be less than or equal to {MAX_WINDOW_SECONDS}"));
        }
        _ => {}
    }
    let select = rules.get("selectPolicy");
    if select.is_set() && !["Disabled", "Max", "Min"].contains(&select.text()) {
        select.not_supported(errors, &["Disabled", "Max", "Min"]);
    }
    let policies = rules.get("policies");
    if policies.is_empty() {
        policies.required(errors, "must specify at least one Policy");
    }
    for policy in policies.items() {
        let (kind, period) = (policy.get("type"), policy.get("periodSeconds"));
        if !["Percent", "Pods"].contains(&kind.text()) {
            errors.push(FieldError::not_supported(&kind.path(), kind.text(), &["Percent", "Pods"]));
        }
        policy.get("value").need_positive(errors, "must be greater than zero");
        period.need_positive(errors, "must be greater than zero");
        if period.int().is_some_and(|s| s > MAX_PERIOD_SECONDS) {
            period.invalid(errors, format!("must be less than or equal to {MAX_PERIOD_SECONDS}"));
        }
    }
    let tolerance = rules.get("tolerance");
    if tolerance.quantity().is_some_and(|q| q.is_negative()) {
        tolerance.invalid(errors, "must be greater than or equal to 0");
    }
}
