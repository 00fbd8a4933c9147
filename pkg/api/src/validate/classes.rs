//! Classes of pods.

use super::at::At;
use super::resource_name::quantity;
use super::{Errors, format, metadata, pod};
use crate::field::FieldError;

/// A class of pods' importance.
pub(super) fn priority_class(object: &At, old: Option<&At>, errors: &mut Errors) {
    const BUILT_IN: [(&str, i64); 2] =
        [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];
    const MAX: i64 = 1_000_000_000;
    let (name, value, policy) = (object.get("metadata.name"), object.get("value"), object.get("preemptionPolicy"));
    if let Some(old) = old {
        if value.int().unwrap_or(0) != old.number("value") {
            value.forbidden(errors, "may not be changed in an update.");
        }
        return policy.immutable(&old.get("preemptionPolicy"), errors);
    }
    let number = value.int().unwrap_or(0);
    if name.text().starts_with("system-") {
        let problem = match BUILT_IN.iter().find(|(known, _)| *known == name.text()) {
            None => Some(format!("{} is not a known system priority class", name.text())),
            Some((known, fixed)) if *fixed != number => Some(format!("value of {known} PriorityClass must be {fixed}")),
            Some((known, _)) if object.get("globalDefault").is_true() => {
                Some(format!("globalDefault of {known} PriorityClass must be false"))
            }
            Some(_) => None,
        };
        if let Some(problem) = problem {
            let detail = "priority class names with 'system-' prefix are reserved for system use only. error: ";
            name.forbidden(errors, format!("{detail}{problem}"));
        }
    } else if number > MAX {
        value.forbidden(errors, format!("maximum allowed value of a user defined priority is {MAX}"));
    }
    match policy.text() {
        _ if !policy.is_set() => {}
        "" => policy.required(errors, ""),
        _ => policy.listed(errors, &["PreemptLowerPriority", "Never"]),
    }
}

pub(super) fn runtime_class(object: &At, old: Option<&At>, errors: &mut Errors) {
    let handler = object.get("handler");
    handler.check(errors, format::dns_label(handler.text()));
    for (name, amount) in object.get("overhead.podFixed").entries() {
        quantity(&amount, name, errors);
    }
    let scheduling = object.get("scheduling");
    metadata::labels(&scheduling.get("nodeSelector"), errors);
    let tolerations = scheduling.get("tolerations");
    // Upstream names the list twice.
    pod::tolerations(&scheduling.told_as("tolerations", "tolerations.tolerations"), errors);
    let list = tolerations.list();
    let key = |toleration: &serde_json::Value| {
        ["key", "operator", "value", "effect"].map(|field| toleration[field].as_str().unwrap_or_default().to_owned())
    };
    for (index, toleration) in list.iter().enumerate() {
        if list[..index].iter().any(|before| key(before) == key(toleration)) {
            errors.push(FieldError::duplicate(&tolerations.index(index).path(), toleration.clone()));
        }
    }
    if let Some(old) = old {
        handler.immutable(&old.get("handler"), errors);
    }
}
