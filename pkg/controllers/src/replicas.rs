//! The two kinds that keep a number of equal pods: ReplicaSet and ReplicationController.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{
    PodTemplateSpec, ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus,
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

impl Replicas for ReplicaSet {
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
        owner::pod_selector(Some(&self.spec.as_ref()?.selector))
    }

    fn reported(&self) -> Reported {
        let status = self.status.clone().unwrap_or_default();
        let failure = status.conditions.iter().flatten().find(|c| c.type_ == FAILURE);
        Reported {
            replicas: status.replicas,
            fully_labeled: status.fully_labeled_replicas.unwrap_or(0),
            ready: status.ready_replicas.unwrap_or(0),
            available: status.available_replicas.unwrap_or(0),
            terminating: status.terminating_replicas.unwrap_or(0),
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
        conditions.extend(reported.failure.map(|f| ReplicaSetCondition {
            type_: FAILURE.into(),
            status: "True".into(),
            reason: Some(f.reason),
            message: Some(f.message),
            last_transition_time: f.since,
        }));
        self.status = Some(ReplicaSetStatus {
            replicas: reported.replicas,
            fully_labeled_replicas: Some(reported.fully_labeled),
            ready_replicas: Some(reported.ready),
            available_replicas: Some(reported.available),
            terminating_replicas: Some(reported.terminating),
            observed_generation: Some(reported.observed_generation),
            conditions: (!conditions.is_empty()).then_some(conditions),
        });
    }
}

impl Replicas for ReplicationController {
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
        let labels = self.spec.as_ref()?.selector.clone().filter(|s| !s.is_empty())?;
        Some(labels.into_iter().collect())
    }

    fn reported(&self) -> Reported {
        let status = self.status.clone().unwrap_or_default();
        let failure = status.conditions.iter().flatten().find(|c| c.type_ == FAILURE);
        Reported {
            replicas: status.replicas,
            fully_labeled: status.fully_labeled_replicas.unwrap_or(0),
            ready: status.ready_replicas.unwrap_or(0),
            available: status.available_replicas.unwrap_or(0),
            terminating: 0,
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
        conditions.extend(reported.failure.map(|f| ReplicationControllerCondition {
            type_: FAILURE.into(),
            status: "True".into(),
            reason: Some(f.reason),
            message: Some(f.message),
            last_transition_time: f.since,
        }));
        self.status = Some(ReplicationControllerStatus {
            replicas: reported.replicas,
            fully_labeled_replicas: Some(reported.fully_labeled),
            ready_replicas: Some(reported.ready),
            available_replicas: Some(reported.available),
            observed_generation: Some(reported.observed_generation),
            conditions: (!conditions.is_empty()).then_some(conditions),
        });
    }
}
