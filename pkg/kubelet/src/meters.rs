//! What the node agent counts and measures of its work, under upstream's names.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ObjectReference, Pod, PodStatus};
use kube1_telemetry::{Counters, Histograms, SECONDS};
use parking_lot::Mutex;

use crate::pod::ContainerKind;

const START: &[f64] = &[
    0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 20.0, 30.0, 45.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0, 480.0,
    600.0, 900.0, 1200.0, 1800.0, 2700.0, 3600.0,
];

/// A node agent's own counts.
pub struct Meters {
    pub pod_start: Histograms,
    pod_start_sli: Histograms,
    pod_start_total: Histograms,
    pod_worker: Histograms,
    relist: Histograms,
    relist_interval: Histograms,
    last_relist: Mutex<Option<Instant>>,
    pub pods_started: Counters,
    pub pods_failed: Counters,
    pub containers_started: Counters,
    pub containers_failed: Counters,
    pub evictions: Counters,
    probes: Counters,
    probe_seconds: Histograms,
}

impl Default for Meters {
    fn default() -> Self {
        Self {
            pod_start: Histograms::new(
                "kubelet_pod_start_duration_seconds",
                "Duration in seconds from kubelet seeing a pod for the first time to the pod starting to run",
                START,
            ),
            pod_start_sli: Histograms::new(
                "kubelet_pod_start_sli_duration_seconds",
                "Duration in seconds to start a pod, excluding time to pull images and run init containers, measured \
                 from pod creation timestamp to when all its containers are reported as started",
                START,
            ),
            pod_start_total: Histograms::new(
                "kubelet_pod_start_total_duration_seconds",
                "Duration in seconds to start a pod since creation, including time to pull images and run init \
                 containers, measured from pod creation timestamp to when all its containers are reported as started",
                START,
            ),
            pod_worker: Histograms::new(
                "kubelet_pod_worker_duration_seconds",
                "Duration in seconds to sync a single pod. Broken down by operation type: create, update, or sync",
                SECONDS,
            ),
            relist: Histograms::new(
                "kubelet_pleg_relist_duration_seconds",
                "Duration in seconds for relisting pods in PLEG.",
                SECONDS,
            ),
            relist_interval: Histograms::new(
                "kubelet_pleg_relist_interval_seconds",
                "Interval in seconds between relisting in PLEG.",
                &[0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 90.0, 120.0, 300.0],
            ),
            last_relist: Mutex::default(),
            pods_started: Counters::new("kubelet_started_pods_total", "Cumulative number of pods started"),
            pods_failed: Counters::new(
                "kubelet_started_pods_errors_total",
                "Cumulative number of errors when starting pods",
            ),
            containers_started: Counters::new(
                "kubelet_started_containers_total",
                "Cumulative number of containers started",
            ),
            containers_failed: Counters::new(
                "kubelet_started_containers_errors_total",
                "Cumulative number of errors when starting containers",
            ),
            evictions: Counters::new("kubelet_evictions", "Cumulative number of pod evictions by eviction signal"),
            probes: Counters::new(
                "prober_probe_total",
                "Cumulative number of a liveness, readiness or startup probe for a container by result.",
            ),
            probe_seconds: Histograms::new(
                "prober_probe_duration_seconds",
                "Duration in seconds for a probe response.",
                SECONDS,
            ),
        }
    }
}

impl Meters {
    /// A pod runs that this node agent has known for `seen`; `pulled` is the time that its images took.
    pub fn pod_runs(&self, pod: &Pod, status: &PodStatus, seen: Duration, pulled: Duration) {
        self.pod_start.observe("", seen.as_secs_f64());
        let Some(created) = &pod.metadata.creation_timestamp else { return };
        let total = jiff::Timestamp::now().duration_since(created.0).as_secs_f64().max(0.0);
        self.pod_start_total.observe("", total);
        let init = status.init_container_statuses.iter().flatten().filter_map(|status| {
            let ended = status.state.as_ref()?.terminated.as_ref()?;
            Some(ended.finished_at.as_ref()?.0.duration_since(ended.started_at.as_ref()?.0).as_secs_f64())
        });
        let elsewhere = init.sum::<f64>() + pulled.as_secs_f64();
        self.pod_start_sli.observe("", (total - elsewhere).max(0.0));
    }

    /// A pod was brought nearer to what is wanted; `first` says that this began it.
    pub fn pod_synced(&self, first: bool, updated: bool, took: Duration) {
        let operation = match (first, updated) {
            (true, _) => "create",
            (_, true) => "update",
            _ => "sync",
        };
        self.pod_worker.observe(&format!("operation_type=\"{operation}\""), took.as_secs_f64());
    }

    pub fn relisted(&self, started: Instant) {
        self.relist.observe("", started.elapsed().as_secs_f64());
        if let Some(last) = self.last_relist.lock().replace(started) {
            self.relist_interval.observe("", started.duration_since(last).as_secs_f64());
        }
    }

