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
pub fn from_storage(row: &Resource, object: &mut Value) {
    match (row.group.as_str(), row.version.as_str(), row.plural.as_str()) {
        _ if row.is_storage_version() && !row.is_custom() => return,
        ("events.k8s.io", ..) => event::to_new(object),
        ("autoscaling", "v1", "horizontalpodautoscalers") => autoscaler::to_v1(object),
        _ => {}
    }
    object["apiVersion"] = row.api_version().into();
    adapt(row, object);
}

/// What is stored may be older than the row's schema.
fn adapt(row: &Resource, object: &mut Value) {
    if let Some(schema) = &row.custom_schema {
        schema.admit(object);
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
