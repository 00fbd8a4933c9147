//! Services of type LoadBalancer, where no cloud provides load balancers: the nodes' own addresses serve them.
//!
//! Every node's proxy takes connections to these addresses, so that nothing runs for a load balancer but its rules. As all
//! services share the addresses, a port belongs to the oldest service that wants it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::{LoadBalancerIngress, LoadBalancerStatus, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::{Patch, PatchParams};
use kube1_client::{EventRecorder, EventType, Informer, ObjectKey, Outcome, WorkQueue};
use kube1_supervisor::BoxError;
use serde_json::json;

use crate::controller::{Controller, Reconcile, SyncResult, namespaced, unless_gone};
use crate::endpoints::owned::service_key;

const EXCLUDE: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
const BY_SERVICE: &str = "service-lb-service";

/// Runs the controller of LoadBalancer services.
pub async fn run(controller: Controller) -> Result<(), BoxError> {
    let services = controller.informers.all::<Service>();
    let nodes = controller.informers.all::<Node>();
    let slices = controller.informers.all::<EndpointSlice>();
    slices.add_index(BY_SERVICE, |slice| service_key(&slice.metadata).map(|key| key.to_string()).into_iter().collect());
    if !controller.synced(&[&services, &nodes, &slices]).await {
        return Ok(());
    }
    let queue = WorkQueue::new();
    controller.watch(&services, &queue, |event| (is_ours(event.object()) || has_ingress(event.object())).then_some(()));
    controller.watch(&nodes, &queue, |_| [()]);
    let known = services.clone();
    controller.watch(&slices, &queue, move |event| {
        let service = known.get(&service_key(&event.object().metadata)?)?;
        (is_ours(&service) && is_local(&service)).then_some(())
    });
    let balancer = Balancer {
        client: controller.client.clone(),
        recorder: controller.recorder.clone(),
        services,
        nodes,
        slices,
        told: Mutex::default(),
    };
    controller.keep(&queue, 1, balancer).await;
    Ok(())
}

struct Balancer {
    client: Client,
    recorder: EventRecorder,
    services: Informer<Service>,
    nodes: Informer<Node>,
    slices: Informer<EndpointSlice>,
    /// Why services have no addresses, by uid, as far as users were told.
    told: Mutex<BTreeMap<String, String>>,
}

/// Who has a port of the nodes, by protocol and number.
type Taken = BTreeMap<(String, i32), String>;

impl Reconcile<()> for Balancer {
    /// Gives every service its addresses. All at once, as they compete for ports.
    async fn sync(&self, (): ()) -> SyncResult {
        let mut services = self.services.list();
        services.sort_by_key(|service| (service.metadata.creation_timestamp.clone(), ObjectKey::of(&**service)));
        self.forget_gone(&services);
        let nodes: Vec<Arc<Node>> = self.nodes.list().into_iter().filter(|node| is_usable(node)).collect();
        let mut taken = self.reserved(&nodes);
        for service in services {
            let wanted = if is_ours(&service) {
                match claim(&service, &mut taken) {
                    Ok(()) => self.addresses(&service, &nodes),
                    Err(message) => {
                        self.tell(&service, message);
                        Vec::new()
                    }
                }
            } else if is_other_type(&service) {
                Vec::new()
            } else {
                continue; // Somebody else's load balancer.
            };
            self.publish(&service, &wanted).await?;
        }
        Ok(Outcome::Done)
    }
}

impl Balancer {
    /// The nodes' own ports, which no service may take from the cluster.
    fn reserved(&self, nodes: &[Arc<Node>]) -> Taken {
        let mut taken = Taken::new();
        for slice in self.slices.by_index(BY_SERVICE, "default/kubernetes") {
            for port in slice.ports.iter().flatten().filter_map(|port| port.port) {
                taken.insert(("TCP".to_owned(), port), "the API server".to_owned());
            }
        }
        for node in nodes {
            let endpoints = node.status.as_ref().and_then(|status| status.daemon_endpoints.as_ref());
            if let Some(kubelet) = endpoints.and_then(|endpoints| endpoints.kubelet_endpoint.as_ref()) {
                taken.insert(("TCP".to_owned(), kubelet.port), "the kubelet".to_owned());
            }
        }
        taken
    }

