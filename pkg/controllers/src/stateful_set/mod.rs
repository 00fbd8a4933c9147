//! StatefulSets: pods with names, an order, and volumes of their own.

mod claims;
mod identity;
mod plan;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::core::Selector;
use kube1_client::{EventType, Informer, Keep, ObjectKey, Outcome, WorkQueue};
use kube1_supervisor::BoxError;

use crate::cached_pod::CachedPod;
use crate::controller::{
    Controller, Reconcile, SyncError, SyncResult, is_already_exists, is_namespace_terminating, namespaced,
    replace_status, unless_gone,
};
use crate::history::{self, History, REVISION_LABEL, Wanted, template_of};
use crate::owner::{self, claim, controller_key, pod_selector};
use crate::pod_control::{PodControl, reason};
use crate::pods;
use identity::ordinal;
use plan::{Action, Plan};

/// Label of revisions with their hash.
const HASH_LABEL: &str = "controller.kubernetes.io/hash";

/// Runs the controller of StatefulSets.
pub async fn run(controller: Controller) -> Result<(), BoxError> {
    let (sets, pods) = (controller.informers.all::<StatefulSet>(), controller.informers.all::<CachedPod>());
    let revisions = controller.informers.all::<ControllerRevision>();
    let claims = controller.informers.all::<PersistentVolumeClaim>();
    owner::index(&pods);
    owner::index(&revisions);
    if !controller.synced(&[&sets, &pods, &revisions, &claims]).await {
        return Ok(());
    }
    let (queue, control) = (WorkQueue::new(), PodControl::new(&controller));
    control.watch(&controller, &pods, &sets, &queue, selector_of);
    controller.watch(&revisions, &queue, |event| controller_key::<StatefulSet>(&**event.object()));
    controller.watch_own(&sets, &queue);
    let keeper = Keeper { sets, pods, revisions, claims, control };
    controller.keep(&queue, 4, keeper).await;
    Ok(())
}

fn selector_of(set: &StatefulSet) -> Option<Selector> {
    pod_selector(Some(&set.spec.as_ref()?.selector))
}

struct Keeper {
    sets: Informer<StatefulSet>,
    pods: Informer<CachedPod>,
    revisions: Informer<ControllerRevision>,
    claims: Informer<PersistentVolumeClaim>,
    control: PodControl,
}

/// The template that new pods get, and the one that pods had before the last change.
struct Revisions {
    update: Arc<ControllerRevision>,
    current: Arc<ControllerRevision>,
}

fn name_of(revision: &ControllerRevision) -> &str {
    revision.metadata.name.as_deref().unwrap_or_default()
}

pub(crate) fn revision_of(pod: &CachedPod) -> &str {
    pod.labels.get(REVISION_LABEL).map(String::as_str).unwrap_or_default()
}

impl Reconcile<ObjectKey> for Keeper {
    async fn sync(&self, key: ObjectKey) -> SyncResult {
        let Some(set) = self.sets.get(&key) else {
            self.control.expectations.forget(&key);
            return Ok(Outcome::Done);
        };
        let (Some(spec), Some(selector)) = (&set.spec, selector_of(&set)) else { return Ok(Outcome::Done) };
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::Done);
        }
        let client = &self.control.client;
        let status = set.status.clone().unwrap_or_default();
        let wanted = Wanted {
            owner: &*set,
            selector: &selector,
            template: &spec.template,
            hash_label: HASH_LABEL,
            collisions: status.collision_count,
        };
        let history = history::follow(client, &self.revisions, wanted).await?;
        let revisions = Revisions {
            current: current_revision(&history, status.current_revision.as_deref()),
            update: Arc::clone(&history.current),
        };
        let mut pods = claim(client, &*set, &selector, &self.pods).await?;
        pods.retain(|p| ordinal(&set, p).is_some());
        let plan = Plan::new(&set, spec, &pods, name_of(&revisions.current), name_of(&revisions.update));
        let acted = if self.control.expectations.satisfied(&key) {
            self.act(&set, spec, &plan, &revisions).await
        } else {
            Ok(())
        };
        self.report(&set, &plan, &revisions, history.collisions).await?;
        acted?;
        let used = |r: &ControllerRevision| {
            name_of(r) == name_of(&revisions.current) || pods.iter().any(|p| revision_of(p) == name_of(r))
        };
        history::clean(client, &history.old, spec.revision_history_limit, used).await?;
        let next = pods::next_available(&pods, spec.min_ready_seconds.unwrap_or(0));
        Ok(next.map_or(Outcome::Done, Outcome::RequeueAfter))
    }
}

