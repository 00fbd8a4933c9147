//! Claims, volumes and storage classes as the API has them, and the binding of claims that waited for their pod.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Patch, PatchParams};
use kube::core::SelectorExt;
use kube::{Api, Client};
use kube1_client::{Informer, Informers, ObjectKey};
use serde_json::json;
use tokio::sync::watch;

use crate::framework::Rejection;
use crate::labels::{of, selector};
use crate::node_info::NodeInfo;
use crate::plugins::{VolumeDecision, Volumes, volume_reaches};
use crate::pod_info::PodInfo;

/// How long a pod waits for its volumes to be made.
const BIND_TIMEOUT: Duration = Duration::from_secs(600);
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// Why the volumes of a pod could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("cannot bind the pod's volumes")]
    Api(#[from] kube::Error),
    #[error("the provisioner gave up on claim {0} on this node")]
    Rescheduled(String),
    #[error("timed out waiting for claim {0} to be bound")]
    Timeout(String),
}

/// Reads volumes through informers.
pub struct ClusterVolumes {
    client: Client,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    classes: Informer<StorageClass>,
    changed: watch::Sender<()>,
}

/// What is to be written so that a claim gets its volume on a node.
#[derive(Clone, Debug)]
pub enum Binding {
    /// Bind the volume to the claim.
    Volume { claim: Arc<PersistentVolumeClaim>, volume: Arc<PersistentVolume> },
    /// Have the provisioner make one.
    Provision { claim: Arc<PersistentVolumeClaim> },
}

impl ClusterVolumes {
    pub fn new(informers: &Informers) -> Arc<Self> {
        let (claims, volumes) = (informers.all::<PersistentVolumeClaim>(), informers.all::<PersistentVolume>());
        let classes = informers.all::<StorageClass>();
        let volumes = Arc::new(Self {
            client: informers.client().clone(),
            claims,
            volumes,
            classes,
            changed: watch::Sender::new(()),
        });
        let changed = volumes.changed.clone();
        volumes.claims.add_handler(move |_| changed.send_replace(()));
        volumes
    }

    /// Calls `tell` for every change that may make a pod's volumes available.
    pub fn on_change(&self, tell: impl Fn() + Clone + Send + Sync + 'static) {
        let (first, second) = (tell.clone(), tell.clone());
        self.claims.add_handler(move |_| tell());
        self.volumes.add_handler(move |_| first());
        self.classes.add_handler(move |_| second());
    }

    pub async fn synced(&self) {
        tokio::join!(self.claims.synced(), self.volumes.synced(), self.classes.synced());
    }

    /// What must be bound once the pod is on `node`.
    pub fn plan(&self, pod: &PodInfo, node: &NodeInfo) -> Vec<Binding> {
        let decisions = self.decide(pod).unwrap_or_default();
        let plan = |decision| match decision {
            VolumeDecision::Bound(_) => None,
            VolumeDecision::Wait { claim, candidates, .. } => {
                let volume = candidates.into_iter().find(|v| volume_reaches(v, node));
                Some(match volume {
                    Some(volume) => Binding::Volume { claim, volume },
                    None => Binding::Provision { claim },
                })
            }
        };
        decisions.into_iter().filter_map(plan).collect()
    }

    /// Writes the bindings and waits until the claims are bound.
    pub async fn bind(&self, bindings: &[Binding], node: &str) -> Result<(), VolumeError> {
        for binding in bindings {
            match binding {
                Binding::Volume { claim, volume } => self.bind_volume(claim, volume).await?,
                Binding::Provision { claim } => self.select_node(claim, node).await?,
            }
        }
        for binding in bindings {
            let (Binding::Volume { claim, .. } | Binding::Provision { claim }) = binding;
            let key = ObjectKey::of(&**claim);
            let provisioned = matches!(binding, Binding::Provision { .. });
            let bound = self.wait_bound(&key, provisioned.then_some(node));
            tokio::time::timeout(BIND_TIMEOUT, bound).await.map_err(|_| VolumeError::Timeout(key.to_string()))??;
        }
        Ok(())
    }

    async fn bind_volume(&self, claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Result<(), kube::Error> {
        let meta = &claim.metadata;
        let patch = json!({
            "metadata": {
                "resourceVersion": volume.metadata.resource_version,
                "annotations": {"pv.kubernetes.io/bound-by-controller": "yes"},
            },
            "spec": {"claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": meta.namespace,
                "name": meta.name, "uid": meta.uid}},
        });
        let api: Api<PersistentVolume> = Api::all(self.client.clone());
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
    }

