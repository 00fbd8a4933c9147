//! A pod's conditions.

use k8s_openapi::api::core::v1::{ContainerStatus, PodCondition, PodStatus};

use super::{StatusInputs, now};
use crate::pod::{self, PodExt};
use crate::restart_round::may_restart_all;

/// Conditions that this node owns. Others belong to whoever set them.
const OWN: [&str; 8] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    "PodResizePending",
    "PodResizeInProgress",
    "AllContainersRestarting",
];

/// Whether this node alone writes a condition of this type.
pub fn is_own_condition(kind: &str) -> bool {
    OWN.contains(&kind)
}

/// A change of resources that is not done, as its condition tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResizeState {
    kind: &'static str,
    reason: &'static str,
    pub message: String,
}

impl ResizeState {
    /// The node has no room: `Infeasible` for ever, or `Deferred`.
    pub fn pending(reason: &'static str, message: String) -> Self {
        Self { kind: "PodResizePending", reason, message }
    }

    pub fn failed(message: String) -> Self {
        Self { kind: "PodResizeInProgress", reason: "Error", message }
    }
}

/// A condition before it is known since when it holds.
struct Fact {
    kind: &'static str,
    status: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Fact {
    fn of(kind: &'static str, failure: Option<(&'static str, Option<String>)>) -> Self {
        match failure {
            None => Self { kind, status: true, reason: None, message: None },
            Some((reason, message)) => Self { kind, status: false, reason: Some(reason), message },
        }
    }
}

/// The node's own conditions and, unchanged, those of others.
pub(super) fn conditions(inputs: &StatusInputs<'_>, status: &PodStatus) -> Vec<PodCondition> {
    let spec = inputs.pod.spec();
    let finished = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let failed = status.phase.as_deref() == Some("Failed");
    let over = || Some((if failed { "PodFailed" } else { "PodCompleted" }, None));
    let init = status.init_container_statuses.as_deref().unwrap_or_default();
    let regular = status.container_statuses.as_deref().unwrap_or_default();

    let incomplete: Vec<&str> = spec
        .init_containers
        .iter()
        .flatten()
        .zip(init)
        .filter(
            |(container, status)| {
                if pod::is_sidecar(container) { status.started != Some(true) } else { !status.ready }
            },
        )
        .map(|(_, status)| status.name.as_str())
        .collect();
    let any_started = regular.iter().any(|s| s.container_id.is_some());
    let initialized = if status.phase.as_deref() == Some("Succeeded") {
        Fact { kind: "Initialized", status: true, reason: Some("PodCompleted"), message: None }
    } else if incomplete.is_empty() || any_started {
        Fact::of("Initialized", None)
    } else {
        let why = ("ContainersNotInitialized", Some(list("incomplete", &incomplete)));
        Fact::of("Initialized", Some(why))
    };

    let sidecars = spec.init_containers.iter().flatten().zip(init).filter(|(c, _)| pod::is_sidecar(c)).map(|(_, s)| s);
    let unready: Vec<&str> =
        sidecars.chain(regular).filter(|s| !s.ready).map(|s: &ContainerStatus| s.name.as_str()).collect();
    let containers_ready = if finished {
        over()
    } else if unready.is_empty() {
        None
    } else {
        Some(("ContainersNotReady", Some(list("unready", &unready))))
    };
    let ready = containers_ready.clone().or_else(|| gates(inputs));
    let has_sandbox = inputs.observed.sandbox.is_some();
    let facts = [
        Fact { kind: "PodReadyToStartContainers", status: has_sandbox && !finished, reason: None, message: None },
        initialized,
        Fact::of("Ready", ready),
        Fact::of("ContainersReady", containers_ready),
        Fact::of("PodScheduled", None),
    ];
    let old = inputs.previous.conditions.as_deref().unwrap_or_default();
    let mut conditions: Vec<PodCondition> =
        facts.into_iter().map(|fact| dated(fact, old, inputs.pod.metadata.generation)).collect();
    if may_restart_all(inputs.pod) {
        conditions.push(dated(restarting(inputs, over().filter(|_| finished)), old, inputs.pod.metadata.generation));
    }
    if let Some(resize) = inputs.resize {
        let fact = Fact {
            kind: resize.kind,
            status: true,
            reason: Some(resize.reason),
            message: Some(resize.message.clone()),
        };
        conditions.push(dated(fact, old, inputs.pod.metadata.generation));
    }
    conditions.extend(old.iter().filter(|c| !OWN.contains(&c.type_.as_str())).cloned());
    conditions
}

