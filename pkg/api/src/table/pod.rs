//! Cells of pods.

use jiff::Timestamp;
use serde_json::Value;

use super::cells::{NONE, condition, items, text};
use super::duration;

/// What the columns of a pod show, found in one pass over its container statuses.
#[derive(Default)]
struct Summary {
    ready: usize,
    total: usize,
    reason: String,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

struct Counts {
    restarts: i64,
    last: Option<Timestamp>,
}

impl Counts {
    fn add(&mut self, status: &Value) {
        self.restarts += status["restartCount"].as_i64().unwrap_or(0);
        self.last = self.last.max(duration::parse(&status["lastState"]["terminated"]["finishedAt"]));
    }
}

fn is_sidecar(pod: &Value, name: &Value) -> bool {
    items(pod, "spec.initContainers").any(|c| c["name"] == *name && c["restartPolicy"] == "Always")
}

fn ending(terminated: &Value) -> String {
    match (text(terminated, "reason"), terminated["signal"].as_i64().unwrap_or(0)) {
        ("", 0) => format!("ExitCode:{}", terminated["exitCode"].as_i64().unwrap_or(0)),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn summary(pod: &Value) -> Summary {
    let mut sum = Summary { reason: text(pod, "status.phase").to_owned(), ..Summary::default() };
    if !text(pod, "status.reason").is_empty() {
        sum.reason = text(pod, "status.reason").to_owned();
    }
    if condition(pod, "PodScheduled").is_some_and(|c| c["reason"] == "SchedulingGated") {
        sum.reason = "SchedulingGated".to_owned();
    }
    let sidecars = items(pod, "spec.initContainers").filter(|c| c["restartPolicy"] == "Always").count();
    sum.total = items(pod, "spec.containers").count() + sidecars;
    let mut all = Counts { restarts: 0, last: None };
    let mut of_sidecars = Counts { restarts: 0, last: None };
    let initializing = initialization(pod, &mut sum, &mut all, &mut of_sidecars);
    let initialized = condition(pod, "Initialized").is_some_and(|c| c["status"] == "True");
    if !initializing || initialized {
        all = of_sidecars;
        containers(pod, &mut sum, &mut all);
    }
    (sum.restarts, sum.last_restart) = (all.restarts, all.last);
    if !text(pod, "metadata.deletionTimestamp").is_empty() {
        if text(pod, "status.reason") == "NodeLost" {
            sum.reason = "Unknown".to_owned();
        } else if !matches!(text(pod, "status.phase"), "Succeeded" | "Failed") {
            sum.reason = "Terminating".to_owned();
        }
    }
    sum
}

/// Goes through the init containers; true when one of them has still to finish.
fn initialization(pod: &Value, sum: &mut Summary, all: &mut Counts, of_sidecars: &mut Counts) -> bool {
    let total = items(pod, "spec.initContainers").count();
    for (index, status) in items(pod, "status.initContainerStatuses").enumerate() {
        all.add(status);
        let sidecar = is_sidecar(pod, &status["name"]);
        if sidecar {
            of_sidecars.add(status);
        }
        let (terminated, waiting) = (&status["state"]["terminated"], &status["state"]["waiting"]);
        if terminated.is_object() && terminated["exitCode"].as_i64().unwrap_or(0) == 0 {
            continue;
        }
        if sidecar && status["started"] == true {
            sum.ready += usize::from(status["ready"] == true);
            continue;
        }
        sum.reason = if terminated.is_object() {
            format!("Init:{}", ending(terminated))
        } else if !matches!(text(waiting, "reason"), "" | "PodInitializing") {
            format!("Init:{}", text(waiting, "reason"))
        } else {
            format!("Init:{index}/{total}")
        };
        return true;
    }
    false
}

fn containers(pod: &Value, sum: &mut Summary, counts: &mut Counts) {
    let statuses: Vec<&Value> = items(pod, "status.containerStatuses").collect();
    let mut running = false;
    let mut failure = String::new();
    for status in statuses.into_iter().rev() {
        counts.add(status);
        let (terminated, waiting) = (&status["state"]["terminated"], &status["state"]["waiting"]);
        if !text(waiting, "reason").is_empty() {
            sum.reason = text(waiting, "reason").to_owned();
        } else if terminated.is_object() {
            sum.reason = ending(terminated);
            if terminated["exitCode"].as_i64().unwrap_or(0) != 0 {
                failure = sum.reason.clone();
            }
        } else if status["ready"] == true && status["state"]["running"].is_object() {
            running = true;
            sum.ready += 1;
        }
    }
    if sum.reason == "Completed" {
        let ready = condition(pod, "Ready").is_some_and(|c| c["status"] == "True");
        if running && ready {
            sum.reason = "Running".to_owned();
        } else if !failure.is_empty() {
            sum.reason = failure;
        } else if running {
            sum.reason = "NotReady".to_owned();
        }
    }
}

pub(super) fn pod_ready(pod: &Value) -> String {
    let sum = summary(pod);
    format!("{}/{}", sum.ready, sum.total)
}

pub(super) fn pod_status(pod: &Value) -> String {
    summary(pod).reason
}

pub(super) fn pod_restarts(pod: &Value, now: Timestamp) -> String {
    let sum = summary(pod);
    match sum.last_restart {
        Some(last) if sum.restarts != 0 => {
            format!("{} ({} ago)", sum.restarts, duration::human_duration(now.as_second() - last.as_second()))
        }
        _ => sum.restarts.to_string(),
    }
}

pub(super) fn pod_ip(pod: &Value) -> String {
    let first = text(&pod["status"]["podIPs"][0], "ip");
    if first.is_empty() { NONE.to_owned() } else { first.to_owned() }
}

pub(super) fn readiness_gates(pod: &Value) -> String {
    let gates: Vec<&Value> = items(pod, "spec.readinessGates").collect();
    if gates.is_empty() {
        return NONE.to_owned();
    }
    let holds = |gate: &&&Value| condition(pod, text(gate, "conditionType")).is_some_and(|c| c["status"] == "True");
    format!("{}/{}", gates.iter().filter(holds).count(), gates.len())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_status_is_what_keeps_the_pod() {
        let running = json!({"running": {}});
        let crashed = json!({"terminated": {"exitCode": 1, "reason": "Error"}});
        let done = json!({"terminated": {"exitCode": 0, "reason": "Completed"}});
        let cases = [
            (json!({"phase": "Pending"}), "0/1", "Pending"),
            (json!({"phase": "Failed", "reason": "Evicted"}), "0/1", "Evicted"),
            (
                json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]}),
                "0/1",
                "SchedulingGated",
            ),
            (json!({"phase": "Running", "containerStatuses": [{"ready": true, "state": running}]}), "1/1", "Running"),
            (
                json!({"phase": "Running", "containerStatuses": [{"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
                "0/1",
                "CrashLoopBackOff",
            ),
            (json!({"phase": "Succeeded", "containerStatuses": [{"state": done}]}), "0/1", "Completed"),
            (json!({"phase": "Failed", "containerStatuses": [{"state": done}, {"state": crashed}]}), "0/1", "Error"),
            (
                json!({"phase": "Running", "containerStatuses": [{"state": done}, {"ready": true, "state": running}]}),
                "1/1",
                "NotReady",
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses": [{"state": done}, {"state": running}]}),
                "0/1",
                "Init:1/2",
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses": [{"state": {"terminated": {"exitCode": 2}}}]}),
                "0/1",
                "Init:ExitCode:2",
            ),
        ];
        for (status, ready, reason) in cases {
            let init = if status["initContainerStatuses"].is_array() { json!([{}, {}]) } else { json!([]) };
            let mut pod = json!({"spec": {"containers": [{}], "initContainers": init}, "status": status});
            assert_eq!((pod_ready(&pod).as_str(), pod_status(&pod).as_str()), (ready, reason), "{pod}");
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
            if !matches!(text(&pod, "status.phase"), "Succeeded" | "Failed") {
                assert_eq!(pod_status(&pod), "Terminating");
            }
        }
    }

    #[test]
    fn restarts_tell_when_the_last_one_was() {
        let last = json!({"terminated": {"finishedAt": "2026-01-01T00:00:00Z"}});
        let pod =
            json!({"status": {"containerStatuses": [{"restartCount": 3, "lastState": last}, {"restartCount": 1}]}});
        let now: Timestamp = "2026-01-01T00:05:02Z".parse().unwrap_or_default();
        assert_eq!(pod_restarts(&pod, now), "4 (5m2s ago)");
    }
}
