//! The conditions of a Deployment.

use k8s_openapi::api::apps::v1::{DeploymentCondition, DeploymentStatus};

use crate::clock;

pub const AVAILABLE: &str = "Available";
pub const PROGRESSING: &str = "Progressing";
pub const FAILURE: &str = "ReplicaFailure";

pub fn get<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
}

pub fn has_reason(status: &DeploymentStatus, kind: &str, reason: &str) -> bool {
    get(status, kind).is_some_and(|c| c.reason.as_deref() == Some(reason))
}

pub fn remove(status: &mut DeploymentStatus, kind: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|c| c.type_ != kind);
    }
}

/// Sets a condition; nothing changes if its status and reason stay the same.
pub fn set(status: &mut DeploymentStatus, kind: &str, value: &str, reason: &str, message: impl Into<String>) {
    let old = get(status, kind);
    if old.is_some_and(|c| c.status == value && c.reason.as_deref() == Some(reason)) {
        return;
    }
    refresh(status, kind, value, reason, message);
}

/// Sets a condition and its update time in any case; its transition time stays if its status does.
pub fn refresh(status: &mut DeploymentStatus, kind: &str, value: &str, reason: &str, message: impl Into<String>) {
    let same = get(status, kind).filter(|c| c.status == value);
    let since = same.and_then(|c| c.last_transition_time.clone()).unwrap_or_else(clock::now);
    remove(status, kind);
    status.conditions.get_or_insert_default().push(DeploymentCondition {
        type_: kind.to_owned(),
        status: value.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.into()),
        last_update_time: Some(clock::now()),
        last_transition_time: Some(since),
    });
}
