//! Metrics of authorizers.

use std::time::Duration;

use kube1_telemetry::metrics::Counter;

use crate::metrics::{Counters, Gauges, Histograms, Names, Registrar};

const TIMES: &[f64] = &[0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 1.0, 2.5, 5.0, 10.0, 30.0];
const NAME: Names = &["name"];
const NAMED: Names = &["name", "result"];
const TYPED: Names = &["type", "name"];

/// What is measured of authorizers. Cheap to clone.
#[derive(Clone)]
pub struct AuthorizerMetrics {
    decisions: Counters,
    evaluations: Counters,
    times: Histograms,
    open: Counters,
    excluded: Counters,
    condition_errors: Counters,
    _known: Gauges,
}

impl AuthorizerMetrics {
    pub fn new(r: &mut Registrar) -> Self {
        let decision: Names = &["type", "name", "decision"];
        let name = |name: &str| format!("apiserver_authorization_{name}");
        Self {
            decisions: r.counters(&name("decisions"), "Terminal decisions made by an authorizer", decision),
            evaluations: r.counters(&name("webhook_evaluations"), "Round-trips to authorization webhooks", NAMED),
            times: r.histograms(&name("webhook_duration_seconds"), "Request latency in seconds", NAMED, TIMES),
            open: r.counters(
                &name("webhook_evaluations_fail_open"),
                "NoOpinion results due to webhook timeout or error",
                NAMED,
            ),
            excluded: r.counters(
                &name("match_condition_exclusions"),
                "Exclusions when an authorizer is skipped",
                TYPED,
            ),
            condition_errors: r.counters(
                &name("match_condition_evaluation_errors"),
                "Errors when an authorization webhook encounters a match condition error",
                TYPED,
            ),
            _known: r.gauges(&name("authorizers"), "Authorizers in effect", NAME),
        }
    }

    /// The counter of `allowed` or `denied`.
    pub fn decisions(&self, kind: &str, name: &str, decision: &str) -> Counter {
        self.decisions.at(&[kind, name, decision])
    }

    pub fn webhook(&self, name: &str, result: &str, took: Duration) {
        self.evaluations.inc(&[name, result]);
        self.times.observe(&[name, result], took.as_secs_f64());
    }

    pub fn failed_open(&self, name: &str) {
        self.open.inc(&[name, "error"]);
    }

    pub fn excluded(&self, name: &str) {
        self.excluded.inc(&["Webhook", name]);
    }

    pub fn condition_failed(&self, name: &str) {
        self.condition_errors.inc(&["Webhook", name]);
    }
}
