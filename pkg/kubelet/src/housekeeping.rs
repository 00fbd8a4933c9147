//! What is done now and then: remains of forgotten pods, old logs, unused images, and a look at what runs short.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube1_client::Informer;
use kube1_supervisor::BoxError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::kubelet::Workers;
use crate::node::Node;
use crate::pod::{self, PodExt};
use crate::{labels, local_storage, log_file, machine, pressure, resources};

/// By then static pods and the API's have found their tasks, so that nothing wanted looks like an orphan.
const SETTLED: Duration = Duration::from_secs(5);
const PRESSURE: Duration = Duration::from_secs(10);
const LOGS: Duration = Duration::from_secs(60);
const ORPHANS: Duration = Duration::from_secs(120);
const IMAGES: Duration = Duration::from_secs(300);

/// Cleans until `stop`.
pub(crate) async fn run(workers: Arc<Workers>, pods: Informer<Pod>, stop: CancellationToken) -> Result<(), BoxError> {
    tokio::select! {
        // Before the API's pods are known every pod would look forgotten.
        () = pods.synced() => {}
        () = stop.cancelled() => return Ok(()),
    }
    let node = Arc::clone(&workers.node);
    let mut images = ImageCollector::default();
    let start = Instant::now() + SETTLED;
    let mut timers = [PRESSURE, LOGS, ORPHANS, IMAGES].map(|period| {
        let mut timer = tokio::time::interval_at(start, period);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        timer
    });
    let [pressure, logs, orphans, image] = &mut timers;
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = pressure.tick() => {
                if pressure::current(&node).disk {
                    // What nothing uses goes before what runs.
                    images.collect(&node, true).await;
                }
                pressure::relieve(&node);
                local_storage::enforce(&node).await;
                weigh_burstable(&node);
            }
            _ = logs.tick() => rotate_logs(&node).await,
            _ = orphans.tick() => collect_orphans(&workers, &pods).await,
            _ = image.tick() => images.collect(&node, false).await,
        }
    }
}

/// Burstable pods together weigh what they request together.
fn weigh_burstable(node: &Node) {
    let active = node.pods.all().into_iter().filter(|e| e.is_active()).map(|e| e.pod());
    let burstable = active.filter(|p| pod::qos_class(p.spec()) == pod::QosClass::Burstable);
    let millis: i64 = burstable.map(|p| pod::total_request(p.spec(), "cpu").millis()).sum();
    if let Err(error) = node.cgroups.set_burstable_shares(resources::cpu_shares(millis)) {
        tracing::debug!(%error, "cannot weigh the burstable pods");
    }
}

async fn rotate_logs(node: &Node) {
    let Ok(containers) = node.runtime.list_containers(HashMap::new()).await else { return };
    let running = kube1_cri::v1::ContainerState::ContainerRunning;
    for container in containers.iter().filter(|c| c.state() == running) {
        let label = |key: &str| container.labels.get(key).map_or("", String::as_str);
        let (namespace, name, uid) = (label(labels::POD_NAMESPACE), label(labels::POD_NAME), label(labels::POD_UID));
        let attempt = container.metadata.as_ref().map_or(0, |m| m.attempt);
        let dir = node.config.pod_log_dir(namespace, name, uid).join(label(labels::CONTAINER_NAME));
        let log = dir.join(format!("{attempt}.log"));
        if let Err(error) = log_file::rotate(&node.runtime, &node.config.settings, &container.id, &log).await {
            tracing::warn!(container = container.id, %error, "cannot rotate a log");
        }
    }
}

/// Ends pods that run here without being wanted, and removes what is left of pods that are gone.
async fn collect_orphans(workers: &Workers, pods: &Informer<Pod>) {
    let node = &workers.node;
    let wanted: HashSet<String> = pods.list().iter().map(|p| p.uid().to_owned()).collect();
    let known = |uid: &str| wanted.contains(uid) || node.pods.get(uid).is_some();
    match node.runtime.list_pod_sandboxes(HashMap::new()).await {
        Ok(sandboxes) => {
            for sandbox in &sandboxes {
                if let Some(uid) = Node::uid_of(&sandbox.labels)
                    && !known(uid)
                {
                    tracing::info!(uid, "ending a pod that nobody wants any more");
                    adopt_orphan(workers, uid, sandbox);
                }
            }
            remove_old_sandboxes(node, &sandboxes).await;
        }
        Err(error) => {
            tracing::warn!(%error, "cannot look for orphans");
            return;
        }
    }
    remove_directories(node, known).await;
}

/// Gives an orphan a task whose only work is to end it.
fn adopt_orphan(workers: &Workers, uid: &str, sandbox: &kube1_cri::v1::PodSandbox) {
    let grace = sandbox.annotations.get(labels::POD_GRACE_PERIOD).and_then(|g| g.parse().ok());
    let meta = sandbox.metadata.clone().unwrap_or_default();
    let pod = Pod {
        metadata: ObjectMeta {
            name: Some(meta.name),
            namespace: Some(meta.namespace),
            uid: Some(uid.to_owned()),
            deletion_grace_period_seconds: grace,
            ..ObjectMeta::default()
        },
        ..Pod::default()
    };
    workers.upsert(Arc::new(pod), None);
    if let Some(entry) = workers.node.pods.get(uid) {
        workers.remove(&entry);
    }
}

