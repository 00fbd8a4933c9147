//! CustomResourceDefinitions: what becomes of them, and the rows of the resource table they make.

mod condition;
mod controller;
mod names;
mod rows;

pub use condition::{Condition, find as find_condition, set as set_condition};
pub use controller::DefinitionController;
pub use names::NamesVerdict;
pub use rows::{rows, stored_row};

use std::collections::BTreeSet;

use kube1_api::custom::Approval;
use kube1_api::field::FieldPath;
use kube1_api::structural;
use serde_json::{Value, json};

/// Keeps a definition until its objects are gone.
pub const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

const TERMINATING: &str = "Terminating";

/// The status that a definition should have, given all others.
///
/// Names are first come, first served within a group: what another definition has accepted cannot be taken.
pub fn status(definition: &Value, others: &[&Value], now: &str) -> Value {
    let mut status = definition["status"].clone();
    if !status.is_object() {
        status = json!({});
    }
    let verdict = names::check(definition, others);
    status["acceptedNames"] = verdict.accepted;
    let mut conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let mut put = |condition: Condition<'_>| condition::set(&mut conditions, &condition, now);
    put(Condition::new("NamesAccepted", verdict.conflict.is_none(), verdict.reason, &verdict.message));
    let already = condition::is_true(&definition["status"], "Established");
    if verdict.conflict.is_none() {
        put(Condition::new("Established", true, "InitialNamesAccepted", "the initial names have been accepted"));
    } else if !already {
        put(Condition::new("Established", false, "NotAccepted", "not all names are accepted"));
    }
    let approval = Approval::of(definition);
    let reason = match approval {
        Approval::NotNeeded => None,
        Approval::Given(_) => Some("ApprovedAnnotation"),
        Approval::Bypassed(_) => Some("UnapprovedAnnotation"),
        Approval::Missing => Some("MissingAnnotation"),
        Approval::Invalid(_) => Some("InvalidAnnotation"),
    };
    if let Some(reason) = reason {
        let (given, message) = (matches!(approval, Approval::Given(_)), approval.message());
        put(Condition::new("KubernetesAPIApprovalPolicyConformant", given, reason, &message));
    }
    let problems = schema_problems(definition);
    if problems.is_empty() {
        conditions.retain(|c| c["type"] != "NonStructuralSchema");
    } else {
        let condition = Condition::new("NonStructuralSchema", true, "Violations", &problems);
        condition::set(&mut conditions, &condition, now);
    }
    status["conditions"] = conditions.into();
    if status["storedVersions"].as_array().is_none_or(Vec::is_empty) {
        status["storedVersions"] = storage_version(definition).into_iter().collect();
    }
    status
}

/// How far the deletion of a definition's objects is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Termination {
    Pending,
    InProgress,
    Completed,
    NeverEstablished,
    OverlappingBuiltIn,
}

/// Tells it in the definition's status.
pub fn set_terminating(definition: &mut Value, state: &Termination, now: &str) {
    let (status, reason, message) = match state {
        Termination::Pending => (
            true,
            "InstanceDeletionPending",
            "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
        ),
        Termination::InProgress => (true, "InstanceDeletionInProgress", "CustomResource deletion is in progress"),
        Termination::Completed => (false, "InstanceDeletionCompleted", "removed all instances"),
        Termination::NeverEstablished => (false, "NeverEstablished", "resource was never established"),
        Termination::OverlappingBuiltIn => {
            (false, "OverlappingBuiltInResource", "instances overlap with built-in resources in storage")
        }
    };
    let mut conditions = definition["status"]["conditions"].as_array().cloned().unwrap_or_default();
    condition::set(&mut conditions, &Condition::new(TERMINATING, status, reason, message), now);
    definition["status"]["conditions"] = conditions.into();
}

/// Whether the definition is on its way out and takes no new objects.
pub fn is_terminating(definition: &Value) -> bool {
    condition::is_true(&definition["status"], TERMINATING)
}

/// Whether the definition is served: its names are accepted and stay so while it is being deleted.
pub fn is_established(definition: &Value) -> bool {
    condition::is_true(&definition["status"], "Established")
}

pub fn storage_version(definition: &Value) -> Option<&str> {
    let versions = definition["spec"]["versions"].as_array()?;
    versions.iter().find(|v| v["storage"] == true)?["name"].as_str()
}

fn schema_problems(definition: &Value) -> String {
    let versions = definition["spec"]["versions"].as_array().into_iter().flatten().enumerate();
    let problems: BTreeSet<String> = versions
        .filter_map(|(index, version)| {
            let path = FieldPath::new("spec").child("versions").index(index).child("schema").child("openAPIV3Schema");
            structural::parse(&version["schema"]["openAPIV3Schema"], &path).err()
        })
        .flatten()
        .map(|error| error.to_string())
        .collect();
    let problems: Vec<String> = problems.into_iter().collect();
    match &problems[..] {
        [] => String::new(),
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
