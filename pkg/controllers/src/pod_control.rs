//! Creating and deleting pods for an owner, with events and expectations.

use std::sync::Arc;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::core::Selector;
use kube::{Client, Resource};
/// The server's own words.
pub use kube1_client::message as reason;
use kube1_client::{EventRecorder, EventType, Informer, Keep, ObjectKey, WorkQueue};

use crate::cached_pod::CachedPod;
use crate::controller::{Controller, is_code, is_namespace_terminating, namespaced};
use crate::expectations::Expectations;
use crate::owner::{concerned, selects};

/// First number of pods made at once; doubles while creations succeed, so that a refusing server is not flooded.
const FIRST_BATCH: usize = 1;
/// Most pods made or deleted in one go.
pub const BURST: usize = 500;

/// Makes and deletes the pods of owners.
#[derive(Clone)]
pub struct PodControl {
    pub client: Client,
    pub recorder: EventRecorder,
    pub expectations: Expectations,
}

impl PodControl {
    /// A control with the controller's identity, without expectations yet.
    pub fn new(controller: &Controller) -> Self {
        let (client, recorder) = (controller.client.clone(), controller.recorder.clone());
        Self { client, recorder, expectations: Expectations::default() }
    }

    /// Takes what changes of pods show off the expectations, and adds the owners that they concern to the queue.
    pub fn watch<O>(
        &self,
        controller: &Controller,
        pods: &Informer<CachedPod>,
        owners: &Informer<O>,
        queue: &WorkQueue<ObjectKey>,
        selector_of: fn(&O) -> Option<Selector>,
    ) where
        O: Resource<DynamicType = ()> + Keep,
    {
        let (seen, known) = (self.expectations.clone(), owners.clone());
        controller.watch(pods, queue, move |event| {
            seen.observe::<O, _>(event);
            concerned(event, &known, |owner, pod| selector_of(owner).is_some_and(|s| selects(&s, pod)))
        });
    }

    /// Creates pods in growing batches and stops at the first failure.
    pub async fn create_all<O>(&self, owner: &O, pods: Vec<Pod>) -> Result<(), kube::Error>
    where
        O: Resource<DynamicType = ()>,
    {
        let key = ObjectKey::of(owner);
        self.expectations.expect_creations(&key, pods.len());
        let (mut batch, mut rest) = (FIRST_BATCH, pods.into_iter());
        while rest.len() > 0 {
            let results = join_all(rest.by_ref().take(batch).map(|pod| self.create_expected(owner, pod))).await;
            if let Some(error) = results.into_iter().find_map(Result::err) {
                rest.for_each(|_| self.expectations.created(&key));
                return Err(error);
            }
            batch *= 2;
        }
        Ok(())
    }

    async fn create_expected<O: Resource<DynamicType = ()>>(&self, owner: &O, pod: Pod) -> Result<(), kube::Error> {
        let created = self.create(owner, &pod).await;
        if created.is_err() {
            self.expectations.created(&ObjectKey::of(owner));
        }
        created
    }

    /// Creates one pod and tells of it. The caller has set its expectation.
    pub async fn create<O: Resource<DynamicType = ()>>(&self, owner: &O, pod: &Pod) -> Result<(), kube::Error> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        match namespaced::<Pod>(&self.client, namespace).create(&PostParams::default(), pod).await {
            Ok(created) => {
                let message = format!("Created pod: {}", created.metadata.name.unwrap_or_default());
                self.recorder.event(owner, EventType::Normal, "SuccessfulCreate", message);
                Ok(())
            }
            Err(error) => {
                if !is_namespace_terminating(&error) {
                    let message = format!("Error creating: {}", reason(&error));
                    self.recorder.event(owner, EventType::Warning, "FailedCreate", message);
                }
                Err(error)
            }
        }
    }

    /// Deletes pods at once.
    pub async fn delete_all<O>(&self, owner: &O, pods: &[Arc<CachedPod>]) -> Result<(), kube::Error>
    where
        O: Resource<DynamicType = ()>,
    {
        let uids = pods.iter().map(|p| p.uid.to_string());
        self.expectations.expect_deletions(&ObjectKey::of(owner), uids);
        let results = join_all(pods.iter().map(|pod| self.delete_expected(owner, pod))).await;
        results.into_iter().collect()
    }

    async fn delete_expected<O: Resource<DynamicType = ()>>(
        &self,
        owner: &O,
        pod: &CachedPod,
    ) -> Result<(), kube::Error> {
        let deleted = self.delete(owner, pod).await;
        if deleted.as_ref().is_ok_and(|gone| *gone) || deleted.is_err() {
            self.expectations.deleted(&ObjectKey::of(owner), &pod.uid);
        }
        deleted.map(drop)
    }

    /// Deletes one pod and tells of it; true if it was gone already.
    pub async fn delete<O: Resource<DynamicType = ()>>(&self, owner: &O, pod: &CachedPod) -> Result<bool, kube::Error> {
        let key = pod.key();
        let same = Preconditions { uid: Some(pod.uid.to_string()), resource_version: None };
        let params = DeleteParams::default().preconditions(same);
        match namespaced::<Pod>(&self.client, &key.namespace).delete(&key.name, &params).await {
            Ok(_) => {
                let message = format!("Deleted pod: {}", key.name);
                self.recorder.event(owner, EventType::Normal, "SuccessfulDelete", message);
                Ok(false)
            }
            Err(error) if is_code(&error, 404) || is_code(&error, 409) => Ok(true),
            Err(error) => {
                let message = format!("Error deleting: {}", reason(&error));
                self.recorder.event(owner, EventType::Warning, "FailedDelete", message);
                Err(error)
            }
        }
    }
}
