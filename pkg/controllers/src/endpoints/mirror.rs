//! EndpointSlices of Services without a selector: copies of the Endpoints that somebody else keeps.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{DeleteParams, PostParams};
use kube1_client::{Event, Informer, ObjectKey, Outcome, Selection, WorkQueue};
use kube1_supervisor::BoxError;

use super::placement::{Group, place};
use super::selector;
use super::slices::{MANAGED_BY, SERVICE_NAME};
use crate::controller::{
    Controller, SyncError, SyncResult, is_namespace_terminating, namespaced, replace, unless_gone,
};
use crate::expectations::Expectations;
use crate::owner::{self, reference};

const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
const BY_SERVICE: &str = "service";
/// Most addresses of a subset that are copied.
const ADDRESSES_MAX: usize = 1000;

/// Runs the controller that copies Endpoints.
pub async fn run(controller: Controller) -> Result<(), BoxError> {
    let (services, endpoints) = (controller.informers.all::<Service>(), controller.informers.all::<Endpoints>());
    let own = Selection { label_selector: format!("{MANAGED_BY}={MANAGER}"), ..Selection::default() };
    let slices = controller.informers.select::<EndpointSlice>(own);
    slices.add_index(BY_SERVICE, |slice| service_key(&slice.metadata).map(|k| k.to_string()).into_iter().collect());
    if !(controller.synced(&services).await && controller.synced(&endpoints).await && controller.synced(&slices).await)
    {
        return Ok(());
    }
    let (queue, expectations) = (WorkQueue::new(), Expectations::default());
    controller.watch_own(&services, &queue);
    controller.watch_own(&endpoints, &queue);
    let seen = expectations.clone();
    controller.watch(&slices, &queue, move |event| {
        let key = service_key(&event.object().metadata)?;
        match event {
            Event::Added(_) => seen.created(&key),
            Event::Deleted(slice) => seen.deleted(&key, owner::uid(&slice.metadata)),
            Event::Updated { .. } => {}
        }
        Some(key)
    });
    let mirror = Arc::new(Mirror { client: controller.client.clone(), services, endpoints, slices, expectations });
    let sync = |key| {
        let mirror = Arc::clone(&mirror);
        async move { mirror.sync(key).await }
    };
    controller.work(&queue, 2, sync).await;
    Ok(())
}

fn service_key(meta: &ObjectMeta) -> Option<ObjectKey> {
    let name = meta.labels.as_ref()?.get(SERVICE_NAME)?;
    Some(ObjectKey::new(meta.namespace.clone().unwrap_or_default(), name.clone()))
}

struct Mirror {
    client: Client,
    services: Informer<Service>,
    endpoints: Informer<Endpoints>,
    slices: Informer<EndpointSlice>,
    expectations: Expectations,
}

impl Mirror {
    async fn sync(&self, key: ObjectKey) -> SyncResult {
        if !self.expectations.satisfied(&key) {
            return Ok(Outcome::Done);
        }
        let existing = self.slices.by_index(BY_SERVICE, &key.to_string());
        let source = self.source(&key);
        let families: [(&str, bool); 2] = [("IPv4", false), ("IPv6", true)];
        for (family, v6) in families {
            let own: Vec<_> = existing.iter().filter(|s| s.address_type == family).cloned().collect();
            let groups = source.as_ref().map(|e| groups(e, v6)).unwrap_or_default();
            match self.reconcile(&key, source.as_deref(), family, groups, own).await {
                Err(SyncError::Api(error)) if is_namespace_terminating(&error) => {}
                result => result?,
            }
        }
        Ok(Outcome::Done)
    }

    /// The Endpoints to copy; None if there are none, or they are the controller's own or not for a Service.
    fn source(&self, key: &ObjectKey) -> Option<Arc<Endpoints>> {
        let (service, endpoints) = (self.services.get(key)?, self.endpoints.get(key)?);
        let skipped = endpoints.metadata.labels.as_ref().and_then(|l| l.get(SKIP)).is_some_and(|v| v == "true");
        let election = endpoints.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(LEADER));
        let copied = selector(&service).is_none() && !skipped && !election;
        (copied && endpoints.metadata.deletion_timestamp.is_none()).then_some(endpoints)
    }

    async fn reconcile(
        &self,
        key: &ObjectKey,
        source: Option<&Endpoints>,
        family: &str,
        groups: Vec<Group>,
        own: Vec<Arc<EndpointSlice>>,
    ) -> Result<(), SyncError> {
        let api = namespaced::<EndpointSlice>(&self.client, &key.namespace);
        let changes = place(groups, own);
        if let Some(endpoints) = source {
            for (slice, group) in changes.update {
                let mut changed = EndpointSlice::clone(&slice);
                changed.metadata.labels = Some(labels(endpoints));
                (changed.endpoints, changed.ports) = (Some(group.endpoints), Some(group.ports));
                replace(&api, changed).await?;
            }
            for group in changes.create {
                self.expectations.expect_creations(key, 1);
                let made = build(endpoints, family, group);
                if let Err(error) = api.create(&PostParams::default(), &made).await {
                    self.expectations.created(key);
                    return Err(error.into());
                }
            }
        }
        for slice in changes.delete {
            self.expectations.expect_deletions(key, slice.metadata.uid.clone());
            let name = slice.metadata.name.as_deref().unwrap_or_default();
            let deleted = api.delete(name, &DeleteParams::default()).await;
            if deleted.is_err() {
                self.expectations.deleted(key, owner::uid(&slice.metadata));
            }
            unless_gone(deleted)?;
        }
        Ok(())
    }
}

fn labels(endpoints: &Endpoints) -> std::collections::BTreeMap<String, String> {
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.into(), endpoints.metadata.name.clone().unwrap_or_default());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    labels
}

fn build(endpoints: &Endpoints, family: &str, group: Group) -> EndpointSlice {
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
        endpoints: Some(group.endpoints),
        ports: Some(group.ports),
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
