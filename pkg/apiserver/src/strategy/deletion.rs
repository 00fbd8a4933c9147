//! What a DELETE does to an object: remove it, mark it, or nothing because it is on its way.

use jiff::{SignedDuration, Timestamp};
use kube1_api::name::GroupResource;
use kube1_api::resource::Resource;
use kube1_api::status::Status;
use serde_json::{Value, json};

use super::{set, time_text};
use crate::custom;
use crate::options::{DeleteOptions, Propagation};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
const DEFAULT_POD_GRACE: i64 = 30;

/// What a DELETE comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum DeletePlan {
    /// Take it out of the store.
    Remove,
    /// Store this instead; it is removed later.
    Mark(Value),
    /// It is being deleted already: answer with it as it is.
    Pending,
}

/// 409 unless the object is the one that the request means.
pub fn check_preconditions(resource: &Resource, object: &Value, options: &DeleteOptions) -> Result<(), Status> {
    let metadata = &object["metadata"];
    const DELETED: &str = "deleted and then recreated";
    let checks = [
        ("UID", "uid", &options.uid, DELETED),
        ("ResourceVersion", "resourceVersion", &options.resource_version, "modified"),
    ];
    for (label, member, wanted, fate) in checks {
        let found = metadata[member].as_str().unwrap_or_default();
        if let Some(wanted) = wanted
            && wanted != found
        {
            // Upstream names the kind in the place of the resource.
            let group_kind = GroupResource::new(&resource.group, &resource.kind);
            let name = metadata["name"].as_str().unwrap_or_default();
            let why = format!(
                "the {label} in the precondition ({wanted}) does not match the {label} in record ({found}). The object \
                 might have been {fate}"
            );
            return Err(Status::conflict(&group_kind, name, why));
        }
    }
    Ok(())
}

/// Decides what a DELETE does. Preconditions are the caller's to check.
pub fn delete_plan(resource: &Resource, object: &Value, options: &DeleteOptions, now: Timestamp) -> DeletePlan {
    if is(resource, "namespaces")
        && let Some(plan) = namespace_plan(resource, object, options, now)
    {
        return plan;
    }
    if let Some(marked) = definition_plan(resource, object, now) {
        return DeletePlan::Mark(marked);
    }
    let mut marked = object.clone();
    let grace = match pod_grace(resource, &mut marked, options, now) {
        Grace::Pending => return DeletePlan::Pending,
        grace => grace,
    };
    set_finalizers(resource, &mut marked, options);
    let finalizers = has_finalizers(&marked["metadata"]);
    match grace {
        Grace::Period(period) if period > 0 || finalizers => DeletePlan::Mark(marked),
        Grace::None if finalizers => {
            mark_now(&mut marked, now);
            if marked == *object { DeletePlan::Pending } else { DeletePlan::Mark(marked) }
        }
        _ => DeletePlan::Remove,
    }
}

/// Whether nothing holds a deleted object any more, so that the update which made it so removes it.
pub fn is_released(resource: &Resource, object: &Value) -> bool {
    let metadata = &object["metadata"];
    let held = is(resource, "namespaces") && has_items(&object["spec"]["finalizers"]);
    !metadata["deletionTimestamp"].is_null()
        && metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
        && !has_finalizers(metadata)
        && !held
}

fn is(resource: &Resource, plural: &str) -> bool {
    resource.group.is_empty() && resource.plural == plural
}

/// `None` when the common rules apply.
fn namespace_plan(resource: &Resource, object: &Value, options: &DeleteOptions, now: Timestamp) -> Option<DeletePlan> {
    if !object["metadata"]["deletionTimestamp"].is_null() {
        return has_items(&object["spec"]["finalizers"]).then_some(DeletePlan::Pending);
    }
    let mut marked = object.clone();
    marked["metadata"]["deletionTimestamp"] = time_text(now).into();
    set(&mut marked, &["status", "phase"], "Terminating".into());
    set_finalizers(resource, &mut marked, options);
    Some(if is_released(resource, &marked) { DeletePlan::Remove } else { DeletePlan::Mark(marked) })
}

/// A definition is first held until its objects are gone.
fn definition_plan(resource: &Resource, object: &Value, now: Timestamp) -> Option<Value> {
    let is_definition = resource.group == "apiextensions.k8s.io" && resource.plural == "customresourcedefinitions";
    if !is_definition || !object["metadata"]["deletionTimestamp"].is_null() {
        return None;
    }
    let mut marked = object.clone();
    let now = time_text(now);
    let mut finalizers = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    if !finalizers.iter().any(|f| f == custom::CLEANUP_FINALIZER) {
        finalizers.push(custom::CLEANUP_FINALIZER.into());
    }
    marked["metadata"]["finalizers"] = finalizers.into();
    marked["metadata"]["deletionTimestamp"] = now.as_str().into();
    custom::set_terminating(&mut marked, &custom::Termination::Pending, &now);
    Some(marked)
}

