//! What controllers tell, under upstream's names.

use std::sync::LazyLock;
use std::time::Duration;

use k8s_openapi::api::batch::v1::JobStatus;
use kube1_telemetry::metrics::{Counters, Gauges, Histograms, exponential, shared};

use crate::job::plan::condition;

static SYNC_TIMES: [f64; 15] = exponential(0.004, 2.0);
static SKEWS: [f64; 10] = exponential(1.0, 2.0);

static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    let synced = &["completion_mode", "result", "action"];
    shared(|r| Metrics {
        job_syncs: r.counters("job_controller_job_syncs", "The number of job syncs", synced),
        job_sync_times: r.histograms(
            "job_controller_job_sync_duration_seconds",
            "The time it took to sync a job",
            synced,
            &SYNC_TIMES,
        ),
        jobs_finished: r.counters(
            "job_controller_jobs_finished",
            "The number of finished jobs",
            &["completion_mode", "result", "reason"],
        ),
        job_pods_finished: r.counters(
            "job_controller_job_pods_finished",
            "The number of finished Pods that are fully tracked",
            &["completion_mode", "result"],
        ),
        skew: r.histograms(
            "cronjob_controller_job_creation_skew_duration_seconds",
            "Time between when a cronjob is scheduled to be run, and when the corresponding job is created",
            &[],
            &SKEWS,
        ),
        evictions: r.counters(
            "node_collector_evictions",
            "Number of Node evictions that happened since current instance of NodeController started",
            &["zone"],
        ),
        running: r.gauges(
            "running_managed_controllers",
            "Indicates where instances of a controller are currently running",
            &["name", "manager"],
        ),
    })
});

struct Metrics {
    job_syncs: Counters,
    job_sync_times: Histograms,
    jobs_finished: Counters,
    job_pods_finished: Counters,
    skew: Histograms,
    evictions: Counters,
    running: Gauges,
}

/// Controllers whose work queue upstream calls otherwise.
const QUEUES: [(&str, &str); 26] = [
    ("deployment-controller", "deployment"),
    ("replicaset-controller", "replicaset"),
    ("replicationcontroller-controller", "replicationmanager"),
    ("statefulset-controller", "statefulset"),
    ("daemonset-controller", "daemonset"),
    ("job-controller", "job"),
    ("cronjob-controller", "cronjob"),
    ("ttl-after-finished-controller", "ttl_jobs_to_delete"),
    ("serviceaccount-controller", "serviceaccount"),
    ("serviceaccount-token-controller", "serviceaccount_tokens_service"),
    ("root-ca-certificate-publisher-controller", "root_ca_cert_publisher"),
    ("namespace-controller", "namespace"),
    ("endpoints-controller", "endpoint"),
    ("endpointslice-controller", "endpoint_slice"),
    ("endpointslice-mirroring-controller", "endpoint_slice_mirroring"),
    ("garbage-collector-controller", "garbage_collector_attempt_to_delete"),
    ("node-lifecycle-controller", "node_lifecycle_controller"),
    ("taint-eviction-controller", "noexec_taint_pod"),
    ("certificatesigningrequest-signing-controller", "certificate"),
    ("horizontal-pod-autoscaler-controller", "horizontalpodautoscaler"),
    ("resourcequota-controller", "resourcequota_primary"),
    ("disruption-controller", "disruption"),
    ("persistentvolume-binder-controller", "claims"),
    ("persistentvolumeclaim-protection-controller", "pvcprotection"),
    ("persistentvolume-protection-controller", "pvprotection"),
    ("ephemeral-volume-controller", "ephemeral_volume"),
];

/// Upstream's name of a controller's work queue.
pub fn queue_name(controller: &'static str) -> &'static str {
    QUEUES.iter().find(|(name, _)| *name == controller).map_or(controller, |(_, queue)| queue)
}

/// What was done for a Job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobAction {
    Reconciling,
    Tracking,
    PodsCreated,
    PodsDeleted,
}

impl JobAction {
    fn as_str(self) -> &'static str {
        match self {
            Self::Reconciling => "reconciling",
            Self::Tracking => "tracking",
            Self::PodsCreated => "pods_created",
            Self::PodsDeleted => "pods_deleted",
        }
    }
}

/// Notes a look at a Job.
pub fn job_synced(mode: &str, fine: bool, action: JobAction, took: Duration) {
    let labels = [mode, if fine { "success" } else { "error" }, action.as_str()];
    METRICS.job_syncs.inc(&labels);
    METRICS.job_sync_times.observe(&labels, took.as_secs_f64());
}

/// Notes what a new status of a Job counts that the one before did not.
pub fn job_reported(mode: &str, before: Option<&JobStatus>, after: &JobStatus) {
    let counted = |of: fn(&JobStatus) -> Option<i32>| {
        let (before, after) = (before.and_then(of).unwrap_or(0), of(after).unwrap_or(0));
        u64::try_from(after.saturating_sub(before)).unwrap_or(0)
    };
    for (result, count) in [("succeeded", counted(|s| s.succeeded)), ("failed", counted(|s| s.failed))] {
        if count > 0 {
            METRICS.job_pods_finished.add(&[mode, result], count);
        }
    }
    for (kind, result) in [("Complete", "succeeded"), ("Failed", "failed")] {
        let Some(end) = condition(after, kind) else { continue };
        if before.and_then(|status| condition(status, kind)).is_none() {
            METRICS.jobs_finished.inc(&[mode, result, end.reason.as_deref().unwrap_or_default()]);
        }
    }
}

/// Notes how late a Job of a CronJob was made.
pub fn job_created(late: Duration) {
    METRICS.skew.observe(&[], late.as_secs_f64());
}

/// Notes a node that its pods have to leave.
pub fn node_evicted(zone: &str) {
    METRICS.evictions.inc(&[zone]);
}

/// Notes whether a controller runs.
pub fn running(name: &str, runs: bool) {
    METRICS.running.set(&[name, "kube-controller-manager"], f64::from(u8::from(runs)));
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_ends_of_jobs_and_pods_are_counted_once() {
        let status = |value| serde_json::from_value::<JobStatus>(value).unwrap();
        let ended = status(json!({"succeeded": 3, "failed": 1, "conditions": [{"type": "Complete", "status": "True",
            "reason": "CompletionsReached"}]}));
        job_reported("TestMode", Some(&status(json!({"succeeded": 1, "failed": 1}))), &ended);
        job_reported("TestMode", Some(&ended), &ended);
        let text = kube1_telemetry::metrics::render_shared().unwrap();
        for line in [
            r#"job_controller_job_pods_finished_total{completion_mode="TestMode",result="succeeded"} 2"#,
            r#"job_controller_jobs_finished_total{completion_mode="TestMode",result="succeeded",reason="CompletionsReached"} 1"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        assert!(!text.contains(r#"{completion_mode="TestMode",result="failed"}"#), "{text}");
    }
}
