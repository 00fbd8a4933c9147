//! A container's status.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    Pod, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube1_cri::v1::ContainerState as RuntimeState;

use super::StatusInputs;
use crate::observed::ObservedContainer;
use crate::pod::{ContainerKind, PodExt};
use crate::restart_round::matching_rule;

/// Prefix of container ids in the API.
const RUNTIME: &str = "containerd";

/// Why a container does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub reason: String,
    pub message: Option<String>,
}

impl Waiting {
    pub fn new(reason: &str, message: impl Into<String>) -> Self {
        let message: String = message.into();
        Self { reason: reason.to_owned(), message: Some(message).filter(|m| !m.is_empty()) }
    }

    fn state(&self) -> ContainerState {
        let waiting = ContainerStateWaiting { reason: Some(self.reason.clone()), message: self.message.clone() };
        ContainerState { waiting: Some(waiting), ..ContainerState::default() }
    }
}

fn time(nanoseconds: i64) -> Option<Time> {
    (nanoseconds > 0).then(|| Time(Timestamp::from_second(nanoseconds / 1_000_000_000).unwrap_or_default()))
}

pub fn api_id(id: &str) -> String {
    format!("{RUNTIME}://{id}")
}

pub(super) fn status(inputs: &StatusInputs<'_>, kind: ContainerKind, container: &Container) -> ContainerStatus {
    let name = container.name.as_str();
    let latest = inputs.observed.latest(name);
    let waiting = inputs.waiting.get(name);
    let before = previous(inputs, name);
    let mut status = ContainerStatus {
        name: name.to_owned(),
        image: container.image.clone().unwrap_or_default(),
        started: Some(false),
        resources: (inputs.resources)(name).or_else(|| container.resources.clone()),
        ..ContainerStatus::default()
    };
    status.allocated_resources = status.resources.as_ref().and_then(|r| r.requests.clone());
    let Some(latest) = latest else {
        return never_seen(inputs, kind, status, before, waiting);
    };
    let shown = latest.status.image.as_ref().map(|i| &i.image).filter(|i| !i.is_empty() && !i.starts_with("sha256:"));
    status.image = shown.cloned().unwrap_or(status.image);
    status.image_id = latest.status.image_ref.clone();
    status.container_id = Some(api_id(latest.id()));
    status.restart_count = i32::try_from(latest.attempt).unwrap_or(i32::MAX);
    status.user = latest.status.user.as_ref().and_then(|u| u.linux.as_ref()).map(user);
    status.volume_mounts = mount_statuses(container);
    let own = state(inputs, latest);
    let last = inputs.observed.previous(name).map(|c| state(inputs, c)).filter(|s| s.terminated.is_some());
    let last = last.or_else(|| before.and_then(|b| b.last_state.clone()).filter(|s| s.terminated.is_some()));
    match (own.terminated.is_some(), waiting) {
        // What ended and waits to start again shows why it waits; how it ended is its last state.
        (true, Some(waiting)) => {
            status.state = Some(waiting.state());
            status.last_state = Some(own);
        }
        (true, None) => {
            status.state = Some(own);
            status.last_state = last;
        }
        (false, Some(waiting)) if latest.status.state() != RuntimeState::ContainerRunning => {
            status.state = Some(waiting.state());
            status.last_state = last;
        }
        _ => {
            let findings = inputs.findings.get(latest.id()).cloned().unwrap_or_default();
            status.started = Some(own.running.is_some() && findings.started);
            status.ready = own.running.is_some() && findings.ready;
            status.state = Some(own);
            status.last_state = last;
        }
    }
    if kind == ContainerKind::Init {
        // An init container is "ready" when it has done its work.
        status.ready = status.state.as_ref().and_then(|s| s.terminated.as_ref()).is_some_and(|t| t.exit_code == 0);
    }
    if kind == ContainerKind::Ephemeral {
        status.ready = false;
    }
    status
}

/// The status in the API of a container of this name.
fn previous<'a>(inputs: &'a StatusInputs<'_>, name: &str) -> Option<&'a ContainerStatus> {
    let lists = [
        &inputs.previous.container_statuses,
        &inputs.previous.init_container_statuses,
        &inputs.previous.ephemeral_container_statuses,
    ];
    lists.into_iter().flatten().flatten().find(|s| s.name == name)
}