    async fn select_node(&self, claim: &PersistentVolumeClaim, node: &str) -> Result<(), kube::Error> {
        let key = ObjectKey::of(claim);
        let patch = json!({"metadata": {"annotations": {SELECTED_NODE: node}}});
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &key.namespace);
        api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
    }

    async fn wait_bound(&self, key: &ObjectKey, selected: Option<&str>) -> Result<(), VolumeError> {
        let mut changed = self.changed.subscribe();
        let mut was_selected = false;
        loop {
            let Some(claim) = self.claims.get(key) else { return Err(VolumeError::Rescheduled(key.to_string())) };
            if is_bound(&claim) {
                return Ok(());
            }
            let annotation = claim.metadata.annotations.as_ref().and_then(|a| a.get(SELECTED_NODE));
            match (selected, annotation) {
                (Some(node), Some(on)) => was_selected |= on == node,
                // A provisioner that cannot make the volume on this node takes the annotation away.
                (Some(_), None) if was_selected => return Err(VolumeError::Rescheduled(key.to_string())),
                _ => {}
            }
            // The sender lives in `self`, so this cannot fail.
            let _ = changed.changed().await;
        }
    }

    fn decide_claim(&self, pod: &PodInfo, name: &str, ephemeral: bool) -> Result<VolumeDecision, Rejection> {
        let rejected = |reason: String| Err(Rejection::unresolvable(reason));
        let Some(claim) = self.claims.get(&ObjectKey::new(pod.key.namespace.clone(), name)) else {
            return rejected(match ephemeral {
                true => {
                    format!("waiting for ephemeral volume controller to create the persistentvolumeclaim \"{name}\"")
                }
                false => format!("persistentvolumeclaim \"{name}\" not found"),
            });
        };
        if claim.metadata.deletion_timestamp.is_some() {
            return rejected(format!("persistentvolumeclaim \"{name}\" is being deleted"));
        }
        let owned = claim.metadata.owner_references.iter().flatten().any(|o| *o.uid == *pod.uid);
        if ephemeral && !owned {
            return rejected(format!("persistentvolumeclaim \"{name}\" was not created for the pod"));
        }
        if is_bound(&claim) {
            let volume = claim.spec.as_ref().and_then(|s| s.volume_name.clone()).unwrap_or_default();
            return match self.volumes.get(&ObjectKey::new("", volume)) {
                Some(volume) => Ok(VolumeDecision::Bound(volume)),
                None => {
                    rejected("node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)".to_owned())
                }
            };
        }
        self.decide_unbound(claim)
    }

    fn decide_unbound(&self, claim: Arc<PersistentVolumeClaim>) -> Result<VolumeDecision, Rejection> {
        let class_name = claim.spec.as_ref().and_then(|s| s.storage_class_name.clone()).unwrap_or_default();
        let class = self.classes.get(&ObjectKey::new("", class_name));
        let waits = class.as_ref().is_some_and(|c| c.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"));
        let chosen = claim.spec.as_ref().is_some_and(|s| s.volume_name.as_ref().is_some_and(|v| !v.is_empty()));
        if !waits || chosen {
            return Err(Rejection::unresolvable("pod has unbound immediate PersistentVolumeClaims"));
        }
        let mut candidates: Vec<_> = self.volumes.list().into_iter().filter(|v| satisfies(v, &claim)).collect();
        candidates.sort_by_key(|v| (capacity(v), v.metadata.name.clone()));
        let provisioning = class.filter(|c| c.provisioner != "kubernetes.io/no-provisioner");
        Ok(VolumeDecision::Wait { claim, candidates, provisioning })
    }
}

impl Volumes for ClusterVolumes {
    fn decide(&self, pod: &PodInfo) -> Result<Vec<VolumeDecision>, Rejection> {
        pod.claims.iter().map(|claim| self.decide_claim(pod, &claim.name, claim.ephemeral)).collect()
    }
}

fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    let named = claim.spec.as_ref().is_some_and(|s| s.volume_name.as_ref().is_some_and(|v| !v.is_empty()));
    let annotations = claim.metadata.annotations.as_ref();
    named && annotations.is_some_and(|a| a.contains_key("pv.kubernetes.io/bind-completed"))
}

fn units(quantity: Option<&k8s_openapi::apimachinery::pkg::api::resource::Quantity>) -> i64 {
    let parsed = quantity.and_then(|q| kube1_api::quantity::Quantity::parse(&q.0).ok());
    parsed.map_or(0, kube1_api::quantity::Quantity::units)
}

fn capacity(volume: &PersistentVolume) -> i64 {
    units(volume.spec.as_ref().and_then(|s| s.capacity.as_ref()).and_then(|c| c.get("storage")))
}

/// Whether an unused volume is what the claim asks for.
fn satisfies(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let (Some(have), Some(want)) = (&volume.spec, &claim.spec) else { return false };
    let free = have.claim_ref.as_ref().is_none_or(|r| {
        r.namespace == claim.metadata.namespace
            && r.name == claim.metadata.name
            && (r.uid.is_none() || r.uid == claim.metadata.uid)
    });
    let phase = volume.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Available");
    let mode = |mode: &Option<String>| mode.clone().unwrap_or_else(|| "Filesystem".to_owned());
    let modes = have.access_modes.as_deref().unwrap_or(&[]);
    let wanted = want.resources.as_ref().and_then(|r| r.requests.as_ref()).and_then(|r| r.get("storage"));
    free && volume.metadata.deletion_timestamp.is_none()
        && matches!(phase, "Available" | "Pending" | "Bound")
        && have.storage_class_name.as_deref().unwrap_or("") == want.storage_class_name.as_deref().unwrap_or("")
        && mode(&have.volume_mode) == mode(&want.volume_mode)
        && want.access_modes.iter().flatten().all(|m| modes.contains(m))
        && capacity(volume) >= units(wanted)
        && (want.selector.is_none()
            || selector(want.selector.as_ref()).is_some_and(|s| s.matches(of(&volume.metadata))))
}
