//! Workloads from their objects to running pods, against a real API server and scheduler.

#![allow(clippy::unwrap_used)]

mod support;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Namespace, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use support::Cluster;

fn deployment(name: &str, replicas: i32, image: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {"replicas": replicas,
        "selector": {"matchLabels": {"app": name}}, "template": {"metadata": {"labels": {"app": name}},
            "spec": {"containers": [{"name": "c", "image": image, "ports": [{"name": "http", "containerPort": 8080}]}]}}}})
}

fn is_rolled_out(d: &Deployment, replicas: i32) -> bool {
    let status = d.status.clone().unwrap_or_default();
    status.observed_generation == d.metadata.generation
        && status.updated_replicas == Some(replicas)
        && status.available_replicas == Some(replicas)
        && status.replicas == Some(replicas)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_rolls_out_serves_and_goes_with_all_it_made() {
    let cluster = Cluster::start(2).await;
    cluster.until_one::<ServiceAccount>("default", "default", |_| true).await;
    cluster.until_one::<ConfigMap>("default", "kube-root-ca.crt", |m| m.data.is_some()).await;
    cluster.create::<Deployment>("default", deployment("web", 3, "i:1")).await;
    let service = json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"},
        "ports": [{"port": 80, "targetPort": "http"}]}});
    cluster.create::<Service>("default", service).await;
    cluster.until_one::<Deployment>("default", "web", |d| is_rolled_out(d, 3)).await;
    let ready = |s: &EndpointSlice| s.endpoints.iter().flatten().count() == 3;
    cluster.until::<EndpointSlice>("default", "kubernetes.io/service-name=web", |s| s.len() == 1 && ready(&s[0])).await;
    let addresses = |e: &Endpoints| e.subsets.iter().flatten().flat_map(|s| s.addresses.iter().flatten()).count();
    cluster.until_one::<Endpoints>("default", "web", |e| addresses(e) == 3).await;

    let api = cluster.api::<Deployment>("default");
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i:2"}]}}}});
    api.patch("web", &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
    let rolled = cluster.until_one::<Deployment>("default", "web", |d| is_rolled_out(d, 3)).await;
    assert_eq!(rolled.metadata.annotations.unwrap()["deployment.kubernetes.io/revision"], "2");
    let reason = |d: &Deployment, kind: &str| {
        let conditions = d.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
        conditions.iter().find(|c| c.type_ == kind).and_then(|c| c.reason.clone()).unwrap_or_default()
    };
    cluster
        .until_one::<Deployment>("default", "web", |d| {
            reason(d, "Progressing") == "NewReplicaSetAvailable" && reason(d, "Available") == "MinimumReplicasAvailable"
        })
        .await;
    let sets = cluster.until::<ReplicaSet>("default", "app=web", |sets| sets.len() == 2).await;
    let sizes: Vec<_> = sets.iter().map(|s| s.spec.as_ref().unwrap().replicas.unwrap()).collect();
    assert_eq!(sizes.iter().sum::<i32>(), 3);
    let images =
        |pods: &[Pod]| pods.iter().all(|p| p.spec.as_ref().unwrap().containers[0].image.as_deref() == Some("i:2"));
    cluster.until::<Pod>("default", "app=web", |pods| pods.len() == 3 && images(pods)).await;

    api.delete("web", &DeleteParams::background()).await.unwrap();
    cluster.until::<ReplicaSet>("default", "app=web", |sets| sets.is_empty()).await;
    cluster.until::<Pod>("default", "app=web", |pods| pods.is_empty()).await;
    cluster.api::<Service>("default").delete("web", &DeleteParams::default()).await.unwrap();
    cluster.until::<EndpointSlice>("default", "kubernetes.io/service-name=web", |s| s.is_empty()).await;
    cluster.until_gone::<Endpoints>("default", "web").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_takes_its_content_with_it() {
    let cluster = Cluster::start(1).await;
    let namespaces = Api::<Namespace>::all(cluster.client.clone());
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": "gone"}})).unwrap();
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    cluster.until_one::<ServiceAccount>("gone", "default", |_| true).await;
    cluster.create::<Deployment>("gone", deployment("web", 2, "i:1")).await;
    cluster.until_one::<Deployment>("gone", "web", |d| is_rolled_out(d, 2)).await;
    namespaces.delete("gone", &DeleteParams::default()).await.unwrap();
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    while let Some(left) = namespaces.get_opt("gone").await.unwrap() {
        assert!(tokio::time::Instant::now() < deadline, "{left:#?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn foreground_and_orphan_deletion_keep_their_word() {
    let cluster = Cluster::start(1).await;
    cluster.until_one::<ServiceAccount>("default", "default", |_| true).await;
    let api = cluster.api::<Deployment>("default");
    for name in ["stay", "wait"] {
        cluster.create::<Deployment>("default", deployment(name, 1, "i:1")).await;
        cluster.until_one::<Deployment>("default", name, |d| is_rolled_out(d, 1)).await;
    }
    api.delete("wait", &DeleteParams::foreground()).await.unwrap();
    cluster.until_gone::<Deployment>("default", "wait").await;
    let left = cluster.until::<ReplicaSet>("default", "app=wait", |_| true).await;
    assert!(left.is_empty(), "the owner goes last");

    api.delete("stay", &DeleteParams::orphan()).await.unwrap();
    cluster.until_gone::<Deployment>("default", "stay").await;
    let orphans = cluster.until::<ReplicaSet>("default", "app=stay", |sets| sets.len() == 1).await;
    assert!(orphans[0].metadata.owner_references.as_ref().is_none_or(Vec::is_empty));
    cluster.create::<Deployment>("default", deployment("stay", 1, "i:1")).await;
    let adopted = |sets: &[ReplicaSet]| sets.len() == 1 && sets[0].metadata.owner_references.is_some();
    cluster.until::<ReplicaSet>("default", "app=stay", adopted).await;
}
