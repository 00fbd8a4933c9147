//! A pod's own task: it makes what runs equal to what is wanted, reports, and sleeps until something changes.
//!
//! One loop serves every cause: an update from the API, a container's end, a probe's finding, a passed delay. Each time
//! the runtime is asked what there is, [`plan`] says what is missing, and that is done. All that must survive a restart
//! of the node agent is in the runtime's labels and in the API, so a new task simply goes on with what it finds.

mod kill;
mod making;
mod plan;
#[cfg(test)]
mod plan_tests;
mod report;
mod resize;
mod start;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};
use kube1_client::EventType;
use kube1_cri::CriError;
use kube1_cri::v1::Image;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::admission;
use crate::backoff::Backoffs;
use crate::labels;
use crate::node::{Node, PodEntry, PodUpdate};
use crate::observed::{Made, Observed, Observer};
use crate::pod::PodExt;
use crate::probe::Prober;
use crate::resources::PodLimits;
use crate::status::{ResizeState, StatusWriter, Verdict, Waiting};
use crate::volume::Volumes;
use making::interruption;
use plan::{Blocked, PlanInputs, plan};

/// Looks again after a failure of the runtime itself.
const RETRY: Duration = Duration::from_secs(2);
/// A resize that does not fit is tried again after this long.
const RESIZE_RETRY: Duration = Duration::from_secs(10);
/// Rounds of one synchronisation; more means that the runtime does not do what it says.
const ROUNDS: usize = 64;

/// What is left to do with a pod.
enum Next {
    /// Sleep until something changes, or at the latest for this long.
    Wait(Option<Duration>),
    /// Stop everything and clean up.
    Terminate,
}

pub(super) struct PodWorker {
    node: Arc<Node>,
    entry: Arc<PodEntry>,
    updates: watch::Receiver<PodUpdate>,
    uid: String,
    observer: Observer,
    prober: Prober,
    writer: StatusWriter,
    backoffs: Backoffs,
    blocked: HashMap<String, Blocked>,
    waiting: HashMap<String, Waiting>,
    /// Containers whose preStop hook has run.
    hooks_run: HashSet<String>,
    volumes: Volumes,
    /// Images that were looked up in this synchronisation, by the name they are asked for.
    images: HashMap<String, Image>,
    applied: resize::Applied,
    /// What the pod as a whole runs with, if it says so itself.
    applied_to_pod: Option<ResourceRequirements>,
    /// Whether the pod ran before this node agent did.
    adopted_running: bool,
    /// What the pod's cgroup is limited to, as far as this task knows.
    limits: Option<PodLimits>,
    resizing: Option<ResizeState>,
    /// When what failed for the whole pod (volumes, sandbox) is tried again, and its next delay.
    retry: Option<(Instant, Duration)>,
    verdict: Option<Verdict>,
    /// Whether a container is being made: the runtime must not be interrupted in it.
    making: watch::Sender<bool>,
    adopted: bool,
    ended: bool,
    /// When this task began, until all of a pod that is new here runs.
    starting: Option<Instant>,
    /// Time that was spent for images.
    pulling: Duration,
}

/// Runs a pod to its end. Returns when the pod is gone, or at shutdown, which leaves its containers running.
pub async fn run(node: Arc<Node>, entry: Arc<PodEntry>, shutdown: CancellationToken) {
    let updates = entry.update.subscribe();
    let uid = updates.borrow().pod.uid().to_owned();
    let is_new = updates.borrow().api_pod().is_none_or(|pod| pod.status().start_time.is_none());
    let worker = PodWorker {
        prober: Prober::new(&node, Arc::clone(&entry.nudge)),
        writer: StatusWriter::new(node.config.client.clone()),
        backoffs: Backoffs::with_max(node.config.settings.crash_loop_max),
        node,
        entry,
        updates,
        uid,
        observer: Observer::default(),
        blocked: HashMap::new(),
        waiting: HashMap::new(),
        hooks_run: HashSet::new(),
        volumes: Volumes::default(),
        images: HashMap::new(),
        applied: resize::Applied::new(),
        applied_to_pod: None,
        adopted_running: false,
        limits: None,
        resizing: None,
        retry: None,
        verdict: None,
        making: watch::Sender::new(false),
        adopted: false,
        ended: false,
        starting: is_new.then(Instant::now),
        pulling: Duration::ZERO,
    };
    shutdown.run_until_cancelled(worker.run()).await;
}

