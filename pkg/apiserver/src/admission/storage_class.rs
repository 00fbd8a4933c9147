//! Classes that are filled in, and finalizers that protect storage in use.

use std::sync::Arc;

use async_trait::async_trait;
use kube1_api::quantity::Quantity;
use kube1_api::status::Status;
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};
use crate::reader::StorageReader;

const BETA_STORAGE_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const OLD_INGRESS_CLASS: &str = "kubernetes.io/ingress.class";

/// The newest object that one of the annotations marks as the default; of equally old ones the first by name.
fn default_class(reader: &StorageReader, group: &str, plural: &str, annotations: &[&str]) -> Option<String> {
    let classes = reader.collection(group, plural)?.all(None);
    let mut defaults: Vec<(String, String)> = Vec::new();
    for class in classes {
        let metadata = class.value()["metadata"].take();
        if annotations.iter().any(|a| metadata["annotations"][a] == "true") {
            let created = metadata["creationTimestamp"].as_str().unwrap_or_default().to_owned();
            defaults.push((created, class.name().to_owned()));
        }
    }
    defaults.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    defaults.into_iter().next().map(|(_, name)| name)
}

pub struct DefaultStorageClass {
    reader: Arc<StorageReader>,
}

impl DefaultStorageClass {
    pub fn new(reader: Arc<StorageReader>) -> Self {
        Self { reader }
    }
}

#[async_trait]
impl Plugin for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        attributes.creates("", "persistentvolumeclaims")
    }

    async fn mutate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        let Some(claim) = &mut attributes.object else { return Ok(()) };
        let given = claim["spec"].get("storageClassName").is_some_and(|c| !c.is_null())
            || claim["metadata"]["annotations"].get(BETA_STORAGE_CLASS).is_some();
        if given {
            return Ok(());
        }
        let annotations =
            ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
        if let Some(name) = default_class(&self.reader, "storage.k8s.io", "storageclasses", &annotations) {
            claim["spec"]["storageClassName"] = name.into();
        }
        Ok(())
    }
}

pub struct DefaultIngressClass {
    reader: Arc<StorageReader>,
}

impl DefaultIngressClass {
    pub fn new(reader: Arc<StorageReader>) -> Self {
        Self { reader }
    }
}

#[async_trait]
impl Plugin for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        attributes.creates("networking.k8s.io", "ingresses")
    }

    async fn mutate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        let Some(ingress) = &mut attributes.object else { return Ok(()) };
        let given = ingress["spec"].get("ingressClassName").is_some_and(|c| !c.is_null())
            || ingress["metadata"]["annotations"].get(OLD_INGRESS_CLASS).is_some();
        if given {
            return Ok(());
        }
        let annotations = ["ingressclass.kubernetes.io/is-default-class"];
        if let Some(name) = default_class(&self.reader, "networking.k8s.io", "ingressclasses", &annotations) {
            ingress["spec"]["ingressClassName"] = name.into();
        }
        Ok(())
    }
}

/// Claims, volumes and attribute classes are not removed while they are in use.
pub struct StorageObjectInUseProtection;

fn protection(attributes: &Attributes) -> Option<&'static str> {
    match (attributes.resource.group.as_str(), attributes.resource.plural.as_str()) {
        ("", "persistentvolumeclaims") => Some("kubernetes.io/pvc-protection"),
        ("", "persistentvolumes") => Some("kubernetes.io/pv-protection"),
        ("storage.k8s.io", "volumeattributesclasses") => Some("kubernetes.io/vac-protection"),
        _ => None,
    }
}

#[async_trait]
impl Plugin for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        attributes.operation == Operation::Create
            && attributes.subresource.is_empty()
            && protection(attributes).is_some()
    }

    async fn mutate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        let Some(finalizer) = protection(attributes) else { return Ok(()) };
        let Some(object) = &mut attributes.object else { return Ok(()) };
        match object["metadata"]["finalizers"].as_array_mut() {
            Some(finalizers) if finalizers.iter().any(|f| f == finalizer) => {}
            Some(finalizers) => finalizers.push(finalizer.into()),
            None => object["metadata"]["finalizers"] = json!([finalizer]),
        }
        Ok(())
    }
}

/// A claim may only grow when its class allows it.
pub struct PersistentVolumeClaimResize {
    reader: Arc<StorageReader>,
}

impl PersistentVolumeClaimResize {
    pub fn new(reader: Arc<StorageReader>) -> Self {
        Self { reader }
    }

    fn allows_growth(&self, new: &Value, old: &Value) -> bool {
        let class = |claim: &Value| {
            let annotated = claim["metadata"]["annotations"][BETA_STORAGE_CLASS].as_str();
            annotated.or(claim["spec"]["storageClassName"].as_str()).filter(|c| !c.is_empty()).map(str::to_owned)
        };
        let Some(class) = class(new).filter(|new| Some(new) == class(old).as_ref()) else { return false };
        let class = self.reader.collection("storage.k8s.io", "storageclasses").and_then(|c| c.get("", &class));
        class.is_some_and(|class| class.value()["allowVolumeExpansion"].as_bool() == Some(true))
    }
}

fn requested(claim: &Value) -> Option<Quantity> {
    Quantity::parse(claim["spec"]["resources"]["requests"]["storage"].as_str()?).ok()
}

#[async_trait]
impl Plugin for PersistentVolumeClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        attributes.writes("", "persistentvolumeclaims") && attributes.operation == Operation::Update
    }

    async fn validate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        let (Some(new), Some(old)) = (&attributes.object, &attributes.old) else { return Ok(()) };
        let grows = matches!((requested(new), requested(old)), (Some(new), Some(old)) if new > old);
        if !grows {
            return Ok(());
        }
        if old["status"]["phase"] != "Bound" {
            return Err(attributes.forbidden("Only bound persistent volume claims can be expanded"));
        }
        if !self.allows_growth(new, old) {
            return Err(attributes.forbidden(
                "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must \
                 support resize",
            ));
        }
        Ok(())
    }
}
