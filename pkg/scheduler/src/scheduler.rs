//! The scheduling loop.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Namespace, Node};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Client;
use kube1_client::{EventRecorder, EventType, Informer, Informers, LeaderElection, Selection};
use kube1_supervisor::{BoxError, Component, Context};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::algorithm::Algorithm;
use crate::bind;
use crate::cache::Snapshot;
use crate::framework::Diagnosis;
use crate::metrics::{self, Outcome};
use crate::owners::ClusterOwners;
use crate::pod_info::PodInfo;
use crate::preemption::{self, Preemption};
use crate::volume_binding::{Binding, ClusterVolumes, VolumeError};
use crate::watch::{State, follow};

/// Name by which pods ask for this scheduler.
pub const NAME: &str = "default-scheduler";
/// The component and its Lease.
const COMPONENT: &str = "kube-scheduler";
/// Bindings and reports that may be under way at once.
const TASKS_MAX: usize = 128;

/// Assigns pods to nodes.
pub struct Scheduler {
    client: Client,
    election: Option<LeaderElection>,
}

impl Scheduler {
    /// A scheduler that acts with the identity of `client`.
    pub fn new(client: Client) -> Self {
        Self { client, election: None }
    }

    /// Lets only one of several servers schedule. `identity` is this process's own.
    #[must_use]
    pub fn with_leader_election(mut self, identity: &str) -> Self {
        self.election = Some(LeaderElection::new(self.client.clone(), COMPONENT, identity));
        self
    }

    async fn schedule(&self, stop: CancellationToken, ctx: &Context) -> Result<(), BoxError> {
        // A failure ends the informers too, so that the next run starts afresh.
        let _guard = stop.clone().drop_guard();
        let informers = Informers::new(self.client.clone(), stop.clone());
        let (recorder, write_events) = EventRecorder::new(self.client.clone(), NAME, None, stop.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(write_events);
        let Some(run) = stop.run_until_cancelled(Run::start(&informers, recorder)).await else { return Ok(()) };
        ctx.ready();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = tasks.join_next() => ended?,
                pod = run.state.queue.pop(), if tasks.len() < TASKS_MAX => run.schedule(&pod, &mut tasks),
            }
        }
        tasks.shutdown().await;
        informers.stopped().await;
        Ok(())
    }
}

#[async_trait]
impl Component for Scheduler {
    fn name(&self) -> &str {
        COMPONENT
    }

    async fn run(&self, ctx: Context) -> Result<(), BoxError> {
        let Some(election) = &self.election else { return self.schedule(ctx.shutdown.child_token(), &ctx).await };
        // A candidate that waits for its turn does what it should.
        ctx.ready();
        election.lead(&ctx.shutdown, |stop| self.schedule(stop, &ctx)).await
    }
}

/// One run of the scheduler.
struct Run {
    client: Client,
    recorder: EventRecorder,
    state: Arc<State>,
    algorithm: Algorithm,
    volumes: Arc<ClusterVolumes>,
    budgets: Informer<PodDisruptionBudget>,
}

impl Run {
    async fn start(informers: &Informers, recorder: EventRecorder) -> Self {
        let state = Arc::new(State::default());
        metrics::watch_queue(&state, |state| &state.queue);
        let unfinished =
            Selection { field_selector: "status.phase!=Succeeded,status.phase!=Failed".into(), ..Selection::default() };
        let (nodes, pods) = (informers.all::<Node>(), informers.select::<PodInfo>(unfinished));
        let (namespaces, budgets) = (informers.all::<Namespace>(), informers.all::<PodDisruptionBudget>());
        let (volumes, owners) = (ClusterVolumes::new(informers), ClusterOwners::new(informers));
        follow(&state, NAME, &nodes, &pods, &namespaces);
        let told = Arc::clone(&state);
        volumes.on_change(move || told.queue.happened(crate::queue::Events::VOLUMES));
        tokio::join!(
            nodes.synced(),
            pods.synced(),
            namespaces.synced(),
            budgets.synced(),
            volumes.synced(),
            owners.synced()
        );
        let algorithm = Algorithm::new(crate::plugins::all(Arc::clone(&volumes) as _, owners));
        Self { client: informers.client().clone(), recorder, state, algorithm, volumes, budgets }
    }

