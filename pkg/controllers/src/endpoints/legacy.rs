//! Endpoints of Services with a selector: the older form, which many clients still read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{DeleteParams, PostParams};
use kube1_client::{EventRecorder, EventType, Informer, ObjectKey, Outcome, WorkQueue};
use kube1_supervisor::BoxError;

use super::{hostname, pods_of, publishes_not_ready, selector, service_labels, services_of, target_port};
use crate::cached_pod::CachedPod;
use crate::controller::{
    Controller, Reconcile, SyncResult, is_namespace_terminating, namespaced, replace, unless_exists, unless_gone,
};
use crate::pod_control::reason;
use crate::pods;

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Most addresses of one object.
const ADDRESSES_MAX: usize = 1000;

/// Runs the controller of Endpoints.
pub async fn run(controller: Controller) -> Result<(), BoxError> {
    let (services, pods) = (controller.informers.all::<Service>(), controller.informers.all::<CachedPod>());
    let endpoints = controller.informers.all::<Endpoints>();
    if !controller.synced(&[&services, &pods, &endpoints]).await {
        return Ok(());
    }
    let queue = WorkQueue::new();
    let known = services.clone();
    controller.watch(&pods, &queue, move |event| services_of(event, &known));
    controller.watch_own(&services, &queue);
    controller.watch_own(&endpoints, &queue);
    let (client, recorder) = (controller.client.clone(), controller.recorder.clone());
    let writer = Writer { client, recorder, services, pods, endpoints };
    controller.keep(&queue, 5, writer).await;
    Ok(())
}

struct Writer {
    client: Client,
    recorder: EventRecorder,
    services: Informer<Service>,
    pods: Informer<CachedPod>,
    endpoints: Informer<Endpoints>,
}

impl Reconcile<ObjectKey> for Writer {
    async fn sync(&self, key: ObjectKey) -> SyncResult {
        let existing = self.endpoints.get(&key);
        let api = namespaced::<Endpoints>(&self.client, &key.namespace);
        let Some(service) = self.services.get(&key) else {
            if existing.is_some_and(|e| is_managed(&e)) {
                unless_gone(api.delete(&key.name, &DeleteParams::default()).await)?;
            }
            return Ok(Outcome::Done);
        };
        let Some(selector) = selector(&service) else { return Ok(Outcome::Done) };
        let (subsets, truncated) = truncate(subsets(&service, &pods_of(&service, &selector, &self.pods)));
        let metadata = metadata(&service, existing.as_deref(), truncated);
        let written = match existing {
            Some(old)
                if old.subsets.as_deref().unwrap_or(&[]) == subsets
                    && old.metadata.labels == metadata.labels
                    && old.metadata.annotations.clone().unwrap_or_default()
                        == metadata.annotations.clone().unwrap_or_default() =>
            {
                return Ok(Outcome::Done);
            }
            Some(_) => replace(&api, Endpoints { metadata, subsets: Some(subsets) }).await.map(drop),
            None => {
                let new = Endpoints { metadata, subsets: Some(subsets) };
                unless_exists(api.create(&PostParams::default(), &new).await)
            }
        };
        match written {
            Err(error) if is_namespace_terminating(&error) => Ok(Outcome::Done),
            Err(error) => {
                let message = format!("Failed to update endpoint {key}: {}", reason(&error));
                self.recorder.event(&*service, EventType::Warning, "FailedToUpdateEndpoint", message);
                Err(error.into())
            }
            Ok(()) => Ok(Outcome::Done),
        }
    }
}

fn is_managed(endpoints: &Endpoints) -> bool {
    endpoints.metadata.labels.as_ref().is_some_and(|l| l.get(MANAGED_BY).is_some_and(|m| m == MANAGER))
}

fn metadata(service: &Service, existing: Option<&Endpoints>, truncated: bool) -> ObjectMeta {
    let mut metadata = existing.map(|e| e.metadata.clone()).unwrap_or_else(|| ObjectMeta {
        name: service.metadata.name.clone(),
        namespace: service.metadata.namespace.clone(),
        ..ObjectMeta::default()
    });
    let mut labels = service_labels(service);
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    metadata.labels = Some(labels);
    let annotations = metadata.annotations.get_or_insert_default();
    if truncated {
        annotations.insert(OVER_CAPACITY.into(), "truncated".into());
    } else {
        annotations.remove(OVER_CAPACITY);
    }
    metadata
}

type Port = (String, i32, String, Option<String>);

