//! PodDisruptionBudgets: how many pods may be disrupted now.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::ReplicationController;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Client;
use kube::api::{Api, DynamicObject};
use kube::core::Selector;
use kube1_client::{Event, EventRecorder, EventType, Informer, Keep, ObjectKey, Outcome, WorkQueue};
use kube1_supervisor::BoxError;

use crate::cached_pod::CachedPod;
use crate::clock;
use crate::controller::{
    Controller, Reconcile, SyncError, SyncResult, is_code, namespaced, replace_status, unless_gone,
};
use crate::deployment::replica_sets::resolve;
use crate::discovery::Kinds;
use crate::owner::{controller_key, selector, selects};
use crate::pods;

/// A pod whose eviction was allowed and that is still there after this long will not go.
const DISRUPTION_MAX: i64 = 120;
const ALLOWED: &str = "DisruptionAllowed";

/// Runs the controller of PodDisruptionBudgets.
pub async fn run(controller: Controller) -> Result<(), BoxError> {
    let budgets = controller.informers.all::<PodDisruptionBudget>();
    let pods = controller.informers.all::<CachedPod>();
    let owners = Owners {
        deployments: controller.informers.all(),
        replica_sets: controller.informers.all(),
        stateful_sets: controller.informers.all(),
        replication_controllers: controller.informers.all(),
    };
    if !(controller.synced(&[&budgets, &pods]).await && owners.synced(&controller).await) {
        return Ok(());
    }
    let queue = WorkQueue::new();
    let known = budgets.clone();
    controller.watch(&pods, &queue, move |event| {
        let (new, old) = (event.object(), if let Event::Updated { old, .. } = event { Some(old) } else { None });
        let covers = |b: &Arc<PodDisruptionBudget>| {
            selector_of(b).is_some_and(|s| selects(&s, &**new) || old.is_some_and(|old| selects(&s, &**old)))
        };
        let all = known.list_namespace(&new.namespace);
        all.iter().filter(|b| covers(b)).map(|b| ObjectKey::of(&**b)).collect::<Vec<_>>()
    });
    controller.watch_own(&budgets, &queue);
    owners.watch(&controller, &queue, &budgets);
    let counter =
        Counter { client: controller.client.clone(), recorder: controller.recorder.clone(), budgets, pods, owners };
    controller.keep(&queue, 4, counter).await;
    Ok(())
}

fn selector_of(budget: &PodDisruptionBudget) -> Option<Selector> {
    selector(budget.spec.as_ref()?.selector.as_ref())
}

struct Owners {
    deployments: Informer<Deployment>,
    replica_sets: Informer<ReplicaSet>,
    stateful_sets: Informer<StatefulSet>,
    replication_controllers: Informer<ReplicationController>,
}

impl Owners {
    async fn synced(&self, controller: &Controller) -> bool {
        let Self { deployments, replica_sets, stateful_sets, replication_controllers } = self;
        controller.synced(&[deployments, replica_sets, stateful_sets, replication_controllers]).await
    }

    /// A changed size changes how many pods are expected.
    fn watch(&self, controller: &Controller, queue: &WorkQueue<ObjectKey>, budgets: &Informer<PodDisruptionBudget>) {
        fn follow<K: kube::Resource<DynamicType = ()> + Keep>(
            controller: &Controller,
            owners: &Informer<K>,
            queue: &WorkQueue<ObjectKey>,
            budgets: &Informer<PodDisruptionBudget>,
        ) {
            let budgets = budgets.clone();
            controller.watch(owners, queue, move |event| {
                let grown = |old: &K, new: &K| old.meta().generation != new.meta().generation;
                let relevant = match event {
                    Event::Updated { old, new } => grown(old, new),
                    Event::Added(_) | Event::Deleted(_) => false,
                };
                let namespace = event.object().meta().namespace.clone().filter(|_| relevant);
                let all = namespace.map(|n| budgets.list_namespace(&n)).unwrap_or_default();
                all.iter().map(|b| ObjectKey::of(&**b)).collect::<Vec<_>>()
            });
        }
        follow(controller, &self.deployments, queue, budgets);
        follow(controller, &self.stateful_sets, queue, budgets);
        follow(controller, &self.replica_sets, queue, budgets);
        follow(controller, &self.replication_controllers, queue, budgets);
    }

