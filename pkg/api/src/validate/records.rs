//! What components write down: leases, revisions, events.

use serde_json::Map;

use super::at::At;
use super::{Errors, format};

pub(super) fn lease(object: &At, _old: Option<&At>, errors: &mut Errors) {
    let spec = object.get("spec");
    let (holder, duration) = (spec.get("holderIdentity"), spec.get("leaseDurationSeconds"));
    if holder.is_set() && holder.is_empty() {
        holder.invalid(errors, "must not be empty");
    }
    if duration.int().is_some_and(|d| d <= 0) {
        duration.invalid(errors, "must be greater than 0");
    }
    spec.get("leaseTransitions").not_negative(errors);
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

/// An event through core/v1 or events.k8s.io/v1; only the new kind has a time of its own.
pub(super) fn event(object: &At, old: Option<&At>, errors: &mut Errors) {
    let about = if object.get("regarding").is_set() { "regarding" } else { "involvedObject" };
    let about = object.get(about);
    let (namespace, home) = (about.get("namespace"), object.str("metadata.namespace"));
    let fits = namespace.text() == home || (namespace.is_empty() && matches!(home, "default" | "kube-system"));
    if !fits {
        namespace.invalid_value(errors, namespace.text(), "does not match event.namespace");
    }
    let new_form = object.get("regarding").is_set();
    if let Some(old) = old.filter(|_| new_form) {
        for name in object.members().into_iter().chain(old.members()).flat_map(Map::keys) {
            if !matches!(name.as_str(), "metadata" | "series") {
                object.get(name).immutable(&old.get(name), errors);
            }
        }
    }
    if !object.get("eventTime").is_set() || old.is_some() {
        return;
    }
    let (controller, instance) = if new_form {
        ("reportingController", "reportingInstance")
    } else {
        ("reportingComponent", "reportingInstance")
    };
    let controller = object.get(controller);
    if controller.need(errors) {
        controller.check(errors, format::qualified_name(controller.text()));
    }
    for field in [instance, "action", "reason"] {
        let field = object.get(field);
        if field.need(errors) && field.text().len() > 128 {
            field.invalid_value(errors, "", "can have at most 128 characters");
        }
    }
    let message = object.get(if new_form { "note" } else { "message" });
    if message.text().len() > 1024 {
        message.invalid_value(errors, "", "can have at most 1024 characters");
    }
    if new_form {
        object.get("type").need_one_of(errors, &["Normal", "Warning"]);
        for field in ["deprecatedFirstTimestamp", "deprecatedLastTimestamp", "deprecatedCount", "deprecatedSource"] {
            let field = object.get(field);
            if !field.is_empty() {
                field.invalid(errors, "needs to be unset");
            }
        }
    }
}
