//! CronJobs: a Job whenever a schedule is due.

pub(crate) mod schedule;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube1_client::{EventType, Informer, ObjectKey, Outcome, WorkQueue};
use kube1_supervisor::BoxError;

use crate::controller::{
    Controller, Reconcile, SyncError, SyncResult, is_already_exists, is_namespace_terminating, namespaced,
    replace_status, unless_gone,
};
use crate::job::plan::condition;
use crate::metrics;
use crate::owner::{self, BY_CONTROLLER, controller_key, reference};
use crate::pod_control::reason;
use schedule::{Schedule, ScheduleError};

const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// More missed starts than this are told of: a clock or a deadline is probably wrong.
const MISSED_MAX: usize = 100;

/// Runs the controller of CronJobs.
pub async fn run(controller: Controller) -> Result<(), BoxError> {
    let (crons, jobs) = (controller.informers.all::<CronJob>(), controller.informers.all::<Job>());
    owner::index(&jobs);
    if !controller.synced(&[&crons, &jobs]).await {
        return Ok(());
    }
    let queue = WorkQueue::new();
    controller.watch(&jobs, &queue, |event| controller_key::<CronJob>(&**event.object()));
    controller.watch_own(&crons, &queue);
    let starter = Starter { controller: controller.clone(), crons, jobs };
    controller.keep(&queue, 4, starter).await;
    Ok(())
}

struct Starter {
    controller: Controller,
    crons: Informer<CronJob>,
    jobs: Informer<Job>,
}

/// A Job's end: whether it succeeded.
fn end(job: &Job) -> Option<bool> {
    let status = job.status.as_ref()?;
    condition(status, "Complete").map(|_| true).or_else(|| condition(status, "Failed").map(|_| false))
}

fn job_ref(job: &Job) -> ObjectReference {
    ObjectReference {
        api_version: Some("batch/v1".into()),
        kind: Some("Job".into()),
        namespace: job.metadata.namespace.clone(),
        name: job.metadata.name.clone(),
        uid: job.metadata.uid.clone(),
        resource_version: job.metadata.resource_version.clone(),
        ..ObjectReference::default()
    }
}

impl Reconcile<ObjectKey> for Starter {
    async fn sync(&self, key: ObjectKey) -> SyncResult {
        let Some(cron) = self.crons.get(&key) else { return Ok(Outcome::Done) };
        let spec = &cron.spec;
        let jobs = self.jobs.by_index(BY_CONTROLLER, owner::uid(&cron.metadata));
        let mut status = cron.status.clone().unwrap_or_default();
        self.follow(&cron, &jobs, &mut status);
        self.clean_history(&cron, spec, &jobs).await?;
        let next = if cron.metadata.deletion_timestamp.is_some() || spec.suspend == Some(true) {
            Ok(None)
        } else {
            self.start_due(&cron, spec, &jobs, &mut status).await
        };
        self.report(&cron, status).await?;
        Ok(next?.map_or(Outcome::Done, Outcome::RequeueAfter))
    }
}

impl Starter {
    /// Brings the list of active Jobs up to date.
    fn follow(&self, cron: &CronJob, jobs: &[Arc<Job>], status: &mut CronJobStatus) {
        let recorder = &self.controller.recorder;
        let mut active = status.active.take().unwrap_or_default();
        active.retain(|listed| {
            let job = jobs.iter().find(|j| j.metadata.uid == listed.uid);
            let name = listed.name.as_deref().unwrap_or_default();
            match job.map(|job| end(job)) {
                Some(None) => return true,
                Some(Some(succeeded)) => {
                    let how = if succeeded { "Complete" } else { "Failed" };
                    let message = format!("Saw completed job: {name}, condition: {how}");
                    recorder.event(cron, EventType::Normal, "SawCompletedJob", message);
                }
                None => {
                    let message = format!("Active job went missing: {name}");
                    recorder.event(cron, EventType::Normal, "MissingJob", message);
                }
            }
            false
        });
        for job in jobs.iter().filter(|j| end(j).is_none()) {
            if !active.iter().any(|a| a.uid == job.metadata.uid) {
                active.push(job_ref(job));
            }
        }
        let completed =
            jobs.iter().filter(|j| end(j) == Some(true)).filter_map(|j| j.status.as_ref()?.completion_time.clone());
        status.last_successful_time = completed.max().max(status.last_successful_time.take());
        status.active = (!active.is_empty()).then_some(active);
    }

    /// Deletes the oldest ended Jobs beyond the limits.
    async fn clean_history(&self, cron: &CronJob, spec: &CronJobSpec, jobs: &[Arc<Job>]) -> Result<(), SyncError> {
        let limits = [(true, spec.successful_jobs_history_limit), (false, spec.failed_jobs_history_limit)];
        for (succeeded, limit) in limits {
            let Some(limit) = limit.and_then(|l| usize::try_from(l).ok()) else { continue };
            let mut ended: Vec<_> = jobs.iter().filter(|j| end(j) == Some(succeeded)).collect();
            ended.sort_by_key(|j| (j.status.as_ref().and_then(|s| s.start_time.clone()), j.metadata.name.clone()));
            for job in ended.iter().take(ended.len().saturating_sub(limit)) {
                if job.metadata.deletion_timestamp.is_none() {
                    self.delete(cron, job).await?;
                }
            }
        }
        Ok(())
    }

    async fn delete(&self, cron: &CronJob, job: &Job) -> Result<(), SyncError> {
        let key = ObjectKey::of(job);
        let same = Preconditions { uid: job.metadata.uid.clone(), resource_version: None };
        let params = DeleteParams::background().preconditions(same);
        unless_gone(namespaced::<Job>(&self.controller.client, &key.namespace).delete(&key.name, &params).await)?;
        let message = format!("Deleted job {}", key.name);
        self.controller.recorder.event(cron, EventType::Normal, "SuccessfulDelete", message);
        Ok(())
    }

