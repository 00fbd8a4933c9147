//! Metrics in the text format, under upstream's names.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use http::StatusCode;
use k8s_openapi::api::core::v1::ContainerStatus;
use kube1_cri::Calls;
use kube1_cri::v1::ContainerStats;
use kube1_telemetry::{Histogram, write_histograms};

use super::stats::{label, value};
use super::{Reply, text, volumes};
use crate::labels;
use crate::machine;
use crate::node::{Node, PodEntry};
use crate::pod::PodExt;

pub(super) fn reply(metrics: String) -> Reply {
    let mut reply = text(StatusCode::OK, metrics);
    let kind = http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    reply.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    reply
}

/// One family of metrics: header, then a line for each set of labels.
pub(super) fn family(
    out: &mut String,
    name: &str,
    kind: &str,
    help: &str,
    lines: impl IntoIterator<Item = (String, f64)>,
) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for (labels, value) in lines {
        let labels = if labels.is_empty() { labels } else { format!("{{{labels}}}") };
        let _ = writeln!(out, "{name}{labels} {value}");
    }
}

/// The node agent's own metrics.
pub(super) fn kubelet(node: &Node) -> String {
    let pods = node.pods.all();
    let active = pods.iter().filter(|p| p.is_active()).count();
    let mut states: BTreeMap<&str, f64> = BTreeMap::from([("created", 0.0), ("exited", 0.0), ("running", 0.0)]);
    for entry in &pods {
        let status = entry.status.lock();
        for container in status.iter().flat_map(|s| s.container_statuses.iter().flatten()) {
            let state = container.state.as_ref();
            let state = match state.map(|s| (s.running.is_some(), s.terminated.is_some())) {
                Some((true, _)) => "running",
                Some((_, true)) => "exited",
                _ => "created",
            };
            *states.entry(state).or_default() += 1.0;
        }
    }
    let mut out = String::new();
    let name = format!("node=\"{}\"", node.config.node_name);
    family(&mut out, "kubelet_node_name", "gauge", "The node's name. The count is always 1.", [(name, 1.0)]);
    family(
        &mut out,
        "kubelet_running_pods",
        "gauge",
        "Number of pods that have a running pod sandbox",
        [(String::new(), active as f64)],
    );
    let lines = states.into_iter().map(|(state, count)| (format!("container_state=\"{state}\""), count));
    family(&mut out, "kubelet_running_containers", "gauge", "Number of containers currently running", lines);
    let of = |wanted: &dyn Fn(&PodEntry) -> bool, is_static: bool| {
        pods.iter().filter(|p| p.pod().is_static() == is_static && wanted(p)).count() as f64
    };
    let by_source = |wanted: &dyn Fn(&PodEntry) -> bool| {
        [("", false), ("true", true)].map(|(label, kind)| (format!("static=\"{label}\""), of(wanted, kind)))
    };
    let help = "The number of pods the kubelet is being instructed to run. static is true if the pod is not from the apiserver.";
    family(&mut out, "kubelet_desired_pods", "gauge", help, by_source(&|p| !p.update.borrow().removed));
    let help =
        "The number of pods the kubelet considers active and which are being considered when admitting new pods.";
    family(&mut out, "kubelet_active_pods", "gauge", help, by_source(&PodEntry::is_active));
    let mirrors = of(&|p| p.update.borrow().mirror.is_some(), true);
    let help = "The number of mirror pods the kubelet will try to create (one per admitted static pod)";
    family(&mut out, "kubelet_mirror_pods", "gauge", help, [(String::new(), mirrors)]);
    volumes::write(&mut out, &node.config, &pods);
    node.meters.write(&mut out);
    runtime_calls(&mut out, node);
    out.push_str(&kube1_telemetry::build_metrics(node.config.version));
    out.push_str(&kube1_telemetry::process_metrics());
    out
}

/// What the container runtime was asked for.
fn runtime_calls(out: &mut String, node: &Node) {
    let calls = node.runtime.calls();
    let lines = |pick: fn(&Calls) -> f64| -> Vec<(String, f64)> {
        let named = calls.iter().filter(|(_, c)| pick(c) > 0.0);
        named.map(|(name, c)| (format!("operation_type=\"{}\"", operation(name)), pick(c))).collect()
    };
    let help = "Cumulative number of runtime operations by operation type.";
    family(out, "kubelet_runtime_operations_total", "counter", help, lines(|c| c.count as f64));
    let help = "Cumulative number of runtime operation errors by operation type.";
    family(out, "kubelet_runtime_operations_errors_total", "counter", help, lines(|c| c.failed as f64));
    let times: BTreeMap<String, Histogram> = calls
        .iter()
        .map(|(name, c)| {
            let histogram = Histogram::of(&c.buckets, c.count, c.seconds);
            (format!("operation_type=\"{}\"", operation(name)), histogram)
        })
        .collect();
    let name = "kubelet_runtime_operations_duration_seconds";
    write_histograms(out, name, "Duration in seconds of runtime operations.", &Calls::BOUNDS, &times);
}

