//! Tokens that a webhook knows (`--authentication-token-webhook-config-file`).

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::TokenError;
use crate::dial::{Remote, RemoteError};
use crate::user::{AUTHENTICATED, UserInfo};

const TIMEOUT: Duration = Duration::from_secs(10);
/// Failures that may pass are tried again after this, then after 1.5 times as long, and so on.
const BACKOFF: Duration = Duration::from_millis(500);
const ATTEMPTS: u32 = 5;
const ENTRIES_MAX: usize = 4096;

/// The flags about the webhook.
#[derive(Clone, Debug)]
pub struct TokenWebhookOptions {
    /// A kubeconfig file.
    pub config_file: PathBuf,
    /// Version of the TokenReviews that are sent: `v1` or `v1beta1`.
    pub version: String,
    /// How long answers are remembered.
    pub cache_ttl: Duration,
}

type Known = Option<(UserInfo, Option<Vec<String>>)>;

/// Asks a webhook whose tokens are.
pub struct TokenWebhook {
    remote: Remote,
    version: String,
    ttl: Duration,
    cache: Mutex<HashMap<[u8; 32], (Instant, Known)>>,
}

impl TokenWebhook {
    pub fn new(options: &TokenWebhookOptions) -> Result<Self, RemoteError> {
        let remote = Remote::from_kubeconfig(&options.config_file)?;
        Ok(Self { remote, version: options.version.clone(), ttl: options.cache_ttl, cache: Mutex::default() })
    }

    /// The user, with those of `audiences` that the token is for if the webhook says so; `None` when it does not know
    /// the token.
    pub async fn authenticate(&self, token: &str, audiences: &[String]) -> Result<Known, TokenError> {
        let mut hash = Sha256::new_with_prefix(token);
        audiences.iter().for_each(|audience| hash.update([&[0], audience.as_bytes()].concat()));
        let key: [u8; 32] = hash.finalize().into();
        if let Some((at, known)) = self.cache.lock().get(&key)
            && at.elapsed() < self.ttl
        {
            return Ok(known.clone());
        }
        let known = self.ask(token, audiences).await?;
        let mut cache = self.cache.lock();
        if cache.len() >= ENTRIES_MAX {
            cache.retain(|_, (at, _)| at.elapsed() < self.ttl);
            if cache.len() >= ENTRIES_MAX {
                cache.clear();
            }
        }
        cache.insert(key, (Instant::now(), known.clone()));
        Ok(known)
    }

    async fn ask(&self, token: &str, audiences: &[String]) -> Result<Known, TokenError> {
        let failed = |reason: String| TokenError::Webhook(format!("{}: {reason}", self.remote.url()));
        let review = json!({"apiVersion": format!("authentication.k8s.io/{}", self.version), "kind": "TokenReview",
            "metadata": {"creationTimestamp": null}, "spec": {"token": token, "audiences": audiences}});
        let body = self.remote.post_with_retry(review.to_string().into(), TIMEOUT, BACKOFF, ATTEMPTS);
        let body = body.await.map_err(|error| failed(error.to_string()))?;
        let answer: Value = serde_json::from_slice(&body).map_err(|error| failed(error.to_string()))?;
        let status = &answer["status"];
        if status["authenticated"] != true {
            return match status["error"].as_str().filter(|e| !e.is_empty()) {
                Some(error) => Err(failed(error.to_owned())),
                None => Ok(None),
            };
        }
        let told = status["audiences"].as_array().filter(|a| !a.is_empty()).map(|_| strings(&status["audiences"]));
        if told.as_ref().is_some_and(|told| !audiences.iter().any(|a| told.contains(a))) {
            return Ok(None);
        }
        Ok(Some((user(&status["user"]), told)))
    }
}

fn user(value: &Value) -> UserInfo {
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let mut groups = strings(&value["groups"]);
    if !groups.iter().any(|g| g == AUTHENTICATED) {
        groups.push(AUTHENTICATED.into());
    }
    let extra = value["extra"].as_object().into_iter().flatten();
    let extra = extra.map(|(key, values)| (key.clone(), strings(values))).collect();
    UserInfo { name: text("username"), uid: text("uid"), groups, extra }
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}
