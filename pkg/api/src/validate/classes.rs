//! Classes of pods.

use super::at::{At, same};
use super::pod::quantity;
use super::{Errors, format, metadata, pod};

pub(super) fn priority_class(object: &At, old: Option<&At>, errors: &mut Errors) {
    const BUILT_IN: [(&str, i64); 2] =
        [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];
    const MAX: i64 = 1_000_000_000;
    let (name, value) = (object.get("metadata.name"), object.get("value"));
    if name.text().starts_with("system-") {
        if !BUILT_IN.contains(&(name.text(), value.int().unwrap_or(0))) {
            let detail = "priority class names with 'system-' prefix are reserved for system use only";
            name.forbidden(errors, detail);
        }
    } else if value.int().is_some_and(|v| v > MAX) {
        value.forbidden(errors, format!("maximum allowed value of a user defined priority is {MAX}"));
    }
    for field in ["value", "preemptionPolicy"] {
        if old.is_some_and(|old| !same(object.get(field).value, old.get(field).value)) {
            object.get(field).forbidden(errors, "may not be changed in an update.");
        }
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
    pod::tolerations(&scheduling.get("tolerations"), errors);
    if let Some(old) = old {
        handler.immutable(&old.get("handler"), errors);
    }
}
