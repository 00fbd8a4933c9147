//! How a Job ends.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::JobCondition;
use kube1_client::EventType;

use super::super::policy;
use super::{Planner, condition, number_of, set_condition};
use crate::cached_pod::CachedPod;
use crate::clock;

impl Planner<'_> {
    pub(super) fn decide(&mut self, pods: &[Arc<CachedPod>], indexed: bool) {
        let suspended = self.spec.suspend == Some(true);
        if let Some((kind, reason, message)) = self.verdict(indexed, pods) {
            set_condition(&mut self.plan.status, kind, "True", &reason, &message);
        }
        let status = &self.plan.status;
        let ending = condition(status, "FailureTarget").or_else(|| condition(status, "SuccessCriteriaMet")).cloned();
        if let Some(ending) = ending {
            self.plan.delete.append(&mut self.active);
            if self.plan.delete.is_empty() && self.terminating == 0 {
                self.finish(&ending);
            }
        } else if suspended {
            self.plan.discard.append(&mut self.active);
        } else {
            self.scale(pods, indexed);
        }
    }

    /// Whether the Job's end is decided, and how.
    fn verdict(&self, indexed: bool, pods: &[Arc<CachedPod>]) -> Option<(&'static str, String, String)> {
        let status = &self.plan.status;
        if condition(status, "FailureTarget").is_some() || condition(status, "SuccessCriteriaMet").is_some() {
            return None;
        }
        let failed = |reason: &str, message: &str| Some(("FailureTarget", reason.to_owned(), message.to_owned()));
        if let Some(why) = &self.failure {
            return failed("PodFailurePolicy", why);
        }
        // Limits of indexes take the place of the common one.
        let unlimited = self.spec.backoff_limit_per_index.is_some();
        let limit = self.spec.backoff_limit.unwrap_or(if unlimited { i32::MAX } else { 6 });
        if self.failed > limit || self.restarts(pods, limit) {
            return failed("BackoffLimitExceeded", "Job has reached the specified backoff limit");
        }
        if self.deadline().is_some_and(|left| left.is_zero()) {
            return failed("DeadlineExceeded", "Job was active longer than specified deadline");
        }
        let failed_indexes = number_of(self.failed_indexes.len());
        if indexed && self.spec.max_failed_indexes.is_some_and(|max| failed_indexes > max) {
            let message = "Job has exceeded the specified maximal number of failed indexes";
            return failed("MaxFailedIndexesExceeded", message);
        }
        if let Some(rule) = policy::success_rule(self.spec, &self.succeeded_indexes).filter(|_| indexed) {
            return Some(("SuccessCriteriaMet", "SuccessPolicy".into(), format!("Matched rules at index {rule}")));
        }
        let complete = match self.spec.completions {
            Some(completions) if indexed && failed_indexes > 0 => {
                if self.succeeded + failed_indexes >= completions {
                    return failed("FailedIndexes", "Job has failed indexes");
                }
                false
            }
            Some(completions) => self.succeeded >= completions,
            None => self.succeeded > 0 && self.active.is_empty(),
        };
        let message = "Reached expected number of succeeded pods";
        complete.then(|| ("SuccessCriteriaMet", "CompletionsReached".into(), message.into()))
    }

    /// Whether pods that restart in place did so too often.
    fn restarts(&self, pods: &[Arc<CachedPod>], limit: i32) -> bool {
        if self.spec.template.spec.as_ref().and_then(|s| s.restart_policy.as_deref()) != Some("OnFailure") {
            return false;
        }
        let total: i32 = pods.iter().filter(|p| matches!(p.phase, "Running" | "Pending")).map(|p| p.restarts.0).sum();
        if limit == 0 { total > 0 } else { total >= limit }
    }

    /// Time left of the Job's deadline.
    pub(super) fn deadline(&self) -> Option<Duration> {
        if self.spec.suspend == Some(true) {
            return None;
        }
        let seconds = self.spec.active_deadline_seconds?;
        Some(clock::until(self.plan.status.start_time.as_ref()?, seconds).unwrap_or_default())
    }

    fn finish(&mut self, ending: &JobCondition) {
        let (reason, message) = (ending.reason.clone().unwrap_or_default(), ending.message.clone().unwrap_or_default());
        let failed = ending.type_ == "FailureTarget";
        let status = &mut self.plan.status;
        let uncounted = status.uncounted_terminated_pods.as_ref();
        if uncounted.is_some_and(|u| u.failed.is_some() || u.succeeded.is_some()) {
            // Ends are counted first; letting those pods go brings the next look.
            return;
        }
        if failed {
            set_condition(status, "Failed", "True", &reason, &message);
            self.plan.events.push((EventType::Warning, reason_name(&reason), message));
        } else {
            set_condition(status, "Complete", "True", &reason, &message);
            status.completion_time = Some(clock::now());
            self.plan.events.push((EventType::Normal, "Completed", "Job completed".into()));
        }
    }
}

/// Event reasons are those of the conditions.
fn reason_name(reason: &str) -> &'static str {
    const KNOWN: [&str; 5] =
        ["BackoffLimitExceeded", "DeadlineExceeded", "PodFailurePolicy", "MaxFailedIndexesExceeded", "FailedIndexes"];
    KNOWN.into_iter().find(|known| *known == reason).unwrap_or("JobFailed")
}