    /// A probe was answered with `result`: successful, failed or unknown.
    pub fn probed(&self, object: &ObjectReference, container: &str, kind: &str, result: &str, took: Duration) {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let (namespace, pod, uid) = (text(&object.namespace), text(&object.name), text(&object.uid));
        let of = format!("container=\"{container}\",namespace=\"{namespace}\",pod=\"{pod}\"");
        self.probes.add(&format!("{of},pod_uid=\"{uid}\",probe_type=\"{kind}\",result=\"{result}\""), 1.0);
        self.probe_seconds.observe(&format!("{of},probe_type=\"{kind}\""), took.as_secs_f64());
    }

    /// Forgets what was counted for a pod alone.
    pub fn forget(&self, pod: &Pod) {
        let meta = &pod.metadata;
        let name = |text: &Option<String>| text.clone().unwrap_or_default();
        let of = format!("namespace=\"{}\",pod=\"{}\",", name(&meta.namespace), name(&meta.name));
        self.probes.retain(|labels| !labels.contains(&of));
        self.probe_seconds.retain(|labels| !labels.contains(&of));
    }

    /// What `/metrics` shows.
    pub fn write(&self, out: &mut String) {
        for histograms in [
            &self.pod_start,
            &self.pod_start_sli,
            &self.pod_start_total,
            &self.pod_worker,
            &self.relist,
            &self.relist_interval,
        ] {
            histograms.write(out);
        }
        for counters in
            [&self.pods_started, &self.pods_failed, &self.containers_started, &self.containers_failed, &self.evictions]
        {
            counters.write(out);
        }
    }

    /// What `/metrics/probes` shows.
    pub fn write_probes(&self, out: &mut String) {
        self.probes.write(out);
        self.probe_seconds.write(out);
    }
}

/// Upstream's label for a kind of container.
pub fn container_type(kind: ContainerKind) -> &'static str {
    match kind {
        ContainerKind::Regular => "container",
        ContainerKind::Init | ContainerKind::Sidecar => "init_container",
        ContainerKind::Ephemeral => "ephemeral_container",
    }
}

/// Whether all that a pod begins with has started.
pub fn all_started(pod: &Pod, status: &PodStatus) -> bool {
    let wanted = pod.spec.iter().flat_map(|spec| &spec.containers).count();
    let began = |status: &&k8s_openapi::api::core::v1::ContainerStatus| {
        status.state.as_ref().is_some_and(|state| state.running.is_some() || state.terminated.is_some())
    };
    wanted > 0 && status.container_statuses.iter().flatten().filter(began).count() == wanted
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_start_counts_without_pulls_and_init_containers() {
        let meters = Meters::default();
        let created = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(100);
        let (began, ended) = (created.to_string(), (created + jiff::SignedDuration::from_secs(30)).to_string());
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "creationTimestamp": began},
            "spec": {"containers": [{"name": "c"}]}}))
        .unwrap();
        let status: PodStatus = serde_json::from_value(json!({
            "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                "state": {"running": {}}}],
            "initContainerStatuses": [{"name": "i", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                "state": {"terminated": {"exitCode": 0, "startedAt": began, "finishedAt": ended}}}]}))
        .unwrap();
        assert!(all_started(&pod, &status));
        assert!(!all_started(&pod, &PodStatus::default()));
        meters.pod_runs(&pod, &status, Duration::from_secs(7), Duration::from_secs(50));
        let mut out = String::new();
        meters.write(&mut out);
        let holds = |line: &str| assert!(out.lines().any(|l| l == line), "{line} is missing in {out}");
        holds("kubelet_pod_start_duration_seconds_bucket{le=\"8\"} 1");
        holds("kubelet_pod_start_sli_duration_seconds_bucket{le=\"10\"} 0");
        holds("kubelet_pod_start_sli_duration_seconds_bucket{le=\"30\"} 1");
        holds("kubelet_pod_start_total_duration_seconds_bucket{le=\"60\"} 0");
        holds("kubelet_pod_start_total_duration_seconds_bucket{le=\"120\"} 1");
    }

    #[test]
    fn probes_are_forgotten_with_their_pod() {
        let meters = Meters::default();
        let object = |pod: &str| ObjectReference {
            namespace: Some("n".into()),
            name: Some(pod.into()),
            uid: Some("u".into()),
            ..ObjectReference::default()
        };
        meters.probed(&object("p"), "c", "Liveness", "failed", Duration::from_millis(3));
        meters.probed(&object("pp"), "c", "Readiness", "successful", Duration::from_millis(3));
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n"}})).unwrap();
        meters.forget(&pod);
        let mut out = String::new();
        meters.write_probes(&mut out);
        assert!(!out.contains("pod=\"p\""), "{out}");
        let expected = "prober_probe_total{container=\"c\",namespace=\"n\",pod=\"pp\",pod_uid=\"u\",\
            probe_type=\"Readiness\",result=\"successful\"} 1";
        assert!(out.contains(expected), "{out}");
    }
}
