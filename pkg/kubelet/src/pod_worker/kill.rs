//! Stopping containers, and ending a pod for good.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use kube1_client::EventType;
use tokio::time::Instant;

use super::plan::Kill;
use super::{PodWorker, RETRY};
use crate::hook;
use crate::node::{PodUpdate, container_ref};
use crate::observed::Observed;
use crate::pod::{self, ContainerKind, PodExt};
use crate::probe::{ProbeKind, Target};

/// A container gets at least this long between SIGTERM and SIGKILL, so that it can leave in order.
const GRACE_MIN: i64 = 2;

impl PodWorker {
    /// Stops a container that will be started again.
    pub(super) async fn kill_for_restart(&mut self, pod: &Pod, observed: &Observed, kill: &Kill) {
        let Some(container) = observed.containers.iter().find(|c| c.id() == kill.id) else { return };
        if kill.at_once {
            self.kill_at_once(pod, kill).await;
            return;
        }
        let spec = pod::containers(pod.spec()).into_iter().find(|(_, c)| c.name == kill.name).map(|(_, c)| c);
        let of_probe = spec.as_ref().and_then(|c| match kill.probe? {
            ProbeKind::Startup => c.startup_probe.as_ref()?.termination_grace_period_seconds,
            _ => c.liveness_probe.as_ref()?.termination_grace_period_seconds,
        });
        let grace = of_probe.unwrap_or_else(|| pod.grace_period());
        self.stop_container(pod, kill.kind, &container.name, container.id(), grace, &kill.why).await;
    }

    /// Stops a container without its hook and without a grace period.
    async fn kill_at_once(&mut self, pod: &Pod, kill: &Kill) {
        self.hooks_run.insert(kill.id.clone());
        self.container_event(pod, &kill.name, EventType::Normal, "Killing", &kill.why);
        if let Err(error) = self.node.runtime.stop_container(&kill.id, 0).await {
            tracing::warn!(container = kill.name, %error, "cannot stop the container");
        }
    }

    /// Runs the preStop hook and stops a container within `grace` seconds.
    pub(super) async fn stop_container(
        &mut self,
        pod: &Pod,
        kind: ContainerKind,
        name: &str,
        id: &str,
        grace: i64,
        why: &str,
    ) {
        let hook_due = self.hooks_run.insert(id.to_owned());
        let observed_ips = self.writer.last().and_then(|s| s.pod_ip).unwrap_or_default();
        stop_one(&self.node, pod, Stop { kind, name, id, grace, why, hook_due, pod_ip: &observed_ips }).await;
    }

    /// Stops all containers at once, then the sidecars from the last to the first, then the sandbox.
    pub(super) async fn stop_everything(&mut self, pod: &Pod, observed: &Observed, grace: i64) {
        let (started, limit) = (Instant::now(), Duration::from_secs(u64::try_from(grace).unwrap_or(0)));
        let all = pod::containers(pod.spec());
        let kind_of = |name: &str| all.iter().find(|(_, c)| c.name == name).map_or(ContainerKind::Regular, |(k, _)| *k);
        let running: Vec<(ContainerKind, String, String)> =
            observed.running().map(|c| (kind_of(&c.name), c.name.clone(), c.id().to_owned())).collect();
        let (mut sidecars, others): (Vec<_>, Vec<_>) =
            running.into_iter().partition(|(kind, ..)| *kind == ContainerKind::Sidecar);
        let place = |name: &str| all.iter().position(|(_, c)| c.name == name);
        sidecars.sort_by_key(|(_, name, _)| std::cmp::Reverse(place(name)));
        let pod_ip = self.writer.last().and_then(|s| s.pod_ip).unwrap_or_default();
        let node = Arc::clone(&self.node);
        let stops = others.iter().map(|(kind, name, id)| {
            let why = format!("Stopping container {name}");
            let hook_due = self.hooks_run.insert(id.clone());
            let (node, pod_ip) = (Arc::clone(&node), pod_ip.as_str());
            async move {
                stop_one(&node, pod, Stop { kind: *kind, name, id, grace, why: &why, hook_due, pod_ip }).await;
            }
        });
        let stops: Vec<_> = stops.collect();
        join_all(stops).await;
        for (kind, name, id) in &sidecars {
            let left = i64::try_from(limit.saturating_sub(started.elapsed()).as_secs()).unwrap_or(0);
            let why = format!("Stopping container {name}");
            self.stop_container(pod, *kind, name, id, left, &why).await;
        }
        for sandbox in &observed.sandboxes {
            if let Err(error) = self.node.runtime.stop_pod_sandbox(&sandbox.id).await {
                self.event(EventType::Warning, "FailedKillPod", format!("error killing pod: {error}"));
            }
        }
    }

    /// Ends the pod. Says whether nothing is left of it, and its task with it.
    pub(super) async fn terminate(&mut self) -> bool {
        let mut update = self.updates.borrow_and_update().clone();
        if self.verdict.is_none() {
            self.verdict.clone_from(&update.evicted);
        }
        loop {
            let grace = seconds_to_end(&update);
            let pod = Arc::clone(&update.pod);
            let observed = match self.observe().await {
                Ok(observed) => observed,
                Err(error) => {
                    tracing::warn!(pod = %pod.full_name(), %error, "cannot read what runs");
                    tokio::time::sleep(RETRY).await;
                    update = self.updates.borrow_and_update().clone();
                    continue;
                }
            };
            self.probe(&pod, &observed, true);
            self.report(&update, &observed);
            let mut updates = self.updates.clone();
            let before = grace;
            let stopped = tokio::select! {
                () = self.stop_everything(&pod, &observed, grace) => true,
                // Somebody is in more of a hurry.
                _ = updates.wait_for(|next| seconds_to_end(next) < before) => false,
            };
            update = self.updates.borrow_and_update().clone();
            if stopped && self.nothing_runs().await {
                break;
            }
            if stopped {
                tokio::time::sleep(RETRY).await;
            }
        }
        self.waiting.clear();
        self.ended = true;
        self.entry.ended.store(true, Ordering::Relaxed);
        let observed = self.observe().await.unwrap_or_default();
        self.report(&update, &observed);
        self.conclude(&update, &observed).await
    }

