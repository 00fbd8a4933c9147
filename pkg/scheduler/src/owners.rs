//! The Services and controllers of pods, for the default spreading.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{ReplicationController, Service};
use kube::core::{Selector, SelectorExt};
use kube1_client::{Informer, Informers, ObjectKey};

use crate::labels::{Labels, selector};
use crate::plugins::Owners;
use crate::pod_info::PodInfo;

/// Finds the groups of pods through informers.
pub struct ClusterOwners {
    services: Informer<Service>,
    replica_sets: Informer<ReplicaSet>,
    stateful_sets: Informer<StatefulSet>,
    replication_controllers: Informer<ReplicationController>,
}

impl ClusterOwners {
    pub fn new(informers: &Informers) -> Arc<Self> {
        Arc::new(Self {
            services: informers.all(),
            replica_sets: informers.all(),
            stateful_sets: informers.all(),
            replication_controllers: informers.all(),
        })
    }

    pub async fn synced(&self) {
        tokio::join!(
            self.services.synced(),
            self.replica_sets.synced(),
            self.stateful_sets.synced(),
            self.replication_controllers.synced()
        );
    }

    fn controller_selector(&self, pod: &PodInfo) -> Option<Selector> {
        let owner = pod.owner.as_ref()?;
        let key = ObjectKey::new(pod.key.namespace.clone(), owner.name.clone());
        match owner.kind.as_str() {
            "ReplicaSet" => selector(Some(&self.replica_sets.get(&key)?.spec.as_ref()?.selector)),
            "StatefulSet" => selector(Some(&self.stateful_sets.get(&key)?.spec.as_ref()?.selector)),
            "ReplicationController" => {
                let labels = self.replication_controllers.get(&key)?.spec.as_ref()?.selector.clone()?;
                Some(labels.into_iter().collect())
            }
            _ => None,
        }
    }
}

impl Owners for ClusterOwners {
    fn selectors(&self, pod: &PodInfo) -> Vec<Selector> {
        let of_service = |service: Arc<Service>| {
            let labels: Labels = service.spec.as_ref()?.selector.clone().filter(|s| !s.is_empty())?;
            let selector: Selector = labels.into_iter().collect();
            selector.matches(pod.labels()).then_some(selector)
        };
        let services = self.services.list_namespace(&pod.key.namespace).into_iter().filter_map(of_service);
        services.chain(self.controller_selector(pod)).collect()
    }
}
