//! Which Services changed, they themselves or their EndpointSlices: what proxy and DNS both follow.

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube1_client::{Event, Informers, ObjectKey};
use parking_lot::Mutex;
use tokio::sync::Notify;

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const BY_SERVICE: &str = "service";

/// Services that changed since they were last taken.
#[derive(Default)]
pub struct ServiceChanges {
    keys: Mutex<HashSet<ObjectKey>>,
    wake: Notify,
}

impl ServiceChanges {
    /// Follows the informers for as long as the value lives.
    pub fn follow(informers: &Informers) -> Arc<Self> {
        let changes = Arc::new(Self::default());
        let slices = informers.all::<EndpointSlice>();
        slices.add_index(BY_SERVICE, |slice| service_of(slice).map(|key| key.to_string()).into_iter().collect());
        // Weak: handlers outlive a run that failed.
        let weak = Arc::downgrade(&changes);
        informers.all::<Service>().add_handler(move |event| {
            if let Some(changes) = weak.upgrade() {
                changes.add(ObjectKey::of(event.object().as_ref()));
            }
        });
        let weak = Arc::downgrade(&changes);
        slices.add_handler(move |event| {
            let Some(changes) = weak.upgrade() else { return };
            if let Event::Updated { old, .. } = event {
                service_of(old).into_iter().for_each(|key| changes.add(key));
            }
            service_of(event.object()).into_iter().for_each(|key| changes.add(key));
        });
        changes
    }

    fn add(&self, key: ObjectKey) {
        self.keys.lock().insert(key);
        self.wake.notify_one();
    }

    /// Waits for a change since the last call. Cancel-safe.
    pub async fn changed(&self) {
        self.wake.notified().await;
    }

    /// Takes what changed.
    pub fn take(&self) -> HashSet<ObjectKey> {
        std::mem::take(&mut *self.keys.lock())
    }
}

/// The slices of a Service, once something follows its changes.
pub fn slices_of(informers: &Informers, service: &ObjectKey) -> Vec<Arc<EndpointSlice>> {
    informers.all::<EndpointSlice>().by_index(BY_SERVICE, &service.to_string())
}

/// The Service that a slice belongs to.
fn service_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    Some(ObjectKey::new(slice.metadata.namespace.clone().unwrap_or_default(), name.clone()))
}
