//! What the runtime has of a pod.

use std::collections::HashMap;
use std::time::Duration;

use kube1_cri::v1::{ContainerState, ContainerStatus, PodSandbox, PodSandboxState, PodSandboxStatus};
use kube1_cri::{CriError, Runtime};

use crate::labels;

/// How long the runtime may take to record an end that its events have told.
const RECORD: Duration = Duration::from_secs(2);

/// A pod's sandboxes and containers at one moment.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The newest first.
    pub sandboxes: Vec<PodSandbox>,
    /// State of the newest sandbox, if it is ready.
    pub sandbox: Option<PodSandboxStatus>,
    /// The newest first.
    pub containers: Vec<ObservedContainer>,
}

/// A container that the runtime has.
#[derive(Clone, Debug)]
pub struct ObservedContainer {
    pub name: String,
    /// How often the container had been started before this one.
    pub attempt: u32,
    pub sandbox_id: String,
    pub status: ContainerStatus,
}

impl ObservedContainer {
    pub fn id(&self) -> &str {
        &self.status.id
    }

    pub fn is_running(&self) -> bool {
        self.status.state() == ContainerState::ContainerRunning
    }

    pub fn is_exited(&self) -> bool {
        self.status.state() == ContainerState::ContainerExited
    }

    pub fn annotation(&self, key: &str) -> &str {
        self.status.annotations.get(key).map_or("", String::as_str)
    }
}

impl Observed {
    /// The newest container of a name.
    pub fn latest(&self, name: &str) -> Option<&ObservedContainer> {
        self.containers.iter().find(|c| c.name == name)
    }

    /// The newest container of a name in the current sandbox.
    pub fn current(&self, name: &str) -> Option<&ObservedContainer> {
        let id = self.sandbox.as_ref().map(|s| s.id.as_str())?;
        self.latest(name).filter(|c| c.sandbox_id == id)
    }

    /// The container of a name before the newest.
    pub fn previous(&self, name: &str) -> Option<&ObservedContainer> {
        self.containers.iter().filter(|c| c.name == name).nth(1)
    }

    pub fn running(&self) -> impl Iterator<Item = &ObservedContainer> {
        self.containers.iter().filter(|c| c.is_running())
    }

    pub fn pod_ips(&self) -> Vec<String> {
        let network = self.sandbox.as_ref().and_then(|s| s.network.as_ref());
        let additional = network.iter().flat_map(|n| n.additional_ips.iter().map(|ip| ip.ip.clone()));
        network.iter().map(|n| n.ip.clone()).chain(additional).filter(|ip| !ip.is_empty()).collect()
    }
}

/// Ids of what a pod's task has made since it looked.
#[derive(Debug, Default)]
pub struct Made {
    /// The pod's first sandbox.
    pub sandbox: Option<String>,
    pub containers: Vec<String>,
}

/// Reads a pod's state; remembers what cannot change any more.
#[derive(Default)]
pub struct Observer {
    exited: HashMap<String, ContainerStatus>,
    ready: HashMap<String, PodSandboxStatus>,
}

impl Observer {
    /// The state now. `ended` says of a container whether the runtime's events have told its end: then the runtime's
    /// record of it is waited for.
    pub async fn observe(
        &mut self,
        runtime: &Runtime,
        uid: &str,
        ended: impl Fn(&str) -> bool,
    ) -> Result<Observed, CriError> {
        let labels = HashMap::from([(labels::POD_UID.to_owned(), uid.to_owned())]);
        let (sandboxes, containers) =
            tokio::try_join!(runtime.list_pod_sandboxes(labels.clone()), runtime.list_containers(labels))?;
        let mut observed = Observed { sandboxes, ..Observed::default() };
        observed.sandboxes.sort_by_key(|s| std::cmp::Reverse(s.created_at));
        for container in &containers {
            let status = match self.status(runtime, &container.id, &ended).await {
                Err(error) if error.is_not_found() => continue,
                other => other?,
            };
            observed.containers.push(ObservedContainer {
                name: container.labels.get(labels::CONTAINER_NAME).cloned().unwrap_or_default(),
                attempt: container.metadata.as_ref().map_or(0, |m| m.attempt),
                sandbox_id: container.pod_sandbox_id.clone(),
                status,
            });
        }
        observed.containers.sort_by_key(|c| std::cmp::Reverse((c.status.created_at, c.attempt)));
        self.exited.retain(|id, _| containers.iter().any(|c| c.id == *id));
        observed.sandbox = self.sandbox(runtime, &observed.sandboxes, &ended).await?;
        Ok(observed)
    }

    /// Adds to a state what was made since: the pod's first sandbox, and containers in the current one whose names are
    /// new. Other changes are told by events, after which everything is read again.
    pub async fn add(
        &mut self,
        runtime: &Runtime,
        observed: &mut Observed,
        made: &Made,
        ended: impl Fn(&str) -> bool,
    ) -> Result<(), CriError> {
        if let Some(id) = &made.sandbox {
            let status = runtime.pod_sandbox_status(id).await?;
            observed.sandboxes = vec![PodSandbox {
                id: id.clone(),
                metadata: status.metadata.clone(),
                state: status.state,
                created_at: status.created_at,
                ..PodSandbox::default()
            }];
            observed.sandbox = self.sandbox_state(status);
        }
        let sandbox_id = observed.sandbox.as_ref().map(|s| s.id.clone()).unwrap_or_default();
        for id in &made.containers {
            let status = self.status(runtime, id, &ended).await?;
            let (name, attempt) = status.metadata.as_ref().map(|m| (m.name.clone(), m.attempt)).unwrap_or_default();
            let sandbox_id = sandbox_id.clone();
            observed.containers.insert(0, ObservedContainer { name, attempt, sandbox_id, status });
        }
        Ok(())
    }

    async fn status(
        &mut self,
        runtime: &Runtime,
        id: &str,
        ended: &impl Fn(&str) -> bool,
    ) -> Result<ContainerStatus, CriError> {
        if let Some(status) = self.exited.get(id) {
            return Ok(status.clone());
        }
        let give_up = tokio::time::Instant::now() + RECORD;
        let mut pause = Duration::from_millis(2);
        loop {
            let status = runtime.container_status(id).await?;
            if status.state() == ContainerState::ContainerExited {
                self.exited.insert(id.to_owned(), status.clone());
                return Ok(status);
            }
            if !ended(id) || tokio::time::Instant::now() > give_up {
                return Ok(status);
            }
            // The event is told before the runtime has written its own record, which takes some milliseconds.
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }

    async fn sandbox(
        &mut self,
        runtime: &Runtime,
        sandboxes: &[PodSandbox],
        ended: &impl Fn(&str) -> bool,
    ) -> Result<Option<PodSandboxStatus>, CriError> {
        let Some(newest) = sandboxes.first() else { return Ok(None) };
        if newest.state() != PodSandboxState::SandboxReady || ended(&newest.id) {
            self.ready.remove(&newest.id);
            return Ok(None);
        }
        if let Some(status) = self.ready.get(&newest.id) {
            return Ok(Some(status.clone()));
        }
        match runtime.pod_sandbox_status(&newest.id).await {
            Ok(status) => Ok(self.sandbox_state(status)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Remembers the state of a sandbox that is ready.
    fn sandbox_state(&mut self, status: PodSandboxStatus) -> Option<PodSandboxStatus> {
        if status.state() != PodSandboxState::SandboxReady {
            return None;
        }
        self.ready.clear();
        self.ready.insert(status.id.clone(), status.clone());
        Some(status)
    }
}