    fn schedule(&self, pod: &Arc<PodInfo>, tasks: &mut JoinSet<()>) {
        let started = Instant::now();
        let snapshot = self.state.cache.lock().snapshot();
        let found = self.algorithm.schedule(pod, &snapshot);
        metrics::algorithm(started.elapsed());
        match found {
            Ok(node) => self.place(pod, &node, &snapshot, started, tasks),
            Err(diagnosis) => {
                self.reject(pod, *diagnosis, &snapshot, tasks);
                metrics::attempted(Outcome::Unschedulable, started.elapsed());
            }
        }
    }

    fn place(&self, pod: &Arc<PodInfo>, node: &str, snapshot: &Snapshot, started: Instant, tasks: &mut JoinSet<()>) {
        let info = snapshot.nodes.iter().find(|n| *n.name == *node);
        let volumes = info.map(|info| self.volumes.plan(pod, info)).unwrap_or_default();
        self.state.cache.lock().assume(Arc::clone(pod), node);
        let binding = Placing {
            client: self.client.clone(),
            recorder: self.recorder.clone(),
            state: Arc::clone(&self.state),
            cluster: Arc::clone(&self.volumes),
            pod: Arc::clone(pod),
            node: node.to_owned(),
            volumes,
            started,
            history: self.state.queue.history(&pod.uid),
        };
        tasks.spawn(binding.finish());
    }

    fn reject(&self, pod: &Arc<PodInfo>, mut diagnosis: Diagnosis, snapshot: &Snapshot, tasks: &mut JoinSet<()>) {
        let mut nominated = None;
        if diagnosis.for_all.is_none() && diagnosis.nodes > 0 {
            match self.preempt(pod, &diagnosis, snapshot) {
                Ok(preemption) => {
                    nominated = Some(Some(preemption.node.clone()));
                    self.make_room(pod, preemption, snapshot, tasks);
                }
                Err(failure) => {
                    if !failure.nomination_holds {
                        nominated = Some(None);
                        self.state.cache.lock().nominate(pod, None);
                    }
                    diagnosis.preemption = Some(failure.message);
                }
            }
        }
        let message = diagnosis.message();
        tracing::debug!(pod = %pod.key, message, "pod cannot be scheduled");
        self.recorder.event_for(pod.reference(), EventType::Warning, "FailedScheduling", message.clone());
        self.state.queue.unschedulable(&pod.uid, self.algorithm.wanted_events(&diagnosis));
        let (client, pod) = (self.client.clone(), Arc::clone(pod));
        tasks.spawn(async move {
            let node = nominated.as_ref().map(|node| node.as_deref());
            if let Err(error) = bind::report_unschedulable(&client, &pod, "Unschedulable", &message, node).await {
                tracing::debug!(pod = %pod.key, %error, "cannot report that the pod is unschedulable");
            }
        });
    }

    fn preempt(
        &self,
        pod: &Arc<PodInfo>,
        diagnosis: &Diagnosis,
        snapshot: &Snapshot,
    ) -> Result<Preemption, preemption::NoPreemption> {
        // Preparing succeeded a moment ago over the same snapshot; volumes may have changed since.
        let filters = self.algorithm.filters(pod, snapshot).unwrap_or_default();
        let started = Instant::now();
        let found = preemption::find(pod, &filters, snapshot, diagnosis, &self.budgets.list());
        metrics::point("PostFilter", found.is_ok(), started);
        metrics::preempted(found.as_ref().ok().map(|preemption| preemption.victims.len()));
        found
    }

