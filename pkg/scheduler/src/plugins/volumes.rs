//! VolumeBinding: pods go where their volumes are, or can be.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube1_client::node_match::node_selector_matches;

use crate::cache::Snapshot;
use crate::framework::{Filter, Plugin, Rejection};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::queue::Events;

/// What is to be done about one claim of a pod.
#[derive(Clone, Debug)]
pub enum VolumeDecision {
    /// The claim has its volume.
    Bound(Arc<PersistentVolume>),
    /// The claim gets a volume once the pod has its node.
    Wait {
        claim: Arc<PersistentVolumeClaim>,
        /// Volumes that would do, smallest first.
        candidates: Vec<Arc<PersistentVolume>>,
        /// The class, if it makes volumes on demand.
        provisioning: Option<Arc<StorageClass>>,
    },
}

/// Knows claims, volumes and storage classes.
pub trait Volumes: Send + Sync {
    /// A decision for every claim of the pod, or why it cannot be scheduled anywhere now.
    fn decide(&self, pod: &PodInfo) -> Result<Vec<VolumeDecision>, Rejection>;
}

pub struct VolumeBinding {
    volumes: Arc<dyn Volumes>,
}

impl VolumeBinding {
    pub fn new(volumes: Arc<dyn Volumes>) -> Self {
        Self { volumes }
    }
}

impl Plugin for VolumeBinding {
    fn name(&self) -> &'static str {
        "VolumeBinding"
    }

    fn events(&self) -> Events {
        Events::NODE_ADDED | Events::NODE_LABELS | Events::VOLUMES | Events::POD_GONE
    }

    fn filter(&self, pod: &Arc<PodInfo>, snapshot: &Snapshot) -> Result<Option<Box<dyn Filter>>, Rejection> {
        let decisions = self.volumes.decide(pod)?;
        if exclusive_claim_is_used(pod, &decisions, snapshot) {
            let reason = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";
            return Err(Rejection::resolvable(reason));
        }
        Ok((!decisions.is_empty()).then(|| Box::new(Reachable(decisions)) as Box<dyn Filter>))
    }
}

fn exclusive_claim_is_used(pod: &PodInfo, decisions: &[VolumeDecision], snapshot: &Snapshot) -> bool {
    let exclusive = decisions.iter().filter_map(|d| match d {
        VolumeDecision::Bound(volume) => {
            let spec = volume.spec.as_ref()?;
            let only = spec.access_modes.iter().flatten().any(|m| m == "ReadWriteOncePod");
            only.then(|| spec.claim_ref.as_ref()?.name.clone())?
        }
        VolumeDecision::Wait { .. } => None,
    });
    let exclusive: Vec<String> = exclusive.collect();
    if exclusive.is_empty() {
        return false;
    }
    let uses = |p: &Arc<PodInfo>| {
        p.key.namespace == pod.key.namespace
            && p.uid != pod.uid
            && p.claims.iter().any(|claim| exclusive.contains(&claim.name))
    };
    snapshot.nodes.iter().any(|n| n.pods.values().any(uses))
}

/// Whether a volume can be used on a node.
pub fn volume_reaches(volume: &PersistentVolume, node: &NodeInfo) -> bool {
    let affinity = volume.spec.as_ref().and_then(|s| s.node_affinity.as_ref()).and_then(|a| a.required.as_ref());
    affinity.is_none_or(|s| node_selector_matches(s, node.labels(), &node.name))
}

fn class_reaches(class: &StorageClass, node: &NodeInfo) -> bool {
    let topologies = class.allowed_topologies.as_deref().unwrap_or(&[]);
    topologies.is_empty()
        || topologies.iter().any(|t| {
            let terms = t.match_label_expressions.as_deref().unwrap_or(&[]);
            terms.iter().all(|e| node.labels().get(&e.key).is_some_and(|v| e.values.contains(v)))
        })
}

#[derive(Clone)]
struct Reachable(Vec<VolumeDecision>);

impl Filter for Reachable {
    fn check(&self, node: &NodeInfo) -> Result<(), Rejection> {
        for decision in &self.0 {
            match decision {
                VolumeDecision::Bound(volume) if !volume_reaches(volume, node) => {
                    return Err(Rejection::unresolvable("node(s) didn't match PersistentVolume's node affinity"));
                }
                VolumeDecision::Wait { candidates, provisioning, .. }
                    if !candidates.iter().any(|v| volume_reaches(v, node))
                        && !provisioning.as_ref().is_some_and(|class| class_reaches(class, node)) =>
                {
                    return Err(Rejection::unresolvable("node(s) didn't find available persistent volumes to bind"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn boxed_clone(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
}