enum Grace {
    /// Not a pod, or nothing to wait for.
    None,
    /// The object was marked with this period.
    Period(i64),
    Pending,
}

/// Marks a pod with its grace period; a repeated request can only shorten it.
fn pod_grace(resource: &Resource, pod: &mut Value, options: &DeleteOptions, now: Timestamp) -> Grace {
    if !is(resource, "pods") {
        return Grace::None;
    }
    if let Some(deletion) = pod["metadata"]["deletionTimestamp"].as_str() {
        let Some(current) = pod["metadata"]["deletionGracePeriodSeconds"].as_i64() else { return Grace::None };
        return match options.grace_period_seconds {
            Some(period) if period < current => {
                let deletion: Timestamp = deletion.parse().unwrap_or(now);
                let earlier = deletion.checked_add(SignedDuration::from_secs(period - current));
                pod["metadata"]["deletionTimestamp"] = time_text(earlier.unwrap_or_else(|_| after(now, period))).into();
                pod["metadata"]["deletionGracePeriodSeconds"] = period.into();
                Grace::Period(period)
            }
            _ => Grace::Pending,
        };
    }
    let asked = options.grace_period_seconds.or(pod["spec"]["terminationGracePeriodSeconds"].as_i64());
    let unscheduled = pod["spec"]["nodeName"].as_str().unwrap_or_default().is_empty();
    let finished = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    let period = match asked.unwrap_or(DEFAULT_POD_GRACE) {
        _ if unscheduled || finished => 0,
        negative if negative < 0 => 1,
        period => period,
    };
    raise_generation(pod);
    pod["metadata"]["deletionTimestamp"] = time_text(after(now, period)).into();
    pod["metadata"]["deletionGracePeriodSeconds"] = period.into();
    Grace::Period(period)
}

/// A period that ends beyond all time ends at its end.
fn after(now: Timestamp, seconds: i64) -> Timestamp {
    now.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}

/// Marks an object that finalizers hold.
fn mark_now(object: &mut Value, now: Timestamp) {
    if object["metadata"]["deletionGracePeriodSeconds"].is_null() {
        raise_generation(object);
    }
    let metadata = &mut object["metadata"];
    let later =
        metadata["deletionTimestamp"].as_str().and_then(|t| t.parse::<Timestamp>().ok()).is_none_or(|t| t > now);
    if later {
        metadata["deletionTimestamp"] = time_text(now).into();
    }
    metadata["deletionGracePeriodSeconds"] = 0.into();
}

fn raise_generation(object: &mut Value) {
    if let Some(generation) = object["metadata"]["generation"].as_i64().filter(|g| *g > 0) {
        object["metadata"]["generation"] = (generation + 1).into();
    }
}

/// Adds and removes the garbage collector's finalizers as the request, or else the resource, wants it.
fn set_finalizers(resource: &Resource, object: &mut Value, options: &DeleteOptions) {
    if resource.plural == "events" {
        return;
    }
    let old: Vec<String> = object["metadata"]["finalizers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|f| f.as_str().map(str::to_owned))
        .collect();
    let has = |finalizer: &str| old.iter().any(|f| f == finalizer);
    let orphans = matches!(
        (resource.group.as_str(), resource.plural.as_str()),
        ("", "replicationcontrollers") | ("batch", "jobs")
    );
    let policy = match options.propagation {
        Some(policy) => policy,
        None if has(ORPHAN) => Propagation::Orphan,
        None if has(FOREGROUND) => Propagation::Foreground,
        None if orphans => Propagation::Orphan,
        None => Propagation::Background,
    };
    let added = match policy {
        Propagation::Orphan => Some(ORPHAN),
        Propagation::Foreground => Some(FOREGROUND),
        Propagation::Background => None,
    };
    let mut finalizers: Vec<String> =
        old.iter().filter(|f| Some(f.as_str()) == added || (*f != ORPHAN && *f != FOREGROUND)).cloned().collect();
    if let Some(added) = added.filter(|a| !has(a)) {
        finalizers.push(added.to_owned());
    }
    if finalizers != old {
        let finalizers = if finalizers.is_empty() { Value::Null } else { json!(finalizers) };
        set(object, &["metadata", "finalizers"], finalizers);
    }
}

fn has_finalizers(metadata: &Value) -> bool {
    has_items(&metadata["finalizers"])
}

fn has_items(list: &Value) -> bool {
    list.as_array().is_some_and(|l| !l.is_empty())
}
