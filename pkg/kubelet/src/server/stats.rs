//! What pods and the node use.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use kube1_cri::CriError;
use kube1_cri::v1::{ContainerStats, UInt64Value};
use serde_json::{Value, json};

use super::cadvisor::interfaces;
use super::volumes;
use crate::labels;
use crate::machine;
use crate::node::{Node, PodEntry};
use crate::pod::{self, PodExt};
use crate::psi::{self, Pressure};

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

/// Adds what was waited for to an object with `cpu` and `memory`, as far as the kernel tells.
fn add_pressure(stats: &mut Value, of: impl Fn(&str) -> Option<Pressure>) {
    for (resource, pressure) in psi::RESOURCES.into_iter().filter_map(|r| Some((r, of(r)?))) {
        if stats[resource].is_null() {
            stats[resource] = json!({"time": Timestamp::now().to_string()});
        }
        stats[resource]["psi"] = pressure.to_json();
    }
}

/// What is known of a pod without the runtime.
#[derive(Default)]
struct OnDisk {
    volumes: Vec<Value>,
    /// Bytes of logs by container.
    logs: HashMap<String, u64>,
    /// Bytes of volumes on the node's own disk.
    local: u64,
    network: Value,
    processes: usize,
}

impl OnDisk {
    fn of(node: &Node, entry: &PodEntry) -> Self {
        let (pod, class) = (entry.pod(), pod::qos_class(entry.pod().spec()));
        let disk = machine::filesystem(&node.config.data_dir).unwrap_or_default();
        let volumes = volumes::stats(&node.config, &pod, &disk);
        let local = volumes.iter().filter(|v| v["capacityBytes"] == disk.capacity && v["pvcRef"].is_null());
        let local = local.filter_map(|v| v["usedBytes"].as_u64()).sum();
        let dir = node.config.pod_log_dir(pod.namespace(), pod.name(), pod.uid());
        let logs = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let logs = logs.map(|l| (l.file_name().to_string_lossy().into_owned(), volumes::usage(&l.path()).0)).collect();
        let status = entry.status.lock().clone().unwrap_or_default();
        let ids = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
        let ids = ids.filter_map(|s| Some(s.container_id.as_deref()?.split_once("://")?.1.to_owned()));
        let processes = ids.map(|id| node.cgroups.processes(class, pod.uid(), &id).len()).sum();
        let sandbox = entry.sandbox.lock().clone().filter(|_| !pod.is_host_network());
        let first = sandbox.and_then(|id| node.cgroups.processes(class, pod.uid(), &id).first().copied());
        let devices = first.and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/net/dev")).ok());
        Self { volumes, logs, local, network: devices.map_or(Value::Null, |text| network(&text)), processes }
    }
}

/// The interfaces of a `net/dev` file; `eth0`, or else the first, is the main one.
fn network(devices: &str) -> Value {
    let of = |(name, counts): &(&str, Vec<f64>)| {
        let count = |at: usize| counts.get(at).copied().unwrap_or(0.0) as u64;
        json!({"name": name, "rxBytes": count(0), "rxErrors": count(2), "txBytes": count(8), "txErrors": count(10)})
    };
    let found = interfaces(devices);
    let Some(main) = found.iter().find(|(name, _)| *name == "eth0").or_else(|| found.first()) else {
        return Value::Null;
    };
    let mut stats = of(main);
    stats["time"] = Timestamp::now().to_string().into();
    stats["interfaces"] = found.iter().map(of).collect();
    stats
}

/// How many processes there are and may be.
fn process_limits() -> Value {
    let loadavg = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let now = loadavg.split(' ').nth(3).and_then(|f| f.split_once('/')?.1.parse::<u64>().ok());
    let max = std::fs::read_to_string("/proc/sys/kernel/pid_max").ok().and_then(|m| m.trim().parse::<u64>().ok());
    json!({"time": Timestamp::now().to_string(), "maxpid": max, "curproc": now})
}

/// The Summary of the node's stats API.
pub(super) async fn summary(node: Arc<Node>) -> Result<Value, CriError> {
    let on_disk = tokio::task::spawn_blocking({
        let node = Arc::clone(&node);
        move || node.pods.all().iter().map(|entry| (entry.pod().uid().to_owned(), OnDisk::of(&node, entry))).collect()
    });
    let mut on_disk: HashMap<String, OnDisk> = on_disk.await.unwrap_or_default();
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
        let class = pod::qos_class(pod.spec());
        let OnDisk { volumes, mut logs, local, network, processes } = on_disk.remove(pod.uid()).unwrap_or_default();
        let layers: u64 =
            containers.iter().filter_map(|c| c.writable_layer.as_ref()).map(|l| value(&l.used_bytes)).sum();
        let logged: u64 = logs.values().sum();
        let listed: Vec<Value> = containers
            .iter()
            .map(|stats| {
                let used = stats.writable_layer.as_ref().map_or(0, |l| value(&l.used_bytes));
                let id = stats.attributes.as_ref().map(|a| a.id.as_str());
                let mut shown = json!({
                    "name": label(stats, labels::CONTAINER_NAME),
                    "startTime": pod.status().start_time,
                    "cpu": cpu(stats), "memory": memory(stats), "rootfs": filesystem(used),
                    "logs": filesystem(logs.remove(label(stats, labels::CONTAINER_NAME)).unwrap_or(0)),
                });
                add_pressure(&mut shown, |resource| node.cgroups.pressure(class, pod.uid(), id, resource));
                shown
            })
            .collect();
        let sum = |pick: fn(&ContainerStats) -> u64| containers.iter().map(pick).sum::<u64>();
        let working_set = node.cgroups.working_set(class, pod.uid());
        let mut of_pod = json!({
            "podRef": {"name": pod.name(), "namespace": pod.namespace(), "uid": pod.uid()},
            "startTime": entry.status.lock().as_ref().and_then(|s| s.start_time.clone()),
            "containers": listed,
            "network": network,
            "volume": volumes,
            "ephemeral-storage": filesystem(layers + logged + local),
            "process_stats": {"process_count": processes},
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
        });
        add_pressure(&mut of_pod, |resource| node.cgroups.pressure(class, pod.uid(), None, resource));
        pods.push(of_pod);
    }
    let available = machine::meminfo("MemAvailable").unwrap_or(0);
    let mut summary = json!({
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
            "swap": {
                "time": Timestamp::now().to_string(),
                "swapAvailableBytes": machine::meminfo("SwapFree"),
                "swapUsageBytes": machine::meminfo("SwapTotal").zip(machine::meminfo("SwapFree")).map(|(all, free)| all - free),
            },
            "network": network(&std::fs::read_to_string("/proc/self/net/dev").unwrap_or_default()),
            "rlimit": process_limits(),
            "fs": filesystem(disk.capacity - disk.available),
            "runtime": {"imageFs": filesystem(disk.capacity - disk.available)},
        },
        "pods": pods,
    });
    add_pressure(&mut summary["node"], |resource| node.cgroups.machine_pressure(resource));
    Ok(summary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_main_interface_stands_before_all() {
        let line = |name: &str, first: u64| format!("{name}: {first} 1 2 0 0 0 0 0 8 1 3 0 0 0 0 0\n");
        let text = format!("a\nb\n{}{}{}", line("lo", 9), line("net1", 5), line("eth0", 7));
        let stats = network(&text);
        assert_eq!((&stats["name"], &stats["rxBytes"], &stats["txErrors"]), (&json!("eth0"), &json!(7), &json!(3)));
        assert_eq!(stats["interfaces"].as_array().map(Vec::len), Some(2));
        assert_eq!(network(""), Value::Null);
    }
}