/// Of a living pod's sandboxes only the newest is kept.
async fn remove_old_sandboxes(node: &Node, sandboxes: &[kube1_cri::v1::PodSandbox]) {
    let mut newest: HashMap<&str, i64> = HashMap::new();
    for sandbox in sandboxes {
        let uid = Node::uid_of(&sandbox.labels).unwrap_or_default();
        let at = newest.entry(uid).or_insert(sandbox.created_at);
        *at = (*at).max(sandbox.created_at);
    }
    let ready = kube1_cri::v1::PodSandboxState::SandboxReady;
    for sandbox in sandboxes.iter().filter(|s| s.state() != ready) {
        let uid = Node::uid_of(&sandbox.labels).unwrap_or_default();
        if newest.get(uid).is_some_and(|at| *at > sandbox.created_at)
            && let Err(error) = node.runtime.remove_pod_sandbox(&sandbox.id).await
        {
            tracing::debug!(%error, "an old sandbox stays");
        }
    }
}

async fn remove_directories(node: &Node, known: impl Fn(&str) -> bool) {
    let names = |dir: &std::path::Path| -> Vec<String> {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries.filter_map(|e| e.file_name().into_string().ok()).collect()
    };
    for uid in names(&node.config.pods_dir()).iter().filter(|uid| !known(uid)) {
        if let Err(error) = node.volumes.tear_down(uid).await {
            tracing::warn!(uid, %error, "cannot remove the directory of a pod that is gone");
            continue;
        }
        node.user_namespaces.release(uid);
    }
    for name in names(&node.config.logs_dir()) {
        if name.rsplit('_').next().is_some_and(|uid| !known(uid)) {
            // Tried again at the next collection.
            let _ = std::fs::remove_dir_all(node.config.logs_dir().join(&name));
        }
    }
    for uid in node.cgroups.pod_uids().iter().filter(|uid| !known(uid)) {
        node.cgroups.remove_pod(uid);
    }
}

/// Removes images that nothing uses when the disk fills.
#[derive(Default)]
struct ImageCollector {
    last_used: HashMap<String, Instant>,
}

impl ImageCollector {
    /// Removes images that nothing has used for longer than images may stay, as far as this node agent has seen.
    async fn collect_old(&self, node: &Node, unused: impl Iterator<Item = &kube1_cri::v1::Image>, now: Instant) {
        let Some(age) = node.config.settings.image_maximum_gc_age else { return };
        for image in unused {
            if self.last_used.get(&image.id).is_some_and(|at| now.duration_since(*at) >= age)
                && let Err(error) = node.runtime.remove_image(&image.id).await
            {
                tracing::warn!(image = image.id, %error, "cannot remove an old image");
            }
        }
    }

    /// Removes unused images if the disk is too full; in an emergency all of them.
    async fn collect(&mut self, node: &Node, emergency: bool) {
        let lists = tokio::try_join!(node.runtime.list_images(), node.runtime.list_containers(HashMap::new()));
        let Ok((images, containers)) = lists else { return };
        let used: HashSet<&str> = containers
            .iter()
            .flat_map(|c| [c.image_ref.as_str(), c.image.as_ref().map_or("", |i| i.image.as_str())])
            .collect();
        let now = Instant::now();
        let pinned = node.runtime.pinned_images().await;
        let in_use = |image: &kube1_cri::v1::Image| {
            let names = image.repo_tags.iter().chain(&image.repo_digests).chain([&image.id]);
            image.pinned
                || image.repo_tags.iter().any(|tag| pinned.contains(tag))
                || image.repo_tags.contains(&node.config.pause_image)
                || names.into_iter().any(|n| used.contains(n.as_str()))
        };
        node.images.retain(&images.iter().map(|image| image.id.as_str()).collect::<Vec<_>>());
        self.last_used.retain(|id, _| images.iter().any(|i| i.id == *id));
        for image in &images {
            let at = self.last_used.entry(image.id.clone()).or_insert(now);
            if in_use(image) {
                *at = now;
            }
        }
        let settings = &node.config.settings;
        let Some(disk) = machine::filesystem(&node.config.data_dir).filter(|d| d.capacity > 0) else { return };
        let usage = 100 - disk.available * 100 / disk.capacity;
        self.collect_old(node, images.iter().filter(|image| !in_use(image)), now).await;
        if usage < settings.image_gc_high && !emergency {
            return;
        }
        let surplus = usage.saturating_sub(settings.image_gc_low) * disk.capacity / 100;
        let mut to_free = if emergency { u64::MAX } else { surplus };
        let mut unused: Vec<_> = images.iter().filter(|i| !in_use(i)).collect();
        unused.sort_by_key(|image| self.last_used.get(&image.id).copied());
        for image in unused {
            let old = self
                .last_used
                .get(&image.id)
                .is_some_and(|at| now.duration_since(*at) >= settings.image_minimum_gc_age);
            if to_free == 0 || !(old || emergency) {
                break;
            }
            match node.runtime.remove_image(&image.id).await {
                Ok(()) => to_free = to_free.saturating_sub(image.size),
                Err(error) => tracing::warn!(image = image.id, %error, "cannot remove an unused image"),
            }
        }
    }
}
