//! The server's own metrics, under upstream's names.

mod admission;
pub mod policy;
mod watch;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hashbrown::HashMap;
use http::StatusCode;
use kube1_api::status::Status;
use parking_lot::RwLock;

pub use admission::{AdmissionMetrics, WebhookCall};
use kube1_telemetry::metrics::{Asked, Counter, Histogram, Values};
pub use kube1_telemetry::metrics::{Counters, Gauge, Gauges, Held, Histograms, Names, Registrar};
pub use watch::WatchMeters;

use crate::documents::GIT_VERSION;
use crate::request_info::RequestInfo;

const DURATIONS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];
const SIZES: &[f64] = &[1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
/// From half an hour to a year.
const LIFETIMES: &[f64] = &[
    0.0, 1800.0, 3600.0, 7200.0, 21600.0, 43200.0, 86400.0, 172800.0, 345600.0, 604800.0, 2592000.0, 7776000.0,
    15552000.0, 31104000.0,
];
const ATTEMPTS: &[f64] =
    &[0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384];
/// Labels that tell what a request was for.
const TARGET: Names = &["verb", "group", "version", "resource", "subresource", "scope", "component"];

/// Counters of the HTTP front.
pub struct Metrics {
    registrar: Registrar,
    /// What each request for a target needs.
    targets: RwLock<HashMap<Values, Arc<OfTarget>>>,
    requests: Counters,
    durations: Histograms,
    slis: Histograms,
    sizes: Histograms,
    reading: Gauge,
    mutating: Gauge,
    long_running: Gauges,
    terminations: Counters,
    deprecated: Gauges,
    objects: Gauges,
    resource_objects: Gauges,
    resource_sizes: Gauges,
    storage_size: Gauges,
    client_certificates: Histograms,
    checks: Gauges,
    checked: Counters,
    authenticated: Counters,
    authentications: Attempts,
    authorizations: Attempts,
    /// Connections whose TLS handshake failed.
    pub tls_errors: Counters,
}

/// Metrics of what was asked for and answered with one code, found together.
#[derive(Debug)]
struct OfTarget {
    done: Counter,
    durations: Histogram,
    slis: Histogram,
    sizes: Histogram,
}

/// Attempts by result, and how long they took.
struct Attempts {
    counts: Counters,
    times: Histograms,
    usual: &'static str,
    /// Those of the usual result.
    found: OnceLock<(Counter, Histogram)>,
}

impl Attempts {
    fn new(counts: Counters, times: Histograms, usual: &'static str) -> Self {
        Self { counts, times, usual, found: OnceLock::new() }
    }

    fn note(&self, result: &str, took: Duration) {
        if result != self.usual {
            self.counts.inc(&[result]);
            return self.times.observe(&[result], took.as_secs_f64());
        }
        let (count, times) = self.found.get_or_init(|| (self.counts.at(&[result]), self.times.at(&[result])));
        count.inc();
        times.observe(took.as_secs_f64());
    }
}

/// A request as its metrics name it.
#[derive(Clone, Debug)]
pub struct Seen {
    verb: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
    dry_run: &'static str,
    long_running: bool,
    reads: bool,
    /// Once it was answered with success.
    found: Option<Arc<OfTarget>>,
}

impl Seen {
    pub fn new(info: &RequestInfo, long_running: bool, apply: bool, dry_run: bool) -> Self {
        Self {
            verb: verb(info, apply),
            group: info.group.clone(),
            version: info.version.clone(),
            resource: info.resource.clone(),
            subresource: if info.is_resource { info.subresource.clone() } else { non_resource(&info.path) },
            scope: match info.is_resource {
                false => "",
                true if !info.name.is_empty() || info.verb == "create" => "resource",
                true if !info.namespace.is_empty() => "namespace",
                true => "cluster",
            },
            dry_run: if dry_run { "All" } else { "" },
            long_running,
            reads: matches!(info.verb.as_str(), "get" | "list" | "watch" | "head"),
            found: None,
        }
    }

    pub fn is_long_running(&self) -> bool {
        self.long_running
    }

    fn target(&self) -> [&str; 7] {
        let Self { verb, group, version, resource, subresource, scope, .. } = self;
        [verb, group, version, resource, subresource, scope, "apiserver"]
    }
}

/// Upstream's names of verbs in metrics.
fn verb(info: &RequestInfo, apply: bool) -> &'static str {
    let connects = matches!(info.subresource.as_str(), "exec" | "attach" | "portforward" | "proxy");
    match info.verb.as_str() {
        _ if info.is_resource && connects => "CONNECT",
        "get" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" | "post" => "POST",
        "update" | "put" => "PUT",
        "patch" if apply => "APPLY",
        "patch" => "PATCH",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        "head" => "HEAD",
        "options" => "OPTIONS",
        _ => "other",
    }
}

