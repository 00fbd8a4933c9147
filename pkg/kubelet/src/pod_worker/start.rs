//! Making a sandbox and starting containers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::Api;
use kube1_client::EventType;
use kube1_cri::v1::PodSandboxConfig;
use tokio::time::Instant;

use super::making::{self, Making};
use super::plan::{Blocked, backoff_key};
use super::{PodWorker, restart_count};
use crate::container::{Inputs, VolumeImage, container_config, has_sub_path};
use crate::env::{EnvSources, container_env, visible_services};
use crate::hook;
use crate::image::ImageRequest;
use crate::meters::container_type;
use crate::node::container_ref;
use crate::observed::Observed;
use crate::pod::{self, ContainerKind, PodExt};
use crate::probe::Target;
use crate::restart_round::Round;
use crate::status::Waiting;
use crate::user_namespace::IdRange;
use crate::{dns, resources, sandbox};

const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(15);
/// How long a container waits for the first list of services.
const SERVICES: Duration = Duration::from_secs(10);
/// A container whose configuration is wrong is tried again after this long.
const CONFIG_RETRY: Duration = Duration::from_secs(10);

/// Why a container could not be started.
struct StartError {
    waiting: Waiting,
    retry_after: Option<Duration>,
}

impl StartError {
    fn new(reason: &str, message: impl Into<String>) -> Self {
        Self { waiting: Waiting::new(reason, message), retry_after: Some(CONFIG_RETRY) }
    }
}

impl PodWorker {
    /// Makes the pod's volumes current and its sandbox if one is wanted, whose id it gives. `None`: containers cannot be
    /// started yet.
    pub(super) async fn prepare(
        &mut self,
        pod: &Pod,
        observed: &Observed,
        new_sandbox: bool,
    ) -> Option<Option<String>> {
        if self.retry.is_some_and(|(at, _)| at > Instant::now()) {
            return None;
        }
        let node = Arc::clone(&self.node);
        let facts = node.facts(observed.pod_ips());
        let volumes = node.volumes.set_up(pod, &facts);
        let (volumes, made) = if new_sandbox {
            let images = node.images.present(pod);
            let (volumes, images, made) = tokio::join!(volumes, images, self.make_sandbox(pod, observed));
            self.images = images;
            (volumes, made.map(Some))
        } else {
            (volumes.await, Ok(None))
        };
        let sandbox = match made {
            Ok(sandbox) => sandbox,
            Err(message) => {
                node.meters.pods_failed.add("", 1.0);
                let message = format!("Failed to create pod sandbox: {message}");
                return self.retry_later(EventType::Warning, "FailedCreatePodSandBox", message);
            }
        };
        if new_sandbox {
            node.meters.pods_started.add("", 1.0);
            self.limits = Some(resources::pod_limits(pod.spec()));
        }
        match volumes {
            Ok(volumes) => self.volumes = volumes,
            Err(failed) => return self.retry_later(EventType::Warning, "FailedMount", failed.to_string()),
        }
        self.retry = None;
        Some(sandbox)
    }

    fn retry_later<T>(&mut self, kind: EventType, reason: &str, message: String) -> Option<T> {
        let delay = self.retry.map_or(RETRY_MIN, |(_, delay)| (delay * 2).min(RETRY_MAX));
        self.retry = Some((Instant::now() + delay, delay));
        self.event(kind, reason, message);
        None
    }

    fn sandbox_config(&self, pod: &Pod, attempt: u32) -> Result<PodSandboxConfig, String> {
        let parent = self.node.cgroups.pod_path(pod::qos_class(pod.spec()), &self.uid);
        sandbox::sandbox_config(&self.node.config, pod, attempt, parent, self.ids(pod)?)
    }

    /// The pod's own user ids, if it wants such.
    fn ids(&self, pod: &Pod) -> Result<Option<IdRange>, String> {
        let wanted = pod.spec().host_users == Some(false);
        wanted.then(|| self.node.user_namespaces.range(&self.uid)).transpose().map_err(|error| error.to_string())
    }

