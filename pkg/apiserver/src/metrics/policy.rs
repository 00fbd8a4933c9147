//! Metrics of expressions and of the policies made of them.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use kube1_telemetry::metrics::shared;

use super::{Counters, Histograms, Names};

const CHECK: Names = &["policy", "policy_binding", "error_type", "enforcement_action"];
const CHECK_TIMES: &[f64] = &[0.000_000_5, 0.001, 0.01, 0.1, 1.0];
const TIMES: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    let name = |name: &str| format!("apiserver_validating_admission_policy_check_{name}");
    shared(|r| Metrics {
        checks: r.counters(
            name("total").trim_end_matches("_total"),
            "Validation admission policy checks, labeled by policy, binding and enforcement action taken",
            CHECK,
        ),
        check_times: r.histograms(
            &name("duration_seconds"),
            "Validation admission latency for individual validation expressions in seconds",
            CHECK,
            CHECK_TIMES,
        ),
        compilation: r.histograms(
            "apiserver_cel_compilation_duration_seconds",
            "CEL compilation time in seconds",
            &[],
            TIMES,
        ),
        evaluation: r.histograms(
            "apiserver_cel_evaluation_duration_seconds",
            "CEL evaluation time in seconds",
            &[],
            TIMES,
        ),
    })
});

struct Metrics {
    checks: Counters,
    check_times: Histograms,
    compilation: Histograms,
    evaluation: Histograms,
}

/// Makes the metrics known before anything is counted.
pub fn show() {
    LazyLock::force(&METRICS);
}

/// Notes the time in which `work` compiles expressions.
pub fn compiled<T>(work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let done = work();
    METRICS.compilation.observe(&[], started.elapsed().as_secs_f64());
    done
}

/// Notes the time that an expression took.
pub fn evaluated(took: Duration) {
    METRICS.evaluation.observe(&[], took.as_secs_f64());
}

/// Notes that a validation of a policy was evaluated and what came of it.
pub fn checked(policy: &str, binding: &str, error: &str, action: &str, took: Duration) {
    let labels = [policy, binding, error, action];
    METRICS.checks.inc(&labels);
    METRICS.check_times.observe(&labels, took.as_secs_f64());
}
