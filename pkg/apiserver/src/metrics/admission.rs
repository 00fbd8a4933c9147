//! Metrics of admission.

use std::time::Duration;

use super::{Counters, Histograms, Names, Registrar};

const PLUGINS: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5];
const WEBHOOKS: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0];
const OF_PLUGIN: Names = &["name", "type", "operation", "rejected"];

/// What is measured of admission. Cheap to clone.
#[derive(Clone)]
pub struct AdmissionMetrics {
    plugins: Histograms,
    steps: Histograms,
    webhooks: Histograms,
    requests: Counters,
    rejections: Counters,
    open: Counters,
}

/// One call of a webhook.
#[derive(Clone, Copy)]
pub struct WebhookCall<'a> {
    pub name: &'a str,
    /// `admit` or `validating`.
    pub kind: &'static str,
    pub operation: &'static str,
}

impl AdmissionMetrics {
    pub fn new(r: &mut Registrar) -> Self {
        let plugin = "Admission plugin latency in seconds, by plugin, operation and type";
        let step = "Admission sub-step latency in seconds, by operation and type";
        let webhook = "Admission webhook latency in seconds, by name, operation and type";
        let rejected: Names = &["name", "type", "operation", "error_type", "rejection_code"];
        Self {
            plugins: r.histograms(
                "apiserver_admission_controller_admission_duration_seconds",
                plugin,
                OF_PLUGIN,
                PLUGINS,
            ),
            steps: r.histograms("apiserver_admission_step_admission_duration_seconds", step, &OF_PLUGIN[1..], PLUGINS),
            webhooks: r.histograms(
                "apiserver_admission_webhook_admission_duration_seconds",
                webhook,
                OF_PLUGIN,
                WEBHOOKS,
            ),
            requests: r.counters(
                "apiserver_admission_webhook_request",
                "Admission webhook requests, by name, operation, type and outcome",
                &["name", "type", "operation", "code", "rejected"],
            ),
            rejections: r.counters(
                "apiserver_admission_webhook_rejection_count",
                "Admission webhook rejections",
                rejected,
            ),
            open: r.counters(
                "apiserver_admission_webhook_fail_open_count",
                "Admission webhooks that failed and were ignored",
                &["name", "type"],
            ),
        }
    }

    /// Notes what a plugin took; `kind` is `admit` or `validate`.
    pub fn plugin(&self, name: &str, kind: &str, operation: &str, rejected: bool, took: Duration) {
        self.plugins.observe(&[name, kind, operation, flag(rejected)], took.as_secs_f64());
    }

    /// Notes what all plugins took together.
    pub fn step(&self, kind: &str, operation: &str, rejected: bool, took: Duration) {
        self.steps.observe(&[kind, operation, flag(rejected)], took.as_secs_f64());
    }

    /// Notes a call; `refused` is the code of a refusal, with whether the webhook itself made it.
    pub fn webhook(&self, call: WebhookCall<'_>, refused: Option<(u16, bool)>, took: Duration) {
        let WebhookCall { name, kind, operation } = call;
        let rejected = flag(refused.is_some());
        self.webhooks.observe(&[name, kind, operation, rejected], took.as_secs_f64());
        let code = refused.map_or(200, |(code, _)| code).to_string();
        self.requests.inc(&[name, kind, operation, &code, rejected]);
        if let Some((_, own)) = refused {
            let error = if own { "no_error" } else { "calling_webhook_error" };
            let code = if own { code.as_str() } else { "0" };
            self.rejections.inc(&[name, kind, operation, error, code]);
        }
    }

    /// Notes a webhook whose failure was ignored.
    pub fn failed_open(&self, call: WebhookCall<'_>) {
        self.open.inc(&[call.name, call.kind]);
    }
}

fn flag(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}
