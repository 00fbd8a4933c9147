//! Validation of whole objects: metadata by common rules, the rest by a rule per kind.
//!
//! Objects come here decoded and defaulted. An update is not blamed for what was wrong before it, so that what older
//! rules let in can still be updated around.

mod address;
mod api_service;
mod at;
mod autoscaler;
mod batch;
mod certificate;
mod classes;
mod cluster;
mod config;
mod definition;
mod device;
mod difference;
mod extension;
mod flow;
pub(crate) mod format;
mod ingress;
mod limit;
mod metadata;
mod network;
mod pod;
mod policy;
mod rbac;
mod records;
mod resource_name;
mod scale;
mod schedule;
mod schema;
mod selectable;
mod selector;
mod service;
mod storage;
mod storage_class;
mod version;
mod volume_source;
mod workload;

use serde_json::Value;

pub use address::{cidr_advice, ip_advice};
pub use service::service_addresses;

use crate::field::{FieldError, FieldPath};
use crate::resource::Resource;
use at::{At, same};

type Errors = Vec<FieldError>;

/// What is wrong with the name of a domain, which has at least two segments and may end with a dot.
pub fn qualified_domain(path: &FieldPath, name: &str) -> Option<FieldError> {
    if name.is_empty() {
        return Some(FieldError::required(path, ""));
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    if let Some(problem) = format::domain(name, 2).pop() {
        return Some(FieldError::invalid(path, name, problem));
    }
    let label = name.split('.').find(|label| !format::dns_label(label).is_empty())?;
    Some(FieldError::invalid(path, label, format::dns_label(label).join(",")))
}

/// Checks a new object, or a change to the old one.
type Rule = fn(&At, Option<&At>, &mut Errors);

/// Checks a change made through a subresource.
type SubresourceRule = fn(&At, &At, &mut Errors);

/// By group and kind.
const RULES: &[(&str, &str, Rule)] = &[
    ("", "ConfigMap", config::config_map),
    ("", "Endpoints", network::endpoints),
    ("", "Event", records::core_event),
    ("", "LimitRange", limit::limit_range),
    ("", "Namespace", cluster::namespace),
    ("", "Node", cluster::node),
    ("", "PersistentVolume", storage::volume),
    ("", "PersistentVolumeClaim", storage::claim),
    ("", "Pod", pod::pod),
    ("", "PodTemplate", |new, _, errors| pod::template(&new.get("template"), errors)),
    ("", "ReplicationController", workload::replication_controller),
    ("", "ResourceQuota", limit::resource_quota),
    ("", "Secret", config::secret),
    ("", "Service", service::service),
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicy", extension::admission_policy),
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding", extension::admission_binding),
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration", extension::webhooks),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy", extension::admission_policy),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding", extension::admission_binding),
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration", extension::webhooks),
    ("apiextensions.k8s.io", "CustomResourceDefinition", definition::custom_resource_definition),
    ("apiregistration.k8s.io", "APIService", api_service::api_service),
    ("apps", "ControllerRevision", records::controller_revision),
    ("apps", "DaemonSet", workload::daemon_set),
    ("apps", "Deployment", workload::deployment),
    ("apps", "ReplicaSet", workload::replica_set),
    ("apps", "StatefulSet", workload::stateful_set),
    ("autoscaling", "HorizontalPodAutoscaler", autoscaler::autoscaler),
    ("batch", "CronJob", batch::cron_job),
    ("batch", "Job", batch::job),
    ("certificates.k8s.io", "CertificateSigningRequest", certificate::signing_request),
    ("coordination.k8s.io", "Lease", records::lease),
    ("discovery.k8s.io", "EndpointSlice", network::endpoint_slice),
    ("events.k8s.io", "Event", records::event),
    ("flowcontrol.apiserver.k8s.io", "FlowSchema", flow::schema),
    ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration", flow::level),
    ("networking.k8s.io", "IPAddress", network::ip_address),
    ("networking.k8s.io", "Ingress", ingress::ingress),
    ("networking.k8s.io", "IngressClass", ingress::ingress_class),
    ("networking.k8s.io", "NetworkPolicy", network::network_policy),
    ("networking.k8s.io", "ServiceCIDR", network::service_cidr),
    ("node.k8s.io", "RuntimeClass", classes::runtime_class),
    ("policy", "PodDisruptionBudget", policy::disruption_budget),
    ("rbac.authorization.k8s.io", "ClusterRole", rbac::cluster_role),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding", rbac::cluster_role_binding),
    ("rbac.authorization.k8s.io", "Role", rbac::role),
    ("rbac.authorization.k8s.io", "RoleBinding", rbac::role_binding),
    ("resource.k8s.io", "DeviceClass", device::class),
    ("resource.k8s.io", "ResourceClaim", device::claim),
    ("resource.k8s.io", "ResourceClaimTemplate", device::claim_template),
    ("resource.k8s.io", "ResourceSlice", device::slice),
    ("scheduling.k8s.io", "PriorityClass", classes::priority_class),
    ("storage.k8s.io", "CSIDriver", storage_class::csi_driver),
    ("storage.k8s.io", "CSINode", storage_class::csi_node),
    ("storage.k8s.io", "CSIStorageCapacity", storage_class::storage_capacity),
    ("storage.k8s.io", "StorageClass", storage_class::storage_class),
    ("storage.k8s.io", "VolumeAttachment", storage_class::volume_attachment),
    ("storage.k8s.io", "VolumeAttributesClass", storage_class::attributes_class),
];

