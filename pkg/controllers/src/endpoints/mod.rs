//! Where Services lead: EndpointSlices and Endpoints.

pub mod legacy;
pub mod mirror;
pub mod owned;
mod placement;
pub mod slices;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::core::Selector;
use kube1_client::{Event, Informer, ObjectKey};

use crate::cached_pod::CachedPod;
use crate::owner::selects;
use crate::pods;

pub const HEADLESS: &str = "service.kubernetes.io/headless";

/// What selects the pods of a Service; None for one whose endpoints are not made from pods.
pub fn selector(service: &Service) -> Option<Selector> {
    let spec = service.spec.as_ref().filter(|s| s.type_.as_deref() != Some("ExternalName"))?;
    let labels = spec.selector.clone().filter(|s| !s.is_empty())?;
    Some(labels.into_iter().collect())
}

pub fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|s| s.cluster_ip.as_deref() == Some("None"))
}

pub fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|s| s.publish_not_ready_addresses == Some(true))
}

/// The pods of a Service that may get traffic: with an address and not ended.
pub fn pods_of(service: &Service, selector: &Selector, pods: &Informer<CachedPod>) -> Vec<Arc<CachedPod>> {
    let mut found = pods.list_namespace(service.metadata.namespace.as_deref().unwrap_or_default());
    found.retain(|p| selects(selector, &**p) && !pods::is_finished(p) && p.addresses().next().is_some());
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// The port of a pod that a port of a Service leads to; None if the pod has no port of that name.
pub fn target_port(pod: &CachedPod, port: &ServicePort) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) if name.is_empty() => Some(port.port),
        Some(IntOrString::String(name)) => {
            let spec = &pod.spec;
            let sidecars =
                spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
            let mut ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let found =
                ports.find(|p| p.name.as_deref() == Some(name) && p.protocol.as_deref().unwrap_or("TCP") == protocol);
            found.map(|p| p.container_port)
        }
    }
}

pub fn target_ref(pod: &CachedPod) -> ObjectReference {
    ObjectReference { api_version: None, resource_version: None, ..pod.reference() }
}

/// The pod's own DNS name below that of its governing Service.
pub fn hostname(pod: &CachedPod, service: &Service) -> Option<String> {
    let governs = pod.subdomain().is_some() && pod.subdomain() == service.metadata.name.as_deref();
    pod.hostname().filter(|_| governs).map(str::to_owned)
}

/// Services whose endpoints a pod's change may change.
pub fn services_of(event: &Event<CachedPod>, services: &Informer<Service>) -> Vec<ObjectKey> {
    let new = event.object();
    let old = match event {
        Event::Updated { old, .. } if !changes_endpoints(old, new) => return Vec::new(),
        Event::Updated { old, .. } => Some(old).filter(|old| old.labels != new.labels),
        _ => None,
    };
    let concerned = |service: &Arc<Service>| {
        selector(service).is_some_and(|s| selects(&s, &**new) || old.is_some_and(|old| selects(&s, &**old)))
    };
    services.list_namespace(&new.namespace).iter().filter(|s| concerned(s)).map(|s| ObjectKey::of(&**s)).collect()
}

fn changes_endpoints(old: &CachedPod, new: &CachedPod) -> bool {
    fn state(p: &CachedPod) -> (bool, bool, bool, &str, Option<&str>, Option<&str>) {
        (pods::is_terminating(p), pods::is_ready(p), pods::is_finished(p), &p.node, p.hostname(), p.subdomain())
    }
    state(old) != state(new) || old.labels != new.labels || !old.addresses().eq(new.addresses())
}

/// The labels that endpoints take over from their Service.
pub fn service_labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    if is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    } else {
        labels.remove(HEADLESS);
    }
    labels
}
