//! Small plugins that are off by default (`--enable-admission-plugins`).

use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use kube1_api::name::GroupResource;
use kube1_api::resource::ResourceTable;
use kube1_api::status::Status;
use serde_json::{Value, json};

use super::pod_defaults::{items, push};
use super::{Attributes, Operation, Plugin};
use crate::bootstrap::{StorageWriter, Writer};
use crate::reader::StorageReader;
use crate::storage::Storage;

/// Refuses everything.
pub struct AlwaysDeny;

#[async_trait]
impl Plugin for AlwaysDeny {
    fn name(&self) -> &'static str {
        "AlwaysDeny"
    }

    fn handles(&self, _: &Attributes) -> bool {
        true
    }

    async fn mutate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        self.validate(attributes).await
    }

    async fn validate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        Err(attributes.forbidden("admission control is denying all modifications"))
    }
}

/// Nothing is written into a namespace that does not exist, nor deleted there.
pub struct NamespaceExists {
    reader: Arc<StorageReader>,
}

impl NamespaceExists {
    pub fn new(reader: Arc<StorageReader>) -> Self {
        Self { reader }
    }
}

#[async_trait]
impl Plugin for NamespaceExists {
    fn name(&self) -> &'static str {
        "NamespaceExists"
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        attributes.operation != Operation::Connect
            && !attributes.namespace.is_empty()
            && !attributes.is("", "namespaces")
    }

    async fn validate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        let namespaces = self.reader.collection("", "namespaces");
        match namespaces.and_then(|namespaces| namespaces.get("", &attributes.namespace)) {
            Some(_) => Ok(()),
            None => Err(Status::not_found(&GroupResource::new("", "namespaces"), &attributes.namespace)),
        }
    }
}

/// Makes the namespace of a new object when it does not exist. What it made stays when the write fails later.
pub struct NamespaceAutoProvision {
    storage: Storage,
    table: Arc<ArcSwap<ResourceTable>>,
}

impl NamespaceAutoProvision {
    pub fn new(storage: Storage, table: Arc<ArcSwap<ResourceTable>>) -> Self {
        Self { storage, table }
    }
}

#[async_trait]
impl Plugin for NamespaceAutoProvision {
    fn name(&self) -> &'static str {
        "NamespaceAutoProvision"
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        attributes.operation == Operation::Create
            && !attributes.namespace.is_empty()
            && !attributes.dry_run
            && !attributes.is("", "namespaces")
    }

    async fn mutate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        let (name, resource, table) =
            (attributes.namespace.as_str(), GroupResource::new("", "namespaces"), self.table.load_full());
        let writer = StorageWriter::new(&self.storage, &table);
        if writer.get(&resource, "", name).await?.is_some() {
            return Ok(());
        }
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
            "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
        });
        match writer.create(&resource, namespace).await {
            // Another request for the same namespace was first.
            Err(status) if status.reason() != "AlreadyExists" => Err(attributes.forbidden(status.message())),
            _ => Ok(()),
        }
    }
}

/// Pods may only keep others away from their node, not from a whole zone.
pub struct LimitPodHardAntiAffinityTopology;

#[async_trait]
impl Plugin for LimitPodHardAntiAffinityTopology {
    fn name(&self) -> &'static str {
        "LimitPodHardAntiAffinityTopology"
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        attributes.writes("", "pods")
    }

    async fn validate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        const HOST: &str = "kubernetes.io/hostname";
        let pod = attributes.object.as_ref().unwrap_or(&Value::Null);
        let terms = &pod["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
        let key = |term: &'_ Value| term["topologyKey"].as_str().unwrap_or_default().to_owned();
        match items(terms).map(key).find(|key| key != HOST) {
            None => Ok(()),
            Some(key) => Err(attributes.forbidden(format!(
                "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey {key} but only key {HOST} is allowed"
            ))),
        }
    }
}

/// Images are pulled each time, so that whoever uses one has the right to pull it.
pub struct AlwaysPullImages;

const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

