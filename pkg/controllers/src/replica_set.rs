//! ReplicaSets and ReplicationControllers: a number of equal pods.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::ReplicationController;
use kube1_client::{Informer, ObjectKey, Outcome, WorkQueue};
use kube1_supervisor::BoxError;

use crate::cached_pod::CachedPod;
use crate::controller::{Controller, Reconcile, SyncResult, is_namespace_terminating, namespaced, replace_status};
use crate::owner::{self, BY_CONTROLLER, claim, controller_of, reference, selects};
use crate::pod_control::{BURST, PodControl, reason};
use crate::replicas::{Failure, Replicas, Reported, Wanted};
use crate::{clock, pods};

const WORKERS: usize = 8;
/// Index of ReplicaSets by the UID of their Deployment.
const SIBLINGS: &str = BY_CONTROLLER;

/// Runs the controller of ReplicaSets.
pub async fn run_replica_sets(controller: Controller) -> Result<(), BoxError> {
    run::<ReplicaSet>(controller).await
}

/// Runs the controller of ReplicationControllers.
pub async fn run_replication_controllers(controller: Controller) -> Result<(), BoxError> {
    run::<ReplicationController>(controller).await
}

struct Keeper<K> {
    owners: Informer<K>,
    pods: Informer<CachedPod>,
    control: PodControl,
}

async fn run<K: Replicas>(controller: Controller) -> Result<(), BoxError> {
    let (owners, pods) = (controller.informers.all::<K>(), controller.informers.all::<CachedPod>());
    owner::index(&pods);
    owner::index(&owners);
    let (queue, control) = (WorkQueue::new(), PodControl::new(&controller));
    if !controller.synced(&[&owners, &pods]).await {
        return Ok(());
    }
    control.watch(&controller, &pods, &owners, &queue, K::pod_selector);
    controller.watch_own(&owners, &queue);
    let keeper = Keeper { owners, pods, control };
    controller.keep(&queue, WORKERS, keeper).await;
    Ok(())
}

impl<K: Replicas> Reconcile<ObjectKey> for Keeper<K> {
    async fn sync(&self, key: ObjectKey) -> SyncResult {
        let Some(owner) = self.owners.get(&key) else {
            self.control.expectations.forget(&key);
            return Ok(Outcome::Done);
        };
        let Some(wanted) = owner.wanted() else { return Ok(Outcome::Done) };
        let may_act = self.control.expectations.satisfied(&key);
        let all = claim(&self.control.client, &*owner, &wanted.selector, &self.pods).await?;
        let active: Vec<Arc<CachedPod>> = all.iter().filter(|p| pods::is_active(p)).cloned().collect();
        let managed = match owner.meta().deletion_timestamp {
            None if may_act => self.manage(&owner, &wanted, &active).await,
            _ => Ok(()),
        };
        let terminating = all.iter().filter(|p| pods::is_terminating(p) && !pods::is_finished(p)).count();
        self.report(&owner, &wanted, &active, terminating, managed.as_ref().err()).await?;
        managed?;
        Ok(pods::next_available(&active, wanted.min_ready).map_or(Outcome::Done, Outcome::RequeueAfter))
    }
}

impl<K: Replicas> Keeper<K> {
    /// Creates missing pods or deletes surplus ones.
    async fn manage(&self, owner: &K, wanted: &Wanted<'_>, active: &[Arc<CachedPod>]) -> Result<(), kube::Error> {
        let desired = usize::try_from(wanted.replicas).unwrap_or(0);
        if active.len() < desired {
            let key = ObjectKey::of(owner);
            let make = || pods::from_template(wanted.template, &key.namespace, &key.name, reference(owner));
            let missing = (desired - active.len()).min(BURST);
            let created = self.control.create_all(owner, std::iter::repeat_with(make).take(missing).collect()).await;
            return match created {
                Err(error) if is_namespace_terminating(&error) => Ok(()),
                created => created,
            };
        }
        let surplus = (active.len() - desired).min(BURST);
        if surplus == 0 {
            return Ok(());
        }
        let mut victims = active.to_vec();
        if surplus < active.len() {
            let crowd = self.crowd(owner, active);
            pods::sort_for_deletion(&mut victims, |pod| crowd.get(&*pod.node).copied().unwrap_or(0));
        }
        victims.truncate(surplus);
        self.control.delete_all(owner, &victims).await
    }

    /// Active pods by node, of this owner and of its siblings under the same controller.
    fn crowd(&self, owner: &K, own: &[Arc<CachedPod>]) -> HashMap<String, usize> {
        let mut crowd = HashMap::new();
        let mut count = |pods: &[Arc<CachedPod>]| {
            for pod in pods.iter().filter(|p| pods::is_active(p)) {
                *crowd.entry(pod.node.to_string()).or_insert(0) += 1;
            }
        };
        match controller_of(owner.meta()) {
            Some(parent) => {
                for sibling in self.owners.by_index(SIBLINGS, &parent.uid) {
                    count(&self.pods.by_index(BY_CONTROLLER, owner::uid(sibling.meta())));
                }
            }
            None => count(own),
        }
        crowd
    }

    async fn report(
        &self,
        owner: &K,
        wanted: &Wanted<'_>,
        active: &[Arc<CachedPod>],
        terminating: usize,
        error: Option<&kube::Error>,
    ) -> Result<(), kube::Error> {
        let old = owner.reported();
        let mut new = reported(owner, wanted, active);
        new.terminating = count(terminating);
        new.failure = error.map(|error| {
            let few = active.len() < usize::try_from(wanted.replicas).unwrap_or(0);
            let (reason_name, message) = (if few { "FailedCreate" } else { "FailedDelete" }, reason(error));
            let since = old.failure.as_ref().and_then(|f| f.since.clone()).or_else(|| Some(clock::now()));
            Failure { reason: reason_name.into(), message, since }
        });
        if old == new {
            return Ok(());
        }
        let mut changed = owner.clone();
        changed.report(new);
        let namespace = owner.meta().namespace.as_deref().unwrap_or_default();
        crate::controller::unless_gone(replace_status(&namespaced(&self.control.client, namespace), changed).await)
    }
}

fn reported<K: Replicas>(owner: &K, wanted: &Wanted<'_>, active: &[Arc<CachedPod>]) -> Reported {
    let template_labels = wanted.template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
    let labels: kube::core::Selector = template_labels.into_iter().collect();
    let of = |test: &dyn Fn(&CachedPod) -> bool| count(active.iter().filter(|p| test(p)).count());
    Reported {
        replicas: count(active.len()),
        fully_labeled: of(&|p| selects(&labels, p)),
        ready: of(&pods::is_ready),
        available: of(&|p| pods::is_available(p, wanted.min_ready)),
        terminating: 0,
        observed_generation: owner.meta().generation.unwrap_or(0),
        failure: None,
    }
}

fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}
