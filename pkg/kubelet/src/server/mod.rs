//! The node's HTTPS API: what the apiserver (and monitoring) asks a node.

mod auth;
mod cadvisor;
mod checkpoint;
mod log_query;
mod logs;
mod metrics;
mod stats;
mod stream;
mod system_logs;
mod volumes;
mod zpages;

#[cfg(any(test, fuzzing))]
pub(crate) use logs::Options as LogOptions;
#[cfg(any(test, fuzzing))]
pub(crate) use stream::pairs;

pub(crate) use volumes::usage as disk_usage;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use k8s_openapi::api::core::v1::Pod;
use kube1_supervisor::BoxError;
use kube1_telemetry::Pages;
use percent_encoding::percent_decode_str;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::node::Node;
use auth::{Authenticator, Caller};

/// A client that does not finish its handshake or headers in time is dropped.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections at one time; more wait in the kernel's queue.
const CONNECTIONS: usize = 1024;

pub(super) type Body = BoxBody<Bytes, std::io::Error>;
pub(super) type Reply = Response<Body>;

pub(super) fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed()
}

pub(super) fn reply(code: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(full(text));
    *reply.status_mut() = code;
    reply.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    reply
}

pub(super) fn text(code: StatusCode, text: impl Into<Bytes>) -> Reply {
    reply(code, "text/plain; charset=utf-8", text)
}

fn json_reply(value: &serde_json::Value) -> Reply {
    reply(StatusCode::OK, "application/json", value.to_string())
}

/// Serves until `stop`.
pub(crate) async fn run(node: Arc<Node>, stop: CancellationToken) -> Result<(), BoxError> {
    let config = &node.config;
    let Some(serving) = config.serving.clone() else {
        tracing::info!("no serving certificate: the kubelet's API is off");
        stop.cancelled().await;
        return Ok(());
    };
    let acceptor = TlsAcceptor::from(Arc::new(auth::tls(serving, &config.client_ca_pem)?));
    let address = SocketAddr::new(config.listen, config.port);
    let listener = TcpListener::bind(address).await.map_err(|e| format!("cannot listen on {address}: {e}"))?;
    let server = Arc::new(Server {
        authenticator: Authenticator::new(config.client.clone()),
        pages: Pages::new("kubelet", config.version, zpages::PATHS, config.flags.clone()),
        node,
        tracker: TaskTracker::new(),
        stop,
    });
    let permits = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS));
    loop {
        let permit = Arc::clone(&permits).acquire_owned().await?;
        let stream = tokio::select! {
            () = server.stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, most likely: some will be closed.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let (served, acceptor) = (Arc::clone(&server), acceptor.clone());
        server.tracker.spawn(async move {
            let stop = served.stop.clone();
            stop.run_until_cancelled(served.serve(acceptor, stream)).await;
            drop(permit);
        });
    }
    server.tracker.close();
    server.tracker.wait().await;
    Ok(())
}

pub(super) struct Server {
    pub node: Arc<Node>,
    authenticator: Authenticator,
    pages: Pages,
    /// Owns connections, streams and log readers.
    pub tracker: TaskTracker,
    pub stop: CancellationToken,
}