    /// The object that decides how many pods there should be: its UID and that number. None: not of a known kind.
    fn scale(&self, pod: &CachedPod) -> Option<(String, i32)> {
        if let Some(set) = controller_key::<ReplicaSet>(pod).and_then(|k| self.replica_sets.get(&k)) {
            if let Some(deployment) = controller_key::<Deployment>(&*set).and_then(|k| self.deployments.get(&k)) {
                let replicas = deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
                return Some((deployment.metadata.uid.clone()?, replicas));
            }
            return Some((set.metadata.uid.clone()?, set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)));
        }
        if let Some(set) = controller_key::<StatefulSet>(pod).and_then(|k| self.stateful_sets.get(&k)) {
            return Some((set.metadata.uid.clone()?, set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)));
        }
        let key = controller_key::<ReplicationController>(pod)?;
        let set = self.replication_controllers.get(&key)?;
        Some((set.metadata.uid.clone()?, set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)))
    }
}

struct Counter {
    client: Client,
    recorder: EventRecorder,
    budgets: Informer<PodDisruptionBudget>,
    pods: Informer<CachedPod>,
    owners: Owners,
}

impl Reconcile<ObjectKey> for Counter {
    async fn sync(&self, key: ObjectKey) -> SyncResult {
        let Some(budget) = self.budgets.get(&key) else { return Ok(Outcome::Done) };
        let (Some(spec), Some(selector)) = (&budget.spec, selector_of(&budget)) else { return Ok(Outcome::Done) };
        let mut pods = self.pods.list_namespace(&key.namespace);
        pods.retain(|p| selects(&selector, &**p) && !pods::is_finished(p));
        if pods.is_empty() {
            self.recorder.event(&*budget, EventType::Normal, "NoPods", "No matching pods found");
        }
        let old = budget.status.clone().unwrap_or_default();
        let (expected, desired) = match self.expected(spec, &pods).await {
            Ok(numbers) => numbers,
            Err(error) => {
                let message = format!("Failed to calculate the number of expected pods: {error}");
                self.recorder.event(&*budget, EventType::Warning, "CalculateExpectedPodCountFailed", message.clone());
                self.write(&budget, failed(&budget, old, message)).await?;
                return Ok(Outcome::Done);
            }
        };
        let (disrupted, recheck) = disrupted(&old, &pods);
        let healthy =
            pods.iter().filter(|p| pods::is_ready(p) && !pods::is_terminating(p) && !disrupted.contains_key(&*p.name));
        let healthy = i32::try_from(healthy.count()).unwrap_or(i32::MAX);
        let allowed = if expected > 0 { (healthy - desired).max(0) } else { 0 };
        let status = PodDisruptionBudgetStatus {
            current_healthy: Some(healthy),
            desired_healthy: Some(desired),
            expected_pods: Some(expected),
            disruptions_allowed: Some(allowed),
            disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
            observed_generation: budget.metadata.generation,
            conditions: Some(vec![verdict(&budget, allowed > 0, None)]),
        };
        self.write(&budget, status).await?;
        Ok(recheck.map_or(Outcome::Done, Outcome::RequeueAfter))
    }
}

impl Counter {
    /// Pods that there should be, and how many of them must be healthy.
    async fn expected(&self, spec: &PodDisruptionBudgetSpec, pods: &[Arc<CachedPod>]) -> Result<(i32, i32), SyncError> {
        let count = i32::try_from(pods.len()).unwrap_or(i32::MAX);
        if let Some(max) = &spec.max_unavailable {
            let expected = self.scale_of_all(pods).await?;
            return Ok((expected, (expected - resolve(max, expected, true)).max(0)));
        }
        match spec.min_available.as_ref().unwrap_or(&IntOrString::Int(1)) {
            IntOrString::Int(min) => Ok((count, *min)),
            percent => {
                let expected = self.scale_of_all(pods).await?;
                Ok((expected, resolve(percent, expected, true)))
            }
        }
    }

