//! The Node object: registration and status.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node as ApiNode, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeFeatures,
    NodeRuntimeHandler, NodeRuntimeHandlerFeatures, NodeSpec, NodeStatus, NodeSwapStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use kube1_client::EventType;
use kube1_cri::v1::RuntimeHandlerFeatures;
use kube1_supervisor::BoxError;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::KubeletConfig;
use crate::lease;
use crate::machine::{self, Machine};
use crate::node::{Allocatable, Node, RuntimeFeatures};
use crate::pressure;
use crate::status::now;

/// How often a ready node is looked at.
const LOOK: Duration = Duration::from_secs(10);
/// A status without news is still written this often.
const HEARTBEAT: Duration = Duration::from_secs(300);
/// While the node is not ready it is looked at often, so that it is ready as soon as it can be.
const EAGER_MIN: Duration = Duration::from_millis(50);
/// Memory that is kept free for the machine itself (the threshold of eviction).
const MEMORY_RESERVED: i64 = 100 << 20;
const IMAGES_MAX: usize = 50;
/// What the scheduler and others may rely on here (KEP-5328), in the order of their names.
const DECLARED_FEATURES: [&str; 4] = [
    "ExtendWebSocketsToKubelet",
    "InPlacePodLevelResourcesVerticalScaling",
    "InPlacePodVerticalScalingInitContainers",
    "RestartAllContainersOnContainerExits",
];

/// What the node can give to pods.
pub fn allocatable(config: &KubeletConfig, machine: &Machine) -> Allocatable {
    let disk = machine::filesystem(&config.data_dir).unwrap_or_default();
    let settings = &config.settings;
    // The last tenth of the disk is the threshold of eviction.
    let storage = i64::try_from(disk.capacity / 10 * 9).unwrap_or(0);
    Allocatable {
        cpu_millis: (machine.cpus * 1000 - settings.reserved_cpu_millis).max(0),
        memory: (machine.memory - MEMORY_RESERVED - settings.reserved_memory).max(0),
        ephemeral_storage: (storage - settings.reserved_storage).max(0),
        pods: i64::from(settings.max_pods),
    }
}

/// Keeps the Node object and its lease.
pub struct NodeStatusTask {
    node: Arc<Node>,
    runtime_version: String,
    stop: CancellationToken,
}

impl NodeStatusTask {
    pub fn new(node: Arc<Node>, runtime_version: &str, stop: CancellationToken) -> Self {
        Self { node, runtime_version: runtime_version.to_owned(), stop }
    }

    fn config(&self) -> &KubeletConfig {
        &self.node.config
    }

    fn api(&self) -> Api<ApiNode> {
        Api::all(self.config().client.clone())
    }

    /// Makes the Node object exist with this node's labels and status. Tries until it succeeds.
    pub async fn register(&self) -> Result<(), BoxError> {
        let mut pause = Duration::from_millis(100);
        loop {
            match self.try_register().await {
                Ok(()) => return Ok(()),
                Err(error) => tracing::warn!(%error, "cannot register the node yet"),
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(Duration::from_secs(7)),
                () = self.stop.cancelled() => return Ok(()),
            }
        }
    }

