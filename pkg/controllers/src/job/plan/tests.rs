#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::super::FINALIZER;
use super::*;
use crate::cached_pod::tests::cached;

fn job(spec: Value, status: Value) -> Job {
    let mut full = json!({"template": {"spec": {"containers": [], "restartPolicy": "Never"}}});
    full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    serde_json::from_value(json!({"metadata": {"name": "j"}, "spec": full, "status": status})).unwrap()
}

fn pod(uid: &str, phase: &str, index: Option<i32>, held: bool) -> Arc<CachedPod> {
    let finalizers = if held { json!([FINALIZER]) } else { json!([]) };
    let annotations = index.map(|n| json!({super::super::INDEX: n.to_string()}));
    cached(json!({"metadata": {"name": uid, "uid": uid, "finalizers": finalizers,
        "annotations": annotations}, "status": {"phase": phase}}))
}

fn plan(job: &Job, pods: &[Arc<CachedPod>]) -> Plan {
    Plan::new(job, job.spec.as_ref().unwrap(), pods)
}

#[test]
fn ends_are_counted_once_and_pods_let_go_after() {
    let job1 = job(json!({"completions": 2, "parallelism": 2}), json!({}));
    assert_eq!(plan(&job1, &[]).create.len(), 2);
    let pods = [pod("a", "Succeeded", None, true), pod("b", "Running", None, true)];
    let first = plan(&job1, &pods);
    assert_eq!((first.release.len(), first.create.len(), first.status.succeeded), (1, 0, None));
    let job2 = Job { status: Some(first.status), ..job1 };
    let second = plan(&job2, &[pod("a", "Succeeded", None, false), pod("b", "Succeeded", None, true)]);
    assert_eq!(second.status.succeeded, Some(1));
    assert!(condition(&second.status, "SuccessCriteriaMet").is_some());
    assert!(condition(&second.status, "Complete").is_none(), "one end is not counted yet");
    let job3 = Job { status: Some(second.status), ..job2 };
    let third = plan(&job3, &[pod("a", "Succeeded", None, false), pod("b", "Succeeded", None, false)]);
    assert_eq!(third.status.succeeded, Some(2));
    assert!(condition(&third.status, "Complete").is_some() && third.status.completion_time.is_some());
}

#[test]
fn indexes_are_filled_from_the_lowest() {
    let spec = json!({"completions": 4, "parallelism": 2, "completionMode": "Indexed"});
    let pods = [pod("a", "Succeeded", Some(0), true), pod("b", "Running", Some(2), true)];
    let next = plan(&job(spec, json!({})), &pods);
    assert_eq!(next.create, [NewPod { index: Some(1), failures: None }]);
    assert_eq!((next.status.completed_indexes.as_deref(), next.status.succeeded), (Some("0"), Some(1)));
}

#[test]
fn indexes_without_number_take_neither_memory_nor_time() {
    let all = format!("0-{}", i32::MAX - 1);
    let spec = json!({"completions": i32::MAX, "parallelism": i32::MAX, "completionMode": "Indexed",
        "successPolicy": {"rules": [{"succeededIndexes": all}]}});
    assert_eq!(plan(&job(spec.clone(), json!({})), &[]).create.len(), crate::pod_control::BURST);
    let ended = plan(&job(spec, json!({"completedIndexes": all})), &[]);
    assert!(condition(&ended.status, "SuccessCriteriaMet").is_some());
}

#[test]
fn a_job_fails_beyond_its_limit_and_its_pods_are_stopped() {
    let failing = job(json!({"completions": 2, "parallelism": 2, "backoffLimit": 0}), json!({}));
    let next = plan(&failing, &[pod("a", "Failed", None, true), pod("b", "Running", None, true)]);
    assert_eq!(condition(&next.status, "FailureTarget").unwrap().reason.as_deref(), Some("BackoffLimitExceeded"));
    assert_eq!((next.delete.len(), next.create.len()), (1, 0));
}

#[test]
fn a_suspended_job_discards_its_pods() {
    let next = plan(&job(json!({"suspend": true}), json!({})), &[pod("a", "Running", None, true)]);
    assert_eq!((next.discard.len(), next.status.start_time.is_none()), (1, true));
    assert!(condition(&next.status, "Suspended").is_some());
}
