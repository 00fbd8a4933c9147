//! The failure and success policies of Jobs.

use std::collections::BTreeSet;

use k8s_openapi::api::batch::v1::{JobSpec, PodFailurePolicyRule};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::index;

/// What a pod's failure means for its Job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    Counts,
    Ignored,
    /// Ends the Job, for this reason.
    EndsJob(String),
    EndsIndex,
}

/// Judges a failed pod by the Job's failure policy.
pub fn judge(spec: &JobSpec, pod: &Pod) -> Failure {
    let rules = spec.pod_failure_policy.as_ref().map(|p| p.rules.as_slice()).unwrap_or_default();
    if pod.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Failed") {
        return Failure::Counts;
    }
    for (number, rule) in rules.iter().enumerate() {
        let Some(what) = matches(rule, pod) else { continue };
        return match rule.action.as_str() {
            "Ignore" => Failure::Ignored,
            "FailIndex" => Failure::EndsIndex,
            "FailJob" => Failure::EndsJob(format!("{what} matching FailJob rule at index {number}")),
            _ => Failure::Counts,
        };
    }
    Failure::Counts
}

/// What of the pod matches a rule.
fn matches(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let (namespace, name) =
        (pod.metadata.namespace.as_deref().unwrap_or_default(), pod.metadata.name.as_deref().unwrap_or_default());
    let status = pod.status.as_ref()?;
    if let Some(wanted) = &rule.on_exit_codes {
        let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
        let mut named = all.filter(|c| wanted.container_name.as_ref().is_none_or(|n| *n == c.name));
        let code = |c: &ContainerStatus| c.state.as_ref()?.terminated.as_ref().map(|t| t.exit_code).filter(|c| *c != 0);
        let fits = |code: i32| (wanted.operator == "In") == wanted.values.contains(&code);
        return named.find_map(|c| {
            let code = code(c).filter(|code| fits(*code))?;
            Some(format!("Container {} for pod {namespace}/{name} failed with exit code {code}", c.name))
        });
    }
    let patterns = rule.on_pod_conditions.iter().flatten();
    let mut found = patterns.filter(|p| {
        let wanted = p.status.as_deref().unwrap_or("True");
        status.conditions.iter().flatten().any(|c| c.type_ == p.type_ && c.status == wanted)
    });
    found.next().map(|p| format!("Pod {namespace}/{name} has condition {}", p.type_))
}

/// The rule by which the succeeded indexes are enough, if there is one.
pub fn success_rule(spec: &JobSpec, succeeded: &BTreeSet<i32>) -> Option<usize> {
    let completions = spec.completions.unwrap_or(0);
    spec.success_policy.as_ref()?.rules.iter().position(|rule| {
        let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
        match &rule.succeeded_indexes {
            Some(text) => {
                let wanted = index::parse(Some(text), completions);
                let have = count(wanted.intersection(succeeded).count());
                have >= rule.succeeded_count.unwrap_or(count(wanted.len()))
            }
            None => rule.succeeded_count.is_some_and(|n| count(succeeded.len()) >= n),
        }
    })
}
