//! Images: present, pulled, or refused, with back-off and credentials.

mod keyring;
mod pulled;
pub(crate) mod reference;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod};
use kube1_client::{EventRecorder, EventType};
use kube1_cri::v1::{Image, PodSandboxConfig};
use kube1_cri::{CriError, Runtime};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::backoff::Backoffs;
use crate::config::KubeletConfig;
use crate::object_cache::ObjectCache;
use crate::pod::{self, PodExt};
use keyring::{Credentials, Keyring};
use pulled::{Known, PulledImages};

/// Makes images present.
pub struct Images {
    runtime: Runtime,
    recorder: EventRecorder,
    objects: Arc<ObjectCache>,
    backoffs: Mutex<Backoffs>,
    last_errors: Mutex<HashMap<String, (Timestamp, String)>>,
    pulls: Semaphore,
    pulled: PulledImages,
}

/// Why a container has no image yet, as its waiting state shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFailure {
    pub reason: &'static str,
    pub message: String,
    /// When to try again.
    pub retry_after: Option<Duration>,
}

impl ImageFailure {
    fn new(reason: &'static str, message: String, retry_after: Option<Duration>) -> Self {
        Self { reason, message, retry_after }
    }
}

/// How an image is needed.
pub struct ImageRequest<'a> {
    pub pod: &'a Pod,
    pub container: &'a Container,
    /// The container, for events.
    pub object: ObjectReference,
    pub sandbox: PodSandboxConfig,
    /// What was found a moment ago.
    pub known: Option<&'a Image>,
}

impl Images {
    pub fn new(runtime: Runtime, recorder: EventRecorder, objects: Arc<ObjectCache>, config: &KubeletConfig) -> Self {
        Self {
            runtime,
            recorder,
            objects,
            backoffs: Mutex::default(),
            last_errors: Mutex::default(),
            pulls: Semaphore::new(config.settings.max_parallel_image_pulls),
            pulled: PulledImages::new(&config.data_dir),
        }
    }

    /// Those of a pod's images that the node has, by the names that its containers ask for. What cannot be told now is
    /// left to [`Self::ensure`].
    pub async fn present(&self, pod: &Pod) -> HashMap<String, Image> {
        let names: HashSet<String> = pod::containers(pod.spec()).into_iter().filter_map(|(_, c)| c.image).collect();
        let names = names.into_iter().filter(|name| reference::check(name).is_ok());
        let look = |name: String| async move { Some((name.clone(), self.runtime.image_status(&name).await.ok()??)) };
        join_all(names.map(look)).await.into_iter().flatten().collect()
    }

    /// The container's image, pulled if its policy asks for it. Dropping the future ends a pull.
    pub async fn ensure(&self, request: &ImageRequest<'_>) -> Result<Image, ImageFailure> {
        let name = request.container.image.clone().unwrap_or_default();
        if let Err(reason) = reference::check(&name) {
            let message =
                format!("Failed to apply default image tag \"{name}\": couldn't parse image name \"{name}\": {reason}");
            self.event(request, EventType::Warning, "InspectFailed", message.clone());
            return Err(ImageFailure::new("InvalidImageName", message, None));
        }
        let present = match request.known {
            Some(image) => Some(image.clone()),
            None => self.runtime.image_status(&name).await.map_err(|error| {
                let message = format!("Failed to inspect image \"{name}\": {error}");
                self.event(request, EventType::Warning, "InspectFailed", message.clone());
                ImageFailure::new("ImageInspectError", message, Some(Duration::from_secs(5)))
            })?,
        };
        let policy = policy(request.container, &name);
        let usable = match &present {
            Some(image) if policy != "Always" => self.may_use(request.pod, image, &name).await,
            _ => false,
        };
        match (policy, present) {
            ("IfNotPresent" | "Never", Some(image)) if usable => {
                let message = format!("Container image \"{name}\" already present on machine");
                self.event(request, EventType::Normal, "Pulled", message);
                Ok(image)
            }
            ("Never", present) => {
                let state = match present {
                    Some(_) => {
                        "present with pull policy of Never but does not have the proper credentials to access the image"
                    }
                    None => "not present with pull policy of Never",
                };
                let message = format!("Container image \"{name}\" is {state}");
                self.event(request, EventType::Warning, "ErrImageNeverPull", message.clone());
                Err(ImageFailure::new("ErrImageNeverPull", message, Some(Duration::from_secs(10))))
            }
            _ => self.pull_with_backoff(request, &name).await,
        }
    }

    /// Whether a pod may use an image that is here: it is everybody's, or the pod has credentials with which it was pulled.
    async fn may_use(&self, pod: &Pod, image: &Image, name: &str) -> bool {
        let Known::With(secrets) = self.pulled.known(&image.id, name) else { return true };
        let keyring = self.keyring(pod).await;
        let own = keyring.lookup(name);
        own.iter().any(|own| secrets.iter().any(|known| known.credential_hash == own.source.credential_hash))
    }

