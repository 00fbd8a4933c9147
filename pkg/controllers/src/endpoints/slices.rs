//! EndpointSlices of Services with a selector.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube1_client::{EventRecorder, EventType, Informer, ObjectKey, Outcome, WorkQueue};
use kube1_supervisor::BoxError;

use super::owned::OwnedSlices;
use super::placement::Group;
use super::{hostname, pods_of, publishes_not_ready, selector, service_labels, services_of, target_port};
use crate::cached_pod::CachedPod;
use crate::controller::{Controller, Reconcile, SyncResult, is_namespace_terminating};
use crate::owner::reference;
use crate::pod_control::reason;
use crate::pods;

pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const ZONE: &str = "topology.kubernetes.io/zone";

/// Runs the controller of EndpointSlices.
pub async fn run(controller: Controller) -> Result<(), BoxError> {
    let (services, pods) = (controller.informers.all::<Service>(), controller.informers.all::<CachedPod>());
    let (slices, nodes) = (OwnedSlices::new(&controller, MANAGER), controller.informers.all::<Node>());
    if !controller.synced(&[&services, &pods, &slices.cache, &nodes]).await {
        return Ok(());
    }
    let queue = WorkQueue::new();
    let known = services.clone();
    controller.watch(&pods, &queue, move |event| services_of(event, &known));
    slices.watch(&controller, &queue);
    controller.watch_own(&services, &queue);
    let slicer = Slicer { recorder: controller.recorder.clone(), services, pods, slices, nodes };
    controller.keep(&queue, 5, slicer).await;
    Ok(())
}

struct Slicer {
    recorder: EventRecorder,
    services: Informer<Service>,
    pods: Informer<CachedPod>,
    slices: OwnedSlices,
    nodes: Informer<Node>,
}

impl Reconcile<ObjectKey> for Slicer {
    async fn sync(&self, key: ObjectKey) -> SyncResult {
        let Some(service) = self.services.get(&key) else {
            // Its slices have it as their owner and go with it.
            self.slices.expectations.forget(&key);
            return Ok(Outcome::Done);
        };
        let Some(selector) = selector(&service) else { return Ok(Outcome::Done) };
        if service.metadata.deletion_timestamp.is_some() || !self.slices.expectations.satisfied(&key) {
            return Ok(Outcome::Done);
        }
        let pods = pods_of(&service, &selector, &self.pods);
        let existing = self.slices.of(&key);
        match self.reconcile(&service, &pods, existing).await {
            Err(error) if is_namespace_terminating(&error) => Ok(Outcome::Done),
            Err(error) => {
                let message = format!("Error updating Endpoint Slices for Service {key}: {}", reason(&error));
                self.recorder.event(&*service, EventType::Warning, "FailedToUpdateEndpointSlices", message);
                Err(error.into())
            }
            Ok(()) => Ok(Outcome::Done),
        }
    }
}

impl Slicer {
    async fn reconcile(
        &self,
        service: &Service,
        pods: &[Arc<CachedPod>],
        existing: Vec<Arc<EndpointSlice>>,
    ) -> Result<(), kube::Error> {
        let families = families(service);
        let (known, foreign): (Vec<_>, Vec<_>) =
            existing.into_iter().partition(|s| families.contains(&s.address_type.as_str()));
        let key = ObjectKey::of(service);
        self.slices.delete(&key, &foreign).await?;
        for family in families {
            let own = known.iter().filter(|s| s.address_type == family).cloned().collect();
            let groups = self.groups(service, pods, family);
            self.slices.apply(&key, &base(service, family), groups, own).await?;
        }
        Ok(())
    }

