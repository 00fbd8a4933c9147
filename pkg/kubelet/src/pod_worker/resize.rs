//! Changing the resources of containers while they run.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodSpec, ResourceRequirements};
use kube1_client::EventType;

use super::PodWorker;
use super::plan::Kill;
use crate::admission;
use crate::observed::{Observed, ObservedContainer};
use crate::pod::{self, ContainerKind, PodExt, ResourceList};
use crate::resources::{self, PodLimits};
use crate::status::ResizeState;

/// What containers run with, by id.
pub(super) type Applied = HashMap<String, ResourceRequirements>;

/// Resources that can change in place.
const RESIZABLE: [&str; 2] = ["cpu", "memory"];

/// A container that runs with other resources than it should.
struct Change<'a> {
    kind: ContainerKind,
    container: Container,
    observed: &'a ObservedContainer,
    /// Whether one of the changed resources asks for a restart.
    restart: bool,
}

impl PodWorker {
    /// Applies changed resources. Gives the containers that must be restarted for it.
    pub(super) async fn resize(&mut self, pod: &Pod, observed: &Observed) -> Vec<Kill> {
        if observed.sandbox.is_none() {
            return Vec::new();
        }
        self.learn_applied(pod, observed);
        let changes = self.changes(pod, observed);
        let of_pod = pod.spec().resources.as_ref().filter(|wanted| {
            let applied = self.applied_to_pod.as_ref();
            applied.is_none_or(|applied| RESIZABLE.into_iter().any(|resource| differs(applied, wanted, resource)))
        });
        if changes.is_empty() && of_pod.is_none() {
            *self.entry.holds.lock() = None;
            self.resizing = self.limit_pod(pod, resources::pod_limits(pod.spec())).err().map(ResizeState::failed);
            return Vec::new();
        }
        if let Err(refusal) = admission::room_for(&self.node, &self.entry, pod) {
            let capacity = *self.node.allocatable.lock();
            let too_large = pod::total_request(pod.spec(), "cpu").millis() > capacity.cpu_millis
                || pod::total_request(pod.spec(), "memory").units() > capacity.memory;
            let reason = if too_large { "Infeasible" } else { "Deferred" };
            let message = refusal.message.trim_start_matches("Pod was rejected: ").to_owned();
            let state = ResizeState::pending(reason, message);
            if self.resizing.as_ref() != Some(&state) {
                let event = if too_large { "ResizeInfeasible" } else { "ResizeDeferred" };
                self.event(EventType::Warning, event, format!("Pod resize {reason}: {}", state.message));
                *self.entry.holds.lock() =
                    Some(Arc::new(Pod { spec: Some(self.applied_spec(pod, observed)), ..pod.clone() }));
            }
            self.resizing = Some(state);
            return Vec::new();
        }
        *self.entry.holds.lock() = None;
        let (restarts, in_place): (Vec<_>, Vec<_>) = changes.into_iter().partition(|change| change.restart);
        self.resizing = self.apply(pod, observed, &in_place, restarts.is_empty()).await.err().map(ResizeState::failed);
        if self.resizing.is_none() && !(in_place.is_empty() && of_pod.is_none()) {
            self.event(EventType::Normal, "ResizeCompleted", "Pod resize completed");
        }
        let kill = |change: &Change<'_>| Kill {
            id: change.observed.id().to_owned(),
            kind: change.kind,
            name: change.container.name.clone(),
            why: format!("Container {} resize requires restart", change.container.name),
            probe: None,
            at_once: false,
        };
        restarts.iter().map(kill).collect()
    }

    /// Remembers what new containers were made with; of adopted ones the reported status tells.
    fn learn_applied(&mut self, pod: &Pod, observed: &Observed) {
        let reported: Vec<&ContainerStatus> = {
            let status = pod.status();
            [&status.container_statuses, &status.init_container_statuses].into_iter().flatten().flatten().collect()
        };
        for running in observed.running() {
            if self.applied.contains_key(running.id()) {
                continue;
            }
            let id = crate::status::api_id(running.id());
            let known =
                reported.iter().find(|s| s.container_id.as_deref() == Some(&id)).and_then(|s| s.resources.clone());
            let spec = pod::containers(pod.spec()).into_iter().find(|(_, c)| c.name == running.name);
            let made_with = known.or_else(|| spec.and_then(|(_, c)| c.resources));
            self.applied.insert(running.id().to_owned(), made_with.unwrap_or_default());
        }
        if self.applied_to_pod.is_none() {
            let known = pod.status().resources.clone().filter(|_| self.adopted_running);
            self.applied_to_pod = known.or_else(|| pod.spec().resources.clone());
        }
        self.applied.retain(|id, _| observed.containers.iter().any(|c| c.id() == id));
    }

    fn changes<'a>(&self, pod: &Pod, observed: &'a Observed) -> Vec<Change<'a>> {
        let all = pod::containers(pod.spec()).into_iter();
        let resizable = all.filter(|(kind, _)| *kind != ContainerKind::Ephemeral);
        let change = |(kind, container): (ContainerKind, Container)| {
            let running = observed.latest(&container.name).filter(|c| c.is_running())?;
            let applied = self.applied.get(running.id())?;
            let wanted = container.resources.clone().unwrap_or_default();
            let changed: Vec<&str> = RESIZABLE.into_iter().filter(|r| differs(applied, &wanted, r)).collect();
            let policy = |resource: &str| {
                let policies = container.resize_policy.iter().flatten();
                policies.into_iter().any(|p| p.resource_name == resource && p.restart_policy == "RestartContainer")
            };
            let restart = changed.iter().any(|resource| policy(resource));
            (!changed.is_empty()).then_some(Change { kind, container: container.clone(), observed: running, restart })
        };
        resizable.filter_map(change).collect()
    }

    /// Changes containers in place. The pod's own limits are never tighter than those of a container below them: they
    /// open before, and close once no container is left with what it had (`last`).
    async fn apply(
        &mut self,
        pod: &Pod,
        observed: &Observed,
        changes: &[Change<'_>],
        last: bool,
    ) -> Result<(), String> {
        let wanted = resources::pod_limits(pod.spec());
        self.limit_pod(pod, wanted.loosest(self.running_limits(pod, observed)))?;
        for change in changes {
            let new = resources::container_resources(pod.spec(), &change.container, &self.node.machine);
            let updated = self.node.runtime.update_container_resources(change.observed.id(), new).await;
            updated.map_err(|e| format!("container {}: {e}", change.container.name))?;
            let now = change.container.resources.clone().unwrap_or_default();
            self.applied.insert(change.observed.id().to_owned(), now);
        }
        if last {
            self.limit_pod(pod, wanted)?;
        }
        self.applied_to_pod.clone_from(&pod.spec().resources);
        Ok(())
    }

    /// The pod's limits by what it runs with.
    fn running_limits(&self, pod: &Pod, observed: &Observed) -> PodLimits {
        resources::pod_limits(&self.applied_spec(pod, observed))
    }

    /// The specification with the resources that the pod and its containers run with.
    fn applied_spec(&self, pod: &Pod, observed: &Observed) -> PodSpec {
        let mut spec = pod.spec().clone();
        for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
            let running = observed.latest(&container.name).and_then(|c| self.applied.get(c.id()));
            container.resources = running.cloned().or(container.resources.take());
        }
        spec.resources = self.applied_to_pod.clone().filter(|_| spec.resources.is_some());
        spec
    }

    fn limit_pod(&mut self, pod: &Pod, limits: PodLimits) -> Result<(), String> {
        if self.limits != Some(limits) {
            let applied = self.node.cgroups.apply_pod(pod::qos_class(pod.spec()), &self.uid, limits);
            applied.map_err(|e| format!("the pod's cgroup: {e}"))?;
            self.limits = Some(limits);
        }
        Ok(())
    }
}

/// Whether a resource's request or limit is another amount.
fn differs(a: &ResourceRequirements, b: &ResourceRequirements, resource: &str) -> bool {
    let value = |list: &Option<ResourceList>| pod::quantity(list.as_ref(), resource).map(|q| q.millis());
    value(&a.requests) != value(&b.requests) || value(&a.limits) != value(&b.limits)
}