    async fn nothing_runs(&mut self) -> bool {
        let ready = kube1_cri::v1::PodSandboxState::SandboxReady;
        match self.observe().await {
            Ok(observed) => {
                observed.running().next().is_none() && observed.sandboxes.iter().all(|s| s.state() != ready)
            }
            Err(_) => false,
        }
    }

    /// Cleans up after a pod of which nothing runs any more.
    async fn conclude(&mut self, update: &PodUpdate, observed: &Observed) -> bool {
        let deleted = update.removed || update.pod.metadata.deletion_timestamp.is_some();
        if !deleted {
            // Failed on this node: the object stays until somebody deletes it.
            return false;
        }
        if !update.removed {
            self.writer.flushed().await;
        }
        if let Err(error) = self.node.volumes.tear_down(&self.uid).await {
            self.event(EventType::Warning, "FailedUnMount", format!("cannot remove the pod's volumes: {error}"));
            tokio::time::sleep(RETRY).await;
            return false;
        }
        if !update.removed && !self.delete_object(update).await {
            tokio::time::sleep(RETRY).await;
            return false;
        }
        for sandbox in &observed.sandboxes {
            if let Err(error) = self.node.runtime.remove_pod_sandbox(&sandbox.id).await {
                tracing::warn!(%error, "a sandbox stays until the next collection");
            }
        }
        self.forget(&update.pod);
        true
    }

    /// Says the pod's last word to the API: it is gone.
    async fn delete_object(&self, update: &PodUpdate) -> bool {
        let Some(pod) = update.api_pod().filter(|p| !p.is_mirror()) else { return true };
        let api: Api<Pod> = Api::namespaced(self.node.config.client.clone(), pod.namespace());
        let mut params = DeleteParams::default().grace_period(0);
        params.preconditions = Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None });
        match api.delete(pod.name(), &params).await {
            Ok(_) => true,
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => true,
            Err(error) => {
                tracing::warn!(pod = %pod.full_name(), %error, "cannot delete the pod's object");
                false
            }
        }
    }

    fn forget(&self, pod: &Pod) {
        let config = &self.node.config;
        // What cannot be removed now is found by the next collection of orphans.
        let _ = std::fs::remove_dir_all(config.pod_log_dir(pod.namespace(), pod.name(), &self.uid));
        self.node.cgroups.remove_pod(&self.uid);
        self.node.owners.retain(&self.uid, |_| false);
        self.node.images.release(&self.uid);
        self.node.meters.forget(pod);
        self.node.user_namespaces.release(&self.uid);
        self.node.pods.remove(&self.uid);
    }
}

/// Seconds that the pod is given to end.
fn seconds_to_end(update: &PodUpdate) -> i64 {
    let pod = &update.pod;
    if update.evicted.is_some() {
        return 0;
    }
    pod.metadata.deletion_grace_period_seconds.unwrap_or_else(|| pod.grace_period())
}

/// A container to stop.
struct Stop<'a> {
    kind: ContainerKind,
    name: &'a str,
    id: &'a str,
    grace: i64,
    why: &'a str,
    hook_due: bool,
    pod_ip: &'a str,
}

async fn stop_one(node: &crate::node::Node, pod: &Pod, stop: Stop<'_>) {
    let object = container_ref(pod, stop.kind, stop.name);
    if stop.hook_due {
        node.recorder.event_for(object.clone(), EventType::Normal, "Killing", stop.why);
    }
    let spec = pod::containers(pod.spec()).into_iter().find(|(_, c)| c.name == stop.name).map(|(_, c)| c);
    let hook = spec.as_ref().and_then(|c| c.lifecycle.as_ref()?.pre_stop.clone());
    let mut grace = stop.grace;
    if let (Some(hook), Some(container), true) = (hook, spec, stop.hook_due && grace > 0) {
        let limit = Duration::from_secs(u64::try_from(grace).unwrap_or(0));
        let target = Target { container_id: stop.id.to_owned(), container, pod_ip: stop.pod_ip.to_owned() };
        let start = Instant::now();
        let failure = match tokio::time::timeout(limit, hook::run(&node.runtime, &target, &hook, limit)).await {
            Ok(result) => result.err(),
            Err(_) => Some("the hook did not end within the grace period".to_owned()),
        };
        if let Some(reason) = failure {
            tracing::debug!(container = stop.name, reason, "preStop hook failed");
            node.recorder.event_for(object, EventType::Warning, "FailedPreStopHook", "PreStopHook failed");
        }
        grace -= i64::try_from(start.elapsed().as_secs()).unwrap_or(0);
    }
    if let Err(error) = node.runtime.stop_container(stop.id, grace.max(GRACE_MIN)).await {
        tracing::warn!(container = stop.name, %error, "cannot stop the container");
    }
}
