//! When the machine runs short: pods are evicted before the kernel or a full disk picks a victim.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use kube1_client::EventType;

use crate::machine::{self, Filesystem};
use crate::node::{Node, PodEntry};
use crate::pod::{self, PodExt, QosClass};
use crate::status::Verdict;

/// A pod of this priority or higher is never evicted.
const SYSTEM_CRITICAL: i32 = 2_000_000_000;

/// What the node is short of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    pub memory: bool,
    pub disk: bool,
    pub pid: bool,
}

/// What the node is short of now.
pub fn current(node: &Node) -> Pressure {
    let limits = &node.config.eviction;
    let known = |key: &str| machine::meminfo(key).and_then(|bytes| u64::try_from(bytes).ok());
    let memory =
        known("MemAvailable").zip(known("MemTotal")).is_some_and(|(left, all)| limits.memory_is_short(left, all));
    let disk = machine::filesystem(&node.config.data_dir).is_some_and(|disk: Filesystem| {
        limits.disk_is_short(disk.available, disk.capacity) || limits.inodes_are_short(disk.inodes_free, disk.inodes)
    });
    Pressure { memory, disk, pid: few_pids_left() }
}

fn few_pids_left() -> bool {
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let loadavg = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    // The fourth field is RUNNING/ALL.
    let all =
        loadavg.split_whitespace().nth(3).and_then(|f| f.split_once('/')).and_then(|(_, all)| all.parse::<u64>().ok());
    all.zip(number("/proc/sys/kernel/pid_max")).is_some_and(|(all, max)| all > max / 20 * 19)
}

/// Evicts one pod if the node is short of something that ending a pod gives back.
pub fn relieve(node: &Node) {
    let pressure = current(node);
    let signal = if pressure.memory { "memory.available" } else { "nodefs.available" };
    let (resource, what) = match (pressure.memory, pressure.disk) {
        (true, _) => ("memory", machine::meminfo("MemAvailable").unwrap_or(0)),
        (_, true) => {
            let disk = machine::filesystem(&node.config.data_dir).unwrap_or_default();
            ("ephemeral-storage", i64::try_from(disk.available).unwrap_or(0))
        }
        _ => return,
    };
    let Some(victim) = victim(node) else { return };
    let pod = victim.pod();
    let message = format!("The node was low on resource: {resource}. Available: {what} bytes. ");
    tracing::warn!(pod = %pod.full_name(), resource, "evicting a pod");
    node.recorder.event(pod.as_ref(), EventType::Warning, "Evicted", message.clone());
    let verdict = Verdict { reason: "Evicted".to_owned(), message };
    node.meters.evictions.add(&format!("eviction_signal=\"{signal}\""), 1.0);
    victim.update.send_modify(|update| update.evicted = Some(verdict));
}

/// The pod that goes first: one that uses more than it asked for, of the lowest priority, with the largest excess.
fn victim(node: &Node) -> Option<Arc<PodEntry>> {
    let candidates = node.pods.all().into_iter().filter(|entry| {
        let pod = entry.pod();
        let critical = pod.is_static() || pod.spec().priority.is_some_and(|p| p >= SYSTEM_CRITICAL);
        entry.is_active() && !critical && !entry.ended.load(Ordering::Relaxed)
    });
    candidates.max_by_key(|entry| {
        let pod = entry.pod();
        let class = pod::qos_class(pod.spec());
        let used = node.cgroups.working_set(class, pod.uid()).and_then(|u| i64::try_from(u).ok()).unwrap_or(0);
        let excess = used - pod::total_request(pod.spec(), "memory").units();
        let exceeds = excess > 0 || class == QosClass::BestEffort;
        (exceeds, std::cmp::Reverse(pod.spec().priority.unwrap_or(0)), excess)
    })
}
