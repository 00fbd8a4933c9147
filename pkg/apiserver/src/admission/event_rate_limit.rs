//! EventRateLimit: how many events are taken a second, of all, of a namespace, a user or about one object.

use std::collections::HashMap;

use async_trait::async_trait;
use kube1_api::status::Status;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use super::{Attributes, Operation, Plugin};

const CACHE_DEFAULT: usize = 4096;

/// The plugin's configuration.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct EventRateLimits {
    pub limits: Vec<EventRateLimit>,
}

/// One limit.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EventRateLimit {
    #[serde(rename = "type")]
    kind: String,
    qps: i32,
    burst: i32,
    #[serde(default)]
    cache_size: i32,
}

impl EventRateLimit {
    pub(super) fn check(&self) -> Result<(), String> {
        const KINDS: [&str; 4] = ["Server", "Namespace", "User", "SourceAndObject"];
        match () {
            () if !KINDS.contains(&self.kind.as_str()) => {
                Err(format!("type {:?} is none of {}", self.kind, KINDS.join(", ")))
            }
            () if self.qps <= 0 || self.burst <= 0 => Err("qps and burst must be positive".into()),
            () if self.cache_size < 0 => Err("cacheSize must not be negative".into()),
            () => Ok(()),
        }
    }

    /// Whose rate is measured.
    fn key(&self, attributes: &Attributes) -> String {
        match self.kind.as_str() {
            "Namespace" => attributes.namespace.clone(),
            "User" => attributes.user.name.clone(),
            "SourceAndObject" => {
                let event = attributes.object.as_ref().unwrap_or(&Value::Null);
                let (source, object) = (&event["source"], &event["involvedObject"]);
                let about = ["kind", "namespace", "name", "uid", "apiVersion"].map(|key| &object[key]);
                [&source["component"], &source["host"]].into_iter().chain(about).filter_map(Value::as_str).collect()
            }
            _ => String::new(),
        }
    }
}

/// What one key may still do.
struct Bucket {
    tokens: f64,
    at: Instant,
}

/// Refuses events beyond the limits.
pub struct EventRates {
    limits: Vec<(EventRateLimit, Mutex<HashMap<String, Bucket>>)>,
}

impl EventRates {
    pub fn new(limits: &[EventRateLimit]) -> Self {
        Self { limits: limits.iter().map(|limit| (limit.clone(), Mutex::default())).collect() }
    }

    fn take(limit: &EventRateLimit, buckets: &mut HashMap<String, Bucket>, key: &str) -> bool {
        let (now, burst) = (Instant::now(), f64::from(limit.burst));
        if !buckets.contains_key(key) {
            let most = usize::try_from(limit.cache_size).ok().filter(|size| *size > 0).unwrap_or(CACHE_DEFAULT);
            if buckets.len() >= most {
                let oldest = buckets.iter().min_by_key(|(_, bucket)| bucket.at).map(|(key, _)| key.clone());
                oldest.map(|key| buckets.remove(&key));
            }
            buckets.insert(key.to_owned(), Bucket { tokens: burst, at: now });
        }
        let Some(bucket) = buckets.get_mut(key) else { return true };
        let gained = now.duration_since(bucket.at).as_secs_f64() * f64::from(limit.qps);
        (bucket.tokens, bucket.at) = ((bucket.tokens + gained).min(burst), now);
        let taken = bucket.tokens >= 1.0;
        if taken {
            bucket.tokens -= 1.0;
        }
        taken
    }
}

#[async_trait]
impl Plugin for EventRates {
    fn name(&self) -> &'static str {
        "EventRateLimit"
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        matches!(attributes.operation, Operation::Create | Operation::Update)
            && (attributes.is("", "events") || attributes.is("events.k8s.io", "events"))
    }

    async fn validate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        let mut refused = Ok(());
        // Each limit counts the event, whatever another says.
        for (limit, buckets) in &self.limits {
            let key = limit.key(attributes);
            if !Self::take(limit, &mut buckets.lock(), &key) {
                let why = format!("limit reached on type {} for key {key}", limit.kind);
                refused = Err(Status::too_many_requests(why, 0));
            }
        }
        refused
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_bucket_fills_again_and_few_are_kept() {
        let limit: EventRateLimit =
            serde_json::from_value(serde_json::json!({"type": "User", "qps": 1, "burst": 2, "cacheSize": 2})).unwrap();
        let mut buckets = HashMap::new();
        let mut take = |key: &str| EventRates::take(&limit, &mut buckets, key);
        assert_eq!([take("a"), take("a"), take("a")], [true, true, false]);
        tokio::time::advance(Duration::from_millis(1500)).await;
        assert!(take("b"));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!([take("a"), take("a")], [true, false]);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(take("c"), "in place of b, which was used longest ago");
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!([take("b"), take("b"), take("b")], [true, true, false], "forgotten and new");
    }
}
