//! Where Services lead: EndpointSlices and Endpoints.

pub mod legacy;
pub mod mirror;
mod placement;
pub mod slices;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::core::Selector;
use kube1_client::{Event, Informer, ObjectKey};

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
pub fn pods_of(service: &Service, selector: &Selector, pods: &Informer<Pod>) -> Vec<Arc<Pod>> {
    let mut found = pods.list_namespace(service.metadata.namespace.as_deref().unwrap_or_default());
    found.retain(|p| selects(selector, &p.metadata) && !pods::is_finished(p) && !addresses(p).is_empty());
    found.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    found
}

/// The addresses of a pod, the primary one first.
pub fn addresses(pod: &Pod) -> Vec<&str> {
    let Some(status) = &pod.status else { return Vec::new() };
    let all: Vec<&str> = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str()).filter(|ip| !ip.is_empty()).collect();
    if all.is_empty() { status.pod_ip.as_deref().filter(|ip| !ip.is_empty()).into_iter().collect() } else { all }
}

/// The port of a pod that a port of a Service leads to; None if the pod has no port of that name.
pub fn target_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) if name.is_empty() => Some(port.port),
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
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

pub fn target_ref(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".into()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// The pod's own DNS name below that of its governing Service.
pub fn hostname(pod: &Pod, service: &Service) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let governs = spec.subdomain.is_some() && spec.subdomain == service.metadata.name;
    spec.hostname.clone().filter(|h| governs && !h.is_empty())
}

/// Services whose endpoints a pod's change may change.
pub fn services_of(event: &Event<Pod>, services: &Informer<Service>) -> Vec<ObjectKey> {
    let new = event.object();
    let namespace = new.metadata.namespace.as_deref().unwrap_or_default();
    let old = match event {
        Event::Updated { old, .. } if !changes_endpoints(old, new) => return Vec::new(),
        Event::Updated { old, .. } => Some(&old.metadata).filter(|old| old.labels != new.metadata.labels),
        _ => None,
    };
    let matches = |meta: &ObjectMeta, selector: &Selector| selects(selector, meta);
    let concerned = |service: &Arc<Service>| {
        selector(service).is_some_and(|s| matches(&new.metadata, &s) || old.is_some_and(|old| matches(old, &s)))
    };
    services.list_namespace(namespace).iter().filter(|s| concerned(s)).map(|s| ObjectKey::of(&**s)).collect()
}

fn changes_endpoints(old: &Pod, new: &Pod) -> bool {
    let relevant = |p: &Pod| {
        (
            p.metadata.labels.clone(),
            p.metadata.deletion_timestamp.is_some(),
            addresses(p).into_iter().map(str::to_owned).collect::<Vec<_>>(),
            pods::node_name(p).to_owned(),
            pods::is_ready(p),
            pods::is_finished(p),
            p.spec.as_ref().map(|s| (s.hostname.clone(), s.subdomain.clone())),
        )
    };
    relevant(old) != relevant(new)
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