    async fn pull_with_backoff(&self, request: &ImageRequest<'_>, name: &str) -> Result<Image, ImageFailure> {
        let key = format!("{}_{name}", request.pod.uid());
        let failed = self.last_errors.lock().get(&key).cloned();
        if let Some((failed_at, error)) = failed {
            let left = self.backoffs.lock().remaining(&key, failed_at, Timestamp::now());
            if let Some((left, _)) = left {
                let message = format!("Back-off pulling image \"{name}\"");
                self.event(request, EventType::Normal, "BackOff", message.clone());
                let message = format!("{message}: ErrImagePull: {error}");
                return Err(ImageFailure::new("ImagePullBackOff", message, Some(left)));
            }
        }
        let message = format!("Pulling image \"{name}\"");
        self.event(request, EventType::Normal, "Pulling", message);
        let start = Instant::now();
        match self.pull(request, name).await {
            Ok((image, waited)) => {
                self.last_errors.lock().remove(&key);
                self.backoffs.lock().reset(&key);
                let (took, all) = (seconds(start.elapsed().saturating_sub(waited)), seconds(start.elapsed()));
                let message = format!(
                    "Successfully pulled image \"{name}\" in {took} ({all} including waiting). Image size: {} bytes.",
                    image.size
                );
                self.event(request, EventType::Normal, "Pulled", message);
                Ok(image)
            }
            Err(error) => {
                let now = Timestamp::now();
                self.backoffs.lock().failed(&key, now);
                let message = format!("failed to pull image \"{name}\": {error}");
                self.last_errors.lock().insert(key.clone(), (now, message.clone()));
                self.event(request, EventType::Warning, "Failed", format!("Failed to pull image \"{name}\": {error}"));
                let retry = self.backoffs.lock().remaining(&key, now, now).map(|(left, _)| left);
                // The state shows the error now, and that it waits a moment later.
                Err(ImageFailure::new("ErrImagePull", message, retry.map(|r| r.min(Duration::from_secs(1)))))
            }
        }
    }

    async fn pull(&self, request: &ImageRequest<'_>, name: &str) -> Result<(Image, Duration), CriError> {
        let start = Instant::now();
        let permit = self.pulls.acquire().await;
        let waited = start.elapsed();
        let keyring = self.keyring(request.pod).await;
        let mut all: Vec<_> = keyring.lookup(name).into_iter().map(Some).collect();
        if all.is_empty() {
            all.push(None);
        }
        if let Err(error) = self.pulled.begin(name) {
            tracing::warn!(name, %error, "cannot note that an image is pulled");
        }
        let mut result = Err(None);
        for credentials in all {
            let auth = credentials.as_ref().map(|c| c.auth.clone());
            match self.runtime.pull_image(name, auth, Some(request.sandbox.clone())).await {
                Ok(image) => {
                    result = Ok((image, credentials));
                    break;
                }
                Err(error) => result = Err(Some(error)),
            }
        }
        drop(permit);
        let (pulled, credentials): (String, Option<Credentials>) = match result {
            Ok(pulled) => pulled,
            Err(Some(error)) => {
                self.pulled.end(name);
                return Err(error);
            }
            // There is always at least one attempt, so this only keeps the types honest.
            Err(None) => (name.to_owned(), None),
        };
        let image = self.runtime.image_status(&pulled).await?;
        let image = image.unwrap_or_else(|| Image { id: pulled, ..Image::default() });
        if let Err(error) = self.pulled.record(&image.id, name, credentials.as_ref().map(|c| &c.source)) {
            tracing::warn!(name, %error, "cannot record with which credentials an image was pulled");
        }
        Ok((image, waited))
    }

    /// Credentials from the pod's pull secrets. One that is missing is no failure: the image may be public.
    async fn keyring(&self, pod: &Pod) -> Keyring {
        let mut keyring = Keyring::default();
        for reference in pod.spec().image_pull_secrets.iter().flatten() {
            match self.objects.secret(pod.uid(), pod.namespace(), &reference.name).await {
                Ok(secret) => keyring.add(&secret),
                Err(error) => {
                    let message = format!(
                        "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                        reference.name
                    );
                    self.recorder.event(pod, EventType::Warning, "FailedToRetrieveImagePullSecret", message);
                    tracing::debug!(%error, "no pull secret");
                }
            }
        }
        keyring
    }

    fn event(&self, request: &ImageRequest<'_>, kind: EventType, reason: &str, message: String) {
        self.recorder.event_for(request.object.clone(), kind, reason, message);
    }

    /// Forgets of images that the runtime has no more with which credentials they came.
    pub fn retain(&self, ids: &[&str]) {
        self.pulled.retain(ids);
    }

    /// Forgets a pod's failed pulls.
    pub fn release(&self, uid: &str) {
        let mut errors = self.last_errors.lock();
        let gone: Vec<String> = errors.keys().filter(|key| key.starts_with(uid)).cloned().collect();
        for key in gone {
            errors.remove(&key);
            self.backoffs.lock().reset(&key);
        }
    }
}

fn seconds(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{}ms", time.as_millis())
    } else {
        format!("{:.3}s", time.as_secs_f64())
    }
}

/// The container's policy; without one, only images without a fixed tag are pulled anew.
fn policy<'a>(container: &'a Container, image: &str) -> &'a str {
    let default = if reference::is_latest(image) { "Always" } else { "IfNotPresent" };
    container.image_pull_policy.as_deref().filter(|p| !p.is_empty()).unwrap_or(default)
}
