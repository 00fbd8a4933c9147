//! Admission: plugins that change and judge a write before it is stored, in a fixed order.

mod attributes;
mod certificate;
mod chain;
mod config;
mod declared_features;
mod event_rate_limit;
mod image_policy;
mod limit_ranger;
mod namespace;
mod node_restriction;
mod node_token;
mod optional;
mod owner_references;
mod pod_defaults;
mod pod_placement;
mod pod_resize;
mod pod_security;
mod policy;
mod priority;
mod quota;
mod rbac;
mod service_account;
mod storage_class;
mod subject;
mod webhook;

use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use kube1_api::resource::ResourceTable;
use kube1_api::status::Status;

pub use attributes::{Attributes, Operation};
pub use certificate::{
    CertificateApproval, CertificateSigning, CertificateSubjectRestriction, ClusterTrustBundleAttest,
};
pub use chain::{Admission, in_order};
pub use config::{AdmissionConfigError, AdmissionOptions, PluginConfig};
pub use declared_features::NodeDeclaredFeatureValidator;
pub use event_rate_limit::EventRates;
pub use limit_ranger::LimitRanger;
pub use namespace::NamespaceLifecycle;
pub use node_restriction::NodeRestriction;
use owner_references::OwnerReferencesPermissionEnforcement;
pub use pod_defaults::{DefaultTolerationSeconds, PodTopologyLabels, RuntimeClass, TaintNodesByCondition};
use pod_placement::{PodNodeSelector, PodTolerationRestriction};
pub use pod_resize::PodResizeValidator;
pub use pod_security::PodSecurity;
pub use policy::{MutatingPolicies, ValidatingPolicies};
pub use priority::Priority;
pub use quota::ResourceQuota;
pub use rbac::RbacEscalation;
pub use service_account::ServiceAccount;
pub use storage_class::{
    DefaultIngressClass, DefaultStorageClass, PersistentVolumeClaimResize, StorageObjectInUseProtection,
};

pub use webhook::{MutatingWebhooks, ValidatingWebhooks};

use crate::authz::Authorizer;
use crate::dial::Resolver;
use crate::metrics::AdmissionMetrics;
use crate::reader::StorageReader;
use crate::storage::Storage;
use crate::webhook::Credentials;

/// Changes or judges writes.
///
/// Cancel-safe: a plugin whose future is dropped has changed nothing but the attributes, except where its own
/// documentation says so.
#[async_trait]
pub trait Plugin: Send + Sync + 'static {
    fn name(&self) -> &'static str;

    /// Whether the plugin wants to see this request at all.
    fn handles(&self, attributes: &Attributes) -> bool;

    /// May change the object. Called in a second round after webhooks or policies changed it.
    async fn mutate(&self, _attributes: &mut Attributes) -> Result<(), Status> {
        Ok(())
    }

    /// May only refuse, or add warnings and audit annotations.
    async fn validate(&self, _attributes: &mut Attributes) -> Result<(), Status> {
        Ok(())
    }
}

/// Several errors as one text, each once; none if there is none.
fn together(errors: impl IntoIterator<Item = String>) -> Option<String> {
    let mut texts: Vec<String> = Vec::new();
    for error in errors {
        if !texts.contains(&error) {
            texts.push(error);
        }
    }
    match &texts[..] {
        [] => None,
        [one] => Some(one.clone()),
        several => Some(format!("[{}]", several.join(", "))),
    }
}

/// The built-in plugins that need nothing but the stored objects, the authorizer and what flags say of them.
pub fn default_plugins(
    reader: &Arc<StorageReader>,
    authorizer: &Arc<dyn Authorizer>,
    config: &PluginConfig,
) -> Vec<Arc<dyn Plugin>> {
    let mut plugins: Vec<Arc<dyn Plugin>> = vec![
        Arc::new(NodeRestriction::new(reader.clone(), authorizer.clone())),
        Arc::new(NamespaceLifecycle::new(reader.clone())),
        Arc::new(LimitRanger::new(reader.clone())),
        Arc::new(ServiceAccount::new(reader.clone())),
        Arc::new(TaintNodesByCondition),
        Arc::new(PodSecurity::new(reader.clone(), &config.pod_security)),
        Arc::new(Priority::new(reader.clone())),
        Arc::new(DefaultTolerationSeconds),
        Arc::new(DefaultStorageClass::new(reader.clone())),
        Arc::new(StorageObjectInUseProtection),
        Arc::new(PersistentVolumeClaimResize::new(reader.clone())),
        Arc::new(RuntimeClass::new(reader.clone())),
        Arc::new(CertificateApproval::new(authorizer.clone())),
        Arc::new(CertificateSigning::new(authorizer.clone())),
        Arc::new(ClusterTrustBundleAttest::new(authorizer.clone())),
        Arc::new(CertificateSubjectRestriction),
        Arc::new(DefaultIngressClass::new(reader.clone())),
        Arc::new(PodTopologyLabels::new(reader.clone())),
        Arc::new(NodeDeclaredFeatureValidator::new(reader.clone())),
        Arc::new(PodResizeValidator::new(reader.clone())),
        Arc::new(ResourceQuota::new(reader.clone(), config.limited_resources.clone())),
    ];
    if config.admits("EventRateLimit") {
        plugins.push(Arc::new(EventRates::new(&config.event_rates)));
    }
    plugins.extend(config.image_policy.clone().map(|policy| policy as Arc<dyn Plugin>));
    plugins.retain(|plugin| config.admits(plugin.name()));
    plugins
}

/// What the plugins that users configure need.
#[derive(Clone)]
pub struct Configured {
    pub reader: Arc<StorageReader>,
    pub storage: Storage,
    pub table: Arc<ArcSwap<ResourceTable>>,
    pub resolver: Resolver,
    pub authorizer: Arc<dyn Authorizer>,
    pub metrics: AdmissionMetrics,
    /// What webhooks are shown.
    pub credentials: Credentials,
}

impl Configured {
    /// Webhooks and policies, and what is off by default.
    pub fn plugins(&self, config: &PluginConfig) -> Vec<Arc<dyn Plugin>> {
        let (reader, authorizer) = (&self.reader, &self.authorizer);
        let with = |credentials: &Credentials| Self { credentials: credentials.clone(), ..self.clone() };
        let mut plugins: Vec<Arc<dyn Plugin>> = vec![
            Arc::new(MutatingPolicies::new(self.clone())),
            Arc::new(MutatingWebhooks::new(with(&config.mutating))),
            Arc::new(ValidatingPolicies::new(self.clone())),
            Arc::new(ValidatingWebhooks::new(with(&config.validating))),
            Arc::new(optional::AlwaysDeny),
            Arc::new(optional::AlwaysPullImages),
            Arc::new(optional::DenyServiceExternalIPs),
            Arc::new(optional::ExtendedResourceToleration),
            Arc::new(optional::LimitPodHardAntiAffinityTopology),
            Arc::new(optional::NamespaceAutoProvision::new(self.storage.clone(), self.table.clone())),
            Arc::new(optional::NamespaceExists::new(reader.clone())),
            Arc::new(OwnerReferencesPermissionEnforcement::new(authorizer.clone(), self.table.clone())),
            Arc::new(PodNodeSelector::new(reader.clone(), config.node_selectors.clone())),
            Arc::new(PodTolerationRestriction::new(reader.clone(), config.tolerations.clone())),
        ];
        plugins.retain(|plugin| config.admits(plugin.name()));
        plugins
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod optional_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod policy_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod webhook_tests;
