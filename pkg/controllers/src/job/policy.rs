//! The failure and success policies of Jobs.

use k8s_openapi::api::batch::v1::{JobSpec, PodFailurePolicyRule};
use kube1_client::Keep;

use super::index::Indexes;
use crate::cached_pod::CachedPod;

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
pub fn judge(spec: &JobSpec, pod: &CachedPod) -> Failure {
    let rules = spec.pod_failure_policy.as_ref().map(|p| p.rules.as_slice()).unwrap_or_default();
    if pod.phase != "Failed" {
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
fn matches(rule: &PodFailurePolicyRule, pod: &CachedPod) -> Option<String> {
    let (key, end) = (pod.key(), pod.end()?);
    if let Some(wanted) = &rule.on_exit_codes {
        let fits = |code: i32| code != 0 && (wanted.operator == "In") == wanted.values.contains(&code);
        let named = |container: &String| wanted.container_name.as_ref().is_none_or(|name| name == container);
        let (container, code) = end.exits.iter().find(|(container, code)| named(container) && fits(*code))?;
        return Some(format!("Container {container} for pod {key} failed with exit code {code}"));
    }
    let patterns = rule.on_pod_conditions.iter().flatten();
    let mut found = patterns.filter(|p| {
        let wanted = p.status.as_deref().unwrap_or("True");
        end.conditions.iter().any(|(kind, status)| *kind == p.type_ && status == wanted)
    });
    found.next().map(|p| format!("Pod {key} has condition {}", p.type_))
}

/// The rule by which the succeeded indexes are enough, if there is one.
pub fn success_rule(spec: &JobSpec, succeeded: &Indexes) -> Option<usize> {
    let completions = spec.completions.unwrap_or(0);
    spec.success_policy.as_ref()?.rules.iter().position(|rule| {
        let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
        match &rule.succeeded_indexes {
            Some(text) => {
                let wanted = Indexes::parse(Some(text), completions);
                let have = wanted.len() - wanted.without(succeeded).len();
                count(have) >= rule.succeeded_count.unwrap_or(count(wanted.len()))
            }
            None => rule.succeeded_count.is_some_and(|n| count(succeeded.len()) >= n),
        }
    })
}
