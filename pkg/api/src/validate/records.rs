//! What components write down: leases, revisions, events.

use super::at::{At, same};
use super::{Errors, format, selector};
use crate::field::FieldError;

pub(super) fn lease(object: &At, _old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    let duration = spec.get("leaseDurationSeconds");
    if duration.int().is_some_and(|d| d <= 0) {
        duration.invalid(errors, "must be greater than 0");
    }
    spec.get("leaseTransitions").not_negative(errors);
}

const REASON: &str = "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')";

/// Conditions of the form that all newer statuses share.
pub(super) fn conditions(conditions: &At, errors: &mut Errors) {
    let mut seen = std::collections::HashSet::new();
    for condition in conditions.items() {
        let (kind, status, reason) = (condition.get("type"), condition.get("status"), condition.get("reason"));
        kind.unique(&mut seen, errors);
        selector::label_name(&kind, errors);
        if !["False", "True", "Unknown"].contains(&status.text()) {
            errors.push(FieldError::not_supported(&status.path(), status.text(), &["False", "True", "Unknown"]));
        }
        if condition.number("observedGeneration") < 0 {
            condition.get("observedGeneration").invalid(errors, "must be greater than or equal to zero");
        }
        condition.get("lastTransitionTime").need(errors);
        if reason.need(errors) {
            let inner = |b: u8| b.is_ascii_alphanumeric() || b"_,:".contains(&b);
            let valid = reason.text().starts_with(|c: char| c.is_ascii_alphabetic())
                && reason.text().ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
                && reason.text().bytes().all(inner);
            if !valid {
                reason.invalid(errors, REASON);
            }
            reason.no_longer(errors, 1024);
        }
        condition.get("message").no_longer(errors, 32 * 1024);
    }
}

pub(super) fn controller_revision(object: &At, old: Option<&At>, errors: &mut Errors) {
    object.get("revision").not_negative(errors);
    let data = object.get("data");
    if !data.is_set() {
        data.required(errors, "data is mandatory");
    }
    if let Some(old) = old {
        data.immutable(&old.get("data"), errors);
    }
}

/// An event through core/v1.
pub(super) fn core_event(object: &At, _old: Option<&At>, errors: &mut Errors) {
    any_event(object, ["involvedObject", "reportingComponent", "message"], errors);
}

/// What an event is about stays: members of events.k8s.io, and the names of core/v1 that errors show for them.
const FIXED: [(&str, &str); 14] = [
    ("regarding", "involvedObject"),
    ("reason", "reason"),
    ("note", "message"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
    ("reason", "reason"),
    ("type", "type"),
    ("eventTime", "eventTime"),
    ("action", "action"),
    ("related", "related"),
    ("reportingController", "reportingController"),
    ("reportingInstance", "reportingInstance"),
];

/// An event through events.k8s.io/v1, which asks more of a new event and lets only the series of an old one change.
pub(super) fn event(object: &At, old: Option<&At>, errors: &mut Errors) {
    any_event(object, ["regarding", "reportingController", "note"], errors);
    let series = object.get("series");
    if series.is_set() && old.is_none_or(|old| !same(series.value, old.get("series").value)) {
        if series.number("count") < 2 {
            series.get("count").invalid_value(errors, "", "should be at least 2");
        }
        series.get("lastObservedTime").need(errors);
    }
    if let Some(old) = old {
        for (name, shown) in FIXED {
            object.told_as(name, shown).immutable(&old.get(name), errors);
        }
        return;
    }
    object.get("eventTime").need(errors);
    let kind = object.get("type");
    if !matches!(kind.text(), "Normal" | "Warning") {
        kind.invalid_value(errors, "", format!("has invalid value: {}", kind.text()));
    }
    for (name, shown) in [4, 5, 6, 3].map(|index| FIXED[index]) {
        if !object.get(name).is_empty() {
            object.get(shown).invalid_value(errors, "", "needs to be unset");
        }
    }
}

/// What holds for events of both versions. Those with a time of their own say who reports what.
fn any_event(object: &At, [about, controller, text]: [&str; 3], errors: &mut Errors) {
    let (about, home) = (object.told_as(about, "involvedObject"), object.str("metadata.namespace"));
    let namespace = about.get("namespace");
    let of_cluster = namespace.is_empty();
    let timed = object.get("eventTime").is_set();
    let fits = match timed {
        true => !of_cluster || matches!(home, "default" | "kube-system"),
        false => namespace.text() == home || (of_cluster && home == "default"),
    };
    if !fits {
        namespace.invalid_value(errors, namespace.text(), "does not match event.namespace");
    }
    if timed {
        let controller = object.told_as(controller, "reportingController");
        controller.need(errors);
        for problem in format::qualified_name(controller.text()) {
            controller.invalid_value(errors, controller.text(), problem);
        }
        for field in ["reportingInstance", "action", "reason"].map(|field| object.get(field)) {
            field.need(errors);
            limited(&field, 128, errors);
        }
        limited(&object.told_as(text, "message"), 1024, errors);
    }
    for problem in format::dns_subdomain(home) {
        object.get("namespace").invalid_value(errors, home, problem);
    }
}

fn limited(field: &At, max: usize, errors: &mut Errors) {
    if field.text().len() > max {
        field.invalid_value(errors, "", format!("can have at most {max} characters"));
    }
}
