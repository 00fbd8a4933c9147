//! What controllers ask of pods, and how they make them.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};

use crate::cached_pod::CachedPod;
use crate::clock;

/// Ended for good.
pub fn is_finished(pod: &CachedPod) -> bool {
    matches!(pod.phase, "Succeeded" | "Failed")
}

pub fn is_terminating(pod: &CachedPod) -> bool {
    pod.deleted.is_some()
}

/// Counts as a replica: neither ended nor on its way out.
pub fn is_active(pod: &CachedPod) -> bool {
    !is_finished(pod) && !is_terminating(pod)
}

pub fn is_ready(pod: &CachedPod) -> bool {
    pod.ready.as_ref().is_some_and(|(ready, _)| *ready)
}

/// When the pod became ready, if it is and the time is known.
fn ready_since(pod: &CachedPod) -> Option<&Time> {
    pod.ready.as_ref().filter(|(ready, _)| *ready)?.1.as_ref()
}

/// How long until the pod has been ready for `min_ready` seconds: zero when it has, None when it is not ready.
pub fn until_available(pod: &CachedPod, min_ready: i32) -> Option<Duration> {
    if min_ready <= 0 {
        return is_ready(pod).then_some(Duration::ZERO);
    }
    Some(clock::until(ready_since(pod)?, min_ready.into()).unwrap_or(Duration::ZERO))
}

pub fn is_available(pod: &CachedPod, min_ready: i32) -> bool {
    until_available(pod, min_ready).is_some_and(|left| left.is_zero())
}

/// The pods' soonest change to available, of those that are ready and not yet available.
pub fn next_available<'a>(pods: impl IntoIterator<Item = &'a Arc<CachedPod>>, min_ready: i32) -> Option<Duration> {
    pods.into_iter().filter_map(|p| until_available(p, min_ready)).filter(|left| !left.is_zero()).min()
}

/// Orders pods for scaling down: those whose loss hurts least come first. `crowd` counts a pod's siblings on its node.
pub fn sort_for_deletion(pods: &mut [Arc<CachedPod>], crowd: impl Fn(&CachedPod) -> usize) {
    let phase_rank = |pod: &CachedPod| match pod.phase {
        "Running" => 2,
        "Pending" => 0,
        _ => 1,
    };
    // Ages are compared by magnitude, so that among equals of about the same age the UID decides.
    let age = |time: Option<&Time>| time.map_or(u32::MAX, |t| clock::since(t).as_secs().max(1).ilog2());
    pods.sort_by_cached_key(|pod| {
        (
            !pod.node.is_empty(),
            phase_rank(pod),
            is_ready(pod),
            pod.deletion_cost(),
            Reverse(crowd(pod)),
            if is_ready(pod) { age(ready_since(pod)) } else { 0 },
            Reverse(pod.restarts.1),
            age(pod.created.as_ref()),
            pod.uid.clone(),
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
    use crate::cached_pod::tests::cached;

    #[test]
    fn unassigned_unready_cheap_and_young_pods_go_first() {
        let old = Time(Timestamp::from_second(1).unwrap());
        let pod = |name: &str, node: &str, phase: &str, ready: bool, cost: &str| {
            let status = if ready { "True" } else { "False" };
            cached(json!({
                "metadata": {"name": name, "uid": name, "creationTimestamp": old,
                    "annotations": {"controller.kubernetes.io/pod-deletion-cost": cost}},
                "spec": {"nodeName": node, "containers": []},
                "status": {"phase": phase, "conditions": [{"type": "Ready", "status": status, "lastTransitionTime": old}]},
            }))
        };
        let mut pods = [
            pod("dear", "n", "Running", true, "9"),
            pod("cheap", "n", "Running", true, "-1"),
            pod("unready", "n", "Running", false, "0"),
            pod("pending", "n", "Pending", false, "0"),
            pod("unassigned", "", "Pending", false, "0"),
        ];
        sort_for_deletion(&mut pods, |_| 0);
        let names: Vec<_> = pods.iter().map(|p| &*p.name).collect();
        assert_eq!(names, ["unassigned", "pending", "unready", "cheap", "dear"]);
    }
}
