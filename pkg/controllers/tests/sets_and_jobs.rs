//! DaemonSets, StatefulSets and Jobs against a real API server and scheduler.

#![allow(clippy::unwrap_used)]

mod support;

use k8s_openapi::api::apps::v1::{DaemonSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ServiceAccount};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use support::Cluster;

fn workload(kind: &str, name: &str, extra: Value) -> Value {
    let mut spec = json!({"selector": {"matchLabels": {"app": name}}, "template": {"metadata": {"labels": {"app": name}},
        "spec": {"containers": [{"name": "c", "image": "i:1"}]}}});
    spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

fn all_images(pods: &[Pod], image: &str) -> bool {
    pods.iter().all(|p| p.spec.as_ref().unwrap().containers[0].image.as_deref() == Some(image))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_set_is_on_every_node_and_rolls() {
    let cluster = Cluster::start(2).await;
    cluster.until_one::<ServiceAccount>("default", "default", |_| true).await;
    cluster.create::<DaemonSet>("default", workload("DaemonSet", "agent", json!({}))).await;
    let ready = |n: i32| move |d: &DaemonSet| d.status.as_ref().is_some_and(|s| s.number_available == Some(n));
    cluster.until_one::<DaemonSet>("default", "agent", ready(2)).await;
    cluster.add_node("node-new").await;
    cluster.until_one::<DaemonSet>("default", "agent", ready(3)).await;
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i:2"}]}}}});
    let api = cluster.api::<DaemonSet>("default");
    api.patch("agent", &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
    cluster.until::<Pod>("default", "app=agent", |pods| pods.len() == 3 && all_images(pods, "i:2")).await;
    cluster
        .until_one::<DaemonSet>("default", "agent", |d| {
            d.status.as_ref().unwrap().updated_number_scheduled == Some(3) && ready(3)(d)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stateful_set_keeps_names_and_claims_and_rolls() {
    let cluster = Cluster::start(1).await;
    cluster.until_one::<ServiceAccount>("default", "default", |_| true).await;
    let extra = json!({"replicas": 3, "serviceName": "db", "podManagementPolicy": "Parallel",
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Retain"}});
    cluster.create::<StatefulSet>("default", workload("StatefulSet", "db", extra)).await;
    let done = |n: i32| {
        move |s: &StatefulSet| {
            let status = s.status.clone().unwrap_or_default();
            status.available_replicas == Some(n)
                && status.updated_replicas == Some(n)
                && status.replicas == n
                && status.current_revision == status.update_revision
        }
    };
    cluster.until_one::<StatefulSet>("default", "db", done(3)).await;
    let patch = json!({"spec": {"replicas": 2, "template": {"spec": {"containers": [{"name": "c", "image": "i:2"}]}}}});
    let api = cluster.api::<StatefulSet>("default");
    api.patch("db", &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
    let pods = cluster.until::<Pod>("default", "app=db", |pods| pods.len() == 2 && all_images(pods, "i:2")).await;
    let mut names: Vec<_> = pods.iter().filter_map(|p| p.metadata.name.clone()).collect();
    names.sort();
    assert_eq!(names, ["db-0", "db-1"]);
    cluster.until_one::<StatefulSet>("default", "db", done(2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stateful_set_makes_claims_in_order() {
    let cluster = Cluster::start(1).await;
    cluster.until_one::<ServiceAccount>("default", "default", |_| true).await;
    let extra = json!({"replicas": 2, "serviceName": "q", "volumeClaimTemplates": [{"metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "", "resources": {"requests": {"storage": "1Gi"}}}}]});
    cluster.create::<StatefulSet>("default", workload("StatefulSet", "q", extra)).await;
    cluster.until_one::<PersistentVolumeClaim>("default", "data-q-0", |_| true).await;
    let pods = cluster.until::<Pod>("default", "app=q", |pods| !pods.is_empty()).await;
    assert_eq!(pods.len(), 1, "the second waits for the first, which waits for its volume");
}

fn job(name: &str, exit: &str, extra: Value) -> Value {
    let mut spec = json!({"template": {"metadata": {"labels": {"exit": exit}},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}});
    spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec})
}

fn has(job: &Job, condition: &str, reason: &str) -> bool {
    let conditions = job.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    conditions.iter().any(|c| c.type_ == condition && c.status == "True" && c.reason.as_deref() == Some(reason))
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_complete_and_fail_and_their_pods_go() {
    let cluster = Cluster::start(1).await;
    cluster.until_one::<ServiceAccount>("default", "default", |_| true).await;
    let indexed = json!({"completions": 5, "parallelism": 2, "completionMode": "Indexed"});
    cluster.create::<Job>("default", job("good", "0", indexed)).await;
    cluster.create::<Job>("default", job("bad", "3", json!({"backoffLimit": 0}))).await;
    let good = cluster.until_one::<Job>("default", "good", |j| has(j, "Complete", "CompletionsReached")).await;
    let status = good.status.unwrap();
    assert_eq!((status.succeeded, status.completed_indexes.as_deref()), (Some(5), Some("0-4")));
    let bad = cluster.until_one::<Job>("default", "bad", |j| has(j, "Failed", "BackoffLimitExceeded")).await;
    assert_eq!(bad.status.unwrap().failed, Some(1));
    let free = |pods: &[Pod]| pods.iter().all(|p| p.metadata.finalizers.as_ref().is_none_or(Vec::is_empty));
    cluster.until::<Pod>("default", "exit", free).await;
    for name in ["good", "bad"] {
        cluster.api::<Job>("default").delete(name, &DeleteParams::background()).await.unwrap();
    }
    cluster.until::<Pod>("default", "exit", |pods| pods.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cron_job_that_missed_its_time_starts_at_once() {
    let cluster = Cluster::start(1).await;
    cluster.until_one::<ServiceAccount>("default", "default", |_| true).await;
    let made = json!({"metadata": {"name": "tick"}, "spec": {"schedule": "* * * * *", "jobTemplate": {
        "spec": job("x", "0", json!({}))["spec"]}}});
    let cron = cluster.create::<CronJob>("default", made).await;
    // As if it had last run five minutes ago.
    let before = cron.metadata.creation_timestamp.unwrap().0 - k8s_openapi::jiff::SignedDuration::from_mins(5);
    let status = json!({"status": {"lastScheduleTime": before.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()}});
    let api = cluster.api::<CronJob>("default");
    api.patch_status("tick", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    cluster.until::<Job>("default", "", |jobs| jobs.len() == 1).await;
    cluster
        .until_one::<CronJob>("default", "tick", |c| c.status.as_ref().unwrap().last_successful_time.is_some())
        .await;
}
