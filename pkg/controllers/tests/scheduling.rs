//! The scheduler against a real API server: why pods wait, and what makes room for them.

#![allow(clippy::unwrap_used)]

mod support;

use k8s_openapi::api::core::v1::{Event, Node, Pod, ServiceAccount};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use support::Cluster;

fn pod(name: &str, cpu: &str, extra: Value) -> Value {
    let mut spec = json!({"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}]});
    spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": spec})
}

fn is_running(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some("Running"))
}

fn scheduled(pod: &Pod) -> (String, String) {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    let found = conditions.into_iter().find(|c| c.type_ == "PodScheduled");
    found.map(|c| (c.reason.unwrap_or_default(), c.message.unwrap_or_default())).unwrap_or_default()
}

async fn started(nodes: usize) -> Cluster {
    let cluster = Cluster::start(nodes).await;
    cluster.until_one::<ServiceAccount>("default", "default", |_| true).await;
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_fits_nowhere_says_why_and_comes_when_it_fits() {
    let cluster = started(1).await;
    let nodes = Api::<Node>::all(cluster.client.clone());
    cluster.create::<Pod>("default", pod("first", "3", json!({}))).await;
    cluster.until_one::<Pod>("default", "first", is_running).await;
    cluster.create::<Pod>("default", pod("second", "2", json!({}))).await;
    let expected = "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: \
                    1 No preemption victims found for incoming pod.";
    let waits = |p: &Pod| scheduled(p) == ("Unschedulable".to_owned(), expected.to_owned());
    cluster.until_one::<Pod>("default", "second", waits).await;
    let told = |e: &[Event]| {
        e.iter().any(|e| e.reason.as_deref() == Some("FailedScheduling") && e.message.as_deref() == Some(expected))
    };
    cluster.until::<Event>("default", "", told).await;
    cluster.api::<Pod>("default").delete("first", &DeleteParams::default()).await.unwrap();
    cluster.until_one::<Pod>("default", "second", is_running).await;

    let cordon = |on: bool| Patch::Merge(json!({"spec": {"unschedulable": on}}));
    nodes.patch("node-0", &PatchParams::default(), &cordon(true)).await.unwrap();
    // The cordon reaches the scheduler through the taint at the latest.
    let tainted =
        || async { nodes.get("node-0").await.unwrap().spec.and_then(|s| s.taints).is_some_and(|t| !t.is_empty()) };
    while !tainted().await {
        tokio::task::yield_now().await;
    }
    cluster.create::<Pod>("default", pod("third", "1", json!({}))).await;
    cluster.until_one::<Pod>("default", "third", |p| scheduled(p).0 == "Unschedulable").await;
    nodes.patch("node-0", &PatchParams::default(), &cordon(false)).await.unwrap();
    cluster.until_one::<Pod>("default", "third", is_running).await;

    cluster.create::<Pod>("default", pod("gated", "1m", json!({"schedulingGates": [{"name": "g"}]}))).await;
    cluster.until_one::<Pod>("default", "gated", |p| scheduled(p).0 == "SchedulingGated").await;
    let open = Patch::Merge(json!({"spec": {"schedulingGates": null}}));
    cluster.api::<Pod>("default").patch("gated", &PatchParams::default(), &open).await.unwrap();
    cluster.until_one::<Pod>("default", "gated", is_running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_important_pod_takes_the_place_of_others() {
    let cluster = started(2).await;
    let classes = Api::<PriorityClass>::all(cluster.client.clone());
    for (name, value) in [("low", 1), ("high", 1000)] {
        let class = json!({"metadata": {"name": name}, "value": value});
        classes.create(&PostParams::default(), &serde_json::from_value(class).unwrap()).await.unwrap();
    }
    for (name, cpu, class) in [("a", "4", "high"), ("b", "2", "low"), ("c", "2", "low")] {
        cluster.create::<Pod>("default", pod(name, cpu, json!({"priorityClassName": class}))).await;
        cluster.until_one::<Pod>("default", name, is_running).await;
    }
    cluster.create::<Pod>("default", pod("vip", "2", json!({"priorityClassName": "high"}))).await;
    cluster.until_one::<Pod>("default", "vip", is_running).await;
    let left = cluster.until::<Pod>("default", "app in (b, c)", |pods| pods.len() == 1).await;
    assert!(is_running(&left[0]), "one victim is enough");
    let preempted = |e: &[Event]| e.iter().any(|e| e.reason.as_deref() == Some("Preempted"));
    cluster.until::<Event>("default", "", preempted).await;
}
