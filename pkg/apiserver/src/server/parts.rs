//! The checks of the server's own parts, under the names that upstream has for them.

use std::sync::Arc;

use kube1_store::Store;
use tokio_util::sync::CancellationToken;

use crate::http::health::{Health, Part};

/// Parts that work beside the requests.
pub(super) struct Parts {
    pub admission: Part,
    /// Housekeeping of stored objects.
    pub stored: Part,
    pub flow_config: Part,
    pub flow: Part,
    pub flow_status: Part,
    pub definitions: Part,
    pub start_objects: Part,
    pub roles: Part,
    /// The objects by which the cluster finds this server.
    pub published: Part,
    /// What is kept of stored objects is as new as they are.
    pub synced: Part,
    /// The Lease of this server.
    pub identity: Part,
    pub token_secrets: Part,
    pub addresses: Part,
    pub availability: Part,
    pub api_services: Part,
    /// Every group version that is served has its APIService.
    pub registered: Part,
}

/// The checks that need no part.
pub(super) fn checks(store: Arc<dyn Store>, stopping: CancellationToken) -> Health {
    let health = Health::new(stopping);
    health.add("ping", true, || Ok(()));
    health.add("log", true, || match kube1_telemetry::log_works() {
        true => Ok(()),
        false => Err("the log cannot be written: standard error is closed or its disk is full".into()),
    });
    let below = store.clone();
    health.add("etcd", true, move || match below.health().open {
        true => Ok(()),
        false => Err("the datastore takes no requests any more".into()),
    });
    health.add("etcd-readiness", false, move || match store.health() {
        state if state.open && state.writes => Ok(()),
        _ => Err("the last change could not be written: check the disk's free space and health".into()),
    });
    health
}

impl Parts {
    /// Adds a check for each part.
    pub fn new(health: &Health) -> Self {
        let part = |names: &[&'static str]| health.part(names, true);
        Self {
            admission: part(&["poststarthook/start-apiserver-admission-initializer"]),
            stored: part(&[
                "poststarthook/generic-apiserver-start-informers",
                "poststarthook/storage-object-count-tracker-hook",
                "poststarthook/storage-readiness",
            ]),
            flow_config: part(&["poststarthook/priority-and-fairness-config-consumer"]),
            flow: part(&["poststarthook/priority-and-fairness-filter"]),
            definitions: part(&[
                "poststarthook/start-apiextensions-informers",
                "poststarthook/start-apiextensions-controllers",
                "poststarthook/crd-informer-synced",
            ]),
            start_objects: part(&[
                "poststarthook/start-system-namespaces-controller",
                "poststarthook/start-cluster-authentication-info-controller",
                "poststarthook/scheduling/bootstrap-system-priority-classes",
            ]),
            identity: part(&[
                "poststarthook/start-kube-apiserver-identity-lease-controller",
                "poststarthook/start-kube-apiserver-identity-lease-garbage-collector",
            ]),
            synced: health.part(&["informer-sync"], false),
            token_secrets: part(&["poststarthook/start-legacy-token-tracking-controller"]),
            addresses: part(&["poststarthook/start-service-ip-repair-controllers"]),
            roles: part(&["poststarthook/rbac/bootstrap-roles"]),
            flow_status: part(&["poststarthook/priority-and-fairness-config-producer"]),
            published: part(&[
                "poststarthook/bootstrap-controller",
                "poststarthook/start-kubernetes-service-cidr-controller",
            ]),
            availability: part(&[
                "poststarthook/apiservice-status-remote-available-controller",
                "poststarthook/apiservice-discovery-controller",
            ]),
            api_services: part(&[
                "poststarthook/start-kube-aggregator-informers",
                "poststarthook/apiservice-registration-controller",
                "poststarthook/apiservice-status-local-available-controller",
            ]),
            // Takes a moment after the start, for which a restart would be no help.
            registered: health
                .part(&["poststarthook/kube-apiserver-autoregistration", "autoregister-completion"], false),
        }
    }
}