    fn forget_gone(&self, services: &[Arc<Service>]) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|uid, _| services.iter().any(|service| service.metadata.uid.as_ref() == Some(uid)));
    }

    /// Says once why a service has no addresses.
    fn tell(&self, service: &Service, message: String) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let uid = service.metadata.uid.clone().unwrap_or_default();
        if told.get(&uid) != Some(&message) {
            self.recorder.event(service, EventType::Warning, "LoadBalancerPortInUse", message.clone());
            told.insert(uid, message);
        }
    }

    /// The addresses of the nodes that serve a service: with a local traffic policy, those that have endpoints.
    fn addresses(&self, service: &Service, nodes: &[Arc<Node>]) -> Vec<IpAddr> {
        let slices = self.slices.by_index(BY_SERVICE, &ObjectKey::of(service).to_string());
        let endpoints = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
        let ready = endpoints.filter(|one| one.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true));
        let with_endpoints: BTreeSet<&str> = ready.filter_map(|one| one.node_name.as_deref()).collect();
        let serves = |node: &&Arc<Node>| {
            !is_local(service) || with_endpoints.contains(node.metadata.name.as_deref().unwrap_or_default())
        };
        let families = service.spec.as_ref().and_then(|spec| spec.ip_families.clone()).unwrap_or_default();
        let wanted = |address: &IpAddr| families.iter().any(|f| f == if address.is_ipv4() { "IPv4" } else { "IPv6" });
        let addresses: BTreeSet<IpAddr> =
            nodes.iter().filter(serves).flat_map(|node| addresses_of(node)).filter(wanted).collect();
        addresses.into_iter().collect()
    }

    async fn publish(&self, service: &Service, wanted: &[IpAddr]) -> Result<(), kube::Error> {
        let ingress = |address: &IpAddr| LoadBalancerIngress {
            ip: Some(address.to_string()),
            ip_mode: Some("VIP".to_owned()),
            ..LoadBalancerIngress::default()
        };
        let wanted: Vec<LoadBalancerIngress> = wanted.iter().map(ingress).collect();
        if current(service) == wanted {
            return Ok(());
        }
        let (key, wanted) = (ObjectKey::of(service), (!wanted.is_empty()).then_some(wanted));
        let patch = json!({"status": {"loadBalancer": LoadBalancerStatus { ingress: wanted }}});
        // Without ingress the patch must say so, or the server would keep what it has.
        let empty = json!({"status": {"loadBalancer": {"ingress": null}}});
        let patch = if patch["status"]["loadBalancer"]["ingress"].is_null() { empty } else { patch };
        let api = namespaced::<Service>(&self.client, &key.namespace);
        unless_gone(api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await)
    }
}

/// Takes a service's ports, or says why it cannot have them.
fn claim(service: &Service, taken: &mut Taken) -> Result<(), String> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let ports: Vec<(String, i32)> =
        ports.map(|port| (port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()), port.port)).collect();
    let conflict = ports.iter().find_map(|port| Some((port, taken.get(port)?)));
    if let Some(((protocol, port), owner)) = conflict {
        return Err(format!("{protocol} port {port} of the nodes is used by {owner}"));
    }
    let owner = format!("Service {}, which is older", ObjectKey::of(service));
    taken.extend(ports.into_iter().map(|port| (port, owner.clone())));
    Ok(())
}

/// Whether this controller provides the service's load balancer.
fn is_ours(service: &Service) -> bool {
    let Some(spec) = &service.spec else { return false };
    let balanced = spec.type_.as_deref() == Some("LoadBalancer") && spec.load_balancer_class.is_none();
    balanced && service.metadata.deletion_timestamp.is_none()
}

fn is_other_type(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| spec.type_.as_deref() != Some("LoadBalancer"))
}

fn is_local(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| spec.external_traffic_policy.as_deref() == Some("Local"))
}

fn current(service: &Service) -> Vec<LoadBalancerIngress> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    status.and_then(|status| status.ingress.clone()).unwrap_or_default()
}

fn has_ingress(service: &Service) -> bool {
    !current(service).is_empty()
}

/// Whether a node takes connections for load balancers.
fn is_usable(node: &Node) -> bool {
    let excluded = node.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(EXCLUDE));
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.clone().any(|one| one.type_ == "Ready" && one.status == "True");
    ready && !excluded && node.metadata.deletion_timestamp.is_none()
}

/// A node's external addresses, or its internal ones if it has no others.
fn addresses_of(node: &Node) -> Vec<IpAddr> {
    let of = |kind: &str| -> Vec<IpAddr> {
        let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
        addresses.filter(|one| one.type_ == kind).filter_map(|one| one.address.parse().ok()).collect()
    };
    let external = of("ExternalIP");
    if external.is_empty() { of("InternalIP") } else { external }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn service(name: &str, ports: &[(i32, &str)]) -> Service {
        let ports: Vec<_> = ports.iter().map(|(port, protocol)| json!({"port": port, "protocol": protocol})).collect();
        let spec = json!({"type": "LoadBalancer", "ports": ports});
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "ns"}, "spec": spec})).unwrap()
    }

    #[test]
    fn a_port_belongs_to_the_first() {
        let mut taken = BTreeMap::new();
        assert!(claim(&service("a", &[(80, "TCP"), (443, "TCP")]), &mut taken).is_ok());
        let refused = claim(&service("b", &[(81, "TCP"), (443, "TCP")]), &mut taken).unwrap_err();
        assert_eq!(refused, "TCP port 443 of the nodes is used by Service ns/a, which is older");
        assert!(claim(&service("c", &[(443, "UDP"), (81, "TCP")]), &mut taken).is_ok());
    }

    #[test]
    fn ready_nodes_are_used_by_their_outermost_addresses() {
        let node = |ready: &str, labels: serde_json::Value, addresses: serde_json::Value| -> Node {
            let status = json!({"conditions": [{"type": "Ready", "status": ready}], "addresses": addresses});
            serde_json::from_value(json!({"metadata": {"labels": labels}, "status": status})).unwrap()
        };
        let internal = json!([{"type": "InternalIP", "address": "192.0.2.1"}, {"type": "Hostname", "address": "x"}]);
        let both =
            json!([{"type": "InternalIP", "address": "192.0.2.1"}, {"type": "ExternalIP", "address": "198.51.100.1"}]);
        let inside = node("True", json!({}), internal.clone());
        assert!(is_usable(&inside));
        assert_eq!(addresses_of(&inside), ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(addresses_of(&node("True", json!({}), both)), ["198.51.100.1".parse::<IpAddr>().unwrap()]);
        assert!(!is_usable(&node("Unknown", json!({}), internal.clone())));
        assert!(!is_usable(&node("True", json!({EXCLUDE: ""}), internal)));
    }
}
