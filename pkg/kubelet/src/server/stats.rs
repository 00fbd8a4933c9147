//! What pods and the node use.

use std::collections::HashMap;

use jiff::Timestamp;
use kube1_cri::CriError;
use kube1_cri::v1::{ContainerStats, UInt64Value};
use serde_json::{Value, json};

use crate::labels;
use crate::machine;
use crate::node::Node;
use crate::pod::{self, PodExt};

pub(super) fn value(value: &Option<UInt64Value>) -> u64 {
    value.as_ref().map_or(0, |v| v.value)
}

fn time(nanoseconds: i64) -> String {
    let at = Timestamp::from_nanosecond(i128::from(nanoseconds)).ok();
    let at = at.and_then(|t| Timestamp::from_second(t.as_second()).ok());
    at.unwrap_or_else(Timestamp::now).to_string()
}

pub(super) fn label<'a>(stats: &'a ContainerStats, key: &str) -> &'a str {
    stats.attributes.as_ref().and_then(|a| a.labels.get(key)).map_or("", String::as_str)
}

fn cpu(stats: &ContainerStats) -> Value {
    let cpu = stats.cpu.unwrap_or_default();
    json!({
        "time": time(cpu.timestamp),
        "usageNanoCores": value(&cpu.usage_nano_cores),
        "usageCoreNanoSeconds": value(&cpu.usage_core_nano_seconds),
    })
}

fn memory(stats: &ContainerStats) -> Value {
    let memory = stats.memory.unwrap_or_default();
    json!({
        "time": time(memory.timestamp),
        "workingSetBytes": value(&memory.working_set_bytes),
        "usageBytes": value(&memory.usage_bytes),
        "rssBytes": value(&memory.rss_bytes),
        "pageFaults": value(&memory.page_faults),
        "majorPageFaults": value(&memory.major_page_faults),
    })
}

/// The Summary of the node's stats API.
pub(super) async fn summary(node: &Node) -> Result<Value, CriError> {
    let all = node.runtime.container_stats(HashMap::new()).await?;
    let mut by_pod: HashMap<String, Vec<ContainerStats>> = HashMap::new();
    for stats in all {
        by_pod.entry(label(&stats, labels::POD_UID).to_owned()).or_default().push(stats);
    }
    let disk = machine::filesystem(&node.config.data_dir).unwrap_or_default();
    let filesystem = |used: u64| {
        json!({
            "availableBytes": disk.available, "capacityBytes": disk.capacity, "usedBytes": used,
            "inodes": disk.inodes, "inodesFree": disk.inodes_free,
        })
    };
    let mut pods = Vec::new();
    for entry in node.pods.all() {
        let pod = entry.pod();
        let Some(containers) = by_pod.get(pod.uid()) else { continue };
        let listed: Vec<Value> = containers
            .iter()
            .map(|stats| {
                let used = stats.writable_layer.as_ref().map_or(0, |l| value(&l.used_bytes));
                json!({
                    "name": label(stats, labels::CONTAINER_NAME),
                    "startTime": pod.status().start_time,
                    "cpu": cpu(stats), "memory": memory(stats), "rootfs": filesystem(used),
                })
            })
            .collect();
        let sum = |pick: fn(&ContainerStats) -> u64| containers.iter().map(pick).sum::<u64>();
        let working_set = node.cgroups.working_set(pod::qos_class(pod.spec()), pod.uid());
        pods.push(json!({
            "podRef": {"name": pod.name(), "namespace": pod.namespace(), "uid": pod.uid()},
            "startTime": entry.status.lock().as_ref().and_then(|s| s.start_time.clone()),
            "containers": listed,
            "cpu": {
                "time": Timestamp::now().to_string(),
                "usageNanoCores": sum(|s| s.cpu.as_ref().map_or(0, |c| value(&c.usage_nano_cores))),
                "usageCoreNanoSeconds": sum(|s| s.cpu.as_ref().map_or(0, |c| value(&c.usage_core_nano_seconds))),
            },
            "memory": {
                "time": Timestamp::now().to_string(),
                "workingSetBytes": working_set,
                "usageBytes": sum(|s| s.memory.as_ref().map_or(0, |m| value(&m.usage_bytes))),
            },
        }));
    }
    let available = machine::meminfo("MemAvailable").unwrap_or(0);
    Ok(json!({
        "node": {
            "nodeName": node.config.node_name,
            "startTime": machine::boot_time().map(|t| t.to_string()),
            "cpu": {"time": Timestamp::now().to_string(), "usageCoreNanoSeconds": machine::cpu_nanoseconds()},
            "memory": {
                "time": Timestamp::now().to_string(),
                "availableBytes": available,
                "workingSetBytes": node.machine.memory - available,
                "usageBytes": node.machine.memory - machine::meminfo("MemFree").unwrap_or(0),
                "rssBytes": machine::meminfo("AnonPages"),
                "pageFaults": machine::page_faults("pgfault"),
                "majorPageFaults": machine::page_faults("pgmajfault"),
            },
            "fs": filesystem(disk.capacity - disk.available),
            "runtime": {"imageFs": filesystem(disk.capacity - disk.available)},
        },
        "pods": pods,
    }))
}
