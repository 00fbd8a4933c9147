//! The chain: all mutating calls in order, then, later, all validating ones.

use std::sync::Arc;

use kube1_api::status::Status;

use super::{Attributes, Plugin};

/// Upstream's order. Plugins that are not named here come last but for quota.
const ORDER: [&str; 26] = [
    "NodeRestriction",
    "NamespaceLifecycle",
    "LimitRanger",
    "ServiceAccount",
    "TaintNodesByCondition",
    "PodSecurity",
    "Priority",
    "DefaultTolerationSeconds",
    "DefaultStorageClass",
    "StorageObjectInUseProtection",
    "PersistentVolumeClaimResize",
    "RuntimeClass",
    "CertificateApproval",
    "CertificateSigning",
    "ClusterTrustBundleAttest",
    "CertificateSubjectRestriction",
    "DefaultIngressClass",
    "PodTopologyLabels",
    "NodeDeclaredFeatureValidator",
    "PodResizeValidator",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionWebhook",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionWebhook",
    // The others.
    "",
    // It must not charge for what another plugin refuses.
    "ResourceQuota",
];

/// Sorts plugins into upstream's order.
pub fn in_order(mut plugins: Vec<Arc<dyn Plugin>>) -> Vec<Arc<dyn Plugin>> {
    let rest = ORDER.iter().position(|n| n.is_empty()).unwrap_or(ORDER.len());
    plugins.sort_by_key(|p| ORDER.iter().position(|n| *n == p.name()).unwrap_or(rest));
    plugins
}

/// All plugins of a server.
#[derive(Clone, Default)]
pub struct Admission {
    plugins: Vec<Arc<dyn Plugin>>,
}

/// After these have changed an object, all plugins look at it once more.
const OUTSIDE: [&str; 2] = ["MutatingAdmissionPolicy", "MutatingAdmissionWebhook"];

impl Admission {
    /// Takes plugins in any order.
    pub fn new(plugins: Vec<Arc<dyn Plugin>>) -> Self {
        Self { plugins: in_order(plugins) }
    }

    /// Lets every plugin change the object. The first refusal ends it.
    pub async fn mutate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        let mut changed = false;
        for plugin in self.plugins.iter().filter(|p| p.handles(attributes)).collect::<Vec<_>>() {
            let outside = OUTSIDE.contains(&plugin.name());
            let before = if outside { attributes.object.clone() } else { None };
            plugin.mutate(attributes).await?;
            changed |= outside && before != attributes.object;
        }
        if changed {
            for plugin in self.plugins.iter().filter(|p| p.handles(attributes)).collect::<Vec<_>>() {
                plugin.mutate_again(attributes).await?;
            }
        }
        Ok(())
    }

    /// Lets every plugin judge the final object.
    pub async fn validate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        for plugin in self.plugins.iter().filter(|p| p.handles(attributes)).collect::<Vec<_>>() {
            plugin.validate(attributes).await?;
        }
        Ok(())
    }
}