/// Paths that are no resource appear only if they are well known.
fn non_resource(path: &str) -> String {
    let known = ["/api", "/apis", "/healthz", "/livez", "/readyz", "/metrics", "/version", "/openapi"];
    known
        .iter()
        .find(|k| path.starts_with(*k))
        .map(|_| path.split('/').take(3).collect::<Vec<_>>().join("/"))
        .unwrap_or_default()
}

impl Metrics {
    /// Registers them beside those of other parts of the server.
    pub fn new(mut registrar: Registrar) -> Self {
        policy::show();
        let r = &mut registrar;
        for (name, help) in
            [("disabled_metrics", "The count of disabled metrics"), ("hidden_metrics", "The count of hidden metrics")]
        {
            r.counters(name, help, &[]);
        }
        let version: Names = &["component", "binary", "emulation", "min_compat"];
        let versions =
            r.gauges("version_info", "The binary version and the versions whose behaviour is shown", version);
        versions.set(&["kube", "1.36", "1.36", "1.35"], 1.0);
        let inflight = r.gauges("apiserver_current_inflight_requests", "Requests being handled", &["request_kind"]);
        let with = |names: Names, more: &'static [&'static str]| -> Names { [names, more].concat().leak() };
        Self {
            requests: r.counters(
                "apiserver_request",
                "Requests by verb, resource and code",
                with(TARGET, &["dry_run", "code"]),
            ),
            durations: r.histograms(
                "apiserver_request_duration_seconds",
                "Response latency in seconds, long-running requests left out",
                with(TARGET, &["dry_run"]),
                DURATIONS,
            ),
            slis: r.histograms(
                "apiserver_request_sli_duration_seconds",
                "Response latency in seconds without the time in queues, long-running requests left out",
                TARGET,
                DURATIONS,
            ),
            sizes: r.histograms("apiserver_response_sizes", "Response size in bytes", TARGET, SIZES),
            reading: inflight.at(&["readOnly"]),
            mutating: inflight.at(&["mutating"]),
            targets: RwLock::default(),
            long_running: r.gauges("apiserver_longrunning_requests", "Open watches and streams", TARGET),
            terminations: r.counters(
                "apiserver_request_terminations",
                "Requests which the server ended in self-defense",
                with(TARGET, &["code"]),
            ),
            deprecated: r.gauges(
                "apiserver_requested_deprecated_apis",
                "Deprecated APIs that have been requested",
                &["group", "version", "resource", "subresource", "removed_release"],
            ),
            objects: r.gauges("apiserver_storage_objects", "Stored objects by kind", &["resource"]),
            resource_objects: r.gauges("apiserver_resource_objects", "Stored objects by kind", &["group", "resource"]),
            resource_sizes: r.gauges(
                "apiserver_resource_size_estimate_bytes",
                "Estimated size of stored objects, split by kind",
                &["group", "resource"],
            ),
            storage_size: r.gauges(
                "apiserver_storage_size_bytes",
                "Size of the storage database file physically allocated in bytes",
                &["storage_cluster_id"],
            ),
            client_certificates: r.histograms(
                "apiserver_client_certificate_expiration_seconds",
                "Remaining lifetime on the certificate used to authenticate a connection",
                &[],
                LIFETIMES,
            ),
            checks: r.gauges("kubernetes_healthcheck", "The result of a single health check", &["name", "type"]),
            checked: r.counters(
                "kubernetes_healthchecks",
                "The results of all health checks",
                &["name", "status", "type"],
            ),
            authenticated: r.counters(
                "authenticated_user_requests",
                "Authenticated requests broken out by username",
                &["username"],
            ),
            authentications: Attempts::new(
                r.counters("authentication_attempts", "Authentication attempts by result", &["result"]),
                r.histograms(
                    "authentication_duration_seconds",
                    "Authentication duration in seconds by result",
                    &["result"],
                    ATTEMPTS,
                ),
                "success",
            ),
            authorizations: Attempts::new(
                r.counters("authorization_attempts", "Authorization attempts by result", &["result"]),
                r.histograms(
                    "authorization_duration_seconds",
                    "Authorization duration in seconds by result",
                    &["result"],
                    ATTEMPTS,
                ),
                "allowed",
            ),
            tls_errors: r.counters(
                "apiserver_tls_handshake_errors",
                "Connections dropped for a TLS handshake error",
                &[],
            ),
            registrar,
        }
    }

    /// Counts an answered request; of the time that it took it waited for its turn for `waited`.
    pub fn request(&self, seen: &mut Seen, code: StatusCode, took: Duration, waited: Duration) {
        if code.as_u16() < 400 && !seen.long_running {
            let found = self.target(seen, code.as_str());
            found.durations.observe(took.as_secs_f64());
            found.slis.observe(took.saturating_sub(waited).as_secs_f64());
            found.done.inc();
            seen.found = Some(found);
            return;
        }
        let [verb, mut group, mut version, mut resource, mut subresource, scope, component] = seen.target();
        if code == StatusCode::NOT_FOUND {
            // What does not exist must not make the metrics grow without bound.
            (group, version, resource, subresource) = ("", "", "", "");
        }
        let labels = [verb, group, version, resource, subresource, scope, component, seen.dry_run, code.as_str()];
        self.requests.inc(&labels);
    }

    fn target(&self, seen: &Seen, code: &str) -> Arc<OfTarget> {
        let target = seen.target();
        let [verb, group, version, resource, subresource, scope, component] = target;
        let labels = [verb, group, version, resource, subresource, scope, component, seen.dry_run, code];
        if let Some(found) = self.targets.read().get(&Asked(&labels)) {
            return found.clone();
        }
        let made = Arc::new(OfTarget {
            done: self.requests.at(&labels),
            durations: self.durations.at(&labels[..8]),
            slis: self.slis.at(&target),
            sizes: self.sizes.at(&target),
        });
        let key = labels.iter().map(|label| (*label).into()).collect();
        self.targets.write().entry(key).or_insert(made).clone()
    }

    /// Notes the size of an answer's body.
    pub fn size(&self, seen: &Seen, bytes: u64) {
        match &seen.found {
            Some(found) => found.sizes.observe(bytes as f64),
            None => self.sizes.observe(&seen.target(), bytes as f64),
        }
    }

    /// Counts a request that was given up by this server.
    pub fn terminated(&self, seen: &Seen, code: u16) {
        let [verb, group, version, resource, subresource, scope, component] = seen.target();
        let code = code.to_string();
        self.terminations.inc(&[verb, group, version, resource, subresource, scope, component, &code]);
    }

    /// Counts a request as being handled until the guard is dropped.
    pub fn enter(&self, seen: &Seen) -> Held {
        if seen.long_running {
            return self.long_running.hold(&seen.target());
        }
        Held::new(if seen.reads { &self.reading } else { &self.mutating }.clone())
    }

    /// Notes the use of a version that is going away; the release is empty when none is set.
    pub fn deprecated(&self, info: &RequestInfo, removed_release: &str) {
        let RequestInfo { group, version, resource, subresource, .. } = info;
        self.deprecated.set(&[group, version, resource, subresource, removed_release], 1.0);
    }

    /// Counts an attempt to find the user of a request.
    pub fn authentication(&self, result: &str, user: &str, took: Duration) {
        self.authentications.note(result, took);
        if result == "success" {
            // Names are counted only if they are few: those of people and tokens are many.
            let shown = if user.starts_with("system:")
                && !user.starts_with("system:serviceaccount:")
                && !user.starts_with("system:node:")
            {
                user
            } else {
                "other"
            };
            self.authenticated.inc(&[shown]);
        }
    }

    /// Counts a decision about a request.
    pub fn authorization(&self, result: &str, took: Duration) {
        self.authorizations.note(result, took);
    }

    /// Notes for how long a certificate can be used that a client showed.
    pub fn client_certificate(&self, left: Duration) {
        self.client_certificates.observe(&[], left.as_secs_f64());
    }

    /// Notes what the datastore takes on disk.
    pub fn store_size(&self, bytes: u64) {
        self.storage_size.set(&["etcd-0"], bytes as f64);
    }

    /// Notes how many objects of a resource there are, and about how many bytes they have.
    pub fn stored(&self, group: &str, resource: &str, count: u64, bytes: u64) {
        self.resource_sizes.set(&[group, resource], bytes as f64);
        let full = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
        self.objects.set(&[&full], count as f64);
        self.resource_objects.set(&[group, resource], count as f64);
    }

    /// Notes a health check's result.
    pub fn checked(&self, name: &str, kind: &str, fine: bool) {
        self.checks.set(&[name, kind], f64::from(u8::from(fine)));
        self.checked.inc(&[name, if fine { "success" } else { "error" }, kind]);
    }

    /// The text that Prometheus reads, in its classic format.
    pub fn render(&self) -> Result<String, Status> {
        let mut classic = self.registrar.render().map_err(Status::internal)?;
        classic.push_str(&kube1_telemetry::metrics::render_shared().map_err(Status::internal)?);
        classic.push_str(&kube1_telemetry::build_metrics(GIT_VERSION));
        classic.push_str(&kube1_telemetry::process_metrics());
        classic.push_str(&kube1_api::features::metric());
        Ok(classic)
    }

    /// The text of the health checks' metrics alone.
    pub fn render_checks(&self) -> Result<String, Status> {
        let all = self.render()?;
        let of_checks = |line: &&str| {
            line.trim_start_matches("# HELP ").trim_start_matches("# TYPE ").starts_with("kubernetes_healthcheck")
        };
        Ok(all.lines().filter(of_checks).map(|line| format!("{line}\n")).collect())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_under_upstreams_names() {
        let metrics = Metrics::new(Registrar::default());
        let info = RequestInfo {
            is_resource: true,
            verb: "create".into(),
            version: "v1".into(),
            resource: "pods".into(),
            namespace: "a".into(),
            ..RequestInfo::default()
        };
        let mut seen = Seen::new(&info, false, false, false);
        let guard = metrics.enter(&seen);
        metrics.request(&mut seen, StatusCode::CREATED, Duration::from_millis(1), Duration::ZERO);
        metrics.size(&seen, 100);
        let text = metrics.render().unwrap();
        for line in [
            "# TYPE apiserver_request_total counter",
            r#"apiserver_request_total{verb="POST",group="",version="v1",resource="pods",subresource="",scope="resource",component="apiserver",dry_run="",code="201"} 1"#,
            r#"apiserver_current_inflight_requests{request_kind="mutating"} 1"#,
            "# TYPE apiserver_response_sizes histogram",
            "# TYPE process_start_time_seconds gauge",
            "# TYPE kubernetes_build_info gauge",
        ] {
            assert!(text.lines().any(|l| l.trim_end_matches(".0") == line), "{line}\n{text}");
        }
        assert!(!text.contains("# EOF"));
        drop(guard);
    }
}
