//! What is to be done next for a Job, and what it reports.

mod scale;
mod verdict;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus, UncountedTerminatedPods};
use kube1_client::EventType;

use super::index::Indexes;
use super::policy::{self, Failure};
use crate::cached_pod::CachedPod;
use crate::clock;
use crate::pods;

pub const FAILURE_COUNT: &str = "batch.kubernetes.io/job-index-failure-count";

/// A pod to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewPod {
    pub index: Option<i32>,
    /// Earlier failures of the index, when they are limited.
    pub failures: Option<i32>,
}

/// The next steps.
#[derive(Default)]
pub struct Plan {
    pub status: JobStatus,
    pub create: Vec<NewPod>,
    /// Deleted, and their ends counted.
    pub delete: Vec<Arc<CachedPod>>,
    /// Deleted without being counted.
    pub discard: Vec<Arc<CachedPod>>,
    /// To be let go once the status that counts them is written.
    pub release: Vec<Arc<CachedPod>>,
    pub active: usize,
    pub requeue: Option<Duration>,
    pub events: Vec<(EventType, &'static str, String)>,
}

pub fn condition<'a>(status: &'a JobStatus, kind: &str) -> Option<&'a JobCondition> {
    status.conditions.as_ref()?.iter().find(|c| c.type_ == kind && c.status == "True")
}

pub fn is_finished(job: &Job) -> bool {
    job.status.as_ref().is_some_and(|s| condition(s, "Complete").is_some() || condition(s, "Failed").is_some())
}

struct Planner<'a> {
    spec: &'a JobSpec,
    plan: Plan,
    active: Vec<Arc<CachedPod>>,
    terminating: usize,
    /// All ends, counted or about to be.
    succeeded: i32,
    failed: i32,
    succeeded_indexes: Indexes,
    failed_indexes: Indexes,
    /// Why the failure policy ends the Job.
    failure: Option<String>,
}

impl Plan {
    pub fn new(job: &Job, spec: &JobSpec, pods: &[Arc<CachedPod>]) -> Self {
        let status = job.status.clone().unwrap_or_default();
        let completions = spec.completions.unwrap_or(i32::MAX);
        let indexed = spec.completion_mode.as_deref() == Some("Indexed");
        let mut planner = Planner {
            spec,
            active: pods.iter().filter(|p| pods::is_active(p)).cloned().collect(),
            terminating: pods.iter().filter(|p| pods::is_terminating(p) && !pods::is_finished(p)).count(),
            succeeded: 0,
            failed: 0,
            succeeded_indexes: Indexes::parse(status.completed_indexes.as_deref(), completions),
            failed_indexes: Indexes::parse(status.failed_indexes.as_deref(), completions),
            failure: None,
            plan: Self { status, ..Self::default() },
        };
        planner.settle(pods);
        planner.count(pods, indexed);
        planner.start();
        planner.decide(pods, indexed);
        planner.report(indexed);
        planner.plan
    }
}

