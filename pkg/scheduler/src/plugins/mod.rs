//! The scheduling rules, in the order in which filters run.

mod basic;
mod declared_features;
mod fit;
mod image_locality;
mod inter_pod_affinity;
mod node_affinity;
mod taint_toleration;
mod topology_spread;
mod volumes;

pub use declared_features::declared;
pub use topology_spread::Owners;
pub use volumes::{VolumeDecision, Volumes, volume_reaches};

use std::sync::Arc;

use crate::framework::Plugin;

/// All plugins, cheap and decisive filters first.
pub fn all(volumes: Arc<dyn Volumes>, owners: Arc<dyn Owners>) -> Vec<Box<dyn Plugin>> {
    vec![
        Box::new(basic::NodeUnschedulable),
        Box::new(basic::NodeName),
        Box::new(taint_toleration::TaintToleration),
        Box::new(node_affinity::NodeAffinity),
        Box::new(declared_features::NodeDeclaredFeatures),
        Box::new(basic::NodePorts),
        Box::new(fit::Fit),
        Box::new(fit::BalancedAllocation),
        Box::new(volumes::VolumeBinding::new(volumes)),
        Box::new(topology_spread::TopologySpread::new(owners)),
        Box::new(inter_pod_affinity::InterPodAffinity::default()),
        Box::new(image_locality::ImageLocality),
    ]
}