    async fn try_register(&self) -> Result<(), kube::Error> {
        let status = self.status(None).await;
        let labels = self.labels();
        let config = self.config();
        let node = ApiNode {
            metadata: ObjectMeta {
                name: Some(config.node_name.clone()),
                labels: Some(labels.clone()),
                annotations: Some(self.annotations()),
                ..ObjectMeta::default()
            },
            spec: Some(NodeSpec {
                taints: Some(config.node_taints.clone()).filter(|t| !t.is_empty()),
                ..NodeSpec::default()
            }),
            status: Some(status),
        };
        match self.api().create(&PostParams::default(), &node).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(error)) if error.code == 409 => {
                let meta = json!({"metadata": {"labels": labels, "annotations": self.annotations()}});
                let current = self.api().patch(&config.node_name, &PatchParams::default(), &Patch::Merge(meta)).await?;
                self.write(&current, self.status(Some(&current)).await).await
            }
            Err(error) => Err(error),
        }
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let config = self.config();
        let own = [
            ("kubernetes.io/hostname", config.node_name.as_str()),
            ("kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", machine::architecture()),
            ("beta.kubernetes.io/os", "linux"),
            ("beta.kubernetes.io/arch", machine::architecture()),
        ];
        let own = own.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned()));
        own.chain(config.node_labels.clone()).collect()
    }

    fn annotations(&self) -> BTreeMap<String, String> {
        let ip = ("alpha.kubernetes.io/provided-node-ip".to_owned(), self.config().node_ip.to_string());
        let attach = ("volumes.kubernetes.io/controller-managed-attach-detach".to_owned(), "true".to_owned());
        BTreeMap::from([ip, attach])
    }

    /// Renews the lease, and writes the status when it has changed or is old.
    pub async fn run(self) -> Result<(), BoxError> {
        tokio::join!(lease::keep(&self.node, &self.stop), self.keep_status());
        Ok(())
    }

    async fn keep_status(&self) {
        let (mut eager, mut written) = (EAGER_MIN, Instant::now());
        let mut was_ready = false;
        loop {
            let current = self.node.api_node();
            let ready = current.as_ref().is_some_and(|n| is_ready(n.status.as_ref()));
            eager = if ready { EAGER_MIN } else { (eager * 2).min(Duration::from_secs(1)) };
            tokio::select! {
                () = tokio::time::sleep(if ready { LOOK } else { eager }) => {}
                () = self.stop.cancelled() => return,
            }
            let Some(current) = self.node.api_node() else {
                if self.node.api_node.has_synced() {
                    // Somebody deleted the object while the node lives.
                    let _ = self.register().await;
                }
                continue;
            };
            let status = self.status(Some(&current)).await;
            let due = written.elapsed() >= HEARTBEAT;
            if !due && !differs(current.status.as_ref(), &status) {
                continue;
            }
            let now_ready = is_ready(Some(&status));
            match self.write(&current, status).await {
                Ok(()) => written = Instant::now(),
                Err(error) => tracing::warn!(%error, "cannot write the node's status"),
            }
            if now_ready && !was_ready {
                let object = self.reference(&current);
                self.node.recorder.event_for(
                    object,
                    EventType::Normal,
                    "NodeReady",
                    format!("Node {} status is now: NodeReady", self.config().node_name),
                );
            }
            was_ready = now_ready;
        }
    }

    /// Events about a node name it for a uid, as upstream's do.
    fn reference(&self, node: &ApiNode) -> k8s_openapi::api::core::v1::ObjectReference {
        let mut reference = kube::Resource::object_ref(node, &());
        reference.uid.clone_from(&node.metadata.name);
        reference
    }

    async fn write(&self, current: &ApiNode, status: NodeStatus) -> Result<(), kube::Error> {
        let status = status_patch(current.status.as_ref(), &status).map_err(kube::Error::SerdeError)?;
        let patch = json!({"metadata": {"uid": current.metadata.uid}, "status": status});
        let name = &self.config().node_name;
        self.api().patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await.map(drop)
    }

    async fn status(&self, current: Option<&ApiNode>) -> NodeStatus {
        let (config, machine) = (self.config(), &self.node.machine);
        let old = current.and_then(|n| n.status.as_ref());
        let disk = machine::filesystem(&config.data_dir).unwrap_or_default();
        let allocatable = *self.node.allocatable.lock();
        let text = |value: String| Quantity(value);
        let resources = |cpu: String, memory: i64, storage: String| {
            let pairs = [
                ("cpu", cpu),
                ("memory", format!("{}Ki", memory / 1024)),
                ("ephemeral-storage", storage),
                ("pods", config.settings.max_pods.to_string()),
                ("hugepages-2Mi", "0".to_owned()),
                ("hugepages-1Gi", "0".to_owned()),
            ];
            let own = pairs.into_iter().map(|(k, v)| (k.to_owned(), text(v)));
            extended_resources(old).into_iter().chain(own).collect::<BTreeMap<_, _>>()
        };
        let storage = format!("{}Ki", disk.capacity / 1024);
        let conditions = self.conditions(old).await;
        let features = self.node.features.lock().clone();
        NodeStatus {
            addresses: Some(vec![
                NodeAddress { address: config.node_ip.to_string(), type_: "InternalIP".to_owned() },
                NodeAddress { address: config.node_name.clone(), type_: "Hostname".to_owned() },
            ]),
            capacity: Some(resources(machine.cpus.to_string(), machine.memory, storage)),
            allocatable: Some(resources(
                kube1_api::quantity::Quantity::from_millis(allocatable.cpu_millis).to_string(),
                allocatable.memory,
                allocatable.ephemeral_storage.to_string(),
            )),
            conditions: Some(conditions),
            daemon_endpoints: Some(NodeDaemonEndpoints {
                kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(config.port) }),
            }),
            node_info: Some(NodeSystemInfo {
                architecture: machine::architecture().to_owned(),
                boot_id: machine.boot_id.clone(),
                container_runtime_version: self.runtime_version.clone(),
                kernel_version: machine.kernel.clone(),
                kube_proxy_version: String::new(),
                kubelet_version: config.version.to_owned(),
                machine_id: machine.machine_id.clone(),
                operating_system: "linux".to_owned(),
                os_image: machine.os_image.clone(),
                system_uuid: machine.system_uuid.clone(),
                swap: Some(NodeSwapStatus { capacity: Some(machine.swap) }).filter(|_| machine.swap > 0),
            }),
            images: Some(self.images().await),
            features: Some(NodeFeatures { supplemental_groups_policy: Some(features.supplemental_groups_policy) }),
            runtime_handlers: Some(features.handlers.iter().map(runtime_handler).collect())
                .filter(|handlers: &Vec<NodeRuntimeHandler>| !handlers.is_empty()),
            declared_features: Some(DECLARED_FEATURES.map(str::to_owned).to_vec()),
            ..NodeStatus::default()
        }
    }

    async fn images(&self) -> Vec<ContainerImage> {
        let mut images = self.node.runtime.list_images().await.unwrap_or_default();
        images.sort_by_key(|image| std::cmp::Reverse((image.size, image.id.clone())));
        let named = images.into_iter().take(IMAGES_MAX).map(|image| ContainerImage {
            names: Some(image.repo_digests.into_iter().chain(image.repo_tags).take(5).collect()),
            size_bytes: i64::try_from(image.size).ok(),
        });
        named.collect()
    }

    async fn conditions(&self, old: Option<&NodeStatus>) -> Vec<NodeCondition> {
        let under = pressure::current(&self.node);
        let condition = |type_: &str, status: bool, reason: &str, message: &str| {
            let status = if status { "True" } else { "False" };
            let old = old.and_then(|o| o.conditions.as_ref()).and_then(|c| c.iter().find(|c| c.type_ == type_));
            let since = old.filter(|c| c.status == status).and_then(|c| c.last_transition_time.clone());
            NodeCondition {
                type_: type_.to_owned(),
                status: status.to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(message.to_owned()),
                last_heartbeat_time: Some(now()),
                last_transition_time: since.or_else(|| Some(now())),
            }
        };
        let ready = match self.not_ready().await {
            None => condition("Ready", true, "KubeletReady", "kubelet is posting ready status"),
            Some(message) => condition("Ready", false, "KubeletNotReady", &message),
        };
        let pressures = [
            ("MemoryPressure", under.memory, "InsufficientMemory", "SufficientMemory", "memory available"),
            ("DiskPressure", under.disk, "DiskPressure", "NoDiskPressure", ""),
            ("PIDPressure", under.pid, "InsufficientPID", "SufficientPID", "PID available"),
        ];
        let mut conditions: Vec<NodeCondition> = pressures
            .into_iter()
            .map(|(type_, on, bad, good, what)| {
                let message = match (what, on) {
                    ("", true) => "kubelet has disk pressure".to_owned(),
                    ("", false) => "kubelet has no disk pressure".to_owned(),
                    (what, true) => format!("kubelet has insufficient {what}"),
                    (what, false) => format!("kubelet has sufficient {what}"),
                };
                condition(type_, on, &format!("KubeletHas{}", if on { bad } else { good }), &message)
            })
            .collect();
        conditions.push(ready);
        conditions
    }

    /// Why pods cannot run now.
    async fn not_ready(&self) -> Option<String> {
        let status = match self.node.runtime.status().await {
            Ok(answer) => {
                *self.node.features.lock() = RuntimeFeatures::of(&answer);
                answer.status.unwrap_or_default()
            }
            Err(error) => return Some(format!("container runtime is down: {error}")),
        };
        let missing = |kind: &str| status.conditions.iter().find(|c| c.r#type == kind && !c.status);
        if let Some(c) = missing("RuntimeReady") {
            return Some(format!(
                "container runtime not ready: RuntimeReady=false reason:{} message:{}",
                c.reason, c.message
            ));
        }
        let c = missing("NetworkReady")?;
        Some(format!(
            "container runtime network not ready: NetworkReady=false reason:{} message:{}",
            c.reason, c.message
        ))
    }
}

