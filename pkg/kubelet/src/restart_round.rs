//! Restarts of all of a pod's containers in place, which a container's end may ask for (KEP-5532).
//!
//! Each container is annotated with the round of the pod's life that it belongs to. When a container of the newest round
//! ends in a way for which its rules ask to restart all, a new round begins: what is left of earlier rounds is stopped,
//! and for the order of starting it counts as if it had never been. Everything follows from the runtime's containers, so
//! that a new node agent goes on where the last one stopped.

use k8s_openapi::api::core::v1::{Container, ContainerRestartRule, Pod};

use crate::labels;
use crate::observed::{Observed, ObservedContainer};
use crate::pod::PodExt;

/// The action of a rule that restarts all containers.
const ALL: &str = "RestartAllContainers";

/// The round that a pod is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    pub number: u32,
    /// None of this round's containers exists yet.
    pub beginning: bool,
}

impl Round {
    pub fn of(pod: &Pod, observed: &Observed) -> Self {
        if !may_restart_all(pod) {
            return Self::default();
        }
        let latest = || containers(pod).filter_map(|spec| Some((spec, observed.latest(&spec.name)?)));
        let newest = latest().map(|(_, c)| round_of(c)).max().unwrap_or(0);
        let asked = latest().any(|(spec, c)| {
            round_of(c) == newest
                && c.is_exited()
                && matching_rule(spec, c.status.exit_code).is_some_and(|rule| rule.action == ALL)
        });
        Self { number: newest + u32::from(asked), beginning: asked }
    }

    /// Whether a container belongs to this round.
    pub fn has(self, container: &ObservedContainer) -> bool {
        round_of(container) == self.number
    }

    /// Whether a container was stopped because a new round began, or will be.
    pub fn ended(self, pod: &Pod, container: &ObservedContainer) -> bool {
        /// What a killed process leaves.
        const KILLED: i32 = 137;
        let asked = containers(pod)
            .find(|spec| spec.name == container.name)
            .is_none_or(|spec| matching_rule(spec, container.status.exit_code).is_some_and(|rule| rule.action == ALL));
        round_of(container) < self.number && container.status.exit_code == KILLED && !asked
    }
}

/// Whether a container's end may restart all containers of the pod.
pub fn may_restart_all(pod: &Pod) -> bool {
    containers(pod).any(|spec| spec.restart_policy_rules.iter().flatten().any(|rule| rule.action == ALL))
}

/// The first of a container's rules that is about this exit code.
pub fn matching_rule(container: &Container, exit_code: i32) -> Option<&ContainerRestartRule> {
    container.restart_policy_rules.iter().flatten().find(|rule| {
        rule.exit_codes.as_ref().is_some_and(|codes| {
            codes.values.iter().flatten().any(|value| *value == exit_code) == (codes.operator == "In")
        })
    })
}

fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    let spec = pod.spec();
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

fn round_of(container: &ObservedContainer) -> u32 {
    container.annotation(labels::RESTART_ROUND).parse().unwrap_or(0)
}