/// Whether all containers are being restarted.
fn restarting(inputs: &StatusInputs<'_>, over: Option<(&'static str, Option<String>)>) -> Fact {
    let kind = "AllContainersRestarting";
    if over.is_some() || !inputs.round.beginning {
        let reason = over.map(|(reason, _)| reason);
        return Fact { kind, status: false, reason, message: None };
    }
    let message = Some("container exited with restart policy rule".to_owned());
    Fact { kind, status: true, reason: Some("RestartAllContainersStarted"), message }
}

fn list(what: &str, names: &[&str]) -> String {
    format!("containers with {what} status: [{}]", names.join(" "))
}

/// The pod's own gates, which others open.
fn gates(inputs: &StatusInputs<'_>) -> Option<(&'static str, Option<String>)> {
    let conditions = inputs.previous.conditions.as_deref().unwrap_or_default();
    let mut messages = Vec::new();
    for gate in inputs.pod.spec().readiness_gates.iter().flatten() {
        match conditions.iter().find(|c| c.type_ == gate.condition_type) {
            None => {
                messages.push(format!(
                    "corresponding condition of pod readiness gate \"{}\" does not exist.",
                    gate.condition_type
                ));
            }
            Some(condition) if condition.status != "True" => messages.push(format!(
                "the status of pod readiness gate \"{}\" is not \"True\", but {}",
                gate.condition_type, condition.status
            )),
            Some(_) => {}
        }
    }
    (!messages.is_empty()).then(|| ("ReadinessGatesNotReady", Some(messages.join(", "))))
}

fn dated(fact: Fact, old: &[PodCondition], generation: Option<i64>) -> PodCondition {
    let status = if fact.status { "True" } else { "False" };
    let before = old.iter().find(|c| c.type_ == fact.kind);
    let since = before.filter(|c| c.status == status).and_then(|c| c.last_transition_time.clone());
    PodCondition {
        type_: fact.kind.to_owned(),
        status: status.to_owned(),
        reason: fact.reason.map(str::to_owned),
        message: fact.message,
        last_transition_time: since.or_else(|| Some(now())),
        last_probe_time: None,
        observed_generation: generation,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::{Value, json};

    use super::*;
    use crate::downward::PodFacts;
    use crate::observed::Observed;
    use crate::restart_round::Round;

    /// A condition's status and reason, of a pod with one init container and one regular one.
    fn of(kind: &str, phase: &str, init_ready: bool, started: bool) -> (String, Option<String>) {
        let spec = json!({"initContainers": [{"name": "i"}], "containers": [{"name": "c"}]});
        let pod = serde_json::from_value(json!({"metadata": {}, "spec": spec})).expect("a pod");
        let container_id: Value = if started { "containerd://1".into() } else { Value::Null };
        let status = |name, ready, id: &Value| json!({"name": name, "ready": ready, "restartCount": 0, "image": "", "imageID": "", "containerID": id});
        let reported = json!({
            "phase": phase,
            "initContainerStatuses": [status("i", init_ready, &"containerd://0".into())],
            "containerStatuses": [status("c", false, &container_id)],
        });
        let inputs = StatusInputs {
            pod: &pod,
            previous: &PodStatus::default(),
            facts: &PodFacts::default(),
            observed: &Observed::default(),
            round: Round::default(),
            findings: &HashMap::new(),
            waiting: &HashMap::new(),
            message: &|_| None,
            verdict: None,
            ended: false,
            resize: None,
            resources: &|_| None,
            pod_resources: None,
        };
        let all = conditions(&inputs, &serde_json::from_value(reported).expect("a status"));
        let found = all.into_iter().find(|c| c.type_ == kind).expect("the condition");
        (found.status, found.reason)
    }

    #[test]
    fn conditions_say_how_far_a_pod_came() {
        let table = [
            ("Initialized", "Pending", false, false, "False", Some("ContainersNotInitialized")),
            ("Initialized", "Pending", true, false, "True", None),
            ("Initialized", "Running", false, true, "True", None),
            ("Initialized", "Failed", false, false, "False", Some("ContainersNotInitialized")),
            ("Initialized", "Failed", true, true, "True", None),
            ("Initialized", "Succeeded", true, true, "True", Some("PodCompleted")),
            ("Ready", "Running", true, true, "False", Some("ContainersNotReady")),
            ("Ready", "Failed", false, false, "False", Some("PodFailed")),
            ("ContainersReady", "Succeeded", true, true, "False", Some("PodCompleted")),
        ];
        for (kind, phase, init_ready, started, status, reason) in table {
            let wanted = (status.to_owned(), reason.map(str::to_owned));
            assert_eq!(of(kind, phase, init_ready, started), wanted, "{kind} {phase} {init_ready} {started}");
        }
    }
}