/// By group, kind and subresource.
const SUBRESOURCE_RULES: &[(&str, &str, &str, SubresourceRule)] = &[
    ("", "Namespace", "finalize", cluster::namespace_finalizers),
    ("", "Namespace", "status", cluster::namespace_status),
    ("", "Node", "status", cluster::node_status),
    ("", "PersistentVolumeClaim", "status", storage::claim_status),
    ("", "Pod", "ephemeralcontainers", pod::ephemeral_containers),
    ("", "Pod", "resize", pod::resize),
    ("", "Pod", "status", pod::status),
    ("", "ReplicationController", "status", workload::status),
    ("", "ResourceQuota", "status", limit::resource_quota_status),
    ("", "Service", "status", service::status),
    ("apiregistration.k8s.io", "APIService", "status", api_service::api_service_status),
    ("apps", "DaemonSet", "status", workload::status),
    ("apps", "Deployment", "status", workload::status),
    ("apps", "ReplicaSet", "status", workload::status),
    ("apps", "StatefulSet", "status", workload::status),
    ("autoscaling", "HorizontalPodAutoscaler", "status", policy::counts_status),
    ("batch", "Job", "status", batch::job_status),
    ("certificates.k8s.io", "CertificateSigningRequest", "approval", certificate::approval),
    ("certificates.k8s.io", "CertificateSigningRequest", "status", certificate::signing_request_status),
    ("flowcontrol.apiserver.k8s.io", "FlowSchema", "status", flow::status),
    ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration", "status", flow::status),
    ("networking.k8s.io", "Ingress", "status", ingress::ingress_status),
    ("policy", "PodDisruptionBudget", "status", policy::budget_status),
    ("resource.k8s.io", "ResourceClaim", "status", device::claim_status),
    ("storage.k8s.io", "VolumeAttachment", "status", storage_class::attachment_status),
];

/// What is wrong with a new object.
pub fn validate_create(resource: &Resource, object: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let new = At::root(object);
    metadata::on_create(resource, &new, &mut errors);
    schema::closed_lists(resource.shape(), object, None, &mut errors);
    if let Some(rule) = rule(resource) {
        rule(&new, None, &mut errors);
    }
    if let Some(custom) = &resource.custom_schema {
        errors.extend(custom.validate(object, None));
        scale::values(resource, object, &mut errors);
    }
    errors
}

/// What is wrong with a change to an object, made through the subresource (empty for the main endpoint).
pub fn validate_update(resource: &Resource, new: &Value, old: &Value, subresource: &str) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let (new_at, old_at) = (At::root(new), At::root(old));
    metadata::on_update(resource, &new_at, &old_at, &mut errors);
    if !subresource.is_empty() {
        let rules = SUBRESOURCE_RULES.iter();
        let mut matching = rules.filter(|r| (r.0, r.1, r.2) == (&*resource.group, &*resource.kind, subresource));
        if let Some((.., rule)) = matching.next() {
            rule(&new_at, &old_at, &mut errors);
        }
    } else if contents_changed(new, old) || has_telling_annotations(resource) {
        schema::closed_lists(resource.shape(), new, Some(old), &mut errors);
        if let Some(rule) = rule(resource) {
            let mut found = Errors::new();
            rule(&new_at, Some(&old_at), &mut found);
            if !found.is_empty() {
                let mut before = Errors::new();
                rule(&old_at, None, &mut before);
                found.retain(|error| !before.contains(error));
            }
            errors.append(&mut found);
        }
    }
    if let Some(custom) = &resource.custom_schema {
        if subresource == "status" {
            errors.extend(custom.validate_status(new, old));
            scale::status(resource, new, &mut errors);
        } else {
            errors.extend(custom.validate(new, Some(old)));
            scale::values(resource, new, &mut errors);
        }
    }
    errors
}

/// Why a text cannot be the value of a label.
pub fn label_value_problems(text: &str) -> Vec<String> {
    format::label_value(text)
}

/// What is wrong with a Scale, the body of scale subresources.
pub fn validate_scale(scale: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    At::root(scale).get("spec.replicas").not_negative(&mut errors);
    errors
}

/// Whether rules look at annotations, too.
fn has_telling_annotations(resource: &Resource) -> bool {
    resource.group.is_empty() && matches!(resource.kind.as_str(), "Pod" | "Service" | "PersistentVolumeClaim")
}

/// Whether anything but metadata and status differs.
fn contents_changed(new: &Value, old: &Value) -> bool {
    let keys = [new, old].into_iter().filter_map(Value::as_object).flat_map(serde_json::Map::keys);
    let (new, old) = (At::root(new), At::root(old));
    keys.filter(|key| !matches!(key.as_str(), "metadata" | "status" | "kind" | "apiVersion"))
        .any(|key| !same(new.key(key).value, old.key(key).value))
}

/// What is wrong with kind and metadata of a resource that is part of a custom object, at `path`.
pub(crate) fn embedded(resource: &Value, path: &FieldPath) -> Vec<FieldError> {
    let mut errors = Errors::new();
    metadata::embedded(&At::root(resource), &mut errors);
    for error in &mut errors {
        error.field = format!("{path}.{}", error.field);
    }
    errors
}

fn rule(resource: &Resource) -> Option<Rule> {
    RULES.iter().find(|r| (r.0, r.1) == (&*resource.group, &*resource.kind)).map(|r| r.2)
}

/// What is wrong with the metadata alone: of a new object, or of a change to `old`.
pub fn validate_metadata(resource: &Resource, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Errors::new();
    match old {
        Some(old) => metadata::on_update(resource, &At::root(object), &At::root(old), &mut errors),
        None => metadata::on_create(resource, &At::root(object), &mut errors),
    }
    errors
}

#[cfg(test)]
mod definition_tests;
#[cfg(test)]
mod tests;