impl Keeper {
    async fn act(
        &self,
        set: &StatefulSet,
        spec: &StatefulSetSpec,
        plan: &Plan,
        revisions: &Revisions,
    ) -> Result<(), SyncError> {
        self.own_claims(set, spec, plan).await?;
        for action in &plan.actions {
            match action {
                Action::Create { ordinal, updated } => {
                    let revision = if *updated { &revisions.update } else { &revisions.current };
                    self.create(set, spec, *ordinal, revision).await?;
                }
                Action::Delete(pod) => self.delete(set, pod).await?,
                Action::Restart(pod) => {
                    let (name, phase) = (&pod.name, pod.phase);
                    let (kind, reason) = if phase == "Failed" {
                        (EventType::Warning, "RecreatingFailedPod")
                    } else {
                        (EventType::Normal, "RecreatingTerminatedPod")
                    };
                    let message = format!("StatefulSet {} is recreating {phase} Pod {name}", ObjectKey::of(set));
                    self.control.recorder.event(set, kind, reason, message);
                    self.delete(set, pod).await?;
                }
            }
        }
        Ok(())
    }

    async fn create(
        &self,
        set: &StatefulSet,
        spec: &StatefulSetSpec,
        ordinal: i32,
        revision: &ControllerRevision,
    ) -> Result<(), SyncError> {
        let template = template_of(revision).unwrap_or_else(|| spec.template.clone());
        let pod = identity::build(set, spec, &template, ordinal, name_of(revision));
        self.ensure_claims(set, spec, ordinal).await?;
        let (key, name) = (ObjectKey::of(set), pod.metadata.name.clone().unwrap_or_default());
        self.control.expectations.expect_creations(&key, 1);
        let api = namespaced::<Pod>(&self.control.client, &key.namespace);
        match api.create(&Default::default(), &pod).await {
            Ok(_) => {
                let message = format!("create Pod {name} in StatefulSet {} successful", key.name);
                self.control.recorder.event(set, EventType::Normal, "SuccessfulCreate", message);
                Ok(())
            }
            Err(error) => {
                self.control.expectations.created(&key);
                if is_namespace_terminating(&error) {
                    return Ok(());
                }
                if !is_already_exists(&error) {
                    let message =
                        format!("create Pod {name} in StatefulSet {} failed error: {}", key.name, reason(&error));
                    self.control.recorder.event(set, EventType::Warning, "FailedCreate", message);
                }
                Err(error.into())
            }
        }
    }

    async fn delete(&self, set: &StatefulSet, pod: &CachedPod) -> Result<(), SyncError> {
        let (key, target) = (ObjectKey::of(set), pod.key());
        let uid = pod.uid.to_string();
        self.control.expectations.expect_deletions(&key, [uid.clone()]);
        let same = kube::api::Preconditions { uid: Some(uid.clone()), resource_version: None };
        let params = kube::api::DeleteParams::default().preconditions(same);
        match namespaced::<Pod>(&self.control.client, &target.namespace).delete(&target.name, &params).await {
            Ok(_) => {
                let message = format!("delete Pod {} in StatefulSet {} successful", target.name, key.name);
                self.control.recorder.event(set, EventType::Normal, "SuccessfulDelete", message);
                Ok(())
            }
            Err(error) => {
                self.control.expectations.deleted(&key, &uid);
                Ok(unless_gone::<()>(Err(error))?)
            }
        }
    }

    async fn report(
        &self,
        set: &StatefulSet,
        plan: &Plan,
        revisions: &Revisions,
        collisions: Option<i32>,
    ) -> Result<(), SyncError> {
        let counts = &plan.counts;
        let done = counts.updated == counts.replicas
            && counts.ready == counts.replicas
            && plan.wanted == counts.replicas
            && name_of(&revisions.update) != name_of(&revisions.current)
            && plan.rolls;
        let current = if done { &revisions.update } else { &revisions.current };
        let status = StatefulSetStatus {
            observed_generation: set.metadata.generation,
            replicas: counts.replicas,
            ready_replicas: Some(counts.ready),
            available_replicas: Some(counts.available),
            current_replicas: Some(if done { counts.updated } else { counts.current }),
            updated_replicas: Some(counts.updated),
            current_revision: Some(name_of(current).to_owned()),
            update_revision: Some(name_of(&revisions.update).to_owned()),
            collision_count: Some(collisions.unwrap_or(0)),
            conditions: set.status.as_ref().and_then(|s| s.conditions.clone()),
        };
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let changed = StatefulSet { status: Some(status), ..set.clone() };
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        Ok(unless_gone(replace_status(&namespaced(&self.control.client, namespace), changed).await)?)
    }
}

/// The revision that the status names; the newest when it names none, or one that is gone.
fn current_revision(history: &History, name: Option<&str>) -> Arc<ControllerRevision> {
    let named = history.old.iter().find(|r| Some(name_of(r)) == name);
    Arc::clone(named.unwrap_or(&history.current))
}
