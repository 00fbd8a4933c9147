//! The component: it joins the parts and owns their tasks.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node as ApiNode, Pod};
use kube1_client::{EventRecorder, Informer, Informers, ObjectKey, Outcome, Selection, WorkQueue, reconcile_all};
use kube1_cri::events::ContainerEvent;
use kube1_cri::{ErrorKind, Runtime};
use kube1_supervisor::{BoxError, Component, Context};
use kube1_trace::Tracer;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cgroup::Cgroups;
use crate::config::KubeletConfig;
use crate::image::Images;
use crate::labels;
use crate::machine::Machine;
use crate::node::{Node, PodEntry, PodTable, PodUpdate, RuntimeFeatures};
use crate::object_cache::ObjectCache;
use crate::pod::PodExt;
use crate::token::Tokens;
use crate::turns::Turns;
use crate::user_namespace::UserNamespaces;
use crate::volume::VolumeManager;
use crate::{housekeeping, node_status, pod_worker, server, static_pod};

/// Catches ends that no event told.
const RELIST: Duration = Duration::from_secs(60);
/// How often a runtime without events is asked.
const POLL: Duration = Duration::from_secs(1);

/// The node agent.
pub struct Kubelet {
    config: KubeletConfig,
}

impl Kubelet {
    pub fn new(config: KubeletConfig) -> Self {
        Self { config }
    }
}

#[async_trait]
impl Component for Kubelet {
    fn name(&self) -> &str {
        "kubelet"
    }

    /// Stopping leaves all containers running; the next run goes on with them.
    async fn run(&self, ctx: Context) -> Result<(), BoxError> {
        let stop = ctx.shutdown.child_token();
        let result = run(&self.config, &ctx, &stop).await;
        stop.cancel();
        result
    }
}

async fn run(config: &KubeletConfig, ctx: &Context, stop: &CancellationToken) -> Result<(), BoxError> {
    for dir in [config.pods_dir(), config.logs_dir(), config.static_pod_dir.clone()] {
        std::fs::create_dir_all(&dir).map_err(|e| format!("cannot make {}: {e}", dir.display()))?;
    }
    let cgroups = Cgroups::new(&config.cgroup_root);
    cgroups.prepare().map_err(|e| format!("cannot make the node's cgroups: {e}"))?;
    let runtime = Runtime::new(&config.runtime_endpoint);
    let version = wait_for_runtime(&runtime, stop).await?;

    let mut tasks: JoinSet<Result<(), BoxError>> = JoinSet::new();
    let mut config = config.clone();
    if let Some(settings) = &config.tracing {
        let (tracer, exporter) = Tracer::new(settings, "kubelet", &config.node_name);
        config.tracer = Some(tracer);
        let stop = stop.clone();
        tasks.spawn(async move {
            exporter.run(stop).await;
            Ok(())
        });
    }
    let config = &config;
    let informers = Informers::new(config.client.clone(), stop.clone());
    let (recorder, recording) =
        EventRecorder::new(config.client.clone(), "kubelet", Some(&config.node_name), stop.clone());
    tasks.spawn(async move {
        recording.await;
        Ok(())
    });
    let features = runtime.status().await.map(|answer| RuntimeFeatures::of(&answer)).unwrap_or_default();
    let node = build_node(config, runtime, cgroups, recorder, &informers, stop);
    *node.features.lock() = features;
    let status = node_status::NodeStatusTask::new(Arc::clone(&node), &version, stop.clone());
    let registered = ctx.clone();
    // Static pods and what already runs do not wait for the apiserver.
    tasks.spawn(async move {
        status.register().await?;
        registered.ready();
        status.run().await
    });

    let by_node = Selection { field_selector: format!("spec.nodeName={}", config.node_name), ..Selection::default() };
    let pods: Informer<Pod> = informers.select(by_node);
    let workers = Workers { node: Arc::clone(&node), tracker: TaskTracker::new(), stop: stop.clone() };
    let workers = Arc::new(workers);
    tasks.spawn(watch_events(Arc::clone(&node), stop.clone()));
    tasks.spawn(dispatch(Arc::clone(&workers), pods.clone(), stop.clone()));
    tasks.spawn(static_pod::run(Arc::clone(&workers), pods.clone(), stop.clone()));
    tasks.spawn(housekeeping::run(Arc::clone(&workers), pods, stop.clone()));
    tasks.spawn(server::run(Arc::clone(&node), stop.clone()));

    let result = tokio::select! {
        () = stop.cancelled() => Ok(()),
        ended = tasks.join_next() => match ended {
            Some(Ok(Err(error))) => Err(error),
            Some(Err(error)) if error.is_panic() => Err(error.into()),
            Some(_) if !stop.is_cancelled() => Err("a part of the kubelet ended by itself".into()),
            _ => Ok(()),
        },
    };
    stop.cancel();
    while tasks.join_next().await.is_some() {}
    workers.tracker.close();
    workers.tracker.wait().await;
    informers.stopped().await;
    result
}