    /// The sum of the sizes of all that the pods belong to.
    async fn scale_of_all(&self, pods: &[Arc<CachedPod>]) -> Result<i32, SyncError> {
        let mut scales: BTreeMap<String, i32> = BTreeMap::new();
        for pod in pods {
            let Some(owner) = &pod.owner else {
                return Err(SyncError::Invalid(format!("found no controllers for pod {:?}", pod.name)));
            };
            match self.owners.scale(pod) {
                Some((uid, replicas)) => {
                    scales.insert(uid, replicas);
                }
                None if scales.contains_key(&owner.uid) => {}
                None => {
                    let replicas = self.foreign_scale(pod).await?;
                    scales.insert(owner.uid.clone(), replicas);
                }
            }
        }
        Ok(scales.values().sum())
    }

    /// The size of an owner of another kind, through its scale subresource.
    async fn foreign_scale(&self, pod: &CachedPod) -> Result<i32, SyncError> {
        let Some(owner) = &pod.owner else { return Ok(0) };
        let kinds = Kinds::discover(&self.client).await?;
        let unknown = || SyncError::Invalid(format!("{} {} does not have a scale", owner.kind, owner.name));
        let kind = kinds.of_owner(owner).ok_or_else(unknown)?;
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &pod.namespace, &kind.resource);
        match api.get_scale(&owner.name).await {
            Ok(scale) => Ok(scale.spec.and_then(|s| s.replicas).unwrap_or(0)),
            Err(error) if is_code(&error, 404) => Err(unknown()),
            Err(error) => Err(error.into()),
        }
    }

    async fn write(&self, budget: &PodDisruptionBudget, status: PodDisruptionBudgetStatus) -> Result<(), SyncError> {
        if budget.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let changed = PodDisruptionBudget { status: Some(status), ..budget.clone() };
        let namespace = budget.metadata.namespace.as_deref().unwrap_or_default();
        Ok(unless_gone(replace_status(&namespaced(&self.client, namespace), changed).await)?)
    }
}

/// Nothing may be disrupted while nobody knows how many pods there should be.
fn failed(
    budget: &PodDisruptionBudget,
    mut status: PodDisruptionBudgetStatus,
    message: String,
) -> PodDisruptionBudgetStatus {
    status.disruptions_allowed = Some(0);
    status.observed_generation = budget.metadata.generation;
    status.conditions = Some(vec![verdict(budget, false, Some(message))]);
    status
}

fn verdict(budget: &PodDisruptionBudget, allowed: bool, error: Option<String>) -> Condition {
    let (status, reason) = match (&error, allowed) {
        (Some(_), _) => ("False", "SyncFailed"),
        (None, true) => ("True", "SufficientPods"),
        (None, false) => ("False", "InsufficientPods"),
    };
    let conditions = budget.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or(&[]);
    let old = conditions.iter().find(|c| c.type_ == ALLOWED && c.status == status);
    Condition {
        type_: ALLOWED.into(),
        status: status.into(),
        reason: reason.into(),
        message: error.unwrap_or_default(),
        observed_generation: budget.metadata.generation,
        last_transition_time: old.map_or_else(clock::now, |c| c.last_transition_time.clone()),
    }
}

/// Pods whose eviction was allowed and that are not gone yet, and when the first of them is given up on.
fn disrupted(
    status: &PodDisruptionBudgetStatus,
    pods: &[Arc<CachedPod>],
) -> (BTreeMap<String, Time>, Option<Duration>) {
    let mut left = BTreeMap::new();
    let mut recheck: Option<Duration> = None;
    for (name, since) in status.disrupted_pods.iter().flatten() {
        let pod = pods.iter().find(|p| *p.name == **name);
        let still_there = pod.is_some_and(|p| !pods::is_terminating(p));
        if let Some(wait) = clock::until(since, DISRUPTION_MAX).filter(|_| still_there) {
            left.insert(name.clone(), since.clone());
            recheck = Some(recheck.map_or(wait, |r| r.min(wait)));
        }
    }
    (left, recheck)
}
