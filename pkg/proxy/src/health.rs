//! What load balancers ask a node: whether it has endpoints of a service, and whether its proxy works.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use kube1_client::ObjectKey;
use kube1_telemetry::port::{Answer, HeaderValue, METRICS, StatusCode, TEXT, answer, not_found, serve};
use kube1_telemetry::{Counters, Histograms, SECONDS};
use parking_lot::Mutex;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Service, and number of its ready endpoints on this node.
type Report = (ObjectKey, usize);

/// The health check ports of all services, each served while this lives.
pub struct HealthChecks {
    shutdown: CancellationToken,
    servers: JoinSet<()>,
    ports: HashMap<u16, (watch::Sender<Report>, CancellationToken)>,
}

impl HealthChecks {
    pub fn new(shutdown: CancellationToken) -> Self {
        Self { shutdown, servers: JoinSet::new(), ports: HashMap::new() }
    }

    /// Serves exactly these ports.
    pub async fn set(&mut self, wanted: &HashMap<u16, Report>) {
        self.ports.retain(|port, (_, stop)| {
            let keep = wanted.contains_key(port);
            if !keep {
                stop.cancel();
            }
            keep
        });
        while self.servers.try_join_next().is_some() {}
        for (port, report) in wanted {
            if let Some((sender, _)) = self.ports.get(port) {
                sender.send_if_modified(|now| std::mem::replace(now, report.clone()) != *report);
                continue;
            }
            let address = SocketAddr::from(([0; 16], *port));
            let bound = match TcpListener::bind(address).await {
                Err(_) => TcpListener::bind(SocketAddr::from(([0; 4], *port))).await,
                bound => bound,
            };
            match bound {
                Ok(listener) => {
                    let (sender, receiver) = watch::channel(report.clone());
                    let stop = self.shutdown.child_token();
                    let answer = move |_: &str| service_report(&receiver.borrow());
                    self.servers.spawn(serve(listener, stop.clone(), answer));
                    self.ports.insert(*port, (sender, stop));
                }
                Err(error) => tracing::warn!(%error, port, service = %report.0, "cannot serve the health check port"),
            }
        }
    }
}

