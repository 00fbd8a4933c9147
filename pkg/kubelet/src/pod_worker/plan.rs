//! What is to be done for a pod, from what is wanted and what is there. No I/O.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};

use crate::backoff::Backoffs;
use crate::container::spec_hash;
use crate::labels;
use crate::observed::{Observed, ObservedContainer};
use crate::pod::{self, ContainerKind, PodExt};
use crate::probe::{Findings, ProbeKind};
use crate::restart_round::Round;
use crate::status::{Waiting, should_restart};

/// A start that failed, and when it is to be tried again.
#[derive(Clone, Debug)]
pub struct Blocked {
    pub waiting: Waiting,
    /// `None`: only when something changes.
    pub retry_at: Option<Timestamp>,
}

/// Everything that a plan follows from.
pub struct PlanInputs<'a> {
    pub pod: &'a Pod,
    pub observed: &'a Observed,
    pub findings: &'a HashMap<String, Findings>,
    pub backoffs: &'a Backoffs,
    pub blocked: &'a HashMap<String, Blocked>,
    pub now: Timestamp,
}

impl PlanInputs<'_> {
    /// The newest container of a name, if it belongs to the present round.
    fn latest(&self, name: &str) -> Option<&ObservedContainer> {
        let round = Round::of(self.pod, self.observed);
        self.observed.latest(name).filter(|c| round.has(c))
    }

    /// As [`Self::latest`], in the current sandbox.
    fn current(&self, name: &str) -> Option<&ObservedContainer> {
        self.latest(name).filter(|c| self.observed.current(name).is_some_and(|current| current.id() == c.id()))
    }
}

/// A container to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    pub id: String,
    pub kind: ContainerKind,
    pub name: String,
    pub why: String,
    pub probe: Option<ProbeKind>,
    /// Without its hook and a grace period.
    pub at_once: bool,
}

/// What is to be done now; the rest follows when the runtime or a probe tells of a change.
#[derive(Debug, Default)]
pub struct Plan {
    pub new_sandbox: bool,
    pub kill: Vec<Kill>,
    pub start: Vec<(ContainerKind, Container)>,
    pub waiting: HashMap<String, Waiting>,
    pub wake_after: Option<Duration>,
    /// Every container has ended for good.
    pub done: bool,
}

impl Plan {
    fn wake(&mut self, after: Duration) {
        self.wake_after = Some(self.wake_after.map_or(after, |old| old.min(after)));
    }
}

pub fn plan(inputs: &PlanInputs<'_>) -> Plan {
    let spec = inputs.pod.spec();
    let mut plan = Plan::default();
    if is_done(inputs) {
        plan.done = true;
        return plan;
    }
    if inputs.observed.sandbox.is_none() {
        plan.new_sandbox = true;
        return plan;
    }
    for container in spec.ephemeral_containers.iter().flatten().map(pod::from_ephemeral) {
        if inputs.observed.latest(&container.name).is_none() {
            start(inputs, &mut plan, ContainerKind::Ephemeral, &container);
        }
    }
    if end_earlier_rounds(inputs, &mut plan) {
        return plan;
    }
    let initialized = spec.containers.iter().any(|c| inputs.current(&c.name).is_some());
    for container in spec.init_containers.iter().flatten() {
        let sidecar = pod::is_sidecar(container);
        if initialized && !sidecar {
            continue;
        }
        let kind = if sidecar { ContainerKind::Sidecar } else { ContainerKind::Init };
        // In a new sandbox the init containers run again, so only those of this sandbox count.
        let go_on = match inputs.current(&container.name) {
            None => {
                start(inputs, &mut plan, kind, container);
                false
            }
            Some(current) => step(inputs, &mut plan, kind, container, current),
        };
        if !go_on && !initialized {
            return plan;
        }
    }
    for container in &spec.containers {
        match inputs.latest(&container.name) {
            None => start(inputs, &mut plan, ContainerKind::Regular, container),
            Some(latest) => {
                step(inputs, &mut plan, ContainerKind::Regular, container, latest);
            }
        }
    }
    plan
}

/// Whether the pod has run to its end.
fn is_done(inputs: &PlanInputs<'_>) -> bool {
    let spec = inputs.pod.spec();
    let over = |kind, container: &Container| {
        inputs.latest(&container.name).is_some_and(|latest| {
            latest.is_exited() && !should_restart(inputs.pod, kind, container, latest.status.exit_code)
        })
    };
    let init_failed = spec.init_containers.iter().flatten().filter(|c| !pod::is_sidecar(c)).any(|container| {
        over(ContainerKind::Init, container) && inputs.latest(&container.name).is_some_and(|c| c.status.exit_code != 0)
    });
    let started = spec.containers.iter().any(|c| inputs.latest(&c.name).is_some());
    (init_failed && !started)
        || (!spec.containers.is_empty() && spec.containers.iter().all(|c| over(ContainerKind::Regular, c)))
}