/// Addresses grouped by the ports they have.
fn subsets(service: &Service, pods: &[Arc<CachedPod>]) -> Vec<EndpointSubset> {
    let v6 = service.spec.as_ref().and_then(|s| s.ip_families.as_ref()?.first()).is_some_and(|f| f == "IPv6");
    let mut groups: BTreeMap<BTreeSet<Port>, (Vec<EndpointAddress>, Vec<EndpointAddress>)> = BTreeMap::new();
    for pod in pods.iter().filter(|p| !pods::is_terminating(p) || publishes_not_ready(service)) {
        let Some(ip) = pod.addresses().find(|a| a.contains(':') == v6) else { continue };
        let address = EndpointAddress {
            ip: ip.to_owned(),
            hostname: hostname(pod, service),
            node_name: Some(pod.node.to_string()).filter(|n| !n.is_empty()),
            target_ref: Some(super::target_ref(pod)),
        };
        let declared = service.spec.as_ref().and_then(|s| s.ports.as_deref()).unwrap_or(&[]);
        let ports: BTreeSet<Port> = declared.iter().filter_map(|p| port(pod, p)).collect();
        if ports.is_empty() && !declared.is_empty() {
            continue;
        }
        let (ready, not_ready) = groups.entry(ports).or_default();
        if pods::is_ready(pod) || publishes_not_ready(service) {
            ready.push(address);
        } else {
            not_ready.push(address);
        }
    }
    let some = |mut list: Vec<EndpointAddress>| {
        list.sort_by(|a, b| a.ip.cmp(&b.ip));
        (!list.is_empty()).then_some(list)
    };
    let subset = |(ports, (ready, not_ready)): (BTreeSet<Port>, (Vec<_>, Vec<_>))| EndpointSubset {
        addresses: some(ready),
        not_ready_addresses: some(not_ready),
        ports: (!ports.is_empty()).then(|| ports.into_iter().map(endpoint_port).collect()),
    };
    groups.into_iter().map(subset).collect()
}

fn port(pod: &CachedPod, port: &ServicePort) -> Option<Port> {
    let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
    Some((port.name.clone().unwrap_or_default(), target_port(pod, port)?, protocol, port.app_protocol.clone()))
}

fn endpoint_port((name, port, protocol, app_protocol): Port) -> EndpointPort {
    EndpointPort { name: Some(name).filter(|n| !n.is_empty()), port, protocol: Some(protocol), app_protocol }
}

/// Keeps at most [`ADDRESSES_MAX`] addresses, ready ones before others.
fn truncate(mut subsets: Vec<EndpointSubset>) -> (Vec<EndpointSubset>, bool) {
    let mut left = ADDRESSES_MAX;
    let mut truncated = false;
    let mut cut = |list: &mut Option<Vec<EndpointAddress>>| {
        if let Some(addresses) = list {
            truncated |= addresses.len() > left;
            addresses.truncate(left);
            left -= addresses.len();
            if addresses.is_empty() {
                *list = None;
            }
        }
    };
    subsets.iter_mut().for_each(|s| cut(&mut s.addresses));
    subsets.iter_mut().for_each(|s| cut(&mut s.not_ready_addresses));
    subsets.retain(|s| s.addresses.is_some() || s.not_ready_addresses.is_some());
    (subsets, truncated)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cached_pod::tests::cached;

    #[test]
    fn pods_are_grouped_by_ports_and_readiness() {
        let pod = |name: &str, ip: &str, ready: &str, port: i32| {
            cached(json!({
                "metadata": {"name": name, "namespace": "n", "uid": name},
                "spec": {"containers": [{"name": "c", "ports": [{"name": "http", "containerPort": port}]}]},
                "status": {"podIP": ip, "conditions": [{"type": "Ready", "status": ready}]}}))
        };
        let service: Service = serde_json::from_value(json!({"metadata": {"name": "s", "namespace": "n"},
            "spec": {"ports": [{"port": 80, "targetPort": "http"}]}}))
        .unwrap();
        let pods = [
            pod("a", "10.0.0.1", "True", 8080),
            pod("b", "10.0.0.2", "False", 8080),
            pod("c", "10.0.0.3", "True", 9090),
        ];
        let got: Vec<_> = subsets(&service, &pods)
            .into_iter()
            .map(|s| {
                let ips = |l: Option<Vec<EndpointAddress>>| {
                    l.unwrap_or_default().into_iter().map(|a| a.ip).collect::<Vec<_>>()
                };
                (s.ports.unwrap()[0].port, ips(s.addresses), ips(s.not_ready_addresses))
            })
            .collect();
        assert_eq!(
            got,
            [
                (8080, vec!["10.0.0.1".to_owned()], vec!["10.0.0.2".to_owned()]),
                (9090, vec!["10.0.0.3".to_owned()], vec![])
            ]
        );
    }
}
