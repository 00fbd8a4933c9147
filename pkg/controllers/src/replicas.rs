//! The two kinds that keep a number of equal pods: ReplicaSet and ReplicationController.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetSpec, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{
    PodTemplateSpec, ReplicationController, ReplicationControllerCondition, ReplicationControllerSpec,
    ReplicationControllerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Resource;
use kube::core::Selector;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::owner;

/// What both kinds ask for.
#[derive(Debug)]
pub struct Wanted<'a> {
    pub replicas: i32,
    pub min_ready: i32,
    pub selector: Selector,
    pub template: &'a PodTemplateSpec,
}

/// What both kinds report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reported {
    pub replicas: i32,
    pub fully_labeled: i32,
    pub ready: i32,
    pub available: i32,
    /// ReplicaSets only.
    pub terminating: i32,
    pub observed_generation: i64,
    pub failure: Option<Failure>,
}

/// The condition `ReplicaFailure`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub reason: String,
    pub message: String,
    pub since: Option<Time>,
}

/// A kind that keeps a number of equal pods.
pub trait Replicas:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// None for an object that selects nothing or has no template.
    fn wanted(&self) -> Option<Wanted<'_>>;

    /// The selector alone.
    fn pod_selector(&self) -> Option<Selector>;

    fn reported(&self) -> Reported;

    fn report(&mut self, reported: Reported);
}

const FAILURE: &str = "ReplicaFailure";

/// The two kinds differ in what selects their pods, and in one number that only the newer one has.
macro_rules! keeps_replicas {
    ($kind:ident, $status:ident, $condition:ident, $selector_of:expr $(, $terminating:ident)?) => {
        impl Replicas for $kind {
            fn wanted(&self) -> Option<Wanted<'_>> {
                let spec = self.spec.as_ref()?;
                Some(Wanted {
                    replicas: spec.replicas.unwrap_or(1),
                    min_ready: spec.min_ready_seconds.unwrap_or(0),
                    selector: self.pod_selector()?,
                    template: spec.template.as_ref()?,
                })
            }

            fn pod_selector(&self) -> Option<Selector> {
                $selector_of(self.spec.as_ref()?)
            }

            fn reported(&self) -> Reported {
                let status = self.status.clone().unwrap_or_default();
                let failure = status.conditions.iter().flatten().find(|c| c.type_ == FAILURE);
                Reported {
                    replicas: status.replicas,
                    fully_labeled: status.fully_labeled_replicas.unwrap_or(0),
                    ready: status.ready_replicas.unwrap_or(0),
                    available: status.available_replicas.unwrap_or(0),
                    terminating: [$(status.$terminating,)? None::<i32>].into_iter().flatten().sum(),
                    observed_generation: status.observed_generation.unwrap_or(0),
                    failure: failure.map(|c| Failure {
                        reason: c.reason.clone().unwrap_or_default(),
                        message: c.message.clone().unwrap_or_default(),
                        since: c.last_transition_time.clone(),
                    }),
                }
            }

            fn report(&mut self, reported: Reported) {
                let mut conditions = self.status.take().and_then(|s| s.conditions).unwrap_or_default();
                conditions.retain(|c| c.type_ != FAILURE);
                conditions.extend(reported.failure.map(|f| $condition {
                    type_: FAILURE.into(),
                    status: "True".into(),
                    reason: Some(f.reason),
                    message: Some(f.message),
                    last_transition_time: f.since,
                }));
                self.status = Some($status {
                    replicas: reported.replicas,
                    fully_labeled_replicas: Some(reported.fully_labeled),
                    ready_replicas: Some(reported.ready),
                    available_replicas: Some(reported.available),
                    $($terminating: Some(reported.terminating),)?
                    observed_generation: Some(reported.observed_generation),
                    conditions: (!conditions.is_empty()).then_some(conditions),
                });
            }
        }
    };
}

keeps_replicas!(
    ReplicaSet,
    ReplicaSetStatus,
    ReplicaSetCondition,
    |spec: &ReplicaSetSpec| owner::pod_selector(Some(&spec.selector)),
    terminating_replicas
);
keeps_replicas!(
    ReplicationController,
    ReplicationControllerStatus,
    ReplicationControllerCondition,
    |spec: &ReplicationControllerSpec| {
        let labels = spec.selector.clone().filter(|s| !s.is_empty())?;
        Some(labels.into_iter().collect())
    }
);
