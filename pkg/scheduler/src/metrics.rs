//! What the scheduler tells, under upstream's names.

use std::sync::{Arc, LazyLock, Weak};
use std::time::Duration;

use kube1_telemetry::metrics::{Counters, Gauges, Histograms, Names, exponential, look_when_read, shared};
use tokio::time::Instant;

use crate::queue::Queue;
use crate::scheduler::NAME;

static TIMES: [f64; 15] = exponential(0.001, 2.0);
static POINT_TIMES: [f64; 12] = exponential(0.0001, 2.0);
static WHOLE_TIMES: [f64; 20] = exponential(0.01, 2.0);
static ATTEMPTS: [f64; 5] = exponential(1.0, 2.0);
static VICTIMS: [f64; 7] = exponential(1.0, 2.0);
const RESULT: Names = &["result", "profile"];

static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    shared(|r| Metrics {
        attempts: r.counters("scheduler_schedule_attempts", "Attempts to schedule pods, by the result", RESULT),
        times: r.histograms(
            "scheduler_scheduling_attempt_duration_seconds",
            "Scheduling attempt latency in seconds (scheduling algorithm + binding)",
            RESULT,
            &TIMES,
        ),
        algorithm: r.histograms(
            "scheduler_scheduling_algorithm_duration_seconds",
            "Scheduling algorithm latency in seconds",
            &[],
            &TIMES,
        ),
        points: r.histograms(
            "scheduler_framework_extension_point_duration_seconds",
            "Latency for running all plugins of a specific extension point",
            &["extension_point", "status", "profile"],
            &POINT_TIMES,
        ),
        pod_attempts: r.histograms(
            "scheduler_pod_scheduling_attempts",
            "Number of attempts to successfully schedule a pod",
            &[],
            &ATTEMPTS,
        ),
        whole: r.histograms(
            "scheduler_pod_scheduling_sli_duration_seconds",
            "From when a pod enters the scheduling queue until it is scheduled, with all attempts",
            &["attempts"],
            &WHOLE_TIMES,
        ),
        preemptions: r.counters("scheduler_preemption_attempts", "Preemption attempts in the cluster till now", &[]),
        victims: r.histograms("scheduler_preemption_victims", "Number of selected preemption victims", &[], &VICTIMS),
        incoming: r.counters(
            "scheduler_queue_incoming_pods",
            "Number of pods added to scheduling queues by event and queue type",
            &["queue", "event"],
        ),
        pending: r.gauges("scheduler_pending_pods", "Number of pending pods, by the queue type", &["queue"]),
    })
});

struct Metrics {
    attempts: Counters,
    times: Histograms,
    algorithm: Histograms,
    points: Histograms,
    pod_attempts: Histograms,
    whole: Histograms,
    preemptions: Counters,
    victims: Histograms,
    incoming: Counters,
    pending: Gauges,
}

/// How an attempt to schedule a pod ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Scheduled,
    Unschedulable,
    Error,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Unschedulable => "unschedulable",
            Self::Error => "error",
        }
    }
}

/// Notes an attempt that took so long.
pub fn attempted(outcome: Outcome, took: Duration) {
    let labels = [outcome.as_str(), NAME];
    METRICS.attempts.inc(&labels);
    METRICS.times.observe(&labels, took.as_secs_f64());
}

/// Notes a pod that was scheduled, the time since it was first queued and the attempts that it took.
pub fn scheduled(since: Instant, attempts: u32) {
    METRICS.pod_attempts.observe(&[], f64::from(attempts));
    // As upstream, the label's values are bounded.
    let label = if attempts >= 15 { "15+".to_owned() } else { attempts.to_string() };
    METRICS.whole.observe(&[&label], since.elapsed().as_secs_f64());
}

/// Notes what the algorithm took.
pub fn algorithm(took: Duration) {
    METRICS.algorithm.observe(&[], took.as_secs_f64());
}

/// Notes what the plugins of an extension point took, since `started`.
pub fn point(point: &str, fine: bool, started: Instant) {
    let status = if fine { "Success" } else { "Unschedulable" };
    METRICS.points.observe(&[point, status, NAME], started.elapsed().as_secs_f64());
}

/// Notes an attempt to make room, with the pods that had to go if it found any.
pub fn preempted(victims: Option<usize>) {
    METRICS.preemptions.inc(&[]);
    if let Some(victims) = victims {
        METRICS.victims.observe(&[], victims as f64);
    }
}

/// Notes a pod that came into a part of the queue.
pub fn incoming(queue: &str, event: &str) {
    METRICS.incoming.inc(&[queue, event]);
}

/// Shows how many pods wait in `queue` for as long as it is there.
pub fn watch_queue<T: Send + Sync + 'static>(owner: &Arc<T>, queue: fn(&T) -> &Queue) {
    let owner: Weak<T> = Arc::downgrade(owner);
    look_when_read(move || {
        let Some(owner) = owner.upgrade() else { return false };
        for (part, count) in queue(&owner).counts() {
            METRICS.pending.set(&[part], count as f64);
        }
        true
    });
}