fn build_node(
    config: &KubeletConfig,
    runtime: Runtime,
    cgroups: Cgroups,
    recorder: EventRecorder,
    informers: &Informers,
    stop: &CancellationToken,
) -> Arc<Node> {
    let pods = Arc::new(PodTable::default());
    let told = Arc::clone(&pods);
    let notify = Arc::new(move |uid: &str| told.objects_changed(uid));
    let objects = Arc::new(ObjectCache::new(config.client.clone(), stop.clone(), notify));
    let tokens = Arc::new(Tokens::new(config.client.clone()));
    let own_node = Selection { field_selector: format!("metadata.name={}", config.node_name), ..Selection::default() };
    let machine = Machine::read();
    let allocatable = node_status::allocatable(config, &machine);
    Arc::new(Node {
        config: config.clone(),
        recorder: recorder.clone(),
        volumes: VolumeManager::new(config.clone(), runtime.clone(), Arc::clone(&objects), tokens),
        images: Images::new(runtime.clone(), recorder, Arc::clone(&objects), config),
        objects,
        cgroups,
        machine,
        meters: Arc::default(),
        services: informers.all(),
        api_node: informers.select::<ApiNode>(own_node),
        pods,
        owners: Default::default(),
        existing: OnceLock::new(),
        allocatable: Mutex::new(allocatable),
        runtime,
        user_namespaces: UserNamespaces::new(&config.data_dir, &config.pods_dir(), config.settings.max_pods),
        features: Mutex::default(),
        turns: Turns::new(std::thread::available_parallelism().map_or(1, usize::from)),
    })
}

async fn wait_for_runtime(runtime: &Runtime, stop: &CancellationToken) -> Result<String, BoxError> {
    let mut pause = Duration::from_millis(20);
    loop {
        match runtime.version().await {
            Ok(version) => return Ok(format!("{}://{}", version.runtime_name, version.runtime_version)),
            Err(error) => tracing::debug!(%error, socket = %runtime.socket().display(), "waiting for the runtime"),
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(Duration::from_secs(1)),
            () = stop.cancelled() => return Err("stopped before the container runtime answered".into()),
        }
    }
}

