//! What volumes hold, for metrics and the stats API.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Volume};
use serde_json::{Value, json};

use super::metrics::family;
use crate::config::KubeletConfig;
use crate::machine::{self, Filesystem};
use crate::node::PodEntry;
use crate::pod::PodExt;

/// What a metric tells of a file system.
type Pick = fn(&Filesystem) -> u64;

/// Metrics of claims' volumes.
const CLAIMS: [(&str, &str, Pick); 6] = [
    ("kubelet_volume_stats_capacity_bytes", "Capacity in bytes of the volume", |f| f.capacity),
    ("kubelet_volume_stats_available_bytes", "Number of available bytes in the volume", |f| f.available),
    ("kubelet_volume_stats_used_bytes", "Number of used bytes in the volume", |f| {
        f.capacity.saturating_sub(f.available)
    }),
    ("kubelet_volume_stats_inodes", "Maximum number of inodes in the volume", |f| f.inodes),
    ("kubelet_volume_stats_inodes_free", "Number of free inodes in the volume", |f| f.inodes_free),
    ("kubelet_volume_stats_inodes_used", "Number of used inodes in the volume", |f| {
        f.inodes.saturating_sub(f.inodes_free)
    }),
];

/// A volume that the node has made below a pod's directory.
struct Made {
    plugin: String,
    path: PathBuf,
}

/// The volumes of a pod that have a directory, by their names.
fn made(config: &KubeletConfig, pod: &Pod) -> BTreeMap<String, Made> {
    let entries = |dir: &Path| std::fs::read_dir(dir).into_iter().flatten().flatten();
    let plugins = entries(&config.pod_dir(pod.uid()).join("volumes"));
    let of_plugin = plugins.flat_map(|plugin| {
        let name = plugin.file_name().to_string_lossy().replace('~', "/");
        entries(&plugin.path()).map(move |volume| {
            let made = Made { plugin: name.clone(), path: volume.path() };
            (volume.file_name().to_string_lossy().into_owned(), made)
        })
    });
    of_plugin.collect()
}

/// The claim that a volume stands for.
fn claim(pod: &Pod, volume: &Volume) -> Option<String> {
    let named = volume.persistent_volume_claim.as_ref().map(|source| source.claim_name.clone());
    named.or_else(|| volume.ephemeral.as_ref().map(|_| format!("{}-{}", pod.name(), volume.name)))
}

/// How many volumes of each type there are, and how full those of claims are.
pub(super) fn write(out: &mut String, config: &KubeletConfig, pods: &[Arc<PodEntry>]) {
    let (mut counts, mut claims) = (BTreeMap::<String, f64>::new(), BTreeMap::new());
    for pod in pods.iter().map(|entry| entry.pod()) {
        let made = made(config, &pod);
        for volume in made.values() {
            *counts.entry(volume.plugin.clone()).or_default() += 1.0;
        }
        for volume in pod.spec().volumes.iter().flatten() {
            let (Some(claim), Some(made)) = (claim(&pod, volume), made.get(&volume.name)) else { continue };
            if let Some(filesystem) = machine::filesystem(&made.path) {
                let labels = format!("namespace=\"{}\",persistentvolumeclaim=\"{claim}\"", pod.namespace());
                claims.insert(labels, filesystem);
            }
        }
    }
    let lines = counts.into_iter().flat_map(|(plugin, count)| {
        ["actual_state_of_world", "desired_state_of_world"]
            .map(|state| (format!("plugin_name=\"{plugin}\",state=\"{state}\""), count))
    });
    family(out, "volume_manager_total_volumes", "gauge", "Number of volumes in Volume Manager", lines);
    for (name, help, pick) in CLAIMS {
        family(out, name, "gauge", help, claims.iter().map(|(labels, f)| (labels.clone(), pick(f) as f64)));
    }
}

/// A pod's volumes as the stats API shows them. Walks through those that share the node's disk.
pub(super) fn stats(config: &KubeletConfig, pod: &Pod, node: &Filesystem) -> Vec<Value> {
    let made = made(config, pod);
    let of = |volume: &Volume| {
        let made = made.get(&volume.name)?;
        let filesystem = machine::filesystem(&made.path)?;
        // A file system of its own knows what is in it.
        let own = (filesystem.capacity, filesystem.inodes) != (node.capacity, node.inodes);
        let (bytes, inodes) = if own {
            (filesystem.capacity - filesystem.available, filesystem.inodes - filesystem.inodes_free)
        } else {
            usage(&made.path)
        };
        let mut stats = json!({
            "time": jiff::Timestamp::now().to_string(), "name": volume.name,
            "availableBytes": filesystem.available, "capacityBytes": filesystem.capacity, "usedBytes": bytes,
            "inodes": filesystem.inodes, "inodesFree": filesystem.inodes_free, "inodesUsed": inodes,
        });
        if let Some(name) = claim(pod, volume) {
            stats["pvcRef"] = json!({"name": name, "namespace": pod.namespace()});
        }
        Some(stats)
    };
    pod.spec().volumes.iter().flatten().filter_map(of).collect()
}

/// Bytes and inodes that everything at and below a path takes on its disk. What cannot be read counts nothing.
pub(crate) fn usage(path: &Path) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    let Ok(found) = std::fs::symlink_metadata(path) else { return (0, 0) };
    let (mut bytes, mut inodes) = (found.blocks() * 512, 1);
    if found.is_dir() {
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            let below = usage(&entry.path());
            bytes += below.0;
            inodes += below.1;
        }
    }
    (bytes, inodes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_a_directory_takes_is_counted_without_following_links() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        std::fs::write(dir.path().join("d/f"), vec![1; 100_000]).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("root")).unwrap();
        let (bytes, inodes) = usage(dir.path());
        assert_eq!(inodes, 4);
        assert!((100_000..200_000).contains(&bytes), "{bytes}");
    }
}