    /// Evicts the victims; the pod is tried again when they are gone.
    fn make_room(&self, pod: &Arc<PodInfo>, preemption: Preemption, snapshot: &Snapshot, tasks: &mut JoinSet<()>) {
        let node = preemption.node;
        let mut cache = self.state.cache.lock();
        cache.nominate(pod, Some(&node));
        let others = snapshot.nominated.get(&node).into_iter().flatten();
        let displaced: Vec<_> = others.filter(|p| p.priority < pod.priority).cloned().collect();
        for other in &displaced {
            cache.nominate(other, None);
        }
        drop(cache);
        let (client, recorder, uid) = (self.client.clone(), self.recorder.clone(), pod.uid.clone());
        tasks.spawn(async move {
            for victim in &preemption.victims {
                match bind::evict(&client, victim, NAME).await {
                    Ok(()) => {
                        let message = format!("Preempted by pod {uid} on node {node}");
                        recorder.event_for(victim.reference(), EventType::Normal, "Preempted", message);
                    }
                    Err(error) => {
                        tracing::warn!(pod = %victim.key, %error, "cannot evict a pod for a more important one")
                    }
                }
            }
            for other in &displaced {
                if let Err(error) = bind::clear_nomination(&client, other).await {
                    tracing::debug!(pod = %other.key, %error, "cannot clear a nomination");
                }
            }
        });
    }
}

/// A pod on its way to its node.
struct Placing {
    client: Client,
    recorder: EventRecorder,
    state: Arc<State>,
    cluster: Arc<ClusterVolumes>,
    pod: Arc<PodInfo>,
    node: String,
    volumes: Vec<Binding>,
    started: Instant,
    /// Since when the pod is queued, and the attempts with this one.
    history: Option<(Instant, u32)>,
}

/// Why a placed pod was not bound.
#[derive(Debug, thiserror::Error)]
enum PlaceError {
    #[error(transparent)]
    Volumes(#[from] VolumeError),
    #[error("binding rejected: {}", kube1_client::message(.0))]
    Bind(#[from] kube::Error),
}

impl Placing {
    async fn bind(&self) -> Result<(), PlaceError> {
        if !self.volumes.is_empty()
            && let Err(error) = bind::nominate(&self.client, &self.pod, &self.node).await
        {
            tracing::debug!(pod = %self.pod.key, %error, "cannot tell where the pod will go");
        }
        self.cluster.bind(&self.volumes, &self.node).await?;
        let started = Instant::now();
        let bound = bind::bind(&self.client, &self.pod, &self.node).await;
        metrics::point("Bind", bound.is_ok(), started);
        Ok(bound?)
    }

    async fn finish(self) {
        let key = &self.pod.key;
        match self.bind().await {
            Ok(()) => {
                metrics::attempted(Outcome::Scheduled, self.started.elapsed());
                if let Some((since, attempts)) = self.history {
                    metrics::scheduled(since, attempts);
                }
                self.state.queue.remove(&self.pod.uid);
                let message = format!("Successfully assigned {key} to {}", self.node);
                self.recorder.event_for(self.pod.reference(), EventType::Normal, "Scheduled", message);
            }
            Err(error) => {
                metrics::attempted(Outcome::Error, self.started.elapsed());
                tracing::debug!(pod = %key, node = self.node, %error, "cannot bind the pod");
                self.state.cache.lock().forget(&self.pod.uid);
                if !self.volumes.is_empty()
                    && let Err(error) = bind::clear_nomination(&self.client, &self.pod).await
                {
                    tracing::debug!(pod = %key, %error, "cannot clear a nomination");
                }
                let waits = self.state.queue.get(&self.pod.uid).is_some();
                self.state.queue.failed(&self.pod.uid);
                if waits {
                    let message = error.to_string();
                    self.recorder.event_for(self.pod.reference(), EventType::Warning, "FailedScheduling", message);
                }
            }
        }
    }
}
