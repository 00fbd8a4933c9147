//! A pod's status, from what the runtime has and what this node has decided.

mod condition;
mod container;
mod writer;

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, HostIP, Pod, PodIP, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::downward::PodFacts;
use crate::observed::Observed;
use crate::pod::{self, ContainerKind, PodExt};
use crate::probe::Findings;
use crate::restart_round::Round;

pub use condition::{ResizeState, is_own_condition};
pub use container::{Waiting, api_id, should_restart};
pub use writer::StatusWriter;

/// Everything that a status follows from.
pub struct StatusInputs<'a> {
    pub pod: &'a Pod,
    /// The API's copy, whose status this one follows: the pod itself, or a static pod's mirror.
    pub previous: &'a PodStatus,
    pub facts: &'a PodFacts,
    pub observed: &'a Observed,
    pub round: Round,
    pub findings: &'a HashMap<String, Findings>,
    /// Why containers wait, by name.
    pub waiting: &'a HashMap<String, Waiting>,
    /// Directory of the containers' last words.
    pub message: &'a dyn Fn(&crate::observed::ObservedContainer) -> Option<String>,
    /// Why this node ended the pod, if it did.
    pub verdict: Option<&'a Verdict>,
    /// Nothing of the pod runs or will run again.
    pub ended: bool,
    /// A change of resources that is not done.
    pub resize: Option<&'a ResizeState>,
    /// What containers run with.
    pub resources: &'a dyn Fn(&str) -> Option<k8s_openapi::api::core::v1::ResourceRequirements>,
    /// What the pod as a whole runs with, if it says so itself.
    pub pod_resources: Option<&'a k8s_openapi::api::core::v1::ResourceRequirements>,
}

/// Why the node ended a pod by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub reason: String,
    pub message: String,
}

pub fn now() -> Time {
    // Seconds are all that the API keeps.
    Time(Timestamp::from_second(Timestamp::now().as_second()).unwrap_or(Timestamp::UNIX_EPOCH))
}

/// The status to report.
pub fn pod_status(inputs: &StatusInputs<'_>) -> PodStatus {
    let (pod, spec) = (inputs.pod, inputs.pod.spec());
    // A pod that the node never took has no containers to tell of; its reason says all.
    let seen = inputs.previous.container_statuses.iter().flatten().any(|s| s.container_id.is_some());
    let rejected = inputs.verdict.is_some() && inputs.observed.sandboxes.is_empty() && !seen;
    let all = if rejected { Vec::new() } else { pod::containers(spec) };
    let of_kind = |wanted: &[ContainerKind]| -> Option<Vec<ContainerStatus>> {
        let of = all.iter().filter(|(kind, _)| wanted.contains(kind));
        let list: Vec<_> = of.map(|(kind, c)| container::status(inputs, *kind, c)).collect();
        (!list.is_empty()).then_some(list)
    };
    let init = of_kind(&[ContainerKind::Init, ContainerKind::Sidecar]);
    let regular = of_kind(&[ContainerKind::Regular]);
    let phase = phase(inputs, init.as_deref().unwrap_or_default(), regular.as_deref().unwrap_or_default());
    let pod_ips = pod_ips(inputs);
    let resources = spec.resources.as_ref().map(|wanted| inputs.pod_resources.unwrap_or(wanted)).filter(|_| !rejected);
    let ips = |list: &[String]| list.iter().map(|ip| PodIP { ip: ip.clone() }).collect::<Vec<_>>();
    let host_ips = inputs.facts.host_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect();
    let mut status = PodStatus {
        host_ip: inputs.facts.host_ips.first().cloned(),
        host_ips: Some(host_ips),
        pod_ip: pod_ips.first().cloned(),
        pod_ips: (!pod_ips.is_empty()).then(|| ips(&pod_ips)),
        qos_class: Some(pod::qos_class(spec).as_str().to_owned()),
        start_time: inputs.previous.start_time.clone().or_else(|| Some(now())),
        observed_generation: pod.metadata.generation,
        reason: inputs.verdict.map(|v| v.reason.clone()),
        message: inputs.verdict.map(|v| v.message.clone()),
        init_container_statuses: init,
        container_statuses: regular,
        ephemeral_container_statuses: of_kind(&[ContainerKind::Ephemeral]),
        phase: Some(phase.to_owned()),
        allocated_resources: resources.and_then(|r| r.requests.clone()),
        resources: resources.cloned(),
        ..PodStatus::default()
    };
    status.conditions = Some(condition::conditions(inputs, &status));
    status
}

/// The sandbox's addresses; a pod on the host's network has the host's. They outlive the sandbox.
fn pod_ips(inputs: &StatusInputs<'_>) -> Vec<String> {
    if inputs.pod.is_host_network() {
        let known = inputs.observed.sandbox.is_some() || inputs.previous.pod_ip.is_some();
        return if known { inputs.facts.host_ips.clone() } else { Vec::new() };
    }
    let found = inputs.observed.pod_ips();
    if !found.is_empty() {
        return found;
    }
    inputs.previous.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect()
}

/// The pod's phase by upstream's rules.
fn phase(inputs: &StatusInputs<'_>, init: &[ContainerStatus], regular: &[ContainerStatus]) -> &'static str {
    if inputs.verdict.is_some() {
        return "Failed";
    }
    if inputs.pod.is_finished() && inputs.ended {
        return if inputs.pod.phase() == "Succeeded" { "Succeeded" } else { "Failed" };
    }
    let spec = inputs.pod.spec();
    let all_exited_well = |list: &[ContainerStatus]| list.iter().all(|s| exit_code(s) == Some(0));
    if inputs.ended {
        return if !regular.is_empty() && all_exited_well(regular) { "Succeeded" } else { "Failed" };
    }
    let mut init_pending = false;
    for (container, status) in spec.init_containers.iter().flatten().zip(init) {
        let done = if pod::is_sidecar(container) {
            status.started == Some(true) || exit_code(status).is_some()
        } else {
            match exit_code(status) {
                Some(0) => true,
                Some(code)
                    if !should_restart(inputs.pod, ContainerKind::Init, container, code)
                        && !inputs.round.beginning
                        && status.state.as_ref().is_some_and(|s| s.terminated.is_some()) =>
                {
                    return "Failed";
                }
                _ => false,
            }
        };
        init_pending |= !done;
    }
    let (mut running, mut stopped, mut waiting) = (0, 0, 0);
    for status in regular {
        let state = status.state.clone().unwrap_or_default();
        let ended_before = status.last_state.as_ref().is_some_and(|s| s.terminated.is_some());
        match (state.running.is_some(), state.terminated.is_some(), ended_before) {
            (true, ..) => running += 1,
            (_, true, _) | (_, _, true) => stopped += 1,
            _ => waiting += 1,
        }
    }
    // While all containers restart in place, the pod stays what it was.
    let restarting = inputs.round.number > 0 && stopped > 0;
    if (init_pending && running == 0 && !restarting) || waiting > 0 || running + stopped == 0 {
        return "Pending";
    }
    // Whether a pod whose containers have all ended is over is said by `ended`, once its sidecars have ended too.
    "Running"
}

/// The exit code of a container that has ended and does not run now.
fn exit_code(status: &ContainerStatus) -> Option<i32> {
    status.state.as_ref()?.terminated.as_ref().map(|t| t.exit_code)
}
