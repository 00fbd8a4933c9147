//! What controllers ask of pods, and how they make them.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodCondition, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};

use crate::clock;

pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("")
}

/// Ended for good.
pub fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

pub fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Counts as a replica: neither ended nor on its way out.
pub fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && !is_terminating(pod)
}

pub fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
}

pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|c| c.status == "True")
}

pub fn node_name(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or("")
}

/// How long until the pod has been ready for `min_ready` seconds: zero when it has, None when it is not ready.
pub fn until_available(pod: &Pod, min_ready: i32) -> Option<Duration> {
    let ready = condition(pod, "Ready").filter(|c| c.status == "True")?;
    if min_ready <= 0 {
        return Some(Duration::ZERO);
    }
    let since = ready.last_transition_time.as_ref()?;
    Some(clock::until(since, min_ready.into()).unwrap_or(Duration::ZERO))
}

pub fn is_available(pod: &Pod, min_ready: i32) -> bool {
    until_available(pod, min_ready).is_some_and(|left| left.is_zero())
}

/// The pods' soonest change to available, of those that are ready and not yet available.
pub fn next_available<'a>(pods: impl IntoIterator<Item = &'a Arc<Pod>>, min_ready: i32) -> Option<Duration> {
    pods.into_iter().filter_map(|p| until_available(p, min_ready)).filter(|left| !left.is_zero()).min()
}

/// Restarts of the container that was restarted most.
fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref());
    statuses.into_iter().flatten().map(|c| c.restart_count).max().unwrap_or(0)
}

/// Orders pods for scaling down: those whose loss hurts least come first. `crowd` counts a pod's siblings on its node.
pub fn sort_for_deletion(pods: &mut [Arc<Pod>], crowd: impl Fn(&Pod) -> usize) {
    let cost = |pod: &Pod| -> i32 {
        let annotations = pod.metadata.annotations.as_ref();
        annotations.and_then(|a| a.get("controller.kubernetes.io/pod-deletion-cost")?.parse().ok()).unwrap_or(0)
    };
    let phase_rank = |pod: &Pod| match phase(pod) {
        "Running" => 2,
        "Pending" => 0,
        _ => 1,
    };
    // Ages are compared by magnitude, so that among equals of about the same age the UID decides.
    let age = |time: Option<&Time>| time.map_or(u32::MAX, |t| clock::since(t).as_secs().max(1).ilog2());
    let ready_age = |pod: &Pod| {
        let since = condition(pod, "Ready").filter(|c| c.status == "True").and_then(|c| c.last_transition_time.clone());
        age(since.as_ref())
    };
    pods.sort_by_cached_key(|pod| {
        (
            !node_name(pod).is_empty(),
            phase_rank(pod),
            is_ready(pod),
            cost(pod),
            Reverse(crowd(pod)),
            if is_ready(pod) { ready_age(pod) } else { 0 },
            Reverse(restarts(pod)),
            age(pod.metadata.creation_timestamp.as_ref()),
            pod.metadata.uid.clone(),
        )
    });
}

/// A pod from a template, owned by `owner`. Its name is generated from `prefix` when it gets none.
pub fn from_template(template: &PodTemplateSpec, namespace: &str, prefix: &str, owner: OwnerReference) -> Pod {
    let meta = template.metadata.as_ref();
    Pod {
        metadata: ObjectMeta {
            namespace: Some(namespace.to_owned()),
            generate_name: Some(generate_name(prefix)),
            labels: meta.and_then(|m| m.labels.clone()),
            annotations: meta.and_then(|m| m.annotations.clone()),
            finalizers: meta.and_then(|m| m.finalizers.clone()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// `PREFIX-`, or `PREFIX` where the dash would make no valid name.
fn generate_name(prefix: &str) -> String {
    format!("{}-", prefix.get(..prefix.len().min(248)).unwrap_or(prefix).trim_end_matches(['.', '-']))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use serde_json::json;

    use super::*;

    #[test]
    fn unassigned_unready_cheap_and_young_pods_go_first() {
        let old = Time(Timestamp::from_second(1).unwrap());
        let pod = |name: &str, node: &str, phase: &str, ready: bool, cost: &str| -> Arc<Pod> {
            let status = if ready { "True" } else { "False" };
            Arc::new(
                serde_json::from_value(json!({
                    "metadata": {"name": name, "uid": name, "creationTimestamp": old,
                        "annotations": {"controller.kubernetes.io/pod-deletion-cost": cost}},
                    "spec": {"nodeName": node, "containers": []},
                    "status": {"phase": phase, "conditions": [{"type": "Ready", "status": status, "lastTransitionTime": old}]},
                }))
                .unwrap(),
            )
        };
        let mut pods = [
            pod("dear", "n", "Running", true, "9"),
            pod("cheap", "n", "Running", true, "-1"),
            pod("unready", "n", "Running", false, "0"),
            pod("pending", "n", "Pending", false, "0"),
            pod("unassigned", "", "Pending", false, "0"),
        ];
        sort_for_deletion(&mut pods, |_| 0);
        let names: Vec<_> = pods.iter().map(|p| p.metadata.name.clone().unwrap()).collect();
        assert_eq!(names, ["unassigned", "pending", "unready", "cheap", "dear"]);
    }
}