fn service_report((service, endpoints): &Report) -> Answer {
    let status = if *endpoints > 0 { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({
        "service": {"namespace": service.namespace, "name": service.name},
        "localEndpoints": endpoints,
        "serviceProxyHealthy": true,
    });
    let mut response = json_response(status, &body);
    response.headers_mut().insert("x-load-balancing-endpoint-weight", (*endpoints).into());
    response
}

fn json_response(status: StatusCode, body: &serde_json::Value) -> Answer {
    let mut answer = answer(status, "application/json", body.to_string());
    answer.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    answer
}

/// What the proxy says of itself.
pub(crate) struct Health {
    /// When all that was known had last been written to the kernel.
    updated: Mutex<Option<Timestamp>>,
    full: Histograms,
    partial: Histograms,
    changed: Counters,
    failures: Counters,
}

impl Default for Health {
    fn default() -> Self {
        const NAMES: [(&str, &str); 2] = [
            ("kubeproxy_sync_full_proxy_rules_duration_seconds", "SyncProxyRules latency in seconds for full resyncs"),
            (
                "kubeproxy_sync_partial_proxy_rules_duration_seconds",
                "SyncProxyRules latency in seconds for partial resyncs",
            ),
        ];
        let [full, partial] = NAMES.map(|(name, help)| Histograms::new(name, help, SECONDS));
        Self {
            updated: Mutex::default(),
            full,
            partial,
            changed: Counters::new(
                "kubeproxy_sync_proxy_rules_service_changes_total",
                "Cumulative proxy rules Service changes",
            ),
            failures: Counters::new(
                "kubeproxy_sync_proxy_rules_nftables_sync_failures_total",
                "Cumulative proxy nftables sync failures",
            ),
        }
    }
}

impl Health {
    /// All that is known of `services` services is in the kernel, which took this long.
    pub fn updated(&self, everything: bool, services: usize, took: Duration) {
        *self.updated.lock() = Some(Timestamp::now());
        let times = if everything { &self.full } else { &self.partial };
        times.observe("ip_family=\"IPv4\"", took.as_secs_f64());
        self.changed.add("ip_family=\"IPv4\"", services as f64);
    }

    pub fn failed(&self) {
        self.failures.add("ip_family=\"IPv4\"", 1.0);
    }

    fn metrics(&self) -> String {
        let mut out = String::new();
        self.full.write(&mut out);
        self.partial.write(&mut out);
        self.changed.write(&mut out);
        self.failures.write(&mut out);
        if let Some(at) = *self.updated.lock() {
            let (name, at) = ("kubeproxy_sync_proxy_rules_last_timestamp_seconds", at.as_millisecond() as f64 / 1e3);
            let help = "The last time proxy rules were successfully synced";
            out.push_str(&format!("# HELP {name} {help}\n# TYPE {name} gauge\n{name}{{ip_family=\"IPv4\"}} {at}\n"));
        }
        out.push_str(&kube1_telemetry::process_metrics());
        out
    }

    /// For everybody who asks the node: load balancers, monitoring.
    pub fn public(&self, path: &str) -> Answer {
        match path {
            "/healthz" | "/livez" => {
                let updated = self.updated.lock().map(|time| time.to_string());
                let status = if updated.is_some() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                let now = Timestamp::now().to_string();
                json_response(status, &json!({"lastUpdated": updated, "currentTime": now, "nodeEligible": true}))
            }
            _ => not_found(),
        }
    }

    /// For the node's administrator.
    pub fn local(&self, path: &str) -> Answer {
        match path {
            "/healthz" => answer(StatusCode::OK, TEXT, "ok"),
            "/metrics" => answer(StatusCode::OK, METRICS, self.metrics()),
            "/proxyMode" => answer(StatusCode::OK, TEXT, "nftables"),
            _ => not_found(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    #[test]
    fn the_proxy_tells_what_upstream_s_tells() {
        let health = Health::default();
        let status = |answer: Answer| answer.status().as_u16();
        assert_eq!(status(health.public("/healthz")), 503);
        health.updated(true, 2, Duration::from_millis(20));
        let healthy = health.public("/healthz");
        assert_eq!(healthy.status(), 200);
        let body = format!("{:?}", healthy.into_body());
        assert!(body.contains("lastUpdated") && body.contains("currentTime"), "{body}");
        let cases = [("/healthz", 200), ("/proxyMode", 200), ("/other", 404)];
        for (path, code) in cases {
            assert_eq!(status(health.local(path)), code, "{path}");
        }
        assert_eq!(status(health.public("/proxyMode")), 404);
        let metrics = health.metrics();
        for line in [
            "kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"} 1",
            "kubeproxy_sync_proxy_rules_service_changes_total{ip_family=\"IPv4\"} 2",
        ] {
            assert!(metrics.lines().any(|l| l == line), "{line} is missing in {metrics}");
        }
        assert!(metrics.contains("\nkubeproxy_sync_proxy_rules_last_timestamp_seconds{"), "{metrics}");
    }

    async fn get(port: u16) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn a_port_tells_its_service_s_endpoints_until_it_is_closed() {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let mut checks = HealthChecks::new(CancellationToken::new());
        let wanted = |ready| HashMap::from([(port, (ObjectKey::new("ns", "web"), ready))]);
        checks.set(&wanted(2)).await;
        let answer = get(port).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        assert!(answer.contains(r#""localEndpoints":2"#) && answer.contains("x-load-balancing-endpoint-weight: 2"));
        checks.set(&wanted(0)).await;
        assert!(get(port).await.unwrap().starts_with("HTTP/1.1 503"));
        checks.set(&HashMap::new()).await;
        while checks.servers.join_next().await.is_some() {}
        assert!(get(port).await.is_err());
    }
}
