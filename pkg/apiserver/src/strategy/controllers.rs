//! Jobs, custom resource definitions, API services and leases.

use serde_json::{Value, json};

use super::{Context, remove, set};

const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";

/// A job selects its pods by its own uid.
pub(super) fn create_job(job: &mut Value, _: &Context<'_>) {
    if job["spec"]["manualSelector"].as_bool() == Some(true) {
        return;
    }
    let (name, uid) = (text(&job["metadata"]["name"]), text(&job["metadata"]["uid"]));
    let labels = [
        ("batch.kubernetes.io/job-name", &name),
        ("job-name", &name),
        (CONTROLLER_UID, &uid),
        ("controller-uid", &uid),
    ];
    for (key, value) in labels {
        if job["spec"]["template"]["metadata"]["labels"][key].is_null() {
            set(job, &["spec", "template", "metadata", "labels", key], value.clone());
        }
    }
    let selector = &mut job["spec"]["selector"];
    if selector["matchLabels"][CONTROLLER_UID].is_null() {
        selector["matchLabels"][CONTROLLER_UID] = uid;
    }
}

fn text(value: &Value) -> Value {
    value.as_str().unwrap_or_default().into()
}

pub(super) fn create_crd(crd: &mut Value, _: &Context<'_>) {
    crd["status"] = json!({"storedVersions": storage_version(crd).into_iter().collect::<Vec<_>>(),
        "conditions": null, "acceptedNames": {"plural": "", "kind": ""}});
}

pub(super) fn update_crd(new: &mut Value, _: &Value, _: &Context<'_>) {
    let Some(version) = storage_version(new) else { return };
    let mut stored = new["status"]["storedVersions"].as_array().cloned().unwrap_or_default();
    if !stored.contains(&version) {
        stored.push(version);
        set(new, &["status", "storedVersions"], stored.into());
    }
}

fn storage_version(crd: &Value) -> Option<Value> {
    let versions = crd["spec"]["versions"].as_array()?;
    versions.iter().find(|v| v["storage"].as_bool() == Some(true)).map(|v| v["name"].clone())
}

pub(super) fn create_api_service(service: &mut Value, context: &Context<'_>) {
    if service["spec"]["service"].is_null() {
        service["status"] = json!({"conditions": [{"type": "Available", "status": "True", "reason": "Local",
            "message": "Local APIServices are always available", "lastTransitionTime": context.time()}]});
    }
}

/// Coordinated leader election is off: its fields are not kept.
pub(super) fn create_lease(lease: &mut Value, _: &Context<'_>) {
    for member in ["strategy", "preferredHolder"] {
        if let Some(spec) = lease.get_mut("spec") {
            remove(spec, member);
        }
    }
}

pub(super) fn update_lease(new: &mut Value, _: &Value, context: &Context<'_>) {
    create_lease(new, context);
}
