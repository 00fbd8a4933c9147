//! Jobs: pods that run to their end, so many times.

pub(crate) mod index;
pub mod plan;
mod policy;
pub mod ttl;

use std::sync::Arc;

use futures::future::try_join_all;
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use kube::api::{Patch, PatchParams};
use kube::core::Selector;
use kube1_client::{Event, Informer, Keep, ObjectKey, Outcome, WorkQueue};
use kube1_supervisor::BoxError;
use serde_json::json;
use tokio::time::Instant;

use crate::cached_pod::CachedPod;
use crate::controller::{
    Controller, Reconcile, SyncError, SyncResult, is_namespace_terminating, namespaced, replace_status, unless_gone,
};
use crate::metrics::{self, JobAction};
use crate::owner::{self, BY_CONTROLLER, claim, concerned, controller_key, pod_selector, reference, selects};
use crate::pod_control::PodControl;
use crate::pods;
pub use index::INDEX;
pub use plan::FAILURE_COUNT;
use plan::{NewPod, Plan, is_finished};

/// Keeps a pod until its end is counted.
pub const FINALIZER: &str = "batch.kubernetes.io/job-tracking";

/// What there is to look at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Work {
    Job(ObjectKey),
    /// A pod whose Job is gone.
    Orphan(ObjectKey),
}

/// Runs the controller of Jobs.
pub async fn run(controller: Controller) -> Result<(), BoxError> {
    let (jobs, pods) = (controller.informers.all::<Job>(), controller.informers.all::<CachedPod>());
    owner::index(&pods);
    if !controller.synced(&[&jobs, &pods]).await {
        return Ok(());
    }
    let (queue, control) = (WorkQueue::new(), PodControl::new(&controller));
    let (seen, known) = (control.expectations.clone(), jobs.clone());
    controller.watch(&pods, &queue, move |event| {
        seen.observe::<Job, _>(event);
        let pod = event.object();
        let mut work: Vec<Work> =
            concerned(event, &known, |job: &Job, pod| selector_of(job).is_some_and(|s| selects(&s, pod)))
                .into_iter()
                .map(Work::Job)
                .collect();
        if pod.is_tracked() && !matches!(event, Event::Deleted(_)) && is_orphan(&known, pod) {
            work.push(Work::Orphan(pod.key()));
        }
        work
    });
    let known = pods.clone();
    controller.watch(&jobs, &queue, move |event| {
        let job = event.object();
        let mut work = vec![Work::Job(ObjectKey::of(&**job))];
        if matches!(event, Event::Deleted(_)) {
            let left = known.by_index(BY_CONTROLLER, owner::uid(&job.metadata));
            work.extend(left.iter().map(|p| Work::Orphan(p.key())));
        }
        work
    });
    controller.keep(&queue, 8, Keeper { jobs, pods, control }).await;
    Ok(())
}

fn selector_of(job: &Job) -> Option<Selector> {
    pod_selector(job.spec.as_ref()?.selector.as_ref())
}

/// Whether a pod's Job does not exist.
fn is_orphan(jobs: &Informer<Job>, pod: &CachedPod) -> bool {
    let Some(owner) = &pod.owner else { return true };
    let job = controller_key::<Job>(pod).and_then(|key| jobs.get(&key));
    job.is_none_or(|job| job.metadata.uid.as_deref() != Some(&owner.uid))
}

struct Keeper {
    jobs: Informer<Job>,
    pods: Informer<CachedPod>,
    control: PodControl,
}

impl Reconcile<Work> for Keeper {
    async fn sync(&self, work: Work) -> SyncResult {
        match work {
            Work::Job(key) => self.follow(key).await,
            Work::Orphan(key) => self.free(key).await,
        }
    }
}

impl Keeper {
    async fn follow(&self, key: ObjectKey) -> SyncResult {
        let Some(job) = self.jobs.get(&key) else {
            self.control.expectations.forget(&key);
            return Ok(Outcome::Done);
        };
        let (started, mut action) = (Instant::now(), JobAction::Reconciling);
        let synced = self.sync_job(key, &job, &mut action).await;
        metrics::job_synced(completion_mode(&job), synced.is_ok(), action, started.elapsed());
        synced
    }

    /// `action` tells afterwards what was done.
    async fn sync_job(&self, key: ObjectKey, job: &Arc<Job>, action: &mut JobAction) -> SyncResult {
        let (Some(spec), Some(selector)) = (&job.spec, selector_of(job)) else { return Ok(Outcome::Done) };
        if spec.managed_by.as_deref().is_some_and(|by| by != "kubernetes.io/job-controller") {
            return Ok(Outcome::Done);
        }
        let pods = claim(&self.control.client, &**job, &selector, &self.pods).await?;
        for adopted in pods.iter().filter(|p| p.owner.is_none()) {
            self.hold(adopted).await?;
        }
        if is_finished(job) || job.metadata.deletion_timestamp.is_some() {
            *action = JobAction::Tracking;
            let held: Vec<_> = pods.into_iter().filter(|p| p.is_tracked()).collect();
            return self.release(&held).await.map(|()| Outcome::Done);
        }
        let may_act = self.control.expectations.satisfied(&key);
        let mut plan = Plan::new(job, spec, &pods);
        let mut active = plan.active;
        let acted = if may_act {
            *action = match (plan.create.is_empty(), plan.delete.is_empty() && plan.discard.is_empty()) {
                (false, _) => JobAction::PodsCreated,
                (true, false) => JobAction::PodsDeleted,
                (true, true) => JobAction::Reconciling,
            };
            let made = self.act(job, spec, &plan).await;
            active += made.as_ref().copied().unwrap_or(0);
            made.map(drop)
        } else {
            Ok(())
        };
        plan.status.active = i32::try_from(active).ok().filter(|n| *n != 0);
        self.report(job, &plan).await?;
        self.release(&plan.release).await?;
        acted?;
        Ok(plan.requeue.map_or(Outcome::Done, Outcome::RequeueAfter))
    }

