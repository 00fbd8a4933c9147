//! ServiceCIDR objects: the configured range as object `kubernetes`, the condition that says that a range may be used,
//! and the finalizer that keeps a range as long as Services have addresses of it.

use std::net::IpAddr;
use std::sync::Arc;

use futures::StreamExt;
use ipnet::IpNet;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::ServiceAllocator;
use crate::options::ListOptions;
use crate::storage::{Object, StorageError};
use crate::strategy::{fill_system_fields, time_text};

const DEFAULT: &str = "kubernetes";
const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
const TERMINATING: &str =
    "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";

/// The ranges that an object names.
pub(super) fn cidrs(object: &Value) -> Vec<IpNet> {
    let listed = object["spec"]["cidrs"].as_array().into_iter().flatten();
    listed.filter_map(|c| c.as_str()?.parse().ok()).collect()
}

fn has_finalizer(object: &Value) -> bool {
    object["metadata"]["finalizers"].as_array().into_iter().flatten().any(|f| f == FINALIZER)
}

/// Sets the condition `Ready`; whether that changed anything.
fn set_ready(object: &mut Value, status: &str, reason: &str, message: &str) -> bool {
    let mut conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    if conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == status) {
        return false;
    }
    conditions.retain(|c| c["type"] != "Ready");
    conditions.push(json!({"type": "Ready", "status": status, "reason": reason, "message": message,
        "lastTransitionTime": time_text(Timestamp::now())}));
    object["status"]["conditions"] = conditions.into();
    true
}

impl ServiceAllocator {
    /// Follows the objects until cancelled.
    pub(super) async fn keep_ranges(&self, cancel: CancellationToken) {
        while !cancel.is_cancelled() {
            self.ensure_default_range().await;
            let Ok(mut changes) = self.ranges.watch(None, &ListOptions::default()).await else { return };
            loop {
                tokio::select! {
                    () = cancel.cancelled() => return,
                    change = changes.next() => match change {
                        Some(change) => self.settle_range(&change.object).await,
                        None => break,
                    },
                }
            }
        }
    }

    /// Looks again at ranges that wait for their last addresses.
    pub(super) async fn settle_deleting_ranges(&self) {
        for object in self.ranges.all(None).iter().filter(|o| o.is_deleting()) {
            self.settle_range(object).await;
        }
    }

    async fn ensure_default_range(&self) {
        if self.ranges.get("", DEFAULT).is_some() {
            return;
        }
        let cidrs: Vec<String> = self.config.service_cidrs.iter().map(ToString::to_string).collect();
        let mut object = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
            "metadata": {"name": DEFAULT}, "spec": {"cidrs": cidrs}, "status": {}});
        fill_system_fields(&mut object, Timestamp::now());
        report(DEFAULT, self.ranges.create(object).await.map(|_| ()));
    }

    /// Brings one object where it belongs.
    async fn settle_range(&self, object: &Arc<Object>) {
        let Some(object) = self.ranges.get("", object.name()) else { return };
        let mut value = object.value();
        if !object.is_deleting() {
            let ready = set_ready(&mut value, "True", "", "Kubernetes Service CIDR is ready");
            if !has_finalizer(&value) {
                let mut finalizers = value["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
                finalizers.push(FINALIZER.into());
                value["metadata"]["finalizers"] = finalizers.into();
            } else if !ready {
                return;
            }
            report(object.name(), self.ranges.update(value, object.revision()).await.map(|_| ()));
            return;
        }
        if !has_finalizer(&value) {
            return;
        }
        if self.holds_addresses(&value) {
            if set_ready(&mut value, "False", "Terminating", TERMINATING) {
                report(object.name(), self.ranges.update(value, object.revision()).await.map(|_| ()));
            }
            return;
        }
        let finalizers = value["metadata"]["finalizers"].as_array_mut();
        let left = finalizers.map_or(0, |f| {
            f.retain(|f| f != FINALIZER);
            f.len()
        });
        let result = if left == 0 {
            self.ranges.delete("", object.name(), object.revision()).await
        } else {
            self.ranges.update(value, object.revision()).await
        };
        report(object.name(), result.map(|_| ()));
    }

    /// Whether an address would be outside all ranges without this object.
    fn holds_addresses(&self, object: &Value) -> bool {
        let own = cidrs(object);
        let others: Vec<IpNet> = self
            .ranges
            .all(None)
            .iter()
            .filter(|o| !o.is_deleting() && object["metadata"]["name"] != o.name())
            .flat_map(|o| cidrs(&o.value()))
            .collect();
        let within = |ranges: &[IpNet], ip: &IpAddr| ranges.iter().any(|range| range.contains(ip));
        let addresses = self.address_objects.all(None);
        let mut addresses = addresses.iter().filter_map(|o| o.name().parse::<IpAddr>().ok());
        addresses.any(|ip| within(&own, &ip) && !within(&others, &ip))
    }
}

/// A conflict comes with another change, which is looked at in its turn.
fn report(name: &str, result: Result<(), StorageError>) {
    match result {
        Ok(()) | Err(StorageError::Conflict { .. } | StorageError::NotFound | StorageError::AlreadyExists) => {}
        Err(error) => tracing::warn!(name, %error, "could not write a ServiceCIDR"),
    }
}
