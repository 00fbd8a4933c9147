//! What nodes and containers have used, read from kubelets when somebody asks.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube1_api::status::Status;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::Instant;

use crate::dial;
use crate::server::Server;
use crate::subresource::kubelet_target;

/// So long a sample answers further requests.
const FRESH: Duration = Duration::from_secs(5);
/// An older sample says nothing about the present rate.
const OLDEST: Duration = Duration::from_secs(120);
/// Between the two samples of a node that has none.
const FIRST_WINDOW: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(10);

/// The last two samples of each node that was asked for.
#[derive(Default)]
pub struct ResourceMetrics {
    nodes: Mutex<HashMap<String, Window>>,
}

/// Counters at two times: what lies between them is the usage.
#[derive(Clone)]
pub(super) struct Window {
    from: Arc<Sample>,
    to: Arc<Sample>,
}

struct Sample {
    at: Instant,
    time: Timestamp,
    node: Counters,
    /// By namespace and name of the pod, then by container.
    pods: HashMap<(String, String), HashMap<String, Counters>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counters {
    cpu_nanoseconds: u64,
    memory_bytes: u64,
}

/// Use of processors in billionths of one, and of memory in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Usage {
    pub cpu_nanos: u64,
    pub memory_bytes: u64,
}

impl ResourceMetrics {
    /// The current window of a node. Takes a second when nobody has asked for a while.
    pub(super) async fn window(&self, server: &Server, node: &str) -> Result<Window, Status> {
        let known = self.nodes.lock().get(node).cloned();
        if let Some(window) = known.as_ref().filter(|w| w.to.at.elapsed() < FRESH) {
            return Ok(window.clone());
        }
        let from = match known.map(|w| w.to).filter(|sample| sample.at.elapsed() < OLDEST) {
            Some(sample) => sample,
            None => {
                let first = Arc::new(read(server, node).await?);
                tokio::time::sleep(FIRST_WINDOW).await;
                first
            }
        };
        let window = Window { from, to: Arc::new(read(server, node).await?) };
        let mut nodes = self.nodes.lock();
        nodes.retain(|_, window| window.to.at.elapsed() < OLDEST);
        nodes.insert(node.to_owned(), window.clone());
        Ok(window)
    }
}

impl Window {
    /// When it ends.
    pub(super) fn time(&self) -> Timestamp {
        self.to.time
    }

    pub(super) fn length(&self) -> Duration {
        self.to.at.duration_since(self.from.at)
    }

    pub(super) fn node(&self) -> Option<Usage> {
        self.between(Some(&self.from.node), &self.to.node)
    }

    /// Usage of each container of a pod, in the order of their names; empty when one is too young to tell.
    pub(super) fn pod(&self, namespace: &str, name: &str) -> Vec<(String, Usage)> {
        let key = (namespace.to_owned(), name.to_owned());
        let Some(after) = self.to.pods.get(&key) else { return Vec::new() };
        let before = self.from.pods.get(&key);
        let usage = |(container, to): (&String, &Counters)| {
            let from = before.and_then(|containers| containers.get(container));
            Some((container.clone(), self.between(from, to)?))
        };
        let mut all = after.iter().map(usage).collect::<Option<Vec<_>>>().unwrap_or_default();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        all
    }

    /// A counter that went back belongs to another run of the container.
    fn between(&self, from: Option<&Counters>, to: &Counters) -> Option<Usage> {
        let used = to.cpu_nanoseconds.checked_sub(from?.cpu_nanoseconds)?;
        let nanos = u128::from(used) * 1_000_000_000 / self.length().as_nanos().max(1);
        Some(Usage { cpu_nanos: u64::try_from(nanos).unwrap_or(u64::MAX), memory_bytes: to.memory_bytes })
    }
}

async fn read(server: &Server, node: &str) -> Result<Sample, Status> {
    let (target, _) = kubelet_target(server, node)?;
    let answer = dial::get(&target, "/stats/summary", TIMEOUT).await;
    let answer = answer.map_err(|e| Status::service_unavailable(format!("cannot ask the kubelet of {node}: {e}")))?;
    let at = Instant::now();
    if !answer.status.is_success() {
        let text = format!("the kubelet of {node} answers {} to /stats/summary", answer.status);
        return Err(Status::service_unavailable(text));
    }
    let summary: Value = serde_json::from_slice(&answer.body)
        .map_err(|e| Status::service_unavailable(format!("the kubelet of {node} sends no JSON: {e}")))?;
    Ok(Sample::of(&summary, at))
}

fn counters(stats: &Value) -> Counters {
    Counters {
        cpu_nanoseconds: stats["cpu"]["usageCoreNanoSeconds"].as_u64().unwrap_or(0),
        memory_bytes: stats["memory"]["workingSetBytes"].as_u64().unwrap_or(0),
    }
}

impl Sample {
    fn of(summary: &Value, at: Instant) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let pods = summary["pods"].as_array().into_iter().flatten().map(|pod| {
            let reference = &pod["podRef"];
            let containers = pod["containers"].as_array().into_iter().flatten();
            let containers = containers.map(|c| (text(&c["name"]), counters(c))).collect();
            ((text(&reference["namespace"]), text(&reference["name"])), containers)
        });
        Self { at, time: Timestamp::now(), node: counters(&summary["node"]), pods: pods.collect() }
    }
}

/// What hostile input is tried on: what a kubelet says of its pods.
#[cfg(any(test, fuzzing))]
pub(crate) fn hostile(summary: &Value) {
    let now = Instant::now();
    let sample = Arc::new(Sample::of(summary, now));
    let window = Window { from: Arc::new(Sample::of(&Value::Null, now)), to: Arc::clone(&sample) };
    let _ = (window.node(), window.time());
    for (namespace, name) in sample.pods.keys() {
        let _ = window.pod(namespace, name);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn summary(cpu: u64, containers: &[(&str, u64)]) -> Value {
        let stats = |cpu: u64| json!({"usageCoreNanoSeconds": cpu});
        let containers: Vec<Value> = containers
            .iter()
            .map(|(name, cpu)| json!({"name": name, "cpu": stats(*cpu), "memory": {"workingSetBytes": 4096}}))
            .collect();
        json!({"node": {"cpu": stats(cpu), "memory": {"workingSetBytes": 1 << 30}},
            "pods": [{"podRef": {"namespace": "n", "name": "p"}, "containers": containers}]})
    }

    #[test]
    fn usage_is_what_counters_gained() {
        let start = Instant::now();
        let window = |before: &[(&str, u64)], after: &[(&str, u64)]| Window {
            from: Arc::new(Sample::of(&summary(1_000, before), start)),
            to: Arc::new(Sample::of(&summary(3_000_001_000, after), start + Duration::from_secs(2))),
        };
        let both = window(&[("b", 500), ("a", 0)], &[("b", 1_000_000_500), ("a", 0)]);
        assert_eq!(both.node(), Some(Usage { cpu_nanos: 1_500_000_000, memory_bytes: 1 << 30 }));
        let usage = both.pod("n", "p");
        assert_eq!(usage[0], ("a".to_owned(), Usage { cpu_nanos: 0, memory_bytes: 4096 }));
        assert_eq!(usage[1], ("b".to_owned(), Usage { cpu_nanos: 500_000_000, memory_bytes: 4096 }));
        assert!(both.pod("n", "other").is_empty());
        assert!(window(&[], &[("a", 7)]).pod("n", "p").is_empty(), "a container that just started");
        assert!(window(&[("a", 9)], &[("a", 7)]).pod("n", "p").is_empty(), "a container that was restarted");
    }
}
