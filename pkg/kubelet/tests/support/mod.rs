//! A node: the apiserver in process, a containerd of its own, and the kubelet between them.
#![allow(clippy::unwrap_used, dead_code)]

#[path = "../../../cri/tests/support/mod.rs"]
mod containerd;

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client};
use kube1_apiserver::server::ApiServer;
use kube1_kubelet::{Kubelet, KubeletConfig};
use kube1_pki::{ReloadingCertificate, ServerPki};
use kube1_supervisor::{Component, Context};
use kube1_test_support::{admin, api_server, client_as};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use containerd::Containerd;
pub use kube1_test_support::NODE;

const DEADLINE: Duration = Duration::from_secs(60);

pub struct TestNode {
    pub containerd: Containerd,
    pub api: ApiServer,
    pub pki: Arc<ServerPki>,
    pub admin: Client,
    pub config: KubeletConfig,
    kubelet: Option<(CancellationToken, JoinHandle<()>)>,
}

impl TestNode {
    /// Starts everything; `None` where containers cannot run.
    pub async fn start() -> Option<Self> {
        let containerd = Containerd::start().await?;
        let dir = containerd.dir.path();
        let address = (Ipv4Addr::LOCALHOST, 6443).into();
        let (api, pki) = api_server(&dir.join("server"), address, Default::default()).await;
        let admin = admin(&api);
        let config =
            kubelet_config(client_as(&api, format!("system:node:{NODE}"), &["system:nodes"]), dir, &containerd, &pki);
        let mut node = Self { containerd, api, pki, admin, config, kubelet: None };
        node.prepare_namespace().await;
        node.start_kubelet();
        Some(node)
    }

    pub fn start_kubelet(&mut self) {
        let kubelet = Kubelet::new(self.config.clone());
        let stop = CancellationToken::new();
        let (context, _) = Context::new(stop.clone());
        let task = tokio::spawn(async move { kubelet.run(context).await.unwrap() });
        self.kubelet = Some((stop, task));
    }

    pub async fn stop_kubelet(&mut self) {
        let (stop, task) = self.kubelet.take().unwrap();
        stop.cancel();
        task.await.unwrap();
    }

