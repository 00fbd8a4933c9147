//! Audit events sent to a server outside, many at a time.

use std::time::Duration;

use serde_json::value::RawValue;

use crate::dial::Remote;

/// One request to the other side may take this long.
const TIMEOUT: Duration = Duration::from_secs(30);
const ATTEMPTS: u32 = 5;

/// How events are gathered.
#[derive(Clone, Debug)]
pub struct BatchOptions {
    /// Events that wait; more are dropped and counted.
    pub buffer: usize,
    pub max_size: usize,
    pub max_wait: Duration,
    /// Batches a second and batches at once; none for no limit.
    pub throttle: Option<(f64, u32)>,
}

impl Default for BatchOptions {
    fn default() -> Self {
        Self { buffer: 10_000, max_size: 400, max_wait: Duration::from_secs(30), throttle: Some((10.0, 15)) }
    }
}

impl BatchOptions {
    /// Upstream's for a log, where writing costs little: at once.
    pub fn of_log() -> Self {
        Self { buffer: 10_000, max_size: 1, max_wait: Duration::ZERO, throttle: None }
    }
}

/// The other side.
pub struct Webhook {
    pub remote: Remote,
    pub initial_backoff: Duration,
}

impl Webhook {
    /// Sends events, again and again for a while when that fails for a reason that may pass.
    pub async fn send(&self, events: &[String]) -> Result<(), String> {
        let body = list(events)?.into();
        let sent = self.remote.post_with_retry(body, TIMEOUT, self.initial_backoff, ATTEMPTS).await;
        sent.map(|_| ()).map_err(|error| format!("{}: {error}", self.remote.url()))
    }
}

fn list(events: &[String]) -> Result<String, String> {
    #[derive(serde::Serialize)]
    #[serde(rename_all = "camelCase")]
    struct EventList<'a> {
        kind: &'a str,
        api_version: &'a str,
        metadata: serde_json::Value,
        items: Vec<&'a RawValue>,
    }
    let items: Result<Vec<&RawValue>, _> = events.iter().map(|event| serde_json::from_str(event)).collect();
    let list = EventList {
        kind: "EventList",
        api_version: "audit.k8s.io/v1",
        metadata: serde_json::json!({}),
        items: items.map_err(|e| e.to_string())?,
    };
    serde_json::to_string(&list).map_err(|e| e.to_string())
}

/// Lets so many batches a second pass.
pub struct Throttle {
    rate: f64,
    burst: f64,
    tokens: f64,
    at: tokio::time::Instant,
}

impl Throttle {
    pub fn new((rate, burst): (f64, u32)) -> Self {
        let burst = f64::from(burst);
        Self { rate, burst, tokens: burst, at: tokio::time::Instant::now() }
    }

    pub async fn wait(&mut self) {
        let now = tokio::time::Instant::now();
        self.tokens = (self.tokens + (now - self.at).as_secs_f64() * self.rate).min(self.burst) - 1.0;
        self.at = now;
        if self.tokens < 0.0 {
            tokio::time::sleep(Duration::from_secs_f64(-self.tokens / self.rate)).await;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_throttle_lets_a_burst_pass_and_then_the_rate() {
        let start = tokio::time::Instant::now();
        let mut throttle = Throttle::new((10.0, 3));
        for _ in 0..3 {
            throttle.wait().await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        for _ in 0..10 {
            throttle.wait().await;
        }
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(990) && took < Duration::from_millis(1100), "{took:?}");
    }

    #[test]
    fn events_become_one_list() {
        let text = list(&[r#"{"auditID":"a"}"#.into(), r#"{"auditID":"b"}"#.into()]).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["items"][1]["auditID"], "b");
        assert_eq!((&value["kind"], &value["apiVersion"]), (&"EventList".into(), &"audit.k8s.io/v1".into()));
    }
}