fn runtime_handler((name, features): (&String, &RuntimeHandlerFeatures)) -> NodeRuntimeHandler {
    NodeRuntimeHandler {
        name: Some(name.clone()),
        features: Some(NodeRuntimeHandlerFeatures {
            recursive_read_only_mounts: Some(features.recursive_read_only_mounts),
            user_namespaces: Some(features.user_namespaces),
        }),
    }
}

/// The patch that makes `old` be `new`.
fn status_patch(old: Option<&NodeStatus>, new: &NodeStatus) -> serde_json::Result<Value> {
    let mut patch = serde_json::to_value(new)?;
    // Volumes are the attach controller's; an absent field would not change it anyway.
    if let Some(members) = patch.as_object_mut() {
        members.remove("volumesAttached");
        members.entry("runtimeHandlers").or_insert(Value::Null);
    }
    let before = [
        ("capacity", old.and_then(|o| o.capacity.as_ref())),
        ("allocatable", old.and_then(|o| o.allocatable.as_ref())),
    ];
    for (field, before) in before {
        let Some(amounts) = patch.get_mut(field).and_then(Value::as_object_mut) else { continue };
        for name in before.into_iter().flatten().map(|(name, _)| name) {
            amounts.entry(name.as_str()).or_insert(Value::Null);
        }
    }
    Ok(patch)
}

