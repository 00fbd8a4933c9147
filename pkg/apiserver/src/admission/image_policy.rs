//! ImagePolicyWebhook: asks a server outside whether the images of pods may run.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use kube1_api::status::Status;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::pod_defaults::items;
use super::{Attributes, Plugin};
use crate::dial::Remote;

const TIMEOUT: Duration = Duration::from_secs(30);
const ATTEMPTS: u32 = 5;
/// Answers that are remembered; when full, what is outdated goes, or all.
const ENTRIES_MAX: usize = 1024;
const AUDIT: &str = "imagepolicywebhook.image-policy.k8s.io/";
/// Annotations of pods that the server is told.
const TOLD: &str = ".image-policy.k8s.io/";

/// The plugin's configuration as it is written, and as one asks for it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ImagePolicyFile {
    #[serde(rename = "imagePolicy")]
    pub policy: ImagePolicy,
}

/// Times in the units of the file: seconds, and milliseconds of the back-off; 0 is the default and -1 none.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ImagePolicy {
    pub(super) kube_config_file: PathBuf,
    #[serde(default, rename = "allowTTL")]
    allow_ttl: i64,
    #[serde(default, rename = "denyTTL")]
    deny_ttl: i64,
    #[serde(default)]
    retry_backoff: i64,
    #[serde(default)]
    default_allow: bool,
}

impl ImagePolicy {
    pub(super) fn check(&self) -> Result<(), String> {
        let half_an_hour = 1800;
        for (name, value, most) in [
            ("allowTTL", self.allow_ttl, half_an_hour),
            ("denyTTL", self.deny_ttl, half_an_hour),
            ("retryBackoff", self.retry_backoff, 300_000),
        ] {
            if !(-1..=most).contains(&value) {
                return Err(format!("{name}: {value} lies not between 1 and {most}"));
            }
        }
        match self.kube_config_file.as_os_str().is_empty() {
            true => Err("kubeConfigFile is missing".into()),
            false => Ok(()),
        }
    }
}

fn time(value: i64, unit: Duration, default: Duration) -> Duration {
    match value {
        0 => default,
        value => unit.saturating_mul(u32::try_from(value).unwrap_or(0)),
    }
}

/// Asks the server.
pub struct ImagePolicyWebhook {
    remote: Remote,
    allow_ttl: Duration,
    deny_ttl: Duration,
    backoff: Duration,
    default_allow: bool,
    known: Mutex<HashMap<String, (Instant, Value)>>,
}

impl ImagePolicyWebhook {
    pub fn new(policy: &ImagePolicy, remote: Remote) -> Self {
        let second = Duration::from_secs(1);
        Self {
            remote,
            allow_ttl: time(policy.allow_ttl, second, Duration::from_secs(300)),
            deny_ttl: time(policy.deny_ttl, second, Duration::from_secs(30)),
            backoff: time(policy.retry_backoff, Duration::from_millis(1), Duration::from_millis(500)),
            default_allow: policy.default_allow,
            known: Mutex::default(),
        }
    }

    /// The server's status of a review with this spec.
    async fn ask(&self, spec: &Value) -> Result<Value, String> {
        let key = spec.to_string();
        if let Some((until, status)) = self.known.lock().get(&key)
            && Instant::now() < *until
        {
            return Ok(status.clone());
        }
        let review = json!({"apiVersion": "imagepolicy.k8s.io/v1alpha1", "kind": "ImageReview",
            "metadata": {"creationTimestamp": null}, "spec": spec, "status": {"allowed": false}});
        let sent = self.remote.post_with_retry(review.to_string().into(), TIMEOUT, self.backoff, ATTEMPTS);
        let body = sent.await.map_err(|error| format!("{}: {}", self.remote.url(), error.with_cause()))?;
        let answer: Value = serde_json::from_slice(&body).map_err(|e| format!("{}: {e}", self.remote.url()))?;
        let status = answer["status"].clone();
        let ttl = if status["allowed"] == true { self.allow_ttl } else { self.deny_ttl };
        let mut known = self.known.lock();
        if known.len() >= ENTRIES_MAX {
            let now = Instant::now();
            known.retain(|_, (until, _)| now < *until);
            if known.len() >= ENTRIES_MAX {
                known.clear();
            }
        }
        known.insert(key, (Instant::now() + ttl, status.clone()));
        Ok(status)
    }
}

/// What the server is told of a pod.
fn spec(pod: &Value, namespace: &str) -> Value {
    let containers = items(&pod["spec"]["containers"]).chain(items(&pod["spec"]["initContainers"]));
    let containers: Vec<Value> = containers.map(|c| json!({"image": c["image"]})).collect();
    let annotations = pod["metadata"]["annotations"].as_object().into_iter().flatten();
    let annotations: Map<String, Value> =
        annotations.filter(|(key, _)| key.contains(TOLD)).map(|(key, value)| (key.clone(), value.clone())).collect();
    let mut spec = json!({"containers": containers, "namespace": namespace});
    if !annotations.is_empty() {
        spec["annotations"] = annotations.into();
    }
    spec
}

#[async_trait]
impl Plugin for ImagePolicyWebhook {
    fn name(&self) -> &'static str {
        "ImagePolicyWebhook"
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        attributes.writes("", "pods")
    }

    async fn validate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        let spec = spec(attributes.object.as_ref().unwrap_or(&Value::Null), &attributes.namespace);
        let status = match self.ask(&spec).await {
            Ok(status) => status,
            Err(error) if self.default_allow => {
                tracing::warn!(error, "the image policy webhook failed, which its configuration ignores");
                attributes.annotate(format!("{AUDIT}failed-open"), "true");
                return Ok(());
            }
            Err(error) => return Err(attributes.forbidden(error)),
        };
        for (key, value) in status["auditAnnotations"].as_object().into_iter().flatten() {
            attributes.annotate(format!("{AUDIT}{key}"), value.as_str().unwrap_or_default());
        }
        match (status["allowed"] == true, status["reason"].as_str().unwrap_or_default()) {
            (true, _) => Ok(()),
            (_, "") => Err(attributes.forbidden("one or more images rejected by webhook backend")),
            (_, reason) => {
                let why = format!("image policy webhook backend denied one or more images: {reason}");
                Err(attributes.forbidden(why))
            }
        }
    }
}
