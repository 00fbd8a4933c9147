//! What is to be done next for a Job, and what it reports.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus, UncountedTerminatedPods};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube1_client::EventType;

use super::index::Indexes;
use super::policy::{self, Failure};
use crate::cached_pod::CachedPod;
use crate::clock;
use crate::pods;

/// Delay after the first failure; doubles with each.
const BACKOFF_MIN: Duration = Duration::from_secs(10);
const BACKOFF_MAX: Duration = Duration::from_secs(600);
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

    fn decide(&mut self, pods: &[Arc<CachedPod>], indexed: bool) {
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
    fn deadline(&self) -> Option<Duration> {
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

    /// Brings the number of active pods to what is wanted now.
    fn scale(&mut self, pods: &[Arc<CachedPod>], indexed: bool) {
        let parallelism = self.spec.parallelism.unwrap_or(1).max(0);
        let active = number_of(self.active.len());
        let wanted = match self.spec.completions {
            Some(completions) => {
                let open = completions - self.succeeded - number_of(self.failed_indexes.len());
                parallelism.min(open.max(0))
            }
            None if self.succeeded > 0 => active.min(parallelism),
            None => parallelism,
        };
        if active > wanted {
            let mut surplus = self.active.clone();
            pods::sort_for_deletion(&mut surplus, |_| 0);
            surplus.truncate(usize::try_from(active - wanted).unwrap_or(0));
            let going = |p: &Arc<CachedPod>| surplus.iter().any(|s| s.uid == p.uid);
            self.active.retain(|p| !going(p));
            self.plan.discard = surplus;
            return;
        }
        let waits = self.spec.pod_replacement_policy.as_deref() == Some("Failed");
        let leaving = if waits { number_of(self.terminating) } else { 0 };
        let missing = usize::try_from(wanted - active - leaving).unwrap_or(0).min(crate::pod_control::BURST);
        if missing == 0 {
            return self.requeue_at_deadline();
        }
        let mut create = if indexed { self.open_indexes(pods) } else { vec![NewPod::default(); missing] };
        create.retain(|new| match backoff(pods, new.index.filter(|_| self.spec.backoff_limit_per_index.is_some())) {
            None => true,
            Some(delay) => {
                self.plan.requeue = Some(self.plan.requeue.map_or(delay, |r| r.min(delay)));
                false
            }
        });
        create.truncate(missing);
        self.plan.create = create;
        self.requeue_at_deadline();
    }

    fn requeue_at_deadline(&mut self) {
        if let Some(left) = self.deadline() {
            self.plan.requeue = Some(self.plan.requeue.map_or(left, |r| r.min(left)));
        }
    }

    /// Indexes that have neither ended nor a pod, the lowest first.
    fn open_indexes(&self, pods: &[Arc<CachedPod>]) -> Vec<NewPod> {
        let waits = self.spec.pod_replacement_policy.as_deref() == Some("Failed");
        let leaving = pods.iter().filter(|p| waits && pods::is_terminating(p) && !pods::is_finished(p));
        let mut taken = self.succeeded_indexes.with(&self.failed_indexes);
        self.active.iter().chain(leaving).filter_map(|p| p.index()).for_each(|index| taken.insert(index));
        let open = taken.absent(self.spec.completions.unwrap_or(0));
        let limited = self.spec.backoff_limit_per_index.is_some();
        let mut before: BTreeMap<i32, i32> = BTreeMap::new();
        for pod in pods.iter().filter(|p| self.is_failed(p)) {
            if let Some(n) = pod.index() {
                let ignored = policy::judge(self.spec, pod) == Failure::Ignored;
                let failures = pod.failures() + i32::from(!ignored);
                before.entry(n).and_modify(|f| *f = (*f).max(failures)).or_insert(failures);
            }
        }
        let failures = |n: i32| limited.then(|| before.get(&n).copied().unwrap_or(0));
        open.take(crate::pod_control::BURST).map(|n| NewPod { index: Some(n), failures: failures(n) }).collect()
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

/// How long to wait with the next pod after failures, of one index or of all; None when it may come now.
fn backoff(pods: &[Arc<CachedPod>], of_index: Option<i32>) -> Option<Duration> {
    let relevant = || pods.iter().filter(|p| of_index.is_none() || p.index() == of_index);
    let ended = |phase: &str| relevant().filter(|p| p.phase == phase).filter_map(|p| end_of(p)).collect::<Vec<_>>();
    let success = ended("Succeeded").into_iter().max();
    let failures: Vec<Timestamp> = ended("Failed").into_iter().filter(|t| success.is_none_or(|s| *t > s)).collect();
    let last = failures.iter().max()?;
    let doublings = u32::try_from(failures.len() - 1).unwrap_or(16).min(16);
    let delay = BACKOFF_MIN.saturating_mul(1 << doublings).min(BACKOFF_MAX);
    clock::until(&Time(*last), i64::try_from(delay.as_secs()).unwrap_or(i64::MAX))
}

/// When a pod ended.
fn end_of(pod: &CachedPod) -> Option<Timestamp> {
    let finished = pod.end()?.finished.as_ref();
    finished.or(pod.deleted.as_ref()).map(|t| t.0)
}

/// Event reasons are those of the conditions.
fn reason_name(reason: &str) -> &'static str {
    const KNOWN: [&str; 5] =
        ["BackoffLimitExceeded", "DeadlineExceeded", "PodFailurePolicy", "MaxFailedIndexesExceeded", "FailedIndexes"];
    KNOWN.into_iter().find(|known| *known == reason).unwrap_or("JobFailed")
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
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::super::FINALIZER;
    use super::*;
    use crate::cached_pod::tests::cached;

    fn job(spec: Value, status: Value) -> Job {
        let mut full = json!({"template": {"spec": {"containers": [], "restartPolicy": "Never"}}});
        full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value(json!({"metadata": {"name": "j"}, "spec": full, "status": status})).unwrap()
    }

    fn pod(uid: &str, phase: &str, index: Option<i32>, held: bool) -> Arc<CachedPod> {
        let finalizers = if held { json!([FINALIZER]) } else { json!([]) };
        let annotations = index.map(|n| json!({super::super::INDEX: n.to_string()}));
        cached(json!({"metadata": {"name": uid, "uid": uid, "finalizers": finalizers,
            "annotations": annotations}, "status": {"phase": phase}}))
    }

    fn plan(job: &Job, pods: &[Arc<CachedPod>]) -> Plan {
        Plan::new(job, job.spec.as_ref().unwrap(), pods)
    }

    #[test]
    fn ends_are_counted_once_and_pods_let_go_after() {
        let job1 = job(json!({"completions": 2, "parallelism": 2}), json!({}));
        assert_eq!(plan(&job1, &[]).create.len(), 2);
        let pods = [pod("a", "Succeeded", None, true), pod("b", "Running", None, true)];
        let first = plan(&job1, &pods);
        assert_eq!((first.release.len(), first.create.len(), first.status.succeeded), (1, 0, None));
        let job2 = Job { status: Some(first.status), ..job1 };
        let second = plan(&job2, &[pod("a", "Succeeded", None, false), pod("b", "Succeeded", None, true)]);
        assert_eq!(second.status.succeeded, Some(1));
        assert!(condition(&second.status, "SuccessCriteriaMet").is_some());
        assert!(condition(&second.status, "Complete").is_none(), "one end is not counted yet");
        let job3 = Job { status: Some(second.status), ..job2 };
        let third = plan(&job3, &[pod("a", "Succeeded", None, false), pod("b", "Succeeded", None, false)]);
        assert_eq!(third.status.succeeded, Some(2));
        assert!(condition(&third.status, "Complete").is_some() && third.status.completion_time.is_some());
    }

    #[test]
    fn indexes_are_filled_from_the_lowest() {
        let spec = json!({"completions": 4, "parallelism": 2, "completionMode": "Indexed"});
        let pods = [pod("a", "Succeeded", Some(0), true), pod("b", "Running", Some(2), true)];
        let next = plan(&job(spec, json!({})), &pods);
        assert_eq!(next.create, [NewPod { index: Some(1), failures: None }]);
        assert_eq!((next.status.completed_indexes.as_deref(), next.status.succeeded), (Some("0"), Some(1)));
    }

    #[test]
    fn indexes_without_number_take_neither_memory_nor_time() {
        let all = format!("0-{}", i32::MAX - 1);
        let spec = json!({"completions": i32::MAX, "parallelism": i32::MAX, "completionMode": "Indexed",
            "successPolicy": {"rules": [{"succeededIndexes": all}]}});
        assert_eq!(plan(&job(spec.clone(), json!({})), &[]).create.len(), crate::pod_control::BURST);
        let ended = plan(&job(spec, json!({"completedIndexes": all})), &[]);
        assert!(condition(&ended.status, "SuccessCriteriaMet").is_some());
    }

    #[test]
    fn a_job_fails_beyond_its_limit_and_its_pods_are_stopped() {
        let failing = job(json!({"completions": 2, "parallelism": 2, "backoffLimit": 0}), json!({}));
        let next = plan(&failing, &[pod("a", "Failed", None, true), pod("b", "Running", None, true)]);
        assert_eq!(condition(&next.status, "FailureTarget").unwrap().reason.as_deref(), Some("BackoffLimitExceeded"));
        assert_eq!((next.delete.len(), next.create.len()), (1, 0));
    }

    #[test]
    fn a_suspended_job_discards_its_pods() {
        let next = plan(&job(json!({"suspend": true}), json!({})), &[pod("a", "Running", None, true)]);
        assert_eq!((next.discard.len(), next.status.start_time.is_none()), (1, true));
        assert!(condition(&next.status, "Suspended").is_some());
    }
}