    /// Endpoints of one address family, grouped by their ports; at least one group.
    fn groups(&self, service: &Service, pods: &[Arc<CachedPod>], family: &str) -> Vec<Group> {
        let mut groups: BTreeMap<String, Group> = BTreeMap::new();
        for pod in pods {
            let is_v6 = family == "IPv6";
            let address: Vec<String> =
                pod.addresses().filter(|a| a.contains(':') == is_v6).take(1).map(str::to_owned).collect();
            if address.is_empty() {
                continue;
            }
            let ports = ports(service, pod);
            // Ports are plain data, which always has a JSON form.
            let key = serde_json::to_string(&ports).unwrap_or_default();
            let group = groups.entry(key).or_insert_with(|| Group { ports, endpoints: Vec::new() });
            group.endpoints.push(self.endpoint(service, pod, address));
        }
        if groups.is_empty() { vec![Group::default()] } else { groups.into_values().collect() }
    }

    fn endpoint(&self, service: &Service, pod: &CachedPod, addresses: Vec<String>) -> Endpoint {
        let (serving, terminating) = (pods::is_ready(pod), pods::is_terminating(pod));
        let node_name = Some(pod.node.to_string()).filter(|n| !n.is_empty());
        let node = node_name.as_ref().and_then(|n| self.nodes.get(&ObjectKey::new("", n.clone())));
        let zone = node.and_then(|n| n.metadata.labels.as_ref()?.get(ZONE).cloned());
        let ready = publishes_not_ready(service) || (serving && !terminating);
        Endpoint {
            addresses,
            conditions: Some(EndpointConditions {
                ready: Some(ready),
                serving: Some(serving),
                terminating: Some(terminating),
            }),
            hints: hints(service, ready, zone.as_deref(), node_name.as_deref()),
            hostname: hostname(pod, service),
            node_name,
            target_ref: Some(super::target_ref(pod)),
            zone,
            ..Endpoint::default()
        }
    }
}

/// What the slices of one address family have in common.
fn base(service: &Service, family: &str) -> EndpointSlice {
    let key = ObjectKey::of(service);
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", key.name)),
            namespace: Some(key.namespace),
            labels: Some(labels(service)),
            owner_references: Some(vec![reference(service)]),
            ..ObjectMeta::default()
        },
        address_type: family.to_owned(),
        endpoints: None,
        ports: None,
    }
}

/// The address types of a Service's slices.
fn families(service: &Service) -> Vec<&'static str> {
    let known = |family: &String| match family.as_str() {
        "IPv6" => "IPv6",
        _ => "IPv4",
    };
    let families = service.spec.as_ref().and_then(|s| s.ip_families.as_ref());
    let families: Vec<_> = families.into_iter().flatten().map(known).collect();
    if families.is_empty() { vec!["IPv4"] } else { families }
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service_labels(service);
    labels.insert(SERVICE_NAME.into(), service.metadata.name.clone().unwrap_or_default());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    labels
}

fn ports(service: &Service, pod: &CachedPod) -> Vec<EndpointPort> {
    let ports = service.spec.as_ref().and_then(|s| s.ports.as_deref()).unwrap_or(&[]);
    let port = |port: &ServicePort| {
        Some(EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
            port: Some(target_port(pod, port)?),
            app_protocol: port.app_protocol.clone(),
        })
    };
    ports.iter().filter_map(port).collect()
}

/// Who should prefer the endpoint, as the Service's traffic distribution asks.
fn hints(service: &Service, ready: bool, zone: Option<&str>, node: Option<&str>) -> Option<EndpointHints> {
    let distribution = service.spec.as_ref()?.traffic_distribution.as_deref()?;
    let zones = zone.filter(|_| ready).map(|z| vec![ForZone { name: z.to_owned() }]);
    let nodes =
        node.filter(|_| ready && distribution == "PreferSameNode").map(|n| vec![ForNode { name: n.to_owned() }]);
    let known = matches!(distribution, "PreferClose" | "PreferSameZone" | "PreferSameNode");
    (known && (zones.is_some() || nodes.is_some())).then_some(EndpointHints { for_zones: zones, for_nodes: nodes })
}
