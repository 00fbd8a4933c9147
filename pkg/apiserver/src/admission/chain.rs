//! The chain: all mutating calls in order, then, later, all validating ones.

use std::sync::Arc;
use std::time::Instant;

use kube1_api::status::Status;

use super::{Attributes, Operation, Plugin};
use crate::metrics::AdmissionMetrics;

/// Upstream's order.
const ORDER: [&str; 39] = [
    "AlwaysAdmit",
    "NamespaceAutoProvision",
    "NamespaceLifecycle",
    "NamespaceExists",
    "LimitPodHardAntiAffinityTopology",
    "LimitRanger",
    "ServiceAccount",
    "NodeRestriction",
    "TaintNodesByCondition",
    "AlwaysPullImages",
    "ImagePolicyWebhook",
    "PodSecurity",
    "PodNodeSelector",
    "Priority",
    "DefaultTolerationSeconds",
    "PodTolerationRestriction",
    "EventRateLimit",
    "ExtendedResourceToleration",
    "DefaultStorageClass",
    "StorageObjectInUseProtection",
    "OwnerReferencesPermissionEnforcement",
    "PersistentVolumeClaimResize",
    "RuntimeClass",
    "CertificateApproval",
    "CertificateSigning",
    "ClusterTrustBundleAttest",
    "CertificateSubjectRestriction",
    "DefaultIngressClass",
    "DenyServiceExternalIPs",
    "PodTopologyLabels",
    "NodeDeclaredFeatureValidator",
    "PodResizeValidator",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionWebhook",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionWebhook",
    // Upstream checks this where roles are stored.
    "RBACEscalation",
    // It must not charge for what another plugin refuses.
    "ResourceQuota",
    "AlwaysDeny",
];

/// Sorts plugins into upstream's order. One that is not in it comes last.
pub fn in_order(mut plugins: Vec<Arc<dyn Plugin>>) -> Vec<Arc<dyn Plugin>> {
    plugins.sort_by_key(|p| ORDER.iter().position(|n| *n == p.name()).unwrap_or(ORDER.len()));
    plugins
}

/// All plugins of a server.
#[derive(Clone, Default)]
pub struct Admission {
    plugins: Vec<Arc<dyn Plugin>>,
    metrics: Option<AdmissionMetrics>,
}

impl Admission {
    /// Takes plugins in any order.
    pub fn new(plugins: Vec<Arc<dyn Plugin>>) -> Self {
        Self { plugins: in_order(plugins), metrics: None }
    }

    /// The same, measured.
    #[must_use]
    pub fn with_metrics(self, metrics: AdmissionMetrics) -> Self {
        Self { metrics: Some(metrics), ..self }
    }

    /// Lets every plugin change the object. The first refusal ends it.
    pub async fn mutate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        let started = Instant::now();
        let result = self.mutate_all(attributes).await;
        self.note_step("admit", attributes.operation, &result, started);
        result
    }

    async fn mutate_all(&self, attributes: &mut Attributes) -> Result<(), Status> {
        for plugin in self.plugins.iter().filter(|p| p.handles(attributes)).collect::<Vec<_>>() {
            let started = Instant::now();
            let result = plugin.mutate(attributes).await;
            self.note(&**plugin, "admit", attributes.operation, &result, started);
            result?;
        }
        if attributes.rounds.needed {
            attributes.rounds.again = true;
            for plugin in self.plugins.iter().filter(|p| p.handles(attributes)).collect::<Vec<_>>() {
                plugin.mutate(attributes).await?;
            }
        }
        Ok(())
    }

    /// Lets every plugin judge the final object.
    pub async fn validate(&self, attributes: &mut Attributes) -> Result<(), Status> {
        let started = Instant::now();
        let result = self.validate_all(attributes).await;
        self.note_step("validate", attributes.operation, &result, started);
        result
    }

    async fn validate_all(&self, attributes: &mut Attributes) -> Result<(), Status> {
        for plugin in self.plugins.iter().filter(|p| p.handles(attributes)).collect::<Vec<_>>() {
            let started = Instant::now();
            let result = plugin.validate(attributes).await;
            self.note(&**plugin, "validate", attributes.operation, &result, started);
            result?;
        }
        Ok(())
    }

    fn note(&self, plugin: &dyn Plugin, kind: &str, operation: Operation, result: &Result<(), Status>, from: Instant) {
        if let Some(metrics) = &self.metrics {
            metrics.plugin(plugin.name(), kind, operation.as_str(), result.is_err(), from.elapsed());
        }
    }

    fn note_step(&self, kind: &str, operation: Operation, result: &Result<(), Status>, from: Instant) {
        if let Some(metrics) = &self.metrics {
            metrics.step(kind, operation.as_str(), result.is_err(), from.elapsed());
        }
    }
}
