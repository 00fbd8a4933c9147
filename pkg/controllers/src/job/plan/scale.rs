//! How many pods a Job is to have, and when.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::super::policy::{self, Failure};
use super::{NewPod, Planner, number_of};
use crate::cached_pod::CachedPod;
use crate::{clock, pods};

/// Delay after the first failure; doubles with each.
const BACKOFF_MIN: Duration = Duration::from_secs(10);
const BACKOFF_MAX: Duration = Duration::from_secs(600);

impl Planner<'_> {
    /// Brings the number of active pods to what is wanted now.
    pub(super) fn scale(&mut self, pods: &[Arc<CachedPod>], indexed: bool) {
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
