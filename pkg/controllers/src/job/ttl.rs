//! Finished Jobs that ask for it are deleted after a while.

use k8s_openapi::api::batch::v1::Job;
use kube::api::{DeleteParams, Preconditions};
use kube1_client::{ObjectKey, Outcome, WorkQueue};
use kube1_supervisor::BoxError;

use super::plan::{condition, is_finished};
use crate::clock;
use crate::controller::{Controller, SyncResult, namespaced, unless_gone};

/// Runs the controller that deletes finished Jobs.
pub async fn run(controller: Controller) -> Result<(), BoxError> {
    let jobs = controller.informers.all::<Job>();
    let queue = WorkQueue::new();
    controller.watch(&jobs, &queue, |event| {
        let job = event.object();
        let limited = job.spec.as_ref().is_some_and(|s| s.ttl_seconds_after_finished.is_some());
        (limited && is_finished(job)).then(|| ObjectKey::of(&**job))
    });
    let sync = |key: ObjectKey| {
        let (client, jobs) = (controller.client.clone(), jobs.clone());
        async move {
            let Some(job) = jobs.get(&key).filter(|j| j.metadata.deletion_timestamp.is_none()) else {
                return Ok(Outcome::Done);
            };
            let seconds = job.spec.as_ref().and_then(|s| s.ttl_seconds_after_finished);
            let finished =
                job.status.as_ref().and_then(|s| condition(s, "Complete").or_else(|| condition(s, "Failed")));
            let (Some(seconds), Some(at)) = (seconds, finished.and_then(|c| c.last_transition_time.as_ref())) else {
                return Ok(Outcome::Done);
            };
            if let Some(left) = clock::until(at, seconds.into()) {
                return Ok(Outcome::RequeueAfter(left));
            }
            let same = Preconditions {
                uid: job.metadata.uid.clone(),
                resource_version: job.metadata.resource_version.clone(),
            };
            let params = DeleteParams::foreground().preconditions(same);
            unless_gone(namespaced::<Job>(&client, &key.namespace).delete(&key.name, &params).await)?;
            SyncResult::Ok(Outcome::Done)
        }
    };
    controller.work(&queue, 2, sync).await;
    Ok(())
}