    /// Starts the Job that is due, if there is one; returns when to look again.
    async fn start_due(
        &self,
        cron: &CronJob,
        spec: &CronJobSpec,
        jobs: &[Arc<Job>],
        status: &mut CronJobStatus,
    ) -> Result<Option<Duration>, SyncError> {
        let recorder = &self.controller.recorder;
        let schedule = match Schedule::parse(&spec.schedule, spec.time_zone.as_deref()) {
            Ok(schedule) => schedule,
            Err(error) => {
                let reason = match error {
                    ScheduleError::Schedule(_) => "UnparseableSchedule",
                    ScheduleError::Zone(_) => "UnknownTimeZone",
                };
                recorder.event(cron, EventType::Warning, reason, error.to_string());
                return Ok(None);
            }
        };
        let now = Timestamp::now();
        let next = schedule.next(now).and_then(|t| Duration::try_from(t.duration_since(now)).ok());
        // A moment later, so that it is due for certain.
        let next = next.map(|left| left + Duration::from_millis(100));
        let Some((due, missed)) = last_due(cron, spec, status, &schedule, now) else { return Ok(next) };
        if missed > MISSED_MAX {
            let message = format!(
                "too many missed start times ({missed}). Set or decrease .spec.startingDeadlineSeconds or check clock skew"
            );
            recorder.event(cron, EventType::Warning, "TooManyMissedTimes", message);
        }
        let name = job_name(cron, due);
        if jobs.iter().any(|j| j.metadata.name.as_deref() == Some(&name)) {
            status.last_schedule_time = status.last_schedule_time.take().max(Some(Time(due)));
            return Ok(next);
        }
        let active: Vec<_> = jobs.iter().filter(|j| end(j).is_none()).collect();
        match spec.concurrency_policy.as_deref() {
            Some("Forbid") if !active.is_empty() => {
                let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
                recorder.event(cron, EventType::Normal, "JobAlreadyActive", message);
                return Ok(next);
            }
            Some("Replace") => {
                for job in active {
                    self.delete(cron, job).await?;
                }
                status.active = None;
            }
            _ => {}
        }
        self.start(cron, spec, &schedule, due, status).await?;
        Ok(next)
    }

    async fn start(
        &self,
        cron: &CronJob,
        spec: &CronJobSpec,
        schedule: &Schedule,
        due: Timestamp,
        status: &mut CronJobStatus,
    ) -> Result<(), SyncError> {
        let recorder = &self.controller.recorder;
        let namespace = cron.metadata.namespace.as_deref().unwrap_or_default();
        let api = namespaced::<Job>(&self.controller.client, namespace);
        match api.create(&PostParams::default(), &build(cron, spec, schedule, due)).await {
            Ok(job) => {
                metrics::job_created(Duration::try_from(Timestamp::now().duration_since(due)).unwrap_or_default());
                let message = format!("Created job {}", job.metadata.name.as_deref().unwrap_or_default());
                recorder.event(cron, EventType::Normal, "SuccessfulCreate", message);
                status.active.get_or_insert_default().push(job_ref(&job));
            }
            Err(error) if is_already_exists(&error) => {}
            Err(error) if is_namespace_terminating(&error) => return Ok(()),
            Err(error) => {
                let message = format!("Error creating job: {}", reason(&error));
                recorder.event(cron, EventType::Warning, "FailedCreate", message);
                return Err(error.into());
            }
        }
        status.last_schedule_time = Some(Time(due));
        Ok(())
    }

    async fn report(&self, cron: &CronJob, status: CronJobStatus) -> Result<(), SyncError> {
        if cron.status.clone().unwrap_or_default() == status {
            return Ok(());
        }
        let changed = CronJob { status: Some(status), ..cron.clone() };
        let namespace = cron.metadata.namespace.as_deref().unwrap_or_default();
        Ok(unless_gone(replace_status(&namespaced(&self.controller.client, namespace), changed).await)?)
    }
}

/// The last start that is due and not too late, and how many were missed.
fn last_due(
    cron: &CronJob,
    spec: &CronJobSpec,
    status: &CronJobStatus,
    schedule: &Schedule,
    now: Timestamp,
) -> Option<(Timestamp, usize)> {
    let since = status.last_schedule_time.as_ref().or(cron.metadata.creation_timestamp.as_ref())?.0;
    let deadline = spec.starting_deadline_seconds;
    let earliest = deadline.and_then(|s| Timestamp::from_second(now.as_second() - s).ok());
    schedule.last_due(earliest.map_or(since, |e| e.max(since)), now)
}

/// One name for each start, so that it is made once only.
fn job_name(cron: &CronJob, due: Timestamp) -> String {
    format!("{}-{}", cron.metadata.name.as_deref().unwrap_or_default(), due.as_second() / 60)
}

fn build(cron: &CronJob, spec: &CronJobSpec, schedule: &Schedule, due: Timestamp) -> Job {
    let template = &spec.job_template;
    let meta = template.metadata.as_ref();
    let mut annotations = meta.and_then(|m| m.annotations.clone()).unwrap_or_default();
    let at = due.to_zoned(schedule.zone().clone());
    annotations.insert(SCHEDULED.into(), at.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string().replace("+00:00", "Z"));
    Job {
        metadata: ObjectMeta {
            name: Some(job_name(cron, due)),
            namespace: cron.meta().namespace.clone(),
            labels: meta.and_then(|m| m.labels.clone()),
            annotations: Some(annotations),
            owner_references: Some(vec![reference(cron)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}