/// A container that the runtime does not have: never started, or collected since.
fn never_seen(
    inputs: &StatusInputs<'_>,
    kind: ContainerKind,
    mut status: ContainerStatus,
    before: Option<&ContainerStatus>,
    waiting: Option<&Waiting>,
) -> ContainerStatus {
    if let Some(before) = before.filter(|b| b.container_id.is_some() && waiting.is_none()) {
        status.clone_from(before);
        let ran = status.state.as_ref().is_some_and(|s| s.running.is_some());
        status.ready &= !ran && kind == ContainerKind::Init;
        status.started = Some(false);
        if ran {
            let gone = ContainerStateTerminated {
                exit_code: 137,
                reason: Some("ContainerStatusUnknown".to_owned()),
                message: Some("The container could not be located when the pod was terminated".to_owned()),
                ..ContainerStateTerminated::default()
            };
            let gone = ContainerState { terminated: Some(gone), ..ContainerState::default() };
            status.state = Some(gone);
        }
        return status;
    }
    if let Some(before) = before {
        status.restart_count = before.restart_count;
        status.last_state = before.last_state.clone();
    }
    if inputs.ended && waiting.is_none() {
        let never = ContainerStateTerminated {
            exit_code: 137,
            reason: Some("ContainerStatusUnknown".to_owned()),
            message: Some("The container could not be located when the pod was terminated".to_owned()),
            ..ContainerStateTerminated::default()
        };
        status.state = Some(ContainerState { terminated: Some(never), ..ContainerState::default() });
        return status;
    }
    let has_init = inputs.pod.spec().init_containers.as_ref().is_some_and(|c| !c.is_empty());
    let default = if has_init { "PodInitializing" } else { "ContainerCreating" };
    let default = Waiting { reason: default.to_owned(), message: None };
    status.state = Some(waiting.unwrap_or(&default).state());
    status
}

fn user(user: &kube1_cri::v1::LinuxContainerUser) -> k8s_openapi::api::core::v1::ContainerUser {
    let linux = k8s_openapi::api::core::v1::LinuxContainerUser {
        uid: user.uid,
        gid: user.gid,
        supplemental_groups: Some(user.supplemental_groups.clone()).filter(|g| !g.is_empty()),
    };
    k8s_openapi::api::core::v1::ContainerUser { linux: Some(linux) }
}

fn mount_statuses(container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let mounts = container.volume_mounts.as_ref()?.iter();
    let statuses = mounts.map(|m| VolumeMountStatus {
        mount_path: m.mount_path.clone(),
        name: m.name.clone(),
        read_only: m.read_only.filter(|r| *r),
        recursive_read_only: m
            .recursive_read_only
            .clone()
            .or_else(|| m.read_only.filter(|r| *r).map(|_| "Disabled".to_owned())),
        ..VolumeMountStatus::default()
    });
    Some(statuses.collect())
}

/// The state of one container of the runtime.
fn state(inputs: &StatusInputs<'_>, container: &ObservedContainer) -> ContainerState {
    let status = &container.status;
    match status.state() {
        RuntimeState::ContainerRunning => ContainerState {
            running: Some(ContainerStateRunning { started_at: time(status.started_at) }),
            ..ContainerState::default()
        },
        RuntimeState::ContainerExited => {
            let reason = match (status.reason.as_str(), status.exit_code) {
                ("", 0) => "Completed",
                ("" | "Error", _) if inputs.round.ended(inputs.pod, container) => "RestartingAllContainers",
                ("", _) => "Error",
                (reason, _) => reason,
            };
            let terminated = ContainerStateTerminated {
                container_id: Some(api_id(&status.id)),
                exit_code: status.exit_code,
                reason: Some(reason.to_owned()),
                message: (inputs.message)(container),
                started_at: time(status.started_at),
                finished_at: time(status.finished_at),
                signal: None,
            };
            ContainerState { terminated: Some(terminated), ..ContainerState::default() }
        }
        RuntimeState::ContainerCreated | RuntimeState::ContainerUnknown => {
            Waiting { reason: "ContainerCreating".to_owned(), message: None }.state()
        }
    }
}

/// Whether a container that ended with this code starts again.
pub fn should_restart(pod: &Pod, kind: ContainerKind, container: &Container, exit_code: i32) -> bool {
    match kind {
        ContainerKind::Ephemeral => return false,
        ContainerKind::Sidecar => return true,
        ContainerKind::Init | ContainerKind::Regular => {}
    }
    if matching_rule(container, exit_code).is_some() {
        return true;
    }
    let own = container.restart_policy.as_deref();
    match own.unwrap_or(pod.restart_policy()) {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        // An init container that did its work is not run again.
        _ => kind == ContainerKind::Regular || exit_code != 0,
    }
}