impl Server {
    async fn serve(self: Arc<Self>, acceptor: TlsAcceptor, stream: TcpStream) {
        let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await else { return };
        let caller = Caller::of(stream.get_ref().1.peer_certificates());
        let handler = service_fn(move |request: Request<Incoming>| {
            let (server, caller) = (Arc::clone(&self), caller.clone());
            async move { Ok::<_, Infallible>(server.answer(request, &caller).await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_secs(30))
            .serve_connection(TokioIo::new(stream), handler)
            .with_upgrades();
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to the kubelet's API broke off");
        }
    }

    async fn answer(self: &Arc<Self>, request: Request<Incoming>, caller: &Caller) -> Reply {
        let started = Instant::now();
        let path = request.uri().path().to_owned();
        let parts: Vec<String> =
            path.trim_matches('/').split('/').map(|p| percent_decode_str(p).decode_utf8_lossy().into_owned()).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let bearer = request.headers().get(header::AUTHORIZATION).and_then(|h| h.to_str().ok());
        let verb = if request.method() == Method::GET || request.method() == Method::HEAD { "get" } else { "create" };
        if let Err((code, message)) = self.authenticator.allow(&self.node, caller, bearer, verb, parts[0]).await {
            return text(code, message);
        }
        let Some(tracer) = &self.node.config.tracer else { return self.routed(request, &path, &parts).await };
        let (name, method) = (format!("{} /{}", request.method(), parts[0]), request.method().as_str());
        let about = vec![("http.request.method", method.into()), ("url.path", path.as_str().into())];
        let span = tracer.request(name, request.headers(), true, started, about);
        let reply = Box::pin(span.clone().scope(self.routed(request, &path, &parts))).await;
        span.add("http.response.status_code", i64::from(reply.status().as_u16()));
        if reply.status().is_server_error() {
            span.fail();
        }
        reply
    }

    /// Answers a caller who may ask.
    async fn routed(self: &Arc<Self>, request: Request<Incoming>, path: &str, parts: &[&str]) -> Reply {
        match (request.method(), parts) {
            (&Method::GET, ["healthz"] | ["healthz", "ping" | "log" | "syncloop"]) => text(StatusCode::OK, "ok"),
            (&Method::GET, ["statusz" | "flagz"]) => {
                let kind = Pages::kind(path).unwrap_or("Statusz");
                zpages::serve(&self.pages, kind, request.headers())
            }
            (&Method::POST, ["checkpoint", namespace, pod, container]) => {
                checkpoint::serve(self, &stream::query(&request), namespace, pod, container).await
            }
            (&Method::GET, ["pods" | "runningpods"]) => json_reply(&self.pods()),
            (&Method::GET, ["containerLogs", namespace, pod, container]) => {
                logs::serve(self, &request, namespace, pod, container).await
            }
            (&Method::GET | &Method::POST, [what @ ("exec" | "attach"), namespace, pod, rest @ ..])
                if matches!(rest.len(), 1 | 2) =>
            {
                let container = rest[rest.len() - 1].to_owned();
                let (what, namespace, pod) = ((*what).to_owned(), (*namespace).to_owned(), (*pod).to_owned());
                stream::exec_or_attach(self, request, &what, &namespace, &pod, &container).await
            }
            (&Method::GET | &Method::POST, ["portForward", namespace, pod, ..]) => {
                let (namespace, pod) = ((*namespace).to_owned(), (*pod).to_owned());
                stream::port_forward(self, request, &namespace, &pod).await
            }
            (&Method::GET, ["stats", "summary"]) => match stats::summary(Arc::clone(&self.node)).await {
                Ok(summary) => json_reply(&summary),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            },
            (&Method::GET, ["logs", path @ ..]) => {
                let (settings, query) = (&self.node.config.settings, stream::query(&request));
                match (settings.system_log_handler, settings.system_log_query && log_query::is_query(&query)) {
                    (false, _) => text(StatusCode::METHOD_NOT_ALLOWED, "logs endpoint is disabled.\n"),
                    (true, true) => log_query::serve(&query).await,
                    (true, false) => system_logs::serve(path).await,
                }
            }
            (&Method::GET, ["metrics"]) => metrics::reply(metrics::kubelet(&self.node)),
            (&Method::GET, ["metrics", "probes"]) => {
                let mut out = String::new();
                self.node.meters.write_probes(&mut out);
                metrics::reply(out)
            }
            (&Method::GET, ["metrics", "resource"]) => metrics::reply(metrics::resource(&self.node).await),
            (&Method::GET, ["metrics", "cadvisor"]) => metrics::reply(cadvisor::cadvisor(&self.node).await),
            (&Method::GET, ["configz"]) => json_reply(&self.configz()),
            _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
        }
    }

    /// The pods of this node with the status that this node has reported.
    fn pods(&self) -> serde_json::Value {
        let pods: Vec<Pod> = self
            .node
            .pods
            .all()
            .iter()
            .map(|entry| {
                let mut pod = (*entry.pod()).clone();
                if let Some(status) = entry.status.lock().clone() {
                    pod.status = Some(status);
                }
                pod
            })
            .collect();
        json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods})
    }

    fn configz(&self) -> serde_json::Value {
        let config = &self.node.config;
        let settings = &config.settings;
        json!({"kubeletconfig": {
            "kind": "KubeletConfiguration",
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "address": config.listen,
            "port": config.port,
            "staticPodPath": config.static_pod_dir,
            "clusterDomain": config.cluster_domain,
            "clusterDNS": config.cluster_dns,
            "maxPods": settings.max_pods,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": config.cgroup_root,
            "containerRuntimeEndpoint": format!("unix://{}", config.runtime_endpoint.display()),
            "containerLogMaxSize": settings.container_log_max_size.to_string(),
            "containerLogMaxFiles": settings.container_log_max_files,
            "resolvConf": config.resolv_conf,
            "serializeImagePulls": false,
            "maxParallelImagePulls": settings.max_parallel_image_pulls,
            "nodeStatusUpdateFrequency": "10s",
            "nodeStatusReportFrequency": "5m0s",
            "nodeLeaseDurationSeconds": 40,
            "evictionHard": config.eviction.by_signal(),
            "imageGCHighThresholdPercent": settings.image_gc_high,
            "imageGCLowThresholdPercent": settings.image_gc_low,
            "imageMinimumGCAge": format!("{}s", settings.image_minimum_gc_age.as_secs()),
            "imageMaximumGCAge": format!("{}s", settings.image_maximum_gc_age.unwrap_or_default().as_secs()),
            "crashLoopBackOff": {"maxContainerRestartPeriod": format!("{}s", settings.crash_loop_max.as_secs())},
            "imagePullCredentialsVerificationPolicy": "NeverVerifyPreloadedImages",
            "allowedUnsafeSysctls": settings.allowed_unsafe_sysctls,
            "enableSystemLogHandler": settings.system_log_handler,
            "enableSystemLogQuery": settings.system_log_query,
            "seccompDefault": settings.seccomp_default,
            "cpuManagerPolicy": "none",
            "memoryManagerPolicy": "None",
            "topologyManagerPolicy": "none",
            "memorySwap": {"swapBehavior": "NoSwap"},
            "failSwapOn": false,
        }})
    }
}
