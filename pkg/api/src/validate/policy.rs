//! Disruption budgets and autoscalers.

use super::at::At;
use super::selector::label_selector;
use super::workload::count_or_percent;
use super::{Errors, format};

pub(super) fn disruption_budget(object: &At, _old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    let (min, max) = (spec.get("minAvailable"), spec.get("maxUnavailable"));
    if min.is_set() && max.is_set() {
        spec.invalid(errors, "minAvailable and maxUnavailable cannot be both set");
    }
    for bound in [min, max] {
        count_or_percent(&bound, errors);
        if bound.value.as_str().is_some_and(|text| format::percent(text).is_ok_and(|n| n > 100)) {
            bound.invalid(errors, "must not be greater than 100%");
        }
    }
    label_selector(&spec.get("selector"), errors);
}

pub(super) fn counts_status(object: &At, _old: &At, errors: &mut Errors) {
    let status = object.get("status");
    for (name, value) in status.members().into_iter().flatten() {
        if value.is_number() {
            status.get(name).not_negative(errors);
        }
    }
}

pub(super) fn autoscaler(object: &At, _old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    let (min, max) = (spec.get("minReplicas"), spec.get("maxReplicas"));
    if min.int().is_some_and(|n| n < 1) {
        min.invalid(errors, "must be greater than or equal to 1");
    }
    if max.int().unwrap_or(0) < 1 {
        max.invalid_value(errors, max.int().unwrap_or(0), "must be greater than 0");
    } else if min.int().is_some_and(|n| max.int().is_some_and(|m| m < n)) {
        max.invalid(errors, "must be greater than or equal to `minReplicas`");
    }
    scale_target(&spec.get("scaleTargetRef"), errors);
    for metric in spec.get("metrics").items() {
        self::metric(&metric, errors);
    }
    for direction in ["scaleUp", "scaleDown"] {
        behavior(&spec.get("behavior").get(direction), errors);
    }
}

fn scale_target(reference: &At, errors: &mut Errors) {
    for field in ["kind", "name"] {
        let field = reference.get(field);
        if field.need(errors) {
            field.check(errors, format::path_segment(field.text()));
        }
    }
}

fn metric(metric: &At, errors: &mut Errors) {
    const SOURCES: [(&str, &str); 5] = [
        ("Object", "object"),
        ("Pods", "pods"),
        ("Resource", "resource"),
        ("ContainerResource", "containerResource"),
        ("External", "external"),
    ];
    let kind = metric.get("type");
    if kind.is_empty() {
        kind.required(errors, "must specify a metric source type");
        return;
    }
    let Some((_, field)) = SOURCES.iter().find(|(name, _)| *name == kind.text()) else {
        kind.not_supported(errors, &["ContainerResource", "External", "Object", "Pods", "Resource"]);
        return;
    };
    let source = metric.get(field);
    if !source.is_set() {
        source.required(errors, "must populate information for the given metric source");
        return;
    }
    for (_, other) in SOURCES.iter().filter(|(name, _)| *name != kind.text()) {
        if metric.get(other).is_set() {
            metric.get(other).forbidden(errors, "must populate the given metric source only");
        }
    }
    match *field {
        "resource" | "containerResource" => {
            source.get("name").need(errors);
            if *field == "containerResource" {
                source.get("container").need(errors);
            }
        }
        _ => {
            let name = source.get("metric.name");
            if name.need(errors) {
                name.check(errors, format::path_segment(name.text()));
            }
            label_selector(&source.get("metric.selector"), errors);
        }
    }
    if *field == "object" {
        scale_target(&source.get("describedObject"), errors);
    }
    metric_target(&source.get("target"), field, errors);
}

fn metric_target(target: &At, source: &str, errors: &mut Errors) {
    let kind = target.get("type");
    kind.need_one_of(errors, &["AverageValue", "Utilization", "Value"]);
    let utilization = target.get("averageUtilization");
    if utilization.int().is_some_and(|n| n < 1) {
        utilization.invalid(errors, "must be greater than 0");
    }
    for field in ["value", "averageValue"] {
        let amount = target.get(field);
        if amount.quantity().is_some_and(|q| q.is_zero() || q.is_negative()) {
            amount.invalid(errors, "must be positive");
        }
    }
    if matches!(source, "resource" | "containerResource") {
        match (utilization.is_set(), target.get("averageValue").is_set()) {
            (false, false) => {
                utilization.required(errors, "must set either a target raw value or a target utilization")
            }
            (true, true) => target
                .get("averageValue")
                .forbidden(errors, "may not set both a target raw value and a target utilization"),
            _ => {}
        }
    } else if source == "pods" && !target.get("averageValue").is_set() {
        target.get("averageValue").required(errors, "must specify a positive target averageValue");
    } else if !target.get("averageValue").is_set() && !target.get("value").is_set() {
        target.get("averageValue").required(errors, "must set either a target value for metric or a per-pod target");
    }
}

fn behavior(rules: &At, errors: &mut Errors) {
    if !rules.is_set() {
        return;
    }
    let window = rules.get("stabilizationWindowSeconds");
    window.not_negative(errors);
    if window.int().is_some_and(|s| s > 3600) {
        window.invalid(errors, "must be less than or equal to 3600");
    }
    rules.get("selectPolicy").one_of(errors, &["Disabled", "Max", "Min"]);
    let tolerance = rules.get("tolerance");
    if tolerance.quantity().is_some_and(|q| q.is_negative()) {
        tolerance.invalid(errors, "must be greater than or equal to 0");
    }
    let policies = rules.get("policies");
    if policies.is_set() && policies.is_empty() {
        policies.required(errors, "must specify at least one Policy");
    }
    for policy in policies.items() {
        policy.get("type").need_one_of(errors, &["Percent", "Pods"]);
        for field in ["value", "periodSeconds"] {
            let amount = policy.get(field);
            if amount.int().unwrap_or(0) <= 0 {
                amount.invalid_value(errors, amount.int().unwrap_or(0), "must be greater than zero");
            }
        }
        let period = policy.get("periodSeconds");
        if period.int().is_some_and(|s| s > 1800) {
            period.invalid(errors, "must be less than or equal to 1800");
        }
    }
}