    /// Returns how many pods were created.
    async fn act(&self, job: &Job, spec: &JobSpec, plan: &Plan) -> Result<usize, SyncError> {
        self.release(&plan.discard).await?;
        self.control.delete_all(job, &plan.discard).await?;
        self.control.delete_all(job, &plan.delete).await?;
        let pods: Vec<Pod> = plan.create.iter().map(|new| build(job, spec, new)).collect();
        let count = pods.len();
        match self.control.create_all(job, pods).await {
            Err(error) if is_namespace_terminating(&error) => Ok(0),
            created => Ok(created.map(|()| count)?),
        }
    }

    /// Lets pods go whose end is counted, or does not count.
    async fn release(&self, pods: &[Arc<CachedPod>]) -> Result<(), SyncError> {
        let held = pods.iter().filter(|p| p.is_tracked());
        try_join_all(held.map(|pod| self.release_one(pod))).await.map(drop)
    }

    async fn release_one(&self, pod: &CachedPod) -> Result<(), SyncError> {
        let key = pod.key();
        let patch = json!({"metadata": {"uid": pod.uid, "$deleteFromPrimitiveList/finalizers": [FINALIZER]}});
        let api = namespaced::<Pod>(&self.control.client, &key.namespace);
        Ok(unless_gone(api.patch(&key.name, &PatchParams::default(), &Patch::Strategic(patch)).await)?)
    }

    /// Keeps an adopted pod until its end is counted, like those that the Job made.
    async fn hold(&self, pod: &CachedPod) -> Result<(), SyncError> {
        let key = pod.key();
        let patch = json!({"metadata": {"uid": pod.uid, "finalizers": [FINALIZER]}});
        let api = namespaced::<Pod>(&self.control.client, &key.namespace);
        Ok(unless_gone(api.patch(&key.name, &PatchParams::default(), &Patch::Strategic(patch)).await)?)
    }

    async fn free(&self, key: ObjectKey) -> SyncResult {
        if let Some(pod) = self.pods.get(&key).filter(|p| p.is_tracked() && is_orphan(&self.jobs, p)) {
            self.release_one(&pod).await?;
        }
        Ok(Outcome::Done)
    }

    async fn report(&self, job: &Job, plan: &Plan) -> Result<(), SyncError> {
        if job.status.as_ref() == Some(&plan.status) {
            return Ok(());
        }
        let changed = Job { status: Some(plan.status.clone()), ..job.clone() };
        let api = namespaced(&self.control.client, job.metadata.namespace.as_deref().unwrap_or_default());
        let replaced = replace_status(&api, changed).await;
        if replaced.is_ok() {
            metrics::job_reported(completion_mode(job), job.status.as_ref(), &plan.status);
        }
        unless_gone(replaced)?;
        for (kind, reason, message) in &plan.events {
            self.control.recorder.event(job, *kind, reason, message.clone());
        }
        Ok(())
    }
}

fn completion_mode(job: &Job) -> &str {
    job.spec.as_ref().and_then(|spec| spec.completion_mode.as_deref()).unwrap_or("NonIndexed")
}

/// A pod of the Job; for an index with its number in name, annotation, label and environment.
fn build(job: &Job, spec: &JobSpec, new: &NewPod) -> Pod {
    let (namespace, name) =
        (job.metadata.namespace.as_deref().unwrap_or_default(), job.metadata.name.as_deref().unwrap_or_default());
    let mut pod = pods::from_template(&spec.template, namespace, name, reference(job));
    pod.metadata.finalizers.get_or_insert_default().push(FINALIZER.into());
    let Some(index) = new.index else { return pod };
    pod.metadata.generate_name = Some(format!("{name}-{index}-"));
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(index::INDEX.into(), index.to_string());
    if let Some(failures) = new.failures {
        annotations.insert(FAILURE_COUNT.into(), failures.to_string());
    }
    pod.metadata.labels.get_or_insert_default().insert(index::INDEX.into(), index.to_string());
    let own = pod.spec.get_or_insert_default();
    own.hostname = Some(format!("{name}-{index}"));
    own.containers.iter_mut().chain(own.init_containers.iter_mut().flatten()).for_each(tell_index);
    pod
}

fn tell_index(container: &mut Container) {
    const NAME: &str = "JOB_COMPLETION_INDEX";
    let env = container.env.get_or_insert_default();
    if env.iter().any(|e| e.name == NAME) {
        return;
    }
    let field = ObjectFieldSelector {
        field_path: format!("metadata.labels['{}']", index::INDEX),
        ..ObjectFieldSelector::default()
    };
    let source = EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() };
    env.push(EnvVar { name: NAME.into(), value_from: Some(source), ..EnvVar::default() });
}
