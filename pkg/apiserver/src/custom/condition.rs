//! Conditions in a status: one per type, with the time of their last transition.

use serde_json::{Value, json};

/// A condition as it should be.
#[derive(Clone, Debug)]
pub struct Condition<'a> {
    kind: &'a str,
    status: bool,
    reason: &'a str,
    message: &'a str,
}

impl<'a> Condition<'a> {
    pub fn new(kind: &'a str, status: bool, reason: &'a str, message: &'a str) -> Self {
        Self { kind, status, reason, message }
    }
}

/// The condition of a type in a status.
pub fn find<'a>(status: &'a Value, kind: &str) -> Option<&'a Value> {
    status["conditions"].as_array()?.iter().find(|c| c["type"] == kind)
}

pub fn is_true(status: &Value, kind: &str) -> bool {
    find(status, kind).is_some_and(|c| c["status"] == "True")
}

/// Puts a condition in place. What does not change keeps its time, so that setting again changes nothing.
pub fn set(conditions: &mut Vec<Value>, condition: &Condition<'_>, now: &str) {
    let status = if condition.status { "True" } else { "False" };
    let old = conditions.iter().position(|c| c["type"] == condition.kind);
    let since = old.map(|index| &conditions[index]).filter(|c| c["status"] == status);
    let since = since.map_or_else(|| now.into(), |c| c["lastTransitionTime"].clone());
    let new = json!({"type": condition.kind, "status": status, "reason": condition.reason, "message": condition.message,
        "lastTransitionTime": since});
    match old {
        Some(index) => conditions[index] = new,
        None => conditions.push(new),
    }
}
