//! Deployments: ReplicaSets per pod template, rolled from the old to the new.

mod condition;
pub mod replica_sets;
mod revision;
mod rollout;
mod scale;
mod status;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet};
use kube1_client::{Event, EventType, Informer, ObjectKey, Outcome, WorkQueue};
use kube1_supervisor::BoxError;

use crate::cached_pod::CachedPod;
use crate::controller::{Controller, Reconcile, SyncError, SyncResult, namespaced, replace_status};
use crate::owner::{self, claim, concerned, controller_key, pod_selector, selector, selects};
use replica_sets::Bounds;
use rollout::Rollout;

const WORKERS: usize = 8;

/// Runs the controller of Deployments.
pub async fn run(controller: Controller) -> Result<(), BoxError> {
    let deployments = controller.informers.all::<Deployment>();
    let (replica_sets, pods) = (controller.informers.all::<ReplicaSet>(), controller.informers.all::<CachedPod>());
    owner::index(&replica_sets);
    owner::index(&pods);
    if !controller.synced(&[&deployments, &replica_sets, &pods]).await {
        return Ok(());
    }
    let queue = WorkQueue::new();
    let known = deployments.clone();
    controller.watch(&replica_sets, &queue, move |event| {
        concerned(event, &known, |d: &Deployment, set| {
            let own = d.spec.as_ref().and_then(|s| pod_selector(Some(&s.selector)));
            own.is_some_and(|s| selects(&s, set))
        })
    });
    let (known, owners) = (deployments.clone(), replica_sets.clone());
    controller.watch(&pods, &queue, move |event| recreated(event, &known, &owners));
    controller.watch_own(&deployments, &queue);
    let deployer = Deployer { controller: controller.clone(), deployments, replica_sets, pods };
    controller.keep(&queue, WORKERS, deployer).await;
    Ok(())
}

/// A Deployment that waits for its old pods to be gone before it makes new ones.
fn recreated(
    event: &Event<CachedPod>,
    deployments: &Informer<Deployment>,
    replica_sets: &Informer<ReplicaSet>,
) -> Option<ObjectKey> {
    let Event::Deleted(pod) = event else { return None };
    let replica_set = replica_sets.get(&controller_key::<ReplicaSet>(&**pod)?)?;
    let key = controller_key::<Deployment>(&*replica_set)?;
    let deployment = deployments.get(&key)?;
    is_recreate(deployment.spec.as_ref()?).then_some(key)
}

fn is_recreate(spec: &DeploymentSpec) -> bool {
    spec.strategy.as_ref().and_then(|s| s.type_.as_deref()) == Some("Recreate")
}

struct Deployer {
    controller: Controller,
    deployments: Informer<Deployment>,
    replica_sets: Informer<ReplicaSet>,
    pods: Informer<CachedPod>,
}

impl Reconcile<ObjectKey> for Deployer {
    async fn sync(&self, key: ObjectKey) -> SyncResult {
        let Some(deployment) = self.deployments.get(&key) else { return Ok(Outcome::Done) };
        let Some(spec) = &deployment.spec else { return Ok(Outcome::Done) };
        let selector = selector(Some(&spec.selector)).unwrap_or_default();
        if selector.selects_all() {
            return self.refuse(&deployment).await;
        }
        let owned = claim(&self.controller.client, &*deployment, &selector, &self.replica_sets).await?;
        let mut rollout = Rollout::new(self, Deployment::clone(&deployment), owned);
        if deployment.metadata.deletion_timestamp.is_some() {
            return rollout.sync_status().await;
        }
        rollout.mark_paused().await?;
        if spec.paused == Some(true) || rollout.is_scaling_event() {
            return rollout.sync_scale().await;
        }
        if is_recreate(spec) { rollout.recreate().await } else { rollout.roll().await }
    }
}

impl Deployer {
    /// A selector that selects everything would take all pods of the namespace.
    async fn refuse(&self, deployment: &Deployment) -> SyncResult {
        let message = "This deployment is selecting all pods. A non-empty selector is required.";
        self.controller.recorder.event(deployment, EventType::Warning, "SelectingAll", message);
        let mut changed = deployment.clone();
        let status = changed.status.get_or_insert_default();
        if status.observed_generation < deployment.metadata.generation {
            status.observed_generation = deployment.metadata.generation;
            let namespace = deployment.metadata.namespace.as_deref().unwrap_or_default();
            replace_status(&namespaced(&self.controller.client, namespace), changed).await?;
        }
        Ok(Outcome::Done)
    }
}

type Result<T, E = SyncError> = std::result::Result<T, E>;