    /// Replaces what is left of an earlier sandbox by a new one.
    async fn make_sandbox(&self, pod: &Pod, observed: &Observed) -> Result<String, String> {
        let handler = self.runtime_handler(pod).await?;
        if pod.spec().host_users == Some(false) && !self.node.features.lock().handler(&handler).user_namespaces {
            return Err(format!(
                "can't set `spec.hostUsers: false`, runtime does not support user namespaces (handler {handler:?})"
            ));
        }
        for old in &observed.sandboxes {
            self.node.runtime.stop_pod_sandbox(&old.id).await.map_err(|e| e.to_string())?;
        }
        let class = pod::qos_class(pod.spec());
        let limits = resources::pod_limits(pod.spec());
        let (cgroups, uid) = (self.node.cgroups.clone(), self.uid.clone());
        let made = tokio::task::spawn_blocking(move || cgroups.apply_pod(class, &uid, limits)).await;
        made.map_err(|e| e.to_string())?.map_err(|e| format!("cannot make the pod's cgroup: {e}"))?;
        let dir = self.node.config.pod_log_dir(pod.namespace(), pod.name(), &self.uid);
        std::fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let attempts = observed.sandboxes.iter().filter_map(|s| s.metadata.as_ref()).map(|m| m.attempt + 1);
        let config = self.sandbox_config(pod, attempts.max().unwrap_or(0))?;
        let make = making::make_sandbox(&self.making, self.node.runtime.run_pod_sandbox(config, &handler));
        let made = self.node.turns.sandbox(make).await;
        let id = made.map_err(|e| e.to_string())?;
        self.node.owners.set(&id, &self.uid);
        Ok(id)
    }

    async fn runtime_handler(&self, pod: &Pod) -> Result<String, String> {
        let Some(name) = pod.spec().runtime_class_name.as_deref().filter(|n| !n.is_empty()) else {
            return Ok(String::new());
        };
        let classes: Api<k8s_openapi::api::node::v1::RuntimeClass> = Api::all(self.node.config.client.clone());
        match classes.get_opt(name).await {
            Ok(Some(class)) => Ok(class.handler),
            Ok(None) => Err(format!("failed to get sandbox runtime: RuntimeClass \"{name}\" not found")),
            Err(error) => Err(format!("failed to get sandbox runtime: {error}")),
        }
    }

    /// Pulls, creates and starts a container and gives its id. A failure is told by event and waiting state and tried
    /// again later.
    pub(super) async fn start_container(
        &mut self,
        pod: &Pod,
        observed: &Observed,
        kind: ContainerKind,
        container: &Container,
    ) -> Option<String> {
        let name = &container.name;
        let latest = observed.latest(name);
        if latest.is_some_and(|c| c.is_exited()) {
            self.backoffs.failed(&backoff_key(container), Timestamp::now());
        }
        match self.try_start(pod, observed, kind, container).await {
            Ok(id) => {
                let of = format!("container_type=\"{}\"", container_type(kind));
                self.node.meters.containers_started.add(&of, 1.0);
                self.blocked.remove(&backoff_key(container));
                Some(id)
            }
            Err(error) => {
                let of = format!("container_type=\"{}\",code=\"{}\"", container_type(kind), error.waiting.reason);
                self.node.meters.containers_failed.add(&of, 1.0);
                let event = if error.waiting.reason.starts_with("Err") || error.waiting.reason.contains("Image") {
                    format!("Error: {}", error.waiting.reason)
                } else {
                    format!("Error: {}", error.waiting.message.clone().unwrap_or_default())
                };
                self.container_event(pod, name, EventType::Warning, "Failed", &event);
                let after = error.retry_after.and_then(|d| jiff::SignedDuration::try_from(d).ok());
                let retry_at = after.map(|after| Timestamp::now() + after);
                self.blocked.insert(backoff_key(container), Blocked { waiting: error.waiting, retry_at });
                None
            }
        }
    }

