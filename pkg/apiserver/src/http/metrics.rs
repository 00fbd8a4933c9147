//! The server's own metrics, under upstream's names.

use std::time::Duration;

use kube1_api::status::Status;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::request_info::RequestInfo;

const BUCKETS: [f64; 12] = [0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 1.0, 2.0, 5.0, 15.0, 60.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    verb: String,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
    code: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DurationLabels {
    verb: String,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindLabels {
    request_kind: &'static str,
}

/// Counters of the HTTP front.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Family<DurationLabels, Histogram, fn() -> Histogram>,
    inflight: Family<KindLabels, Gauge>,
    watches: Gauge,
}

fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let requests = Family::default();
        let durations = Family::new_with_constructor(histogram as fn() -> Histogram);
        let inflight = Family::default();
        let watches = Gauge::default();
        registry.register("apiserver_request", "Requests by verb, resource and code", requests.clone());
        let help = "Response latency in seconds, long-running requests left out";
        registry.register("apiserver_request_duration_seconds", help, durations.clone());
        registry.register("apiserver_current_inflight_requests", "Requests being handled", inflight.clone());
        registry.register("apiserver_longrunning_requests", "Open watches and streams", watches.clone());
        Self { registry, requests, durations, inflight, watches }
    }
}

impl Metrics {
    /// Counts an answered request.
    pub fn request(&self, info: &RequestInfo, code: u16, took: Duration, long_running: bool) {
        let scope = match (info.is_resource, info.namespace.is_empty(), info.is_collection()) {
            (false, ..) => "",
            (true, _, false) => "resource",
            (true, false, true) => "namespace",
            (true, true, true) => "cluster",
        };
        let labels = DurationLabels {
            verb: info.verb.to_uppercase(),
            group: info.group.clone(),
            version: info.version.clone(),
            resource: info.resource.clone(),
            subresource: info.subresource.clone(),
            scope,
        };
        if code < 400 && !long_running {
            self.durations.get_or_create(&labels).observe(took.as_secs_f64());
        }
        // What does not exist must not make the metrics grow without bound.
        let known = code != 404 || !info.is_resource;
        let text = |value: String| if known { value } else { String::new() };
        let labels = RequestLabels {
            verb: labels.verb,
            group: text(labels.group),
            version: text(labels.version),
            resource: text(labels.resource),
            subresource: text(labels.subresource),
            scope,
            code,
        };
        self.requests.get_or_create(&labels).inc();
    }

    /// Counts a request as being handled until the guard is dropped.
    pub fn enter(&self, info: &RequestInfo, long_running: bool) -> Inflight {
        let reads = matches!(info.verb.as_str(), "get" | "list" | "watch");
        let kind = if reads { "readOnly" } else { "mutating" };
        let gauge = if long_running {
            self.watches.clone()
        } else {
            self.inflight.get_or_create(&KindLabels { request_kind: kind }).clone()
        };
        gauge.inc();
        Inflight(gauge)
    }

    /// The text that Prometheus reads.
    pub fn render(&self) -> Result<String, Status> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).map_err(Status::internal)?;
        Ok(text)
    }
}

/// A request that is being handled.
pub struct Inflight(Gauge);

impl Drop for Inflight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_under_upstreams_names() {
        let metrics = Metrics::default();
        let info = RequestInfo {
            is_resource: true,
            verb: "list".into(),
            version: "v1".into(),
            resource: "pods".into(),
            ..RequestInfo::default()
        };
        let guard = metrics.enter(&info, false);
        metrics.request(&info, 200, Duration::from_millis(1), false);
        let text = metrics.render().unwrap();
        assert!(
            text.contains(r#"apiserver_request_total{verb="LIST",group="",version="v1",resource="pods""#),
            "{text}"
        );
        assert!(text.contains(r#"apiserver_current_inflight_requests{request_kind="readOnly"} 1"#), "{text}");
        drop(guard);
    }
}
