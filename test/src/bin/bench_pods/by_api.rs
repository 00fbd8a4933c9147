//! Pods as a user makes them, each followed by one watch until it is Ready.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use futures::future::try_join_all;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{DeleteParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt};
use serde_json::json;

use crate::COMMAND;

/// The pods of the benchmark's own namespace.
pub struct Pods {
    namespaces: Api<Namespace>,
    namespace: String,
    api: Api<Pod>,
    events: BoxStream<'static, kube::Result<WatchEvent<Pod>>>,
    image: String,
    alive: HashSet<String>,
}

impl Pods {
    pub async fn new(kubeconfig: &Path, image: &str) -> anyhow::Result<Self> {
        let file = Kubeconfig::read_from(kubeconfig)?;
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        let client = Client::try_from(config)?;
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let namespace = format!("bench-pods-{}", std::process::id());
        let object = serde_json::from_value(json!({"metadata": {"name": namespace}}))?;
        namespaces.create(&PostParams::default(), &object).await.context("cannot make a namespace")?;
        let api: Api<Pod> = Api::namespaced(client, &namespace);
        let list = api.list(&Default::default()).await?;
        let version = list.metadata.resource_version.context("a list without a resourceVersion")?;
        // Longer than the whole benchmark may take.
        let events = api.watch(&WatchParams::default().timeout(290), &version).await?.boxed();
        let image = image.to_owned();
        Ok(Self { namespaces, namespace, api, events, image, alive: HashSet::new() })
    }

    /// Makes pods at the same time and waits until all are Ready.
    pub async fn make(&mut self, names: &[String]) -> anyhow::Result<()> {
        let pods = names.iter().map(|name| self.pod(name)).collect::<anyhow::Result<Vec<_>>>()?;
        let created = try_join_all(pods.iter().map(|pod| create(&self.api, pod)));
        let mut missing: HashSet<&str> = names.iter().map(String::as_str).collect();
        let events = &mut self.events;
        let ready = async {
            while !missing.is_empty() {
                let event = events.try_next().await?.context("the watch ended")?;
                if let WatchEvent::Modified(pod) = event
                    && is_ready(&pod)
                {
                    missing.remove(pod.name_any().as_str());
                }
            }
            Ok(())
        };
        tokio::try_join!(created, ready)?;
        self.alive.extend(names.iter().cloned());
        Ok(())
    }

    /// A pod's uid.
    pub async fn uid(&self, name: &str) -> anyhow::Result<String> {
        self.api.get(name).await?.uid().context("a pod without a uid")
    }

    /// Deletes all pods at the same time, gracefully, and waits until they are gone.
    pub async fn end_all(&mut self) -> anyhow::Result<()> {
        let mut alive = std::mem::take(&mut self.alive);
        let names: Vec<String> = alive.iter().cloned().collect();
        let params = DeleteParams::default();
        let asked = async { Ok(try_join_all(names.iter().map(|name| self.api.delete(name, &params))).await?) };
        let events = &mut self.events;
        let gone = async {
            while !alive.is_empty() {
                if let WatchEvent::Deleted(pod) = events.try_next().await?.context("the watch ended")? {
                    alive.remove(&pod.name_any());
                }
            }
            anyhow::Ok(())
        };
        tokio::try_join!(asked, gone).map(drop)
    }

    /// Asks for the end of everything.
    pub async fn clean_up(&self) -> anyhow::Result<()> {
        self.namespaces.delete(&self.namespace, &DeleteParams::default()).await?;
        Ok(())
    }

    fn pod(&self, name: &str) -> anyhow::Result<Pod> {
        let container =
            json!({"name": "c", "image": self.image, "imagePullPolicy": "IfNotPresent", "command": COMMAND});
        Ok(serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"containers": [container]}}))?)
    }
}

/// Creates a pod; a namespace that is new gets its service account, without which no pod is taken, a moment later.
async fn create(api: &Api<Pod>, pod: &Pod) -> anyhow::Result<()> {
    loop {
        match api.create(&PostParams::default(), pod).await {
            Err(kube::Error::Api(status)) if status.code == 403 && status.message.contains("serviceaccount") => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            other => return Ok(other.map(drop)?),
        }
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
