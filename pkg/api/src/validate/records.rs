//! What components write down: leases, revisions, events.

use std::collections::BTreeSet;

use serde_json::Map;

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

/// The names that the two versions of events have for the same fields.
struct EventFields {
    about: &'static str,
    controller: &'static str,
    text: &'static str,
}

/// An event through core/v1.
pub(super) fn core_event(object: &At, _old: Option<&At>, errors: &mut Errors) {
    any_event(
        object,
        &EventFields { about: "involvedObject", controller: "reportingComponent", text: "message" },
        errors,
    );
}

/// An event through events.k8s.io/v1, which asks more of a new event and lets only the series of an old one change.
pub(super) fn event(object: &At, old: Option<&At>, errors: &mut Errors) {
    any_event(object, &EventFields { about: "regarding", controller: "reportingController", text: "note" }, errors);
    let series = object.get("series");
    if series.is_set() && old.is_none_or(|old| !same(series.value, old.get("series").value)) {
        let count = series.get("count");
        if count.int().is_none_or(|c| c < 2) {
            count.invalid_value(errors, "", "should be at least 2");
        }
        series.get("lastObservedTime").need(errors);
    }
    if let Some(old) = old {
        let names: BTreeSet<&String> = [object, old].into_iter().filter_map(At::members).flat_map(Map::keys).collect();
        for name in names.into_iter().filter(|name| !matches!(name.as_str(), "metadata" | "series")) {
            object.get(name).immutable(&old.get(name), errors);
        }
        return;
    }
    object.get("eventTime").need(errors);
    object.get("type").need_one_of(errors, &["Normal", "Warning"]);
    for field in ["deprecatedFirstTimestamp", "deprecatedLastTimestamp", "deprecatedCount", "deprecatedSource"] {
        let field = object.get(field);
        if !field.is_empty() {
            field.invalid_value(errors, "", "needs to be unset");
        }
    }
}

/// What holds for events of both versions. Those with a time of their own say who reports what.
fn any_event(object: &At, fields: &EventFields, errors: &mut Errors) {
    let about = object.get(fields.about);
    let (namespace, home) = (about.get("namespace"), object.str("metadata.namespace"));
    let of_cluster = namespace.is_empty();
    let timed = object.get("eventTime").is_set();
    let fits = match timed {
        true => !of_cluster || matches!(home, "default" | "kube-system"),
        false => namespace.text() == home || (of_cluster && home == "default"),
    };
    if !fits {
        namespace.invalid_value(errors, namespace.text(), "does not match event.namespace");
    }
    if !timed {
        return;
    }
    let controller = object.get(fields.controller);
    if controller.need(errors) {
        controller.check(errors, format::qualified_name(controller.text()));
    }
    for field in ["reportingInstance", "action", "reason"] {
        let field = object.get(field);
        if field.need(errors) && field.text().len() > 128 {
            field.invalid_value(errors, "", "can have at most 128 characters");
        }
    }
    let text = object.get(fields.text);
    if text.text().len() > 1024 {
        text.invalid_value(errors, "", "can have at most 1024 characters");
    }
}
