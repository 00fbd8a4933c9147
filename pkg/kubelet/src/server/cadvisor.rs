//! What dashboards know from cAdvisor, as far as the runtime, the kernel and the API tell it.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::Pod;
use kube1_cri::v1::ContainerStats;

use super::metrics::{container_labels, cpu_seconds, family, working_set};
use super::stats::value;
use crate::node::Node;
use crate::pod::{self, PodExt};
use crate::psi;
use crate::resources::container_resources;

/// Name, type and help of what is read of pods and containers one by one.
const FAMILIES: [(&str, &str, &str); 23] = [
    ("container_start_time_seconds", "gauge", "Start time of the container since unix epoch in seconds."),
    ("container_processes", "gauge", "Number of processes running inside the container."),
    ("container_spec_memory_limit_bytes", "gauge", "Memory limit for the container; 0 for none."),
    ("container_spec_cpu_shares", "gauge", "CPU share of the container."),
    ("container_spec_cpu_period", "gauge", "CPU period of the container."),
    ("container_spec_cpu_quota", "gauge", "CPU quota of the container."),
    ("container_cpu_cfs_periods_total", "counter", "Number of elapsed enforcement period intervals."),
    ("container_cpu_cfs_throttled_periods_total", "counter", "Number of throttled period intervals."),
    ("container_cpu_cfs_throttled_seconds_total", "counter", "Total time the container has been throttled."),
    (PRESSURE[0].0, "counter", "Total time duration tasks in the container have waited due to CPU congestion."),
    (
        PRESSURE[0].1,
        "counter",
        "Total time duration no tasks in the container could make progress due to CPU congestion.",
    ),
    (PRESSURE[1].0, "counter", "Total time duration tasks in the container have waited due to memory congestion."),
    (
        PRESSURE[1].1,
        "counter",
        "Total time duration no tasks in the container could make progress due to memory congestion.",
    ),
    (PRESSURE[2].0, "counter", "Total time duration tasks in the container have waited due to IO congestion."),
    (
        PRESSURE[2].1,
        "counter",
        "Total time duration no tasks in the container could make progress due to IO congestion.",
    ),
    (NETWORK[0].0, "counter", "Cumulative count of bytes received"),
    (NETWORK[1].0, "counter", "Cumulative count of packets received"),
    (NETWORK[2].0, "counter", "Cumulative count of errors encountered while receiving"),
    (NETWORK[3].0, "counter", "Cumulative count of packets dropped while receiving"),
    (NETWORK[4].0, "counter", "Cumulative count of bytes transmitted"),
    (NETWORK[5].0, "counter", "Cumulative count of packets transmitted"),
    (NETWORK[6].0, "counter", "Cumulative count of errors encountered while transmitting"),
    (NETWORK[7].0, "counter", "Cumulative count of packets dropped while transmitting"),
];
/// Metrics of an interface, and their columns in `/proc/PID/net/dev`.
const NETWORK: [(&str, usize); 8] = [
    ("container_network_receive_bytes_total", 0),
    ("container_network_receive_packets_total", 1),
    ("container_network_receive_errors_total", 2),
    ("container_network_receive_packets_dropped_total", 3),
    ("container_network_transmit_bytes_total", 8),
    ("container_network_transmit_packets_total", 9),
    ("container_network_transmit_errors_total", 10),
    ("container_network_transmit_packets_dropped_total", 11),
];

/// Metrics of waiting in the order of [`psi::RESOURCES`]: when some tasks waited, and when all did.
const PRESSURE: [(&str, &str); 3] = [
    ("container_pressure_cpu_waiting_seconds_total", "container_pressure_cpu_stalled_seconds_total"),
    ("container_pressure_memory_waiting_seconds_total", "container_pressure_memory_stalled_seconds_total"),
    ("container_pressure_io_waiting_seconds_total", "container_pressure_io_stalled_seconds_total"),
];