/// Stops what still runs of earlier rounds, and says of all that is left of them why it waits. Says whether anything ran.
fn end_earlier_rounds(inputs: &PlanInputs<'_>, plan: &mut Plan) -> bool {
    let round = Round::of(inputs.pod, inputs.observed);
    let mut old = Vec::new();
    for (kind, container) in pod::containers(inputs.pod.spec()) {
        let latest = inputs.observed.latest(&container.name);
        if let Some(latest) = latest.filter(|c| kind != ContainerKind::Ephemeral && !round.has(c)) {
            old.push((kind, latest));
        }
    }
    for (kind, container) in &old {
        let name = container.name.clone();
        plan.waiting.insert(name.clone(), Waiting::new("RestartingAllContainers", ""));
        if container.is_running() {
            let why = format!("Stopping container {name} to restart all containers of the pod");
            plan.kill.push(Kill { id: container.id().to_owned(), kind: *kind, name, why, probe: None, at_once: true });
        }
    }
    !plan.kill.is_empty()
}

/// What to do about a container that exists. Says whether what comes after it may start.
fn step(
    inputs: &PlanInputs<'_>,
    plan: &mut Plan,
    kind: ContainerKind,
    container: &Container,
    current: &ObservedContainer,
) -> bool {
    if current.is_running() {
        let findings = inputs.findings.get(current.id()).cloned().unwrap_or_default();
        let mut kill = |why: String, probe| {
            let (id, name) = (current.id().to_owned(), container.name.clone());
            plan.kill.push(Kill { id, kind, name, why, probe, at_once: false });
        };
        if let Some(probe) = findings.dead {
            let probe_name = if probe == ProbeKind::Startup { "startup" } else { "liveness" };
            kill(format!("Container {} failed {probe_name} probe, will be restarted", container.name), Some(probe));
            return false;
        }
        if current.annotation(labels::CONTAINER_HASH) != spec_hash(container) {
            kill(format!("Container {} definition changed, will be restarted", container.name), None);
            return false;
        }
        return kind == ContainerKind::Sidecar && findings.started;
    }
    if current.is_exited() {
        if kind == ContainerKind::Init && current.status.exit_code == 0 {
            return true;
        }
        if should_restart(inputs.pod, kind, container, current.status.exit_code) {
            start(inputs, plan, kind, container);
        }
        return false;
    }
    // Created but never started: the node agent died in between. It is replaced.
    start(inputs, plan, kind, container);
    false
}

/// Starts a container now, or later if it failed a short while ago.
fn start(inputs: &PlanInputs<'_>, plan: &mut Plan, kind: ContainerKind, container: &Container) {
    let name = &container.name;
    // A changed specification is tried at once.
    if let Some(blocked) = inputs.blocked.get(&backoff_key(container)) {
        let left = blocked.retry_at.map(|at| at.duration_since(inputs.now));
        if left.is_none_or(|left| left.is_positive()) {
            plan.waiting.insert(name.clone(), blocked.waiting.clone());
            if let Some(left) = left {
                plan.wake(left.unsigned_abs());
            }
            return;
        }
    }
    let ended = inputs.observed.latest(name).filter(|c| c.is_exited()).map(|c| c.status.finished_at);
    let ended = ended.and_then(|nanos| Timestamp::from_nanosecond(i128::from(nanos)).ok());
    let key = backoff_key(container);
    if let Some((left, whole)) = ended.and_then(|at| inputs.backoffs.remaining(&key, at, inputs.now)) {
        let message = format!(
            "back-off {} restarting failed container={name} pod={}",
            go_duration(whole),
            inputs.pod.full_name()
        );
        plan.waiting.insert(name.clone(), Waiting::new("CrashLoopBackOff", message));
        plan.wake(left);
        return;
    }
    plan.waiting.remove(name);
    plan.start.push((kind, container.clone()));
}

/// Under which name a container's crashes are counted: a changed container starts with a clean slate.
pub fn backoff_key(container: &Container) -> String {
    format!("{}_{}", container.name, spec_hash(container))
}

/// A duration as Go writes it, such as `2m40s`.
pub fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}
