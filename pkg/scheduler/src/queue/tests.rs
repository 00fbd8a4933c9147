#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;
use crate::testing::{pod, pod_with};

#[tokio::test(start_paused = true)]
async fn pods_come_by_priority_then_age_and_gated_ones_not_at_all() {
    let queue = Queue::default();
    queue.set(pod("old", "1"));
    queue.set(pod("new", "1"));
    queue.set(pod_with("gated", "1", json!({}), json!({"schedulingGates": [{"name": "g"}], "priority": 9})));
    queue.set(pod_with("high", "1", json!({}), json!({"priority": 5})));
    let mut names = Vec::new();
    for _ in 0..3 {
        names.push(queue.pop().await.key.name.clone());
    }
    assert_eq!(names, ["high", "old", "new"]);
    assert_eq!(queue.counts(), [("active", 0), ("backoff", 0), ("unschedulable", 0), ("gated", 1)]);
    queue.set(pod_with("gated", "1", json!({}), json!({"priority": 9})));
    assert_eq!(queue.pop().await.key.name, "gated");
}

#[tokio::test(start_paused = true)]
async fn an_unschedulable_pod_wakes_for_its_events_only_also_for_missed_ones() {
    let queue = Queue::default();
    queue.set(pod("p", "1"));
    let p = queue.pop().await;
    queue.unschedulable(&p.uid, Events::POD_GONE | Events::NODE_ADDED);
    queue.happened(Events::NODE_TAINTS);
    let start = Instant::now();
    let woken = tokio::time::timeout(Duration::from_secs(200), queue.pop()).await;
    assert!(woken.is_err(), "not woken by another event");
    queue.happened(Events::POD_GONE);
    queue.pop().await;
    assert_eq!(start.elapsed().as_secs(), 200, "an idle scheduler does not wait for back-off");
    queue.happened(Events::NODE_ADDED);
    queue.unschedulable(&p.uid, Events::NODE_ADDED);
    queue.pop().await;
    assert_eq!(start.elapsed().as_secs(), 200, "the event came while the pod was in flight");
    queue.unschedulable(&p.uid, Events::NODE_ADDED);
    queue.pop().await;
    assert_eq!(start.elapsed().as_secs(), 500, "tried again after a while in any case");
    queue.failed(&p.uid);
    let before = Instant::now();
    queue.pop().await;
    assert!(before.elapsed() >= BACKOFF_MIN, "errors are backed off from");
}