/// Lines by the name of their family.
#[derive(Default)]
struct Families(BTreeMap<&'static str, Vec<(String, f64)>>);

impl Families {
    fn add(&mut self, name: &'static str, labels: &str, value: f64) {
        self.0.entry(name).or_default().push((labels.to_owned(), value));
    }

    fn write(mut self, out: &mut String) {
        for (name, kind, help) in FAMILIES {
            family(out, name, kind, help, self.0.remove(name).unwrap_or_default());
        }
    }
}

/// What dashboards know from cAdvisor, as far as the runtime tells it.
pub(super) async fn cadvisor(node: &Node) -> String {
    let stats = node.runtime.container_stats(HashMap::new()).await.unwrap_or_default();
    let (mut out, mut known) = (String::new(), Families::default());
    let lines = |pick: fn(&ContainerStats) -> f64| -> Vec<(String, f64)> {
        stats.iter().map(|s| (container_labels(s), pick(s))).collect()
    };
    let memory = |pick: fn(&kube1_cri::v1::MemoryUsage) -> u64| -> Vec<(String, f64)> {
        stats.iter().filter_map(|s| Some((container_labels(s), pick(s.memory.as_ref()?) as f64))).collect()
    };
    let gauge = |out: &mut String, name, help, lines: Vec<(String, f64)>| family(out, name, "gauge", help, lines);
    family(
        &mut out,
        "container_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed in seconds.",
        lines(cpu_seconds),
    );
    gauge(&mut out, "container_memory_working_set_bytes", "Current working set in bytes.", lines(working_set));
    gauge(
        &mut out,
        "container_memory_usage_bytes",
        "Current memory usage in bytes.",
        memory(|m| value(&m.usage_bytes)),
    );
    gauge(&mut out, "container_memory_rss", "Size of RSS in bytes.", memory(|m| value(&m.rss_bytes)));
    let used = |s: &ContainerStats| s.writable_layer.as_ref().map_or(0.0, |l| value(&l.used_bytes) as f64);
    gauge(
        &mut out,
        "container_fs_usage_bytes",
        "Number of bytes that are consumed by the container on this filesystem.",
        lines(used),
    );
    gauge(
        &mut out,
        "machine_cpu_cores",
        "Number of logical CPU cores.",
        vec![(String::new(), node.machine.cpus as f64)],
    );
    gauge(
        &mut out,
        "machine_memory_bytes",
        "Amount of memory installed on the machine.",
        vec![(String::new(), node.machine.memory as f64)],
    );
    for (pod, sandbox) in node.pods.all().iter().filter_map(|e| Some((e.pod(), e.sandbox.lock().clone()?))) {
        of_pod(&mut known, node, &pod, &sandbox);
    }
    known.write(&mut out);
    out
}

/// What is known of a pod's network and of its running containers.
fn of_pod(known: &mut Families, node: &Node, pod: &Pod, sandbox: &str) {
    let labels = format!("namespace=\"{}\",pod=\"{}\"", pod.namespace(), pod.name());
    let class = pod::qos_class(pod.spec());
    let processes = |id: &str| node.cgroups.processes(class, pod.uid(), id);
    if !pod.is_host_network()
        && let Some(first) = processes(sandbox).first()
        && let Ok(devices) = std::fs::read_to_string(format!("/proc/{first}/net/dev"))
    {
        for (interface, counts) in interfaces(&devices) {
            for (name, column) in NETWORK {
                let value = counts.get(column).copied().unwrap_or(0.0);
                known.add(name, &format!("{labels},interface=\"{interface}\""), value);
            }
        }
    }
    let specs = pod::containers(pod.spec());
    let statuses = pod.status();
    let all = [&statuses.init_container_statuses, &statuses.container_statuses, &statuses.ephemeral_container_statuses];
    for status in all.into_iter().flatten().flatten() {
        let Some(running) = status.state.as_ref().and_then(|s| s.running.as_ref()) else { continue };
        let id = status.container_id.as_deref().and_then(|id| id.split_once("://")).map_or("", |(_, id)| id);
        let labels = format!("container=\"{}\",{labels}", status.name);
        if let Some(at) = &running.started_at {
            known.add("container_start_time_seconds", &labels, at.0.as_second() as f64);
        }
        known.add("container_processes", &labels, processes(id).len() as f64);
        for (resource, (waiting, stalled)) in psi::RESOURCES.into_iter().zip(PRESSURE) {
            let Some(pressure) = node.cgroups.pressure(class, pod.uid(), Some(id), resource) else { continue };
            let (some, full) = pressure.seconds();
            known.add(waiting, &labels, some);
            known.add(stalled, &labels, full);
        }
        if let Some((_, spec)) = specs.iter().find(|(_, c)| c.name == status.name) {
            let given = container_resources(pod.spec(), spec, &node.machine);
            known.add("container_spec_memory_limit_bytes", &labels, given.memory_limit_in_bytes as f64);
            known.add("container_spec_cpu_shares", &labels, given.cpu_shares as f64);
            known.add("container_spec_cpu_period", &labels, given.cpu_period as f64);
            if given.cpu_quota > 0 {
                known.add("container_spec_cpu_quota", &labels, given.cpu_quota as f64);
                throttled(known, &labels, &node.cgroups.cpu_stat(class, pod.uid(), id));
            }
        }
    }
}

/// How often and how long a container had to wait for its next share of time.
fn throttled(known: &mut Families, labels: &str, stat: &HashMap<String, u64>) {
    let value = |name: &str| stat.get(name).map(|v| *v as f64);
    // Version 1 counts nanoseconds, version 2 microseconds.
    let seconds = value("throttled_time").map(|n| n / 1e9).or_else(|| value("throttled_usec").map(|u| u / 1e6));
    let counted = [
        ("container_cpu_cfs_periods_total", value("nr_periods")),
        ("container_cpu_cfs_throttled_periods_total", value("nr_throttled")),
        ("container_cpu_cfs_throttled_seconds_total", seconds),
    ];
    for (name, value) in counted {
        if let Some(value) = value {
            known.add(name, labels, value);
        }
    }
}

/// The interfaces but the loopback of a `net/dev` file, with their counters in its order.
pub(super) fn interfaces(text: &str) -> Vec<(&str, Vec<f64>)> {
    let lines = text.lines().skip(2).filter_map(|line| line.split_once(':'));
    let named = lines.map(|(name, counts)| (name.trim(), counts));
    named.filter(|(name, _)| *name != "lo").map(|(name, counts)| (name, numbers(counts))).collect()
}

fn numbers(text: &str) -> Vec<f64> {
    text.split_whitespace().filter_map(|n| n.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_read_without_the_loopback() {
        let text = "Inter-|   Receive        |  Transmit\n face |bytes packets errs |bytes\n    lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n\
                    eth0:1146 13 0 1 0 0 0 0 516 8 2 0 0 0 0 0\n";
        let found = interfaces(text);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].0, found[0].1[0], found[0].1[3], found[0].1[8]), ("eth0", 1146.0, 1.0, 516.0));
    }

    #[test]
    fn throttling_is_in_seconds_on_either_version_of_cgroups() {
        for (name, value) in [("throttled_time", 1_500_000_000), ("throttled_usec", 1_500_000)] {
            let mut known = Families::default();
            let stat = HashMap::from([("nr_periods".to_owned(), 9), (name.to_owned(), value)]);
            throttled(&mut known, "pod=\"p\"", &stat);
            let mut out = String::new();
            known.write(&mut out);
            assert!(out.contains("\ncontainer_cpu_cfs_throttled_seconds_total{pod=\"p\"} 1.5\n"), "{out}");
            assert!(out.contains("\ncontainer_cpu_cfs_periods_total{pod=\"p\"} 9\n"), "{out}");
        }
    }
}
