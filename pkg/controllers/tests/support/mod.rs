//! A control plane in one process, with nodes that only pretend to run pods.

#![allow(dead_code, clippy::unwrap_used)]

use std::fmt::Debug;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, Resource};
use kube1_apiserver::server::ApiServer;
use kube1_client::{Event, Informers, ObjectKey, Outcome, WorkQueue, reconcile_all};
use kube1_controllers::{ControllerManager, ControllerManagerConfig};
use kube1_scheduler::Scheduler;
use kube1_supervisor::{Component, Context};
use kube1_test_support::{account_clients, admin, api_server, client_as};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(30);

/// API server, scheduler, controllers and pretending nodes. Dropping it stops everything.
pub struct Cluster {
    pub client: Client,
    pub api: ApiServer,
    stop: CancellationToken,
    _tasks: JoinSet<()>,
    _dir: TempDir,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Cluster {
    /// A cluster with this many nodes, on which pods become ready at once.
    pub async fn start(nodes: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let address = (Ipv4Addr::LOCALHOST, 6443).into();
        let (api, pki) = api_server(dir.path(), address, Default::default()).await;
        let stop = CancellationToken::new();
        let client = admin(&api);
        let mut tasks = JoinSet::new();
        let manager = ControllerManager::new(ControllerManagerConfig {
            client: client_as(&api, "system:kube-controller-manager", &[]),
            clients: account_clients(&api),
            ca: Arc::new(kube1_pki::Authority::create("kubernetes").unwrap()),
            service_account_keys: pki.service_account_keys.clone(),
            root_ca_pem: pki.ca.certificate_pem().to_owned(),
            cluster_cidr: "10.42.0.0/16".parse().unwrap(),
        });
        let scheduler = Scheduler::new(client_as(&api, "system:kube-scheduler", &[]));
        run(&mut tasks, manager, &stop);
        run(&mut tasks, scheduler, &stop);
        let cluster = Self { client, api, stop: stop.clone(), _tasks: tasks, _dir: dir };
        for n in 0..nodes {
            cluster.add_node(&format!("node-{n}")).await;
        }
        let client = cluster.client.clone();
        let mut cluster = cluster;
        cluster._tasks.spawn(pretend(client, stop));
        cluster
    }

    pub async fn add_node(&self, name: &str) {
        let now = Time(Timestamp::now());
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
            "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"},
                "capacity": {"cpu": "4", "memory": "8Gi", "pods": "110"},
                "conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": now, "lastTransitionTime": now,
                    "reason": "KubeletReady", "message": "pretending"}]}}))
        .unwrap();
        let api = Api::<Node>::all(self.client.clone());
        let status = json!({"status": node.status});
        api.create(&PostParams::default(), &node).await.unwrap();
        api.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    }

    /// Creates an object in `namespace` (in none when empty).
    pub async fn create<K>(&self, namespace: &str, object: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned,
    {
        let object: K = serde_json::from_value(object).unwrap();
        Api::namespaced(self.client.clone(), namespace).create(&PostParams::default(), &object).await.unwrap()
    }

    pub fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// The API of a cluster-scoped kind as a node sees it.
    pub fn as_node<K>(&self, name: &str) -> Api<K>
    where
        K: Resource<DynamicType = ()>,
    {
        Api::all(client_as(&self.api, format!("system:node:{name}"), &["system:nodes"]))
    }

    /// Waits until `test` holds for the list of objects in a namespace; panics with the last list.
    pub async fn until<K>(&self, namespace: &str, labels: &str, test: impl Fn(&[K]) -> bool) -> Vec<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned,
    {
        let api = self.api::<K>(namespace);
        let params = ListParams::default().labels(labels);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let items = api.list(&params).await.unwrap().items;
            if test(&items) {
                return items;
            }
            if tokio::time::Instant::now() > deadline {
                let events =
                    self.api::<k8s_openapi::api::core::v1::Event>(namespace).list(&ListParams::default()).await;
                for event in events.unwrap().items {
                    let object = event.involved_object.name;
                    eprintln!("event: {object:?} {:?} {:?} x{:?}", event.reason, event.message, event.count);
                }
                panic!("not reached: {}", serde_json::to_string_pretty(&items).unwrap());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until `test` holds for one object.
    pub async fn until_one<K>(&self, namespace: &str, name: &str, test: impl Fn(&K) -> bool) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned,
    {
        let is_it = |o: &&K| o.meta().name.as_deref() == Some(name);
        let all = self.until::<K>(namespace, "", |all| all.iter().find(is_it).is_some_and(&test)).await;
        all.into_iter().find(|o| is_it(&o)).unwrap()
    }

    /// Waits until an object is gone.
    pub async fn until_gone<K>(&self, namespace: &str, name: &str)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned,
    {
        self.until::<K>(namespace, "", |all| !all.iter().any(|o| o.meta().name.as_deref() == Some(name))).await;
    }
}

fn run(tasks: &mut JoinSet<()>, component: impl Component, stop: &CancellationToken) {
    let (context, _) = Context::new(stop.clone());
    tasks.spawn(async move { component.run(context).await.unwrap() });
}

/// Runs the pods that are bound: ready at once and gone at once; those with the label `exit` end with that code.
async fn pretend(client: Client, stop: CancellationToken) {
    let informers = Informers::new(client.clone(), stop.clone());
    let (pods, queue) = (informers.all::<Pod>(), WorkQueue::new());
    let added = queue.clone();
    pods.add_handler(move |event| {
        if !matches!(event, Event::Deleted(_)) {
            added.add(ObjectKey::of(&**event.object()));
        }
    });
    reconcile_all("pretender", &queue, 8, &stop, |key: ObjectKey| {
        let (client, pod) = (client.clone(), pods.get(&key));
        async move {
            let Some(pod) = pod.filter(|p| p.spec.as_ref().unwrap().node_name.is_some()) else {
                return Ok::<_, kube::Error>(Outcome::Done);
            };
            let api = Api::<Pod>::namespaced(client, &key.namespace);
            if pod.metadata.deletion_timestamp.is_some() {
                let _ = api.delete(&key.name, &DeleteParams::default().grace_period(0)).await;
            } else if pod.status.as_ref().unwrap().phase.as_deref() == Some("Pending") {
                let status = json!({"status": status(&pod)});
                let _ = api.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(status)).await;
            }
            Ok(Outcome::Done)
        }
    })
    .await;
}

fn status(pod: &Pod) -> Value {
    let now = Time(Timestamp::now());
    let exit = pod.metadata.labels.as_ref().and_then(|l| l.get("exit")).and_then(|c| c.parse::<i32>().ok());
    let (phase, ready, state) = match exit {
        None => ("Running", "True", json!({"running": {"startedAt": now}})),
        Some(code) => {
            let phase = if code == 0 { "Succeeded" } else { "Failed" };
            (phase, "False", json!({"terminated": {"exitCode": code, "finishedAt": now, "startedAt": now}}))
        }
    };
    let last: u8 =
        pod.metadata.uid.as_deref().unwrap_or("x").bytes().fold(7, |a, b| a.wrapping_mul(31).wrapping_add(b));
    let ip = format!("10.42.0.{last}");
    let containers: Vec<Value> = pod
        .spec
        .as_ref()
        .unwrap()
        .containers
        .iter()
        .map(|c| {
            json!({"name": c.name,
        "image": c.image, "imageID": "", "ready": ready == "True", "restartCount": 0, "state": state})
        })
        .collect();
    json!({"phase": phase, "podIP": ip, "podIPs": [{"ip": ip}], "startTime": now, "containerStatuses": containers,
        "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": now}]})
}
