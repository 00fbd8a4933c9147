//! Resources that are one set of stored objects seen through several group versions.
//!
//! Only Events and HorizontalPodAutoscalers are such among the built-in ones; everything else differs in `apiVersion`
//! alone, but for custom resources with a conversion webhook, which is asked first.

mod autoscaler;
mod event;
pub mod webhook;

use kube1_api::name::api_version;
use kube1_api::resource::Resource;
use serde_json::Value;

/// The stored object as the row shows it.
pub fn shown(row: &Resource, object: &mut Value) {
    adapt(row, object);
    from_storage(row, object);
}

/// An object in the version that it is stored in as the row shows it.
pub fn from_storage(row: &Resource, object: &mut Value) {
    match (row.group.as_str(), row.version.as_str(), row.plural.as_str()) {
        _ if row.is_custom() => {}
        _ if row.is_storage_version() => return,
        ("events.k8s.io", ..) => event::to_new(object),
        ("autoscaling", "v1", "horizontalpodautoscalers") => autoscaler::to_v1(object),
        _ => {}
    }
    object["apiVersion"] = row.api_version().into();
}

/// Reads a stored custom object by the schema of the version that it is stored in, which may have changed since.
pub fn adapt(row: &Resource, object: &mut Value) {
    if !row.is_custom() {
        return;
    }
    let version = object["apiVersion"].as_str().and_then(|text| Some(text.rsplit_once('/')?.1));
    let Some(version) = version.map(str::to_owned) else { return };
    if let Some(schema) = row.version_schemas.get(&version) {
        schema.admit_stored(object);
    }
    // On its way to any other version an object is one of the storage version.
    if version != row.storage_version
        && row.conversion.is_none()
        && let Some(schema) = row.version_schemas.get(&row.storage_version)
    {
        schema.prune(object);
    }
}

/// An object of the row in the form that is stored.
pub fn to_storage(row: &Resource, object: &mut Value) {
    match (row.group.as_str(), row.version.as_str(), row.plural.as_str()) {
        _ if row.is_storage_version() => return,
        ("events.k8s.io", ..) => event::to_core(object),
        ("autoscaling", "v1", "horizontalpodautoscalers") => autoscaler::to_v2(object),
        _ => {}
    }
    object["apiVersion"] = api_version(&row.storage_group, &row.storage_version).into();
}