impl PodWorker {
    async fn run(mut self) {
        loop {
            let (first, updated) = (!self.adopted, self.updates.has_changed().is_ok_and(|changed| changed));
            let (update, began) = (self.updates.borrow_and_update().clone(), Instant::now());
            let next = if self.must_terminate(&update) {
                Next::Terminate
            } else {
                // A pull or a hook may take long; the pod's end does not wait for it.
                let interrupted = interruption(self.updates.clone(), self.ended, self.making.subscribe());
                tokio::select! {
                    next = self.sync(&update) => next,
                    () = interrupted => Next::Terminate,
                }
            };
            self.node.meters.pod_synced(first, updated, began.elapsed());
            match next {
                Next::Terminate => {
                    if self.terminate().await {
                        return;
                    }
                }
                Next::Wait(limit) => self.wait(limit).await,
            }
        }
    }

    /// Sleeps until something has changed.
    async fn wait(&mut self, limit: Option<Duration>) {
        let nudge = Arc::clone(&self.entry.nudge);
        let sleep = async {
            match limit {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = nudge.notified() => {}
            // The sender lives in the entry, which this worker holds.
            _ = self.updates.changed() => {}
            () = sleep => {}
        }
    }

    fn must_terminate(&self, update: &PodUpdate) -> bool {
        wants_end(update, self.ended) || (self.verdict.is_some() && !self.ended)
    }

    fn pod(&self) -> Arc<Pod> {
        self.entry.pod()
    }

    fn event(&self, kind: EventType, reason: &str, message: impl Into<String>) {
        let update = self.entry.update.borrow().clone();
        let object = update.api_pod().unwrap_or(&update.pod);
        self.node.recorder.event(object.as_ref(), kind, reason, message);
    }

    /// What the runtime has of the pod now.
    async fn observe(&mut self) -> Result<Observed, CriError> {
        let owners = Arc::clone(&self.node);
        let observed = self.observer.observe(&self.node.runtime, &self.uid, |id| owners.owners.has_ended(id)).await?;
        self.remember(&observed);
        Ok(observed)
    }

    /// As [`Self::observe`], at first: a pod that came after this node agent has nothing in the runtime.
    async fn observe_first(&mut self, pod: &Pod) -> Result<Observed, CriError> {
        let known = self.node.existing.get().is_none_or(|uids| uids.contains(&self.uid));
        if self.adopted || known || pod.is_static() { self.observe().await } else { Ok(Observed::default()) }
    }

    /// What the runtime has after something was made; `None` stands for changes that only a look at everything tells.
    async fn observe_made(&mut self, mut observed: Observed, made: Option<Made>) -> Result<Observed, CriError> {
        let Some(made) = made else { return self.observe().await };
        let owners = Arc::clone(&self.node);
        let ended = |id: &str| owners.owners.has_ended(id);
        self.observer.add(&self.node.runtime, &mut observed, &made, ended).await?;
        self.remember(&observed);
        Ok(observed)
    }

    fn remember(&self, observed: &Observed) {
        for sandbox in &observed.sandboxes {
            self.node.owners.set(&sandbox.id, &self.uid);
        }
        for container in &observed.containers {
            self.node.owners.set(container.id(), &self.uid);
        }
        *self.entry.sandbox.lock() = observed.sandbox.as_ref().map(|s| s.id.clone());
    }

    /// Brings the pod nearer to what is wanted, as far as possible now.
    async fn sync(&mut self, update: &PodUpdate) -> Next {
        let synced = match self.node.config.tracer.as_ref().map(|tracer| tracer.root("syncPod", || about(update))) {
            None => self.try_sync(update).await,
            Some(span) => Box::pin(span.scope(self.try_sync(update))).await,
        };
        match synced {
            Ok(next) => next,
            Err(error) => {
                tracing::warn!(pod = %update.pod.full_name(), operation = error.operation, %error, "synchronisation failed");
                Next::Wait(Some(RETRY))
            }
        }
    }

    async fn try_sync(&mut self, update: &PodUpdate) -> Result<Next, CriError> {
        let pod = &update.pod;
        if self.entry.objects_changed.swap(false, Ordering::Relaxed) {
            // What waits for a ConfigMap or Secret is tried at once.
            self.blocked.retain(|_, blocked| blocked.waiting.reason != "CreateContainerConfigError");
            self.retry = None;
        }
        let mut observed = self.observe_first(pod).await?;
        self.adopt(update, &observed);
        if self.ended || (update.api_pod().is_some_and(|p| p.is_finished()) && observed.running().next().is_none()) {
            self.ended = true;
            self.entry.ended.store(true, Ordering::Relaxed);
            self.report(update, &observed);
            return Ok(Next::Wait(None));
        }
        if !self.admit(pod, &observed) {
            return Ok(Next::Terminate);
        }
        let deadline = self.deadline(pod);
        if deadline.is_some_and(|left| left.is_zero()) {
            let message = "Pod was active on the node longer than the specified deadline";
            self.verdict = Some(Verdict { reason: "DeadlineExceeded".into(), message: message.into() });
            self.event(EventType::Normal, "DeadlineExceeded", message);
            return Ok(Next::Terminate);
        }
        let mut wake = deadline;
        let mut prepared = false;
        self.images.clear();
        for _ in 0..ROUNDS {
            let resized = self.resize(pod, &observed).await;
            if !resized.is_empty() {
                for kill in &resized {
                    self.kill_for_restart(pod, &observed, kill).await;
                }
                observed = self.observe().await?;
            }
            if self.resizing.is_some() {
                wake = earliest(wake, Some(RESIZE_RETRY));
            }
            self.probe(pod, &observed, false);
            self.report(update, &observed);
            let findings = self.all_findings(pod, &observed);
            let inputs = PlanInputs {
                pod,
                observed: &observed,
                findings: &findings,
                backoffs: &self.backoffs,
                blocked: &self.blocked,
                now: Timestamp::now(),
            };
            let plan = plan(&inputs);
            let waiting = plan.waiting.clone();
            self.note_waiting(pod, &observed, waiting);
            if plan.done {
                return Ok(self.finish(update, &observed).await);
            }
            let idle = !plan.new_sandbox && plan.kill.is_empty() && plan.start.is_empty();
            // Volumes also follow their sources while nothing is to be started.
            let sandbox = if prepared && !plan.new_sandbox {
                None
            } else {
                match self.prepare(pod, &observed, plan.new_sandbox).await {
                    Some(sandbox) => sandbox,
                    None => {
                        self.report(update, &observed);
                        let retry = self.retry.map(|(at, _)| at.saturating_duration_since(Instant::now()));
                        return Ok(Next::Wait(earliest(wake, retry)));
                    }
                }
            };
            prepared = true;
            if idle {
                self.report(update, &observed);
                let refresh = self.volumes.refresh_at.map(|at| at.duration_since(Timestamp::now()).unsigned_abs());
                wake = earliest(earliest(wake, plan.wake_after), refresh);
                return Ok(Next::Wait(wake));
            }
            for kill in &plan.kill {
                self.kill_for_restart(pod, &observed, kill).await;
            }
            // Only what is new by name and place can be added to what is known.
            let first = (sandbox.is_none() || observed.sandboxes.is_empty()) && plan.kill.is_empty();
            let mut made = first.then(|| Made { sandbox, containers: Vec::new() });
            for (kind, container) in &plan.start {
                let started = self.start_container(pod, &observed, *kind, container).await;
                let id = started.filter(|_| observed.latest(&container.name).is_none());
                made = made.zip(id).map(|(mut made, id)| {
                    made.containers.push(id);
                    made
                });
            }
            observed = self.observe_made(observed, made).await?;
        }
        tracing::warn!(pod = %pod.full_name(), "the runtime does not settle");
        Ok(Next::Wait(Some(RETRY)))
    }

    /// Goes on with what an earlier node agent left running.
    fn adopt(&mut self, update: &PodUpdate, observed: &Observed) {
        if std::mem::replace(&mut self.adopted, true) {
            return;
        }
        let Some(api_pod) = update.api_pod() else { return };
        let status = api_pod.status();
        let lists = [&status.container_statuses, &status.init_container_statuses];
        for known in lists.into_iter().flatten().flatten() {
            if let Some(id) = known.container_id.as_deref().and_then(|id| id.split_once("://")).map(|(_, id)| id) {
                self.prober.adopt(id, known.started == Some(true), known.ready);
            }
        }
        if !observed.sandboxes.is_empty() {
            self.adopted_running = true;
            self.entry.admitted.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the node takes the pod; a verdict says why not.
    fn admit(&mut self, pod: &Pod, observed: &Observed) -> bool {
        if self.entry.admitted.load(Ordering::Relaxed) {
            return true;
        }
        let started_before = !observed.containers.is_empty();
        match if started_before { Ok(()) } else { admission::admit(&self.node, &self.entry, pod) } {
            Ok(()) => {
                self.entry.admitted.store(true, Ordering::Relaxed);
                true
            }
            Err(verdict) => {
                self.event(EventType::Warning, &verdict.reason, verdict.message.clone());
                self.verdict = Some(verdict);
                false
            }
        }
    }

    /// What is left of the pod's `activeDeadlineSeconds`.
    fn deadline(&self, pod: &Pod) -> Option<Duration> {
        let seconds = pod.spec().active_deadline_seconds?;
        let started = self.writer.last().and_then(|s| s.start_time).or_else(|| pod.status().start_time.clone());
        let elapsed = started.map_or(0, |at| Timestamp::now().duration_since(at.0).as_secs());
        Some(Duration::from_secs(u64::try_from(seconds - elapsed).unwrap_or(0)))
    }

    /// Tells people once when a container begins to wait.
    fn note_waiting(&mut self, pod: &Pod, observed: &Observed, mut waiting: HashMap<String, Waiting>) {
        for (name, why) in &mut waiting {
            if why.reason != "CrashLoopBackOff" {
                continue;
            }
            if let Some(words) = observed.latest(name).and_then(|c| self.last_lines(pod, c)) {
                let message = why.message.get_or_insert_default();
                *message = format!("{message}; it last said: {words}");
            }
            if self.waiting.get(name) != Some(why) {
                let message = format!("Back-off restarting failed container {name} in pod {}", pod.full_name());
                self.container_event(pod, name, EventType::Warning, "BackOff", &message);
            }
        }
        self.waiting = waiting;
    }

    fn container_event(&self, pod: &Pod, name: &str, kind: EventType, reason: &str, message: &str) {
        let all = crate::pod::containers(pod.spec());
        let of = all.iter().find(|(_, c)| c.name == name).map_or(crate::pod::ContainerKind::Regular, |(kind, _)| *kind);
        self.node.recorder.event_for(crate::node::container_ref(pod, of, name), kind, reason, message);
    }

    /// Every container has ended: sidecars and the sandbox follow, then the pod's phase is final.
    async fn finish(&mut self, update: &PodUpdate, observed: &Observed) -> Next {
        self.stop_everything(&update.pod, observed, update.pod.grace_period()).await;
        let observed = match self.observe().await {
            Ok(observed) => observed,
            Err(error) => {
                tracing::warn!(%error, "cannot read how the pod ended");
                return Next::Wait(Some(RETRY));
            }
        };
        if observed.running().next().is_some() {
            return Next::Wait(Some(RETRY));
        }
        self.ended = true;
        self.entry.ended.store(true, Ordering::Relaxed);
        self.report(update, &observed);
        Next::Wait(None)
    }
}

fn earliest(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// A pod that has ended on the node only waits for its object's deletion.
fn wants_end(update: &PodUpdate, ended: bool) -> bool {
    let deleted = update.removed || update.pod.metadata.deletion_timestamp.is_some();
    deleted || (update.evicted.is_some() && !ended)
}

/// The restart count that a container's annotations tell.
fn restart_count(container: &crate::observed::ObservedContainer) -> u32 {
    container.annotation(labels::RESTART_COUNT).parse().unwrap_or(container.attempt)
}

/// What the span of a pod's synchronisation tells.
fn about(update: &PodUpdate) -> Vec<kube1_trace::Attribute> {
    let pod = &update.pod;
    vec![
        ("k8s.pod.uid", pod.uid().into()),
        ("k8s.pod", format!("{}/{}", pod.namespace(), pod.name()).into()),
        ("k8s.pod.name", pod.name().into()),
        ("k8s.namespace.name", pod.namespace().into()),
    ]
}
