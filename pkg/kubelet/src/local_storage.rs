//! Pods that use more of the node's disk than they may: of a volume's `sizeLimit`, or of their limits of ephemeral storage.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube1_api::quantity::Quantity;
use kube1_client::EventType;

use crate::labels;
use crate::node::{Node, PodEntry};
use crate::pod::{self, PodExt};
use crate::server::disk_usage;
use crate::status::Verdict;

const RESOURCE: &str = "ephemeral-storage";

/// Bytes that a pod uses.
#[derive(Debug, Default)]
struct Usage {
    empty_dirs: HashMap<String, u64>,
    /// Logs and the writable layer, by container.
    containers: HashMap<String, u64>,
}

/// Evicts the pods that use more than they may. Looks only at pods that have a limit.
pub async fn enforce(node: &Arc<Node>) {
    let active = node.pods.all().into_iter().filter(|entry| entry.is_active());
    let limited: Vec<Arc<PodEntry>> = active.filter(|entry| is_limited(&entry.pod())).collect();
    if limited.is_empty() {
        return;
    }
    let layers =
        if limited.iter().any(|entry| limits_containers(&entry.pod())) { layers(node).await } else { HashMap::new() };
    for entry in limited {
        let (pod, of) = (entry.pod(), Arc::clone(node));
        let looked = tokio::task::spawn_blocking(move || usage(&of, &pod)).await;
        let (pod, Ok(mut usage)) = (entry.pod(), looked) else { continue };
        for ((_, name), bytes) in layers.iter().filter(|((uid, _), _)| uid == pod.uid()) {
            *usage.containers.entry(name.clone()).or_default() += bytes;
        }
        let Some((message, signal)) = excess(&pod, &usage) else { continue };
        tracing::warn!(pod = %pod.full_name(), message, "evicting a pod");
        node.recorder.event(pod.as_ref(), EventType::Warning, "Evicted", message.clone());
        node.meters.evictions.add(&format!("eviction_signal=\"{signal}\""), 1.0);
        let verdict = Verdict { reason: "Evicted".to_owned(), message };
        entry.update.send_modify(|update| update.evicted = Some(verdict));
    }
}

fn is_limited(pod: &Pod) -> bool {
    limits_containers(pod) || size_limits(pod).next().is_some()
}

fn limits_containers(pod: &Pod) -> bool {
    pod::containers(pod.spec()).iter().any(|(_, container)| pod::limit(container, RESOURCE).is_some())
}

/// The empty directories that have a limit, by name.
fn size_limits(pod: &Pod) -> impl Iterator<Item = (&str, Quantity)> {
    pod.spec().volumes.iter().flatten().filter_map(|volume| {
        let limit = Quantity::parse(&volume.empty_dir.as_ref()?.size_limit.as_ref()?.0).ok()?;
        (limit.units() > 0).then_some((volume.name.as_str(), limit))
    })
}

/// Writable layers by the uids of pods and the names of containers.
async fn layers(node: &Node) -> HashMap<(String, String), u64> {
    let stats = node.runtime.container_stats(HashMap::new()).await.unwrap_or_default();
    let of = |stats: kube1_cri::v1::ContainerStats| {
        let labels = stats.attributes?.labels;
        let key = (labels.get(labels::POD_UID)?.clone(), labels.get(labels::CONTAINER_NAME)?.clone());
        Some((key, stats.writable_layer?.used_bytes?.value))
    };
    stats.into_iter().filter_map(of).collect()
}

/// What a pod uses without its containers' layers. Walks through its directories.
fn usage(node: &Node, pod: &Pod) -> Usage {
    let volumes = node.config.pod_dir(pod.uid()).join("volumes/kubernetes.io~empty-dir");
    let logs = node.config.pod_log_dir(pod.namespace(), pod.name(), pod.uid());
    Usage {
        empty_dirs: sizes(&volumes),
        containers: if limits_containers(pod) { sizes(&logs) } else { HashMap::new() },
    }
}

fn sizes(dir: &Path) -> HashMap<String, u64> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().filter(|e| e.path().is_dir());
    entries.map(|e| (e.file_name().to_string_lossy().into_owned(), disk_usage(&e.path()).0)).collect()
}

/// Why a pod must go, in upstream's words, and the name of the limit that it broke.
fn excess(pod: &Pod, usage: &Usage) -> Option<(String, &'static str)> {
    let over = |used: u64, limit: &Quantity| i64::try_from(used).unwrap_or(i64::MAX) > limit.units();
    for (name, limit) in size_limits(pod) {
        if usage.empty_dirs.get(name).is_some_and(|used| over(*used, &limit)) {
            let message = format!("Usage of EmptyDir volume \"{name}\" exceeds the limit \"{limit}\". ");
            return Some((message, "emptydirfs.limit"));
        }
    }
    let limits: Vec<(String, Quantity)> = pod::containers(pod.spec())
        .into_iter()
        .filter_map(|(_, container)| Some((container.name.clone(), pod::limit(&container, RESOURCE)?)))
        .collect();
    if limits.is_empty() {
        return None;
    }
    let of_pod = limits.iter().fold(Quantity::from_units(0), |sum, (_, limit)| sum.plus(*limit));
    let on_disk = pod
        .spec()
        .volumes
        .iter()
        .flatten()
        .filter(|v| v.empty_dir.as_ref().is_some_and(|e| e.medium.as_deref() != Some("Memory")));
    let volumes: u64 = on_disk.filter_map(|v| usage.empty_dirs.get(&v.name)).sum();
    if over(volumes + usage.containers.values().sum::<u64>(), &of_pod) {
        let message = format!("Pod ephemeral local storage usage exceeds the total limit of containers {of_pod}. ");
        return Some((message, "ephemeralpodfs.limit"));
    }
    let broken = limits.iter().find(|(name, limit)| usage.containers.get(name).is_some_and(|used| over(*used, limit)));
    broken.map(|(name, limit)| {
        let message = format!("Container {name} exceeded its local ephemeral storage limit \"{limit}\". ");
        (message, "ephemeralcontainerfs.limit")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_exceeds_a_limit_is_named() {
        let pod: Pod = serde_json::from_value(serde_json::json!({"metadata": {"name": "p"}, "spec": {
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Ki"}}, {"name": "w", "emptyDir": {}},
                {"name": "m", "emptyDir": {"medium": "Memory"}}],
            "containers": [{"name": "a", "resources": {"limits": {"ephemeral-storage": "2Ki"}}},
                {"name": "b", "resources": {"limits": {"ephemeral-storage": "4Ki"}}}],
        }}))
        .expect("a pod");
        for (volumes, containers, expected) in [
            (&[("v", 1024), ("w", 0)][..], &[("a", 2048), ("b", 1000)][..], None),
            (&[("v", 1025)], &[], Some("Usage of EmptyDir volume \"v\" exceeds the limit \"1Ki\". ")),
            (&[("m", 90_000)], &[("a", 1)], None),
            (
                &[("w", 4000)],
                &[("a", 1000), ("b", 1145)],
                Some("Pod ephemeral local storage usage exceeds the total limit of containers 6Ki. "),
            ),
            (&[], &[("a", 2049)], Some("Container a exceeded its local ephemeral storage limit \"2Ki\". ")),
        ] {
            let map = |list: &[(&str, u64)]| list.iter().map(|(name, bytes)| ((*name).to_owned(), *bytes)).collect();
            let usage = Usage { empty_dirs: map(volumes), containers: map(containers) };
            assert_eq!(excess(&pod, &usage).map(|(message, _)| message).as_deref(), expected, "{usage:?}");
        }
    }
}