/// Starts and feeds the pods' tasks.
pub(crate) struct Workers {
    pub node: Arc<Node>,
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Workers {
    /// Tells a pod's task of the pod's newest state; starts the task if there is none.
    pub fn upsert(&self, pod: Arc<Pod>, mirror: Option<Arc<Pod>>) {
        let uid = pod.uid().to_owned();
        if let Some(entry) = self.node.pods.get(&uid) {
            entry.update.send_modify(|update| {
                update.pod = pod;
                update.mirror = mirror.or(update.mirror.take());
            });
            return;
        }
        // A pod that was over before this run and that has nothing here needs a task only to be deleted.
        let entry = Arc::new(PodEntry::new(PodUpdate { pod, mirror, removed: false, evicted: None }));
        self.node.pods.insert(&uid, Arc::clone(&entry));
        self.tracker.spawn(pod_worker::run(Arc::clone(&self.node), entry, self.stop.clone()));
    }

    /// Ends a pod that nobody wants any more.
    pub fn remove(&self, entry: &PodEntry) {
        entry.update.send_if_modified(|update| !std::mem::replace(&mut update.removed, true));
    }
}

/// Hands the API's pods to their tasks.
async fn dispatch(workers: Arc<Workers>, pods: Informer<Pod>, stop: CancellationToken) -> Result<(), BoxError> {
    let queue: WorkQueue<ObjectKey> = WorkQueue::new();
    let added = queue.clone();
    pods.add_handler(move |event| added.add(ObjectKey::of(event.object().as_ref())));
    let reconcile = move |key: ObjectKey| {
        let (workers, pods) = (Arc::clone(&workers), pods.clone());
        async move {
            let current = pods.get(&key);
            for entry in workers.node.pods.all() {
                let pod = entry.pod();
                let same_name = pod.namespace() == key.namespace && pod.name() == key.name;
                let is_current = current.as_ref().is_some_and(|c| c.uid() == pod.uid());
                if same_name && !pod.is_static() && !is_current {
                    workers.remove(&entry);
                }
            }
            if let Some(pod) = current.filter(|pod| !pod.is_mirror()) {
                workers.upsert(pod, None);
            }
            Ok::<_, std::convert::Infallible>(Outcome::Done)
        }
    };
    reconcile_all("kubelet-pods", &queue, 1, &stop, reconcile).await;
    Ok(())
}

/// Wakes the pods whose containers end.
async fn watch_events(node: Arc<Node>, stop: CancellationToken) -> Result<(), BoxError> {
    let mut poll = RELIST;
    while !stop.is_cancelled() {
        let mut events = node.runtime.events();
        let mut relist = tokio::time::interval(poll);
        relist.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                // The first tick comes at once: it finds what ended before the subscription.
                _ = relist.tick() => relist_ended(&node).await,
                event = events.next() => match event {
                    Some(Ok(ContainerEvent::Exited { container_id })) => ended(&node, &container_id),
                    Some(Ok(ContainerEvent::OutOfMemory { container_id })) => {
                        tracing::info!(container_id, "a container ran out of memory");
                    }
                    Some(Err(error)) if error.kind == ErrorKind::Unimplemented => {
                        tracing::info!("the runtime has no events: asking it every second");
                        poll = POLL;
                        break;
                    }
                    Some(Err(error)) => {
                        tracing::warn!(%error, "the runtime's events broke off");
                        break;
                    }
                    None => break,
                },
            }
        }
        if poll == POLL {
            poll_forever(&node, &stop).await;
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
        }
    }
    Ok(())
}

async fn poll_forever(node: &Arc<Node>, stop: &CancellationToken) {
    let mut ticks = tokio::time::interval(POLL);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => relist_ended(node).await,
        }
    }
}

fn ended(node: &Node, id: &str) {
    if let Some(uid) = node.owners.end(id)
        && let Some(entry) = node.pods.get(&uid)
    {
        entry.nudge.notify_one();
    }
}

/// Finds ends that no event told.
async fn relist_ended(node: &Node) {
    let (everything, started) = (HashMap::new(), std::time::Instant::now());
    let lists =
        tokio::try_join!(node.runtime.list_containers(everything.clone()), node.runtime.list_pod_sandboxes(everything));
    let (containers, sandboxes) = match lists {
        Ok(lists) => lists,
        Err(error) => {
            tracing::warn!(%error, "cannot list what runs");
            return;
        }
    };
    node.meters.relisted(started);
    node.existing.get_or_init(|| {
        let labels = containers.iter().map(|c| &c.labels).chain(sandboxes.iter().map(|s| &s.labels));
        labels.filter_map(Node::uid_of).map(str::to_owned).collect()
    });
    let running = kube1_cri::v1::ContainerState::ContainerRunning;
    let ready = kube1_cri::v1::PodSandboxState::SandboxReady;
    let stopped = containers.iter().filter(|c| c.state() != running).map(|c| &c.id);
    let not_ready = sandboxes.iter().filter(|s| s.state() != ready).map(|s| &s.id);
    for id in stopped.chain(not_ready) {
        // A container that is only created looks stopped too; its pod's task is then merely woken.
        if !node.owners.has_ended(id) && node.runtime_says_ended(&containers, id) {
            ended(node, id);
        }
    }
}

impl Node {
    /// Whether an id is that of a container that has run and ended, or of a sandbox.
    fn runtime_says_ended(&self, containers: &[kube1_cri::v1::Container], id: &str) -> bool {
        let exited = kube1_cri::v1::ContainerState::ContainerExited;
        containers.iter().find(|c| c.id == id).is_none_or(|c| c.state() == exited)
    }

    /// The uid that a sandbox's or container's labels tell.
    pub(crate) fn uid_of(labels: &HashMap<String, String>) -> Option<&str> {
        labels.get(labels::POD_UID).map(String::as_str).filter(|uid| !uid.is_empty())
    }
}
