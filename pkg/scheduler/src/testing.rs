//! Builders for tests.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use kube1_client::Keep;
use serde_json::{Value, json};

use crate::pod_info::PodInfo;

/// A node named `name` with the hostname label, `cpu` cores, 8Gi and room for 110 pods.
pub fn node(name: &str, cpu: &str) -> Arc<Node> {
    node_with(name, cpu, json!({}), json!({}))
}

pub fn node_with(name: &str, cpu: &str, mut labels: Value, spec: Value) -> Arc<Node> {
    labels["kubernetes.io/hostname"] = json!(name);
    let node = json!({"metadata": {"name": name, "labels": labels}, "spec": spec,
        "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "110"}}});
    Arc::new(serde_json::from_value(node).unwrap())
}

/// A pod in namespace `default` with one container that asks for `cpu`.
pub fn pod(name: &str, cpu: &str) -> Arc<PodInfo> {
    pod_with(name, cpu, json!({}), json!({}))
}

pub fn pod_with(name: &str, cpu: &str, labels: Value, mut spec: Value) -> Arc<PodInfo> {
    if spec.get("containers").is_none() {
        spec["containers"] = json!([{"name": "c", "resources": {"requests": {"cpu": cpu}}}]);
    }
    let pod = json!({"metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"), "labels": labels},
        "spec": spec});
    Arc::new(PodInfo::keep(serde_json::from_value(pod).unwrap()))
}

struct Nothing;

impl crate::plugins::Volumes for Nothing {
    fn decide(&self, _pod: &PodInfo) -> Result<Vec<crate::plugins::VolumeDecision>, crate::framework::Rejection> {
        Ok(Vec::new())
    }
}

impl crate::plugins::Owners for Nothing {
    fn selectors(&self, _pod: &PodInfo) -> Vec<kube::core::Selector> {
        Vec::new()
    }
}

/// All plugins over a cluster without volumes, Services and controllers.
pub fn scheduler() -> crate::algorithm::Algorithm {
    crate::algorithm::Algorithm::new(crate::plugins::all(Arc::new(Nothing), Arc::new(Nothing)))
}