/// What somebody else has advertised as the node's capacity. All of it is for pods.
fn extended_resources(status: Option<&NodeStatus>) -> BTreeMap<String, Quantity> {
    let capacity = status.and_then(|s| s.capacity.as_ref()).into_iter().flatten();
    let extended = capacity.filter(|(name, _)| name.contains('/') && !name.contains("kubernetes.io/"));
    extended.map(|(name, amount)| (name.clone(), amount.clone())).collect()
}

fn is_ready(status: Option<&NodeStatus>) -> bool {
    let conditions = status.and_then(|s| s.conditions.as_ref());
    conditions.is_some_and(|c| c.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}

/// Whether a status has news; the times of its heartbeats are none.
fn differs(old: Option<&NodeStatus>, new: &NodeStatus) -> bool {
    let Some(old) = old else { return true };
    let conditions = |status: &NodeStatus| {
        let facts = status.conditions.iter().flatten();
        let own = facts.filter(|c| c.type_.ends_with("Pressure") || c.type_ == "Ready");
        own.map(|c| (c.type_.clone(), c.status.clone(), c.reason.clone(), c.message.clone())).collect::<Vec<_>>()
    };
    let (mut a, mut b) = (conditions(old), conditions(new));
    a.sort();
    b.sort();
    a != b
        || old.addresses != new.addresses
        || old.capacity != new.capacity
        || old.allocatable != new.allocatable
        || old.node_info != new.node_info
        || old.images != new.images
        || old.daemon_endpoints != new.daemon_endpoints
        || old.features != new.features
        || old.runtime_handlers != new.runtime_handlers
        || old.declared_features != new.declared_features
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn extended_resources_of_others_are_kept() {
        let names = ["cpu", "example.com/gadget", "hugepages-2Mi", "kubernetes.io/batch-cpu"];
        let capacity = names.map(|name| (name.to_owned(), Quantity("3".to_owned())));
        let status = NodeStatus { capacity: Some(capacity.into()), ..NodeStatus::default() };
        let kept = extended_resources(Some(&status));
        assert_eq!(kept, BTreeMap::from([("example.com/gadget".to_owned(), Quantity("3".to_owned()))]));
        assert!(extended_resources(None).is_empty());
    }

    #[test]
    fn resources_that_are_gone_leave_the_status() {
        let amounts =
            |names: &[&str]| Some(names.iter().map(|n| ((*n).to_owned(), Quantity("1".to_owned()))).collect());
        let old = NodeStatus { allocatable: amounts(&["cpu", "example.com/gadget"]), ..NodeStatus::default() };
        let new = NodeStatus { allocatable: amounts(&["cpu"]), ..NodeStatus::default() };
        let patch = status_patch(Some(&old), &new).unwrap();
        assert_eq!(patch["allocatable"], json!({"cpu": "1", "example.com/gadget": null}));
    }

    #[test]
    fn what_the_runtime_can_do_no_more_is_told() {
        let features = RuntimeHandlerFeatures { user_namespaces: true, recursive_read_only_mounts: true };
        let handlers = vec![runtime_handler((&String::new(), &features))];
        let old = NodeStatus { runtime_handlers: Some(handlers), ..NodeStatus::default() };
        let new = NodeStatus::default();
        assert!(differs(Some(&old), &new) && !differs(Some(&new), &new));
        assert_eq!(status_patch(Some(&old), &new).unwrap()["runtimeHandlers"], Value::Null);
    }
}
