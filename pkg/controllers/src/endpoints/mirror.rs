//! EndpointSlices of Services without a selector: copies of the Endpoints that somebody else keeps.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube1_client::{Informer, ObjectKey, Outcome, WorkQueue};
use kube1_supervisor::BoxError;

use super::owned::OwnedSlices;
use super::placement::Group;
use super::selector;
use super::slices::{MANAGED_BY, SERVICE_NAME};
use crate::controller::{Controller, Reconcile, SyncResult, is_namespace_terminating};
use crate::owner::reference;

const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Most addresses of a subset that are copied.
const ADDRESSES_MAX: usize = 1000;

/// Runs the controller that copies Endpoints.
pub async fn run(controller: Controller) -> Result<(), BoxError> {
    let (services, endpoints) = (controller.informers.all::<Service>(), controller.informers.all::<Endpoints>());
    let slices = OwnedSlices::new(&controller, MANAGER);
    if !controller.synced(&[&services, &endpoints, &slices.cache]).await {
        return Ok(());
    }
    let queue = WorkQueue::new();
    controller.watch_own(&services, &queue);
    controller.watch_own(&endpoints, &queue);
    slices.watch(&controller, &queue);
    controller.keep(&queue, 2, Mirror { services, endpoints, slices }).await;
    Ok(())
}

struct Mirror {
    services: Informer<Service>,
    endpoints: Informer<Endpoints>,
    slices: OwnedSlices,
}

impl Reconcile<ObjectKey> for Mirror {
    async fn sync(&self, key: ObjectKey) -> SyncResult {
        if !self.slices.expectations.satisfied(&key) {
            return Ok(Outcome::Done);
        }
        let existing = self.slices.of(&key);
        let source = self.source(&key);
        for (family, v6) in [("IPv4", false), ("IPv6", true)] {
            let own: Vec<_> = existing.iter().filter(|s| s.address_type == family).cloned().collect();
            let written = match &source {
                Some(source) => self.slices.apply(&key, &base(source, family), groups(source, v6), own).await,
                None => self.slices.delete(&key, &own).await,
            };
            match written {
                Err(error) if is_namespace_terminating(&error) => {}
                result => result?,
            }
        }
        Ok(Outcome::Done)
    }
}

impl Mirror {
    /// The Endpoints to copy; None if there are none, or they are the controller's own or not for a Service.
    fn source(&self, key: &ObjectKey) -> Option<Arc<Endpoints>> {
        let (service, endpoints) = (self.services.get(key)?, self.endpoints.get(key)?);
        let skipped = endpoints.metadata.labels.as_ref().and_then(|l| l.get(SKIP)).is_some_and(|v| v == "true");
        let election = endpoints.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(LEADER));
        let copied = selector(&service).is_none() && !skipped && !election;
        (copied && endpoints.metadata.deletion_timestamp.is_none()).then_some(endpoints)
    }
}

fn labels(endpoints: &Endpoints) -> std::collections::BTreeMap<String, String> {
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.into(), endpoints.metadata.name.clone().unwrap_or_default());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    labels
}

/// What the slices of one address family have in common.
fn base(endpoints: &Endpoints, family: &str) -> EndpointSlice {
    let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
    annotations.remove("endpoints.kubernetes.io/last-change-trigger-time");
    annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", endpoints.metadata.name.as_deref().unwrap_or_default())),
            namespace: endpoints.metadata.namespace.clone(),
            labels: Some(labels(endpoints)),
            annotations: Some(annotations).filter(|a| !a.is_empty()),
            owner_references: Some(vec![reference(endpoints)]),
            ..ObjectMeta::default()
        },
        address_type: family.to_owned(),
        endpoints: None,
        ports: None,
    }
}

fn groups(endpoints: &Endpoints, v6: bool) -> Vec<Group> {
    let subsets = endpoints.subsets.iter().flatten();
    subsets.map(|subset| group(subset, v6)).filter(|group| !group.endpoints.is_empty()).collect()
}

fn group(subset: &EndpointSubset, v6: bool) -> Group {
    let of = |list: &Option<Vec<EndpointAddress>>, ready: bool| -> Vec<Endpoint> {
        let all = list.iter().flatten().filter(|a| a.ip.contains(':') == v6);
        all.take(ADDRESSES_MAX).map(|a| endpoint(a, ready)).collect()
    };
    let mut all = of(&subset.addresses, true);
    all.extend(of(&subset.not_ready_addresses, false));
    all.truncate(ADDRESSES_MAX);
    let ports = subset.ports.iter().flatten().map(|p| EndpointPort {
        name: Some(p.name.clone().unwrap_or_default()),
        port: Some(p.port),
        protocol: Some(p.protocol.clone().unwrap_or_else(|| "TCP".into())),
        app_protocol: p.app_protocol.clone(),
    });
    Group { ports: ports.collect(), endpoints: all }
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone().filter(|h| !h.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}