    /// What the controllers put into each namespace.
    async fn prepare_namespace(&self) {
        for (kind, name) in [("serviceaccounts", "default"), ("configmaps", "kube-root-ca.crt")] {
            let body = json!({"metadata": {"name": name}, "data": {"ca.crt": "CA"}});
            let body = if kind == "configmaps" { body } else { json!({"metadata": {"name": name}}) };
            let request = http::Request::post(format!("/api/v1/namespaces/default/{kind}"));
            let request = request.header("content-type", "application/json").body(body.to_string().into_bytes());
            self.admin.request::<Value>(request.unwrap()).await.unwrap();
        }
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.admin.clone(), "default")
    }

    /// Creates a pod on this node from a spec.
    pub async fn create(&self, name: &str, mut spec: Value) -> Pod {
        spec["nodeName"] = NODE.into();
        if spec.get("automountServiceAccountToken").is_none() {
            spec["automountServiceAccountToken"] = false.into();
        }
        let pod = json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": spec});
        self.pods().create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap()
    }

    /// Waits until a pod is as wanted; tells the last state and the events otherwise.
    pub async fn wait(&self, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        let mut last = Value::Null;
        while tokio::time::Instant::now() < deadline {
            if let Some(pod) = self.pods().get_opt(name).await.unwrap() {
                last = serde_json::to_value(pod).unwrap();
                if wanted(&last) {
                    return last;
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let events = self.events(name).await;
        panic!("{name} never was {what}: {:#}\nevents: {events:#?}", last["status"]);
    }

    pub async fn wait_phase(&self, name: &str, phase: &str) -> Value {
        self.wait(name, phase, |pod| pod["status"]["phase"] == phase).await
    }

    pub async fn wait_ready(&self, name: &str) -> Value {
        self.wait(name, "ready", |pod| condition(pod, "Ready") == "True").await
    }

    /// Reasons and messages of a pod's events.
    pub async fn events(&self, name: &str) -> Vec<(String, String)> {
        let events: Api<Event> = Api::namespaced(self.admin.clone(), "default");
        let all = events.list(&ListParams::default()).await.unwrap();
        let of = all.into_iter().filter(|e| e.involved_object.name.as_deref() == Some(name));
        of.map(|e| (e.reason.unwrap_or_default(), e.message.unwrap_or_default())).collect()
    }

    pub async fn delete(&self, name: &str) {
        self.pods().delete(name, &DeleteParams::default()).await.unwrap();
        let deadline = tokio::time::Instant::now() + DEADLINE;
        while self.pods().get_opt(name).await.unwrap().is_some() {
            assert!(tokio::time::Instant::now() < deadline, "{name} is still there");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What a container printed.
    pub fn log(&self, pod: &Value, container: &str, attempt: u32) -> String {
        let meta = &pod["metadata"];
        let text = |key: &str| meta[key].as_str().unwrap().to_owned();
        let dir = format!("{}_{}_{}", text("namespace"), text("name"), text("uid"));
        let path = self.config.data_dir.join("log/pods").join(dir).join(container).join(format!("{attempt}.log"));
        let raw = std::fs::read_to_string(path).unwrap_or_default();
        raw.lines().filter_map(|l| l.splitn(4, ' ').nth(3)).map(|l| format!("{l}\n")).collect()
    }

    /// A TLS connection to the kubelet's API, as the apiserver or without a certificate.
    pub async fn connect(&self, as_apiserver: bool) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
        use rustls_pki_types::pem::PemObject;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.pki.ca.certificate_der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.unwrap().with_root_certificates(roots);
        let config = if as_apiserver {
            let leaf = self.pki.admin().unwrap();
            let key = rustls_pki_types::PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![leaf.certificate_der().unwrap()], key).unwrap()
        } else {
            builder.with_no_client_auth()
        };
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", self.config.port)).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        connector.connect(IpAddr::from(Ipv4Addr::LOCALHOST).into(), stream).await.unwrap()
    }

    /// Status and body of a GET from the kubelet's API.
    pub async fn get(&self, path: &str, as_apiserver: bool) -> (u16, String) {
        self.send("GET", path, as_apiserver).await
    }

    /// Status and body of the answer to a request without a body.
    pub async fn send(&self, method: &str, path: &str, as_apiserver: bool) -> (u16, String) {
        use http_body_util::BodyExt;
        let stream = hyper_util::rt::TokioIo::new(self.connect(as_apiserver).await);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        let connection = tokio::spawn(connection);
        let request = http::Request::builder().method(method).uri(path).header("host", "node");
        let request = request.body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        let code = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        connection.abort();
        (code, String::from_utf8_lossy(&body).into_owned())
    }

    pub async fn stop(mut self) {
        if self.kubelet.is_some() {
            self.stop_kubelet().await;
        }
        self.containerd.stop().await;
        for controller in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            remove_cgroups(&controller.path().join(&self.config.cgroup_root));
        }
    }
}

pub fn condition(pod: &Value, kind: &str) -> String {
    let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.iter().find(|c| c["type"] == kind).map(|c| c["status"].clone());
    found.and_then(|s| s.as_str().map(str::to_owned)).unwrap_or_default()
}

/// A container of the test image that runs a shell script.
pub fn shell(name: &str, script: &str) -> Value {
    json!({"name": name, "image": "kube1.local/busybox:1", "command": ["sh", "-c", script]})
}

fn kubelet_config(client: Client, dir: &Path, containerd: &Containerd, pki: &ServerPki) -> KubeletConfig {
    let ip = IpAddr::from(Ipv4Addr::LOCALHOST);
    let mut config = KubeletConfig::new(client, NODE, ip, &containerd.socket(), &dir.join("kubelet"));
    let leaf = pki.node(NODE, &[ip]).unwrap();
    config.serving = Some(Arc::new(ReloadingCertificate::new(&leaf.serving).unwrap()));
    config.client_ca_pem = pki.ca.certificate_pem().to_owned();
    config.listen = ip;
    config.port = free_port();
    config.cgroup_root = format!("kube1-test-{}", config.port);
    // The machine that runs the tests may be fuller than a node should be.
    config.eviction = "memory.available<1Mi,nodefs.available<1%".parse().unwrap();
    config.cluster_dns = vec!["10.43.0.10".parse().unwrap()];
    config
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn remove_cgroups(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten().filter(|e| e.path().is_dir()) {
        remove_cgroups(&entry.path());
    }
    let _ = std::fs::remove_dir(dir);
}
