//! DaemonSets: one pod on every node that fits.

mod backoff;
mod placement;
mod pod;
mod update;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetSpec, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::core::Selector;
use kube1_client::{Event, EventType, Informer, Keep, ObjectKey, Outcome, WorkQueue};
use kube1_supervisor::BoxError;

use crate::cached_pod::CachedPod;
use crate::controller::{Controller, Reconcile, SyncError, SyncResult, namespaced, replace_status, unless_gone};
use crate::history::{self, History, REVISION_LABEL, Wanted};
use crate::owner::{self, claim, controller_key, pod_selector};
use crate::pod_control::PodControl;
use crate::pods;
use backoff::Backoff;
use placement::Placement;
pub use placement::target_node;

/// Runs the controller of DaemonSets.
pub async fn run(controller: Controller) -> Result<(), BoxError> {
    let (sets, pods) = (controller.informers.all::<DaemonSet>(), controller.informers.all::<CachedPod>());
    let (nodes, revisions) = (controller.informers.all::<Node>(), controller.informers.all::<ControllerRevision>());
    owner::index(&pods);
    owner::index(&revisions);
    if !controller.synced(&[&sets, &pods, &nodes, &revisions]).await {
        return Ok(());
    }
    let (queue, control) = (WorkQueue::new(), PodControl::new(&controller));
    control.watch(&controller, &pods, &sets, &queue, selector_of);
    controller.watch(&revisions, &queue, |event| controller_key::<DaemonSet>(&**event.object()));
    let known = sets.clone();
    controller.watch(&nodes, &queue, move |event| {
        let concerned = |set: &Arc<DaemonSet>| match event {
            Event::Updated { old, new } => {
                let on = |node| set.spec.as_ref().map(|s| Placement::of(&s.template, node));
                on(old) != on(new)
            }
            _ => true,
        };
        let sets = known.list().into_iter().filter(concerned);
        sets.map(|s| ObjectKey::of(&*s)).collect::<Vec<_>>()
    });
    controller.watch_own(&sets, &queue);
    let (backoff, retry) = (Backoff::default(), queue.clone());
    let keeper = Keeper { sets, pods, nodes, revisions, control, backoff, queue: retry };
    controller.keep(&queue, 4, keeper).await;
    Ok(())
}

fn selector_of(set: &DaemonSet) -> Option<Selector> {
    pod_selector(Some(&set.spec.as_ref()?.selector))
}

struct Keeper {
    sets: Informer<DaemonSet>,
    pods: Informer<CachedPod>,
    nodes: Informer<Node>,
    revisions: Informer<ControllerRevision>,
    control: PodControl,
    backoff: Backoff,
    /// Where replacements wait are looked at again.
    queue: WorkQueue<ObjectKey>,
}

/// Pods by the node they are on, or meant for.
type ByNode = BTreeMap<String, Vec<Arc<CachedPod>>>;

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
        let wanted = Wanted {
            owner: &*set,
            selector: &selector,
            template: &spec.template,
            hash_label: REVISION_LABEL,
            collisions: set.status.as_ref().and_then(|s| s.collision_count),
        };
        let history = history::follow(client, &self.revisions, wanted).await?;
        let hash = revision_hash(&history.current).to_owned();
        let mut by_node = self.pods_by_node(&set, &selector).await?;
        if self.control.expectations.satisfied(&key) {
            self.manage(&set, spec, &by_node, &hash).await?;
            if self.control.expectations.satisfied(&key) {
                self.update(&set, spec, &by_node, &hash).await?;
            }
            by_node = self.pods_by_node(&set, &selector).await?;
            self.clean_history(spec, &history, &by_node).await?;
        }
        self.report(&set, spec, &by_node, &hash, history.collisions).await?;
        let min_ready = spec.min_ready_seconds.unwrap_or(0);
        let next = pods::next_available(by_node.values().flatten(), min_ready);
        Ok(next.map_or(Outcome::Done, Outcome::RequeueAfter))
    }
}

impl Keeper {
    async fn pods_by_node(&self, set: &DaemonSet, selector: &Selector) -> Result<ByNode, SyncError> {
        let mut by_node = ByNode::new();
        for pod in claim(&self.control.client, set, selector, &self.pods).await? {
            if let Some(node) = pod.target_node().map(str::to_owned) {
                by_node.entry(node).or_default().push(pod);
            }
        }
        for pods in by_node.values_mut() {
            pods.sort_by(|a, b| (&a.created, &a.name).cmp(&(&b.created, &b.name)));
        }
        Ok(by_node)
    }