    async fn try_start(
        &mut self,
        pod: &Pod,
        observed: &Observed,
        kind: ContainerKind,
        container: &Container,
    ) -> Result<String, StartError> {
        let node = Arc::clone(&self.node);
        let internal = |message: String| StartError::new("CreateContainerError", message);
        let Some(current) = &observed.sandbox else { return Err(internal("the pod has no sandbox".to_owned())) };
        let attempt_of_sandbox = current.metadata.as_ref().map_or(0, |m| m.attempt);
        let sandbox = self.sandbox_config(pod, attempt_of_sandbox).map_err(internal)?;
        let object = container_ref(pod, kind, &container.name);
        let known = container.image.as_ref().and_then(|name| self.images.get(name));
        let request = ImageRequest { pod, container, object: object.clone(), sandbox: sandbox.clone(), known };
        let asked = Instant::now();
        let image = node.images.ensure(&request).await;
        self.pulling += asked.elapsed();
        let image = image.map_err(|failure| StartError {
            waiting: Waiting::new(failure.reason, failure.message),
            retry_after: failure.retry_after,
        })?;
        let pod_ips = if pod.is_host_network() { vec![node.config.node_ip.to_string()] } else { observed.pod_ips() };
        let facts = node.facts(pod_ips.clone());
        let config_error = |message: String| StartError::new("CreateContainerConfigError", message);
        let volume_images = self.volume_images(&request).await?;
        // A pod that starts before the services are known would miss their variables for its whole life.
        if !pod.is_static() && tokio::time::timeout(SERVICES, node.services.synced()).await.is_err() {
            return Err(config_error(
                "services have not yet been read at least once, cannot construct envvars".to_owned(),
            ));
        }
        let sources = EnvSources {
            pod,
            facts: &facts,
            objects: &node.objects,
            services: visible_services(pod, node.services.list()),
            volumes: &self.volumes,
        };
        let env = container_env(&sources, container).await.map_err(|e| config_error(e.to_string()))?;
        let hosts_file = dns::write_hosts(&node.config, pod, &pod_ips).map_err(|e| internal(e.to_string()))?;
        let latest = observed.latest(&container.name);
        // A container that never ran does not count as a restart, but its name is taken.
        let attempt = latest.map_or_else(|| self.first_attempt(&container.name), |c| restart_count(c) + 1);
        let target = self.target_of(pod, observed, container);
        let handler = self.runtime_handler(pod).await.map_err(config_error)?;
        let features = node.features.lock().handler(&handler);
        let config = container_config(&Inputs {
            config: &node.config,
            pod,
            container,
            env,
            image: &image,
            volumes: &self.volumes,
            volume_images,
            hosts_file: Some(hosts_file),
            attempt,
            round: Round::of(pod, observed),
            target_id: target,
            machine: &node.machine,
            ids: self.ids(pod).map_err(config_error)?,
            features,
        })
        .map_err(|e| config_error(e.to_string()))?;
        let make = async {
            let _making = Making::new(&self.making);
            let id = node.runtime.create_container(&current.id, config, sandbox).await;
            let id = id.map_err(|e| internal(e.to_string()))?;
            node.owners.set(&id, &self.uid);
            node.recorder.event_for(object.clone(), EventType::Normal, "Created", "Container created");
            let started = node.runtime.start_container(&id).await;
            // The runtime keeps it as a container that ended with an error, which is then subject to back-off.
            let at_once =
                |e| StartError { retry_after: Some(Duration::ZERO), ..StartError::new("RunContainerError", e) };
            started.map(|()| id).map_err(|e| at_once(e.to_string()))
        };
        let id = node.turns.container(make).await?;
        node.recorder.event_for(object.clone(), EventType::Normal, "Started", "Container started");
        self.remove_older(observed, &container.name).await;
        let Some(hook) = container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref()) else { return Ok(id) };
        let ip = pod_ips.first().cloned().unwrap_or_default();
        let target = Target { container_id: id.clone(), container: container.clone(), pod_ip: ip };
        if let Err(reason) = hook::run(&node.runtime, &target, hook, Duration::ZERO).await {
            node.recorder.event_for(object, EventType::Warning, "FailedPostStartHook", "PostStartHook failed");
            self.stop_container(pod, kind, &container.name, &id, pod.grace_period(), "FailedPostStartHook").await;
            return Err(StartError {
                retry_after: Some(Duration::ZERO),
                ..StartError::new("PostStartHookError", reason)
            });
        }
        Ok(id)
    }

    /// Makes the images present that the container mounts as volumes.
    async fn volume_images(&self, request: &ImageRequest<'_>) -> Result<HashMap<String, VolumeImage>, StartError> {
        let mut ids = HashMap::new();
        for mount in request.container.volume_mounts.iter().flatten() {
            let Some(source) = self.volumes.paths.get(&mount.name).and_then(|v| v.image.clone()) else { continue };
            let container = Container {
                image: Some(source.reference),
                image_pull_policy: source.pull_policy,
                ..request.container.clone()
            };
            let request = ImageRequest {
                pod: request.pod,
                container: &container,
                object: request.object.clone(),
                sandbox: request.sandbox.clone(),
                known: None,
            };
            let image = self.node.images.ensure(&request).await.map_err(|failure| StartError {
                waiting: Waiting::new(failure.reason, failure.message),
                retry_after: failure.retry_after,
            })?;
            // Images that were loaded from an archive are known by name only.
            let name = image.repo_tags.into_iter().chain(image.repo_digests).next();
            let name = name.unwrap_or(image.id);
            let known: Option<&VolumeImage> = ids.get(&mount.name);
            let mut dir = known.and_then(|image| image.dir.clone());
            if has_sub_path(mount) && dir.is_none() {
                let made = self.node.volumes.image_dir(request.pod, &mount.name, &name).await;
                let failed = |error| format!("failed to mount image volume {}: {error}", mount.name);
                dir = Some(made.map_err(|error| StartError::new("CreateContainerError", failed(error)))?);
            }
            ids.insert(mount.name.clone(), VolumeImage { name, dir });
        }
        Ok(ids)
    }

    /// How often a container had run that the runtime has forgotten.
    fn first_attempt(&self, name: &str) -> u32 {
        let last = self.writer.last();
        let statuses =
            last.iter().flat_map(|s| s.container_statuses.iter().chain(&s.init_container_statuses).flatten());
        let known = statuses.filter(|s| s.container_id.is_some()).find(|s| s.name == name);
        known.and_then(|s| u32::try_from(s.restart_count).ok()).map_or(0, |count| count + 1)
    }

    /// The running container whose processes an ephemeral container asks to see.
    fn target_of(&self, pod: &Pod, observed: &Observed, container: &Container) -> Option<String> {
        let ephemeral = pod.spec().ephemeral_containers.iter().flatten().find(|c| c.name == container.name)?;
        let target = ephemeral.target_container_name.as_deref()?;
        observed.latest(target).filter(|c| c.is_running()).map(|c| c.id().to_owned())
    }

    /// Of the ended containers of a name only the newest is kept, for its status and its log.
    async fn remove_older(&self, observed: &Observed, name: &str) {
        for old in observed.containers.iter().filter(|c| c.name == name && !c.is_running()).skip(1) {
            if let Err(error) = self.node.runtime.remove_container(old.id()).await {
                tracing::debug!(%error, "an old container stays for now");
                continue;
            }
            let config = &self.node.config;
            let pod = self.pod();
            let dir = config.pod_log_dir(pod.namespace(), pod.name(), &self.uid).join(name);
            crate::log_file::remove(&dir, old.attempt);
            let _ = std::fs::remove_file(crate::container::termination_path(config, &self.uid, name, old.attempt));
        }
    }
}