/// The name that upstream's metrics have for a call of the CRI.
fn operation(call: &str) -> String {
    let mut name = String::new();
    for letter in call.chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name.replace("pod_sandbox", "podsandbox").replace("container_resources", "container")
}

pub(super) fn cpu_seconds(stats: &ContainerStats) -> f64 {
    stats.cpu.as_ref().map_or(0.0, |c| value(&c.usage_core_nano_seconds) as f64 / 1e9)
}

pub(super) fn working_set(stats: &ContainerStats) -> f64 {
    stats.memory.as_ref().map_or(0.0, |m| value(&m.working_set_bytes) as f64)
}

pub(super) fn container_labels(stats: &ContainerStats) -> String {
    let of = |key| label(stats, key);
    format!(
        "container=\"{}\",namespace=\"{}\",pod=\"{}\"",
        of(labels::CONTAINER_NAME),
        of(labels::POD_NAMESPACE),
        of(labels::POD_NAME)
    )
}

fn pod_labels(stats: &ContainerStats) -> String {
    format!("namespace=\"{}\",pod=\"{}\"", label(stats, labels::POD_NAMESPACE), label(stats, labels::POD_NAME))
}

/// What autoscalers and `kubectl top` are fed with.
pub(super) async fn resource(node: &Node) -> String {
    let answer = node.runtime.container_stats(HashMap::new()).await;
    let failed = f64::from(u8::from(answer.is_err()));
    let stats = answer.unwrap_or_default();
    let mut out = String::new();
    let by_container = |pick: fn(&ContainerStats) -> f64| -> Vec<(String, f64)> {
        stats.iter().map(|s| (container_labels(s), pick(s))).collect()
    };
    let by_pod = |pick: fn(&ContainerStats) -> f64| {
        let mut sums: BTreeMap<String, f64> = BTreeMap::new();
        for stats in &stats {
            *sums.entry(pod_labels(stats)).or_default() += pick(stats);
        }
        sums
    };
    let help_cpu = "Cumulative cpu time consumed by the container in core-seconds";
    let help_memory = "Current working set of the container in bytes";
    family(&mut out, "container_cpu_usage_seconds_total", "counter", help_cpu, by_container(cpu_seconds));
    family(&mut out, "container_memory_working_set_bytes", "gauge", help_memory, by_container(working_set));
    let started = node.pods.all();
    let started = started.iter().flat_map(|entry| {
        let (pod, status) = (entry.pod(), entry.status.lock().clone().unwrap_or_default());
        let lists = [status.init_container_statuses, status.container_statuses, status.ephemeral_container_statuses];
        let began = |status: ContainerStatus| {
            let at = status.state?.running?.started_at?.0.as_millisecond() as f64 / 1e3;
            let (namespace, pod) = (pod.namespace(), pod.name());
            Some((format!("container=\"{}\",namespace=\"{namespace}\",pod=\"{pod}\"", status.name), at))
        };
        lists.into_iter().flatten().flatten().filter_map(began).collect::<Vec<_>>()
    });
    let help = "Start time of the container since unix epoch in seconds";
    family(&mut out, "container_start_time_seconds", "gauge", help, started);
    let node_cpu = machine::cpu_nanoseconds().unwrap_or(0) as f64 / 1e9;
    let used = node.machine.memory - machine::meminfo("MemAvailable").unwrap_or(0);
    let help = "Cumulative cpu time consumed by the node in core-seconds";
    family(&mut out, "node_cpu_usage_seconds_total", "counter", help, [(String::new(), node_cpu)]);
    let help = "Current working set of the node in bytes";
    family(&mut out, "node_memory_working_set_bytes", "gauge", help, [(String::new(), used as f64)]);
    if node.machine.swap > 0 {
        let used = machine::meminfo("SwapTotal").unwrap_or(0) - machine::meminfo("SwapFree").unwrap_or(0);
        let help = "Current swap usage of the node in bytes. Reported only on non-windows systems";
        family(&mut out, "node_swap_usage_bytes", "gauge", help, [(String::new(), used as f64)]);
    }
    let help = "Cumulative cpu time consumed by the pod in core-seconds";
    family(&mut out, "pod_cpu_usage_seconds_total", "counter", help, by_pod(cpu_seconds));
    let help = "Current working set of the pod in bytes";
    family(&mut out, "pod_memory_working_set_bytes", "gauge", help, by_pod(working_set));
    let help = "1 if there was an error while getting container metrics, 0 otherwise";
    family(&mut out, "resource_scrape_error", "gauge", help, [(String::new(), failed)]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_the_runtime_are_named_as_upstream_does() {
        let cases = [
            ("RunPodSandbox", "run_podsandbox"),
            ("ListContainers", "list_containers"),
            ("UpdateContainerResources", "update_container"),
            ("ExecSync", "exec_sync"),
            ("Version", "version"),
        ];
        for (call, expected) in cases {
            assert_eq!(operation(call), expected);
        }
    }
}
