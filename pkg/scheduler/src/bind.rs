//! What the scheduler writes: bindings, conditions, nominations and evictions.

use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use kube1_client::ObjectKey;
use serde_json::{Value, json};

use crate::pod_info::PodInfo;

/// Binds a pod to a node.
pub async fn bind(client: &Client, pod: &PodInfo, node: &str) -> Result<(), kube::Error> {
    let ObjectKey { namespace, name } = &pod.key;
    let binding = json!({
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": name, "namespace": namespace, "uid": pod.uid},
        "target": ObjectReference { kind: Some("Node".into()), name: Some(node.into()), ..Default::default() },
    });
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let _: Value = api.create_subresource("binding", name, &PostParams::default(), &binding).await?;
    Ok(())
}

/// Says in the pod's status why it cannot be scheduled and, with `Some`, where room is made for it (or no more).
pub async fn report_unschedulable(
    client: &Client,
    pod: &PodInfo,
    reason: &str,
    message: &str,
    nominated: Option<Option<&str>>,
) -> Result<(), kube::Error> {
    let mut status = json!({});
    if !is_reported(pod, reason, message) {
        let since =
            match pod.verdict.as_ref().filter(|c| c.status == "False").and_then(|c| c.last_transition_time.clone()) {
                Some(time) => time,
                None => Time(Timestamp::now()),
            };
        status["conditions"] = json!([{"type": "PodScheduled", "status": "False", "reason": reason, "message": message,
            "observedGeneration": pod.generation, "lastProbeTime": null, "lastTransitionTime": since}]);
    }
    if let Some(node) = nominated
        && node != pod.nominated_node()
    {
        status["nominatedNodeName"] = json!(node);
    }
    if status.as_object().is_none_or(serde_json::Map::is_empty) {
        return Ok(());
    }
    patch_status(client, pod, status).await
}

fn is_reported(pod: &PodInfo, reason: &str, message: &str) -> bool {
    pod.verdict.as_ref().is_some_and(|c| {
        c.status == "False" && c.reason.as_deref() == Some(reason) && c.message.as_deref() == Some(message)
    })
}

/// Says where a pod goes while there is still work to be done for it, so that others expect it there (KEP-5278).
pub async fn nominate(client: &Client, pod: &PodInfo, node: &str) -> Result<(), kube::Error> {
    patch_status(client, pod, json!({"nominatedNodeName": node})).await
}

/// Takes a nomination back.
pub async fn clear_nomination(client: &Client, pod: &PodInfo) -> Result<(), kube::Error> {
    patch_status(client, pod, json!({"nominatedNodeName": null})).await
}

async fn patch_status(client: &Client, pod: &PodInfo, status: Value) -> Result<(), kube::Error> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.key.namespace);
    let patch = json!({"metadata": {"uid": pod.uid}, "status": status});
    let patched = api.patch_status(&pod.key.name, &PatchParams::default(), &Patch::Strategic(patch)).await;
    unless_gone(patched.map(drop))
}

/// Marks a pod as preempted and deletes it with its grace period.
pub async fn evict(client: &Client, pod: &PodInfo, scheduler_name: &str) -> Result<(), kube::Error> {
    let condition = json!([{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
        "message": format!("{scheduler_name}: preempting to accommodate a higher priority pod"),
        "observedGeneration": pod.generation, "lastTransitionTime": Time(Timestamp::now())}]);
    patch_status(client, pod, json!({"conditions": condition})).await?;
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.key.namespace);
    let same = Preconditions { uid: Some(pod.uid.to_string()), resource_version: None };
    let deleted = api.delete(&pod.key.name, &DeleteParams::default().preconditions(same)).await;
    unless_gone(deleted.map(drop))
}

/// A pod that is gone, or replaced by another of its name, needs nothing any more.
fn unless_gone(result: Result<(), kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(kube::Error::Api(ref status)) if matches!(status.code, 404 | 409) => Ok(()),
        result => result,
    }
}
