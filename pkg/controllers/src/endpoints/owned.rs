//! The EndpointSlices that one controller writes.

use std::sync::Arc;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use kube1_client::{Event, Informer, ObjectKey, Selection, WorkQueue};

use super::placement::{Group, place};
use super::slices::{MANAGED_BY, SERVICE_NAME};
use crate::controller::{Controller, namespaced, replace, unless_gone};
use crate::expectations::Expectations;
use crate::owner;

/// Index of slices by `NAMESPACE/SERVICE`.
const BY_SERVICE: &str = "service";

/// The Service that a slice is for.
pub fn service_key(slice: &ObjectMeta) -> Option<ObjectKey> {
    let name = slice.labels.as_ref()?.get(SERVICE_NAME)?;
    Some(ObjectKey::new(slice.namespace.clone().unwrap_or_default(), name.clone()))
}

/// Reads and writes the slices that have this controller's name on them.
pub struct OwnedSlices {
    client: Client,
    pub cache: Informer<EndpointSlice>,
    pub expectations: Expectations,
}

impl OwnedSlices {
    /// The slices of `manager`; the cache may still be empty.
    pub fn new(controller: &Controller, manager: &str) -> Self {
        let own = Selection { label_selector: format!("{MANAGED_BY}={manager}"), ..Selection::default() };
        let cache = controller.informers.select::<EndpointSlice>(own);
        cache.add_index(BY_SERVICE, |slice| service_key(&slice.metadata).map(|k| k.to_string()).into_iter().collect());
        Self { client: controller.client.clone(), cache, expectations: Expectations::default() }
    }

    /// Takes what changes show off the expectations, and adds the Services of changed slices to the queue.
    pub fn watch(&self, controller: &Controller, queue: &WorkQueue<ObjectKey>) {
        let seen = self.expectations.clone();
        controller.watch(&self.cache, queue, move |event| {
            let key = service_key(&event.object().metadata)?;
            match event {
                Event::Added(_) => seen.created(&key),
                Event::Deleted(slice) => seen.deleted(&key, owner::uid(&slice.metadata)),
                Event::Updated { .. } => {}
            }
            Some(key)
        });
    }

    /// The slices of a Service.
    pub fn of(&self, service: &ObjectKey) -> Vec<Arc<EndpointSlice>> {
        self.cache.by_index(BY_SERVICE, &service.to_string())
    }

    fn api(&self, service: &ObjectKey) -> Api<EndpointSlice> {
        namespaced(&self.client, &service.namespace)
    }

    /// Brings a Service's slices of one address family from `own` to `groups`. `base` has the metadata and the family
    /// of new slices; its labels are those of all.
    pub async fn apply(
        &self,
        service: &ObjectKey,
        base: &EndpointSlice,
        groups: Vec<Group>,
        own: Vec<Arc<EndpointSlice>>,
    ) -> Result<(), kube::Error> {
        let changes = place(groups, own);
        let api = self.api(service);
        for slice in changes.keep {
            if slice.metadata.labels != base.metadata.labels {
                replace(&api, relabelled(&slice, base)).await?;
            }
        }
        for (slice, Group { ports, endpoints }) in changes.update {
            let (ports, endpoints) = (Some(ports), Some(endpoints));
            replace(&api, EndpointSlice { ports, endpoints, ..relabelled(&slice, base) }).await?;
        }
        for Group { ports, endpoints } in changes.create {
            let slice = EndpointSlice { ports: Some(ports), endpoints: Some(endpoints), ..base.clone() };
            self.expectations.expect_creations(service, 1);
            if let Err(error) = api.create(&PostParams::default(), &slice).await {
                self.expectations.created(service);
                return Err(error);
            }
        }
        self.delete(service, &changes.delete).await
    }

    /// Deletes slices; those that are gone already do not matter.
    pub async fn delete(&self, service: &ObjectKey, slices: &[Arc<EndpointSlice>]) -> Result<(), kube::Error> {
        for slice in slices {
            self.expectations.expect_deletions(service, slice.metadata.uid.clone());
            let name = slice.metadata.name.as_deref().unwrap_or_default();
            let deleted = self.api(service).delete(name, &DeleteParams::default()).await;
            if deleted.is_err() {
                self.expectations.deleted(service, owner::uid(&slice.metadata));
            }
            unless_gone(deleted)?;
        }
        Ok(())
    }
}

fn relabelled(slice: &EndpointSlice, base: &EndpointSlice) -> EndpointSlice {
    let mut changed = slice.clone();
    changed.metadata.labels.clone_from(&base.metadata.labels);
    changed
}