impl Planner<'_> {
    /// Moves ends whose pods were let go from the list of uncounted ones into the numbers.
    fn settle(&mut self, pods: &[Arc<CachedPod>]) {
        let held: BTreeSet<&str> = pods.iter().filter(|p| p.is_tracked()).map(|p| &*p.uid).collect();
        let Some(mut uncounted) = self.plan.status.uncounted_terminated_pods.take() else { return };
        let settle = |list: &mut Option<Vec<String>>, number: &mut Option<i32>| {
            let all = list.take().unwrap_or_default();
            let (left, done): (Vec<_>, Vec<_>) = all.into_iter().partition(|uid| held.contains(uid.as_str()));
            if !done.is_empty() {
                *number = Some(number.unwrap_or(0) + number_of(done.len()));
            }
            *list = (!left.is_empty()).then_some(left);
        };
        settle(&mut uncounted.succeeded, &mut self.plan.status.succeeded);
        settle(&mut uncounted.failed, &mut self.plan.status.failed);
        self.plan.status.uncounted_terminated_pods = Some(uncounted);
    }

    /// Takes in pods that ended since.
    fn count(&mut self, pods: &[Arc<CachedPod>], indexed: bool) {
        let mut uncounted = self.plan.status.uncounted_terminated_pods.take().unwrap_or_default();
        let listed = |list: &Option<Vec<String>>, uid: &str| list.iter().flatten().any(|u| u == uid);
        for pod in pods.iter().filter(|p| p.is_tracked()) {
            let uid = pod.uid.to_string();
            if pod.phase == "Succeeded" {
                if indexed {
                    pod.index().into_iter().for_each(|index| self.succeeded_indexes.insert(index));
                } else if !listed(&uncounted.succeeded, &uid) {
                    uncounted.succeeded.get_or_insert_default().push(uid);
                }
                self.plan.release.push(Arc::clone(pod));
            } else if self.is_failed(pod) {
                let known = listed(&uncounted.failed, &uid);
                match policy::judge(self.spec, pod) {
                    Failure::Ignored => {}
                    verdict => {
                        if !known {
                            uncounted.failed.get_or_insert_default().push(uid);
                        }
                        self.blame(pod, verdict);
                    }
                }
                self.plan.release.push(Arc::clone(pod));
            }
        }
        let len = |list: &Option<Vec<String>>| number_of(list.as_ref().map_or(0, Vec::len));
        let status = &mut self.plan.status;
        self.failed = status.failed.unwrap_or(0) + len(&uncounted.failed);
        self.succeeded = if indexed {
            number_of(self.succeeded_indexes.len())
        } else {
            status.succeeded.unwrap_or(0) + len(&uncounted.succeeded)
        };
        self.failed_indexes = self.failed_indexes.without(&self.succeeded_indexes);
        status.uncounted_terminated_pods = Some(UncountedTerminatedPods { ..uncounted });
    }

    fn blame(&mut self, pod: &CachedPod, verdict: Failure) {
        let limit = self.spec.backoff_limit_per_index;
        match (verdict, pod.index()) {
            (Failure::EndsJob(why), _) => {
                self.failure.get_or_insert(why);
            }
            (Failure::EndsIndex, Some(index)) if limit.is_some() => {
                self.failed_indexes.insert(index);
            }
            (_, Some(index)) if limit.is_some_and(|limit| pod.failures() >= limit) => {
                self.failed_indexes.insert(index);
            }
            _ => {}
        }
    }

    /// A pod on its way out will not succeed, unless the Job waits for its final phase.
    fn is_failed(&self, pod: &CachedPod) -> bool {
        let waits =
            self.spec.pod_replacement_policy.as_deref() == Some("Failed") || self.spec.pod_failure_policy.is_some();
        pod.phase == "Failed" || (!waits && pods::is_terminating(pod))
    }

    /// Starts the clock of the Job, or says that it is suspended.
    fn start(&mut self) {
        let suspended = self.spec.suspend == Some(true);
        let (status, events) = (&mut self.plan.status, &mut self.plan.events);
        let now_suspended = condition(status, "Suspended").is_some();
        if suspended && !now_suspended {
            set_condition(status, "Suspended", "True", "JobSuspended", "Job suspended");
            events.push((EventType::Normal, "Suspended", "Job suspended".into()));
        }
        if !suspended && now_suspended {
            set_condition(status, "Suspended", "False", "JobResumed", "Job resumed");
            events.push((EventType::Normal, "Resumed", "Job resumed".into()));
            status.start_time = Some(clock::now());
        }
        if !suspended && status.start_time.is_none() {
            status.start_time = Some(clock::now());
        }
    }

    fn report(&mut self, indexed: bool) {
        self.plan.active = self.active.len();
        let status = &mut self.plan.status;
        let some = |n: i32| (n != 0).then_some(n);
        status.ready = Some(number_of(self.active.iter().filter(|p| pods::is_ready(p)).count()));
        status.terminating = Some(number_of(self.terminating));
        if indexed {
            status.succeeded = some(self.succeeded);
            status.completed_indexes = Some(self.succeeded_indexes.to_string()).filter(|t| !t.is_empty());
            if self.spec.backoff_limit_per_index.is_some() {
                status.failed_indexes = Some(self.failed_indexes.to_string());
            }
        }
        if self.plan.delete.is_empty() && self.plan.discard.is_empty() {
            return;
        }
        status.ready = Some(0).filter(|_| self.active.is_empty()).or(status.ready);
    }
}

fn number_of(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

fn set_condition(status: &mut JobStatus, kind: &str, value: &str, reason: &str, message: &str) {
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|c| c.type_ != kind);
    conditions.push(JobCondition {
        type_: kind.to_owned(),
        status: value.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(clock::now()),
        last_transition_time: Some(clock::now()),
    });
}

#[cfg(test)]
mod tests;
