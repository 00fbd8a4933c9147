//! Disruption budgets.

use super::at::At;
use super::selector::label_selector;
use super::workload::count_or_percent;
use super::{Errors, format, records};

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
    spec.get("unhealthyPodEvictionPolicy").listed(errors, &["AlwaysAllow", "IfHealthyBudget"]);
}

pub(super) fn budget_status(object: &At, old: &At, errors: &mut Errors) {
    records::conditions(&object.get("status.conditions"), errors);
    counts_status(object, old, errors);
}

pub(super) fn counts_status(object: &At, _old: &At, errors: &mut Errors) {
    let status = object.get("status");
    for (name, value) in status.members().into_iter().flatten() {
        if value.is_number() {
            status.get(name).not_negative(errors);
        }
    }
}