    /// Creates pods where they are missing and deletes those that are ended, double or out of place.
    async fn manage(
        &self,
        set: &DaemonSet,
        spec: &DaemonSetSpec,
        by_node: &ByNode,
        hash: &str,
    ) -> Result<(), SyncError> {
        let (mut create, mut delete) = (Vec::new(), Vec::new());
        for node in self.nodes.list() {
            let name = node.metadata.name.as_deref().unwrap_or_default();
            let own = by_node.get(name).map(Vec::as_slice).unwrap_or(&[]);
            match Placement::of(&spec.template, &node) {
                Placement::Runs if own.is_empty() => create.push(pod::build(set, spec, name, hash)),
                Placement::Runs | Placement::MayStay => delete.extend(self.surplus(set, spec, name, own, hash)),
                Placement::Not => delete.extend(own.iter().filter(|p| !pods::is_terminating(p)).cloned()),
            }
        }
        let known = |name: &String| self.nodes.get(&ObjectKey::new("", name.clone())).is_some();
        // Pods that wait for a node that is gone would wait for ever; those that ran on it are the pod collector's.
        let lost = by_node.iter().filter(|(name, _)| !known(name)).flat_map(|(_, pods)| pods);
        delete.extend(lost.filter(|p| p.node.is_empty() && !pods::is_terminating(p)).cloned());
        self.apply(set, create, &delete).await
    }

    async fn apply(&self, set: &DaemonSet, create: Vec<Pod>, delete: &[Arc<CachedPod>]) -> Result<(), SyncError> {
        let deleted = self.control.delete_all(set, delete).await;
        self.control.create_all(set, create).await?;
        Ok(deleted?)
    }

    /// Pods of a node that must go: ended ones, and all but the oldest unless one replaces the other.
    fn surplus(
        &self,
        set: &DaemonSet,
        spec: &DaemonSetSpec,
        node: &str,
        own: &[Arc<CachedPod>],
        hash: &str,
    ) -> Vec<Arc<CachedPod>> {
        let mut surplus = Vec::new();
        let mut running = Vec::new();
        for pod in own.iter().filter(|p| !pods::is_terminating(p)) {
            let key = pod.key();
            match pod.phase {
                "Failed" => {
                    if let Err(left) = self.backoff.replace(owner::uid(&set.metadata), node) {
                        self.queue.add_after(ObjectKey::of(set), left);
                        continue;
                    }
                    let message = format!("Found failed daemon pod {key} on node {node}, will try to kill it");
                    self.control.recorder.event(set, EventType::Warning, "FailedDaemonPod", message);
                    surplus.push(Arc::clone(pod));
                }
                "Succeeded" => {
                    let message = format!("Found succeeded daemon pod {key} on node {node}, will try to delete it");
                    self.control.recorder.event(set, EventType::Normal, "SucceededDaemonPod", message);
                    surplus.push(Arc::clone(pod));
                }
                _ => running.push(pod),
            }
        }
        if update::surges(spec) {
            surplus.extend(update::replaced(&running, hash, spec.min_ready_seconds.unwrap_or(0)));
        } else {
            // The oldest that is assigned stays.
            running.sort_by_key(|p| p.node.is_empty());
            surplus.extend(running.into_iter().skip(1).cloned());
        }
        surplus
    }

    async fn clean_history(&self, spec: &DaemonSetSpec, history: &History, by_node: &ByNode) -> Result<(), SyncError> {
        let used = |r: &ControllerRevision| by_node.values().flatten().any(|p| has_hash(p, revision_hash(r)));
        history::clean(&self.control.client, &history.old, spec.revision_history_limit, used).await
    }

    async fn report(
        &self,
        set: &DaemonSet,
        spec: &DaemonSetSpec,
        by_node: &ByNode,
        hash: &str,
        collisions: Option<i32>,
    ) -> Result<(), SyncError> {
        let mut status = DaemonSetStatus {
            observed_generation: set.metadata.generation,
            collision_count: collisions,
            conditions: set.status.as_ref().and_then(|s| s.conditions.clone()),
            ..DaemonSetStatus::default()
        };
        let (mut updated, mut available) = (0, 0);
        for node in self.nodes.list() {
            let own = by_node.get(node.metadata.name.as_deref().unwrap_or_default());
            let should_run = Placement::of(&spec.template, &node) == Placement::Runs;
            let first = own.and_then(|pods| pods.iter().find(|p| pods::is_ready(p)).or_else(|| pods.first()));
            status.desired_number_scheduled += i32::from(should_run);
            let Some(pod) = first else { continue };
            if !should_run {
                status.number_misscheduled += 1;
                continue;
            }
            status.current_number_scheduled += 1;
            if pods::is_ready(pod) {
                status.number_ready += 1;
                available += i32::from(pods::is_available(pod, spec.min_ready_seconds.unwrap_or(0)));
            }
            updated += i32::from(has_hash(pod, hash));
        }
        let some = |n: i32| (n != 0).then_some(n);
        status.updated_number_scheduled = some(updated);
        status.number_available = some(available);
        status.number_unavailable = some(status.desired_number_scheduled - available);
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let changed = DaemonSet { status: Some(status), ..set.clone() };
        let api = namespaced(&self.control.client, set.metadata.namespace.as_deref().unwrap_or_default());
        Ok(unless_gone(replace_status(&api, changed).await)?)
    }
}

fn revision_hash(revision: &ControllerRevision) -> &str {
    revision.metadata.labels.as_ref().and_then(|l| l.get(REVISION_LABEL)).map(String::as_str).unwrap_or_default()
}

fn has_hash(pod: &CachedPod, hash: &str) -> bool {
    pod.labels.get(REVISION_LABEL).is_some_and(|h| h == hash)
}