impl AlwaysPullImages {
    /// Where a pull policy is, by path, of everything in a pod's spec that has an image.
    fn policies(spec: &mut Value) -> Vec<(String, &mut Value)> {
        let mut found = Vec::new();
        let Some(members) = spec.as_object_mut() else { return found };
        for (list, members) in members.iter_mut() {
            let members = members.as_array_mut().into_iter().flatten().enumerate();
            if CONTAINERS.contains(&list.as_str()) {
                found.extend(
                    members.map(|(at, c)| (format!("spec.{list}[{at}].imagePullPolicy"), &mut c["imagePullPolicy"])),
                );
            } else if list == "volumes" {
                let images = members.filter(|(_, volume)| volume["image"].is_object());
                found
                    .extend(images.map(|(at, v)| {
                        (format!("spec.volumes[{at}].image.pullPolicy"), &mut v["image"]["pullPolicy"])
                    }));
            }
        }
        found
    }

    fn images(pod: &Value) -> Vec<&str> {
        let containers = CONTAINERS.iter().flat_map(|list| items(&pod["spec"][*list]).map(|c| &c["image"]));
        let volumes = items(&pod["spec"]["volumes"]).map(|volume| &volume["image"]["reference"]);
        containers.chain(volumes).filter_map(Value::as_str).collect()
    }

    /// Whether an update keeps to the images that are there.
    fn is_without_news(attributes: &Attributes) -> bool {
        let (Some(new), Some(old)) = (&attributes.object, &attributes.old) else { return false };
        let old = Self::images(old);
        attributes.operation == Operation::Update && Self::images(new).iter().all(|image| old.contains(image))
    }
}

#[async_trait]
impl Plugin for AlwaysPullImages {
    fn name(&self) -> &'static str {
        "AlwaysPullImages"
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        attributes.writes("", "pods") && !Self::is_without_news(attributes)
    }

    async fn mutate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        if let Some(pod) = &mut attributes.object {
            Self::policies(&mut pod["spec"]).into_iter().for_each(|(_, policy)| *policy = "Always".into());
        }
        Ok(())
    }

    async fn validate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        let mut spec = attributes.object.as_ref().map(|pod| pod["spec"].clone()).unwrap_or_default();
        let wrong = Self::policies(&mut spec).into_iter().filter(|(_, policy)| **policy != "Always");
        let errors: Vec<String> = wrong
            .map(|(path, policy)| {
                let given = policy.as_str().unwrap_or_default();
                format!("{path}: Unsupported value: {given:?}: supported values: \"Always\"")
            })
            .collect();
        super::together(errors).map_or(Ok(()), |why| Err(attributes.forbidden(why)))
    }
}

/// Pods that ask for a device tolerate nodes that are kept for it.
pub struct ExtendedResourceToleration;

#[async_trait]
impl Plugin for ExtendedResourceToleration {
    fn name(&self) -> &'static str {
        "ExtendedResourceToleration"
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        attributes.writes("", "pods")
    }

    async fn mutate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        let Some(pod) = &mut attributes.object else { return Ok(()) };
        let containers = ["containers", "initContainers"].into_iter().flat_map(|list| items(&pod["spec"][list]));
        let asked = containers.filter_map(|c| c["resources"]["requests"].as_object()).flat_map(|r| r.keys().cloned());
        let mut devices: Vec<String> = asked.filter(|name| is_extended(name)).collect();
        devices.sort();
        devices.dedup();
        for device in devices {
            let toleration = json!({"key": device, "operator": "Exists", "effect": "NoSchedule"});
            if !items(&pod["spec"]["tolerations"]).any(|other| other == &toleration) {
                push(&mut pod["spec"]["tolerations"], toleration);
            }
        }
        Ok(())
    }
}

/// A resource that some node's owner invented.
fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.")
}

/// Services take no external addresses beside those they have: whoever has one can take over others' traffic.
pub struct DenyServiceExternalIPs;

#[async_trait]
impl Plugin for DenyServiceExternalIPs {
    fn name(&self) -> &'static str {
        "DenyServiceExternalIPs"
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        attributes.writes("", "services")
    }

    async fn validate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        let addresses = |service: &Option<Value>| -> Vec<Value> {
            service.as_ref().map(|s| items(&s["spec"]["externalIPs"]).cloned().collect()).unwrap_or_default()
        };
        let old = addresses(&attributes.old);
        match addresses(&attributes.object).iter().all(|address| old.contains(address)) {
            true => Ok(()),
            false => Err(attributes.forbidden("Use of external IPs is denied by admission control")),
        }
    }
}
