//! Sandboxes and containers.

use std::collections::HashMap;
use std::time::Duration;

use k8s_cri::v1::{
    AttachRequest, CheckpointContainerRequest, Container, ContainerConfig, ContainerFilter, ContainerStats,
    ContainerStatsFilter, ContainerStatus, ContainerStatusRequest, CreateContainerRequest, ExecRequest,
    ExecSyncRequest, ExecSyncResponse, LinuxContainerResources, ListContainerStatsRequest, ListContainersRequest,
    ListPodSandboxRequest, PodSandbox, PodSandboxConfig, PodSandboxFilter, PodSandboxStatus, PodSandboxStatusRequest,
    PortForwardRequest, RemoveContainerRequest, RemovePodSandboxRequest, ReopenContainerLogRequest,
    RunPodSandboxRequest, StartContainerRequest, StatusRequest, StatusResponse, StopContainerRequest,
    StopPodSandboxRequest, UpdateContainerResourcesRequest, VersionRequest, VersionResponse,
};

use crate::connection::incomplete;
use crate::{CriError, Runtime};

/// Limit of calls that only read.
const READ: Duration = Duration::from_secs(30);
/// Limit of calls that change something; a CNI plugin or a busy disk may take this long.
const WRITE: Duration = Duration::from_secs(240);

impl Runtime {
    pub async fn version(&self) -> Result<VersionResponse, CriError> {
        let request = VersionRequest { version: "v1".to_owned() };
        self.limited("Version", READ, self.runtime().version(request)).await
    }

    /// Conditions such as `RuntimeReady` and `NetworkReady`, and the runtime's handlers.
    pub async fn status(&self) -> Result<StatusResponse, CriError> {
        self.limited("Status", READ, self.runtime().status(StatusRequest { verbose: false })).await
    }

    /// Creates and starts a sandbox; gives its id.
    pub async fn run_pod_sandbox(&self, config: PodSandboxConfig, handler: &str) -> Result<String, CriError> {
        let request = RunPodSandboxRequest { config: Some(config), runtime_handler: handler.to_owned() };
        Ok(self.limited("RunPodSandbox", WRITE, self.runtime().run_pod_sandbox(request)).await?.pod_sandbox_id)
    }

    /// Stops everything in a sandbox and releases its network. Harmless when repeated.
    pub async fn stop_pod_sandbox(&self, id: &str) -> Result<(), CriError> {
        let request = StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        gone_is_fine(self.limited("StopPodSandbox", WRITE, self.runtime().stop_pod_sandbox(request)).await)
    }

    /// Removes a stopped sandbox with its containers. Harmless when repeated.
    pub async fn remove_pod_sandbox(&self, id: &str) -> Result<(), CriError> {
        let request = RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        gone_is_fine(self.limited("RemovePodSandbox", WRITE, self.runtime().remove_pod_sandbox(request)).await)
    }

    pub async fn pod_sandbox_status(&self, id: &str) -> Result<PodSandboxStatus, CriError> {
        let request = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
        let answer = self.limited("PodSandboxStatus", READ, self.runtime().pod_sandbox_status(request)).await?;
        answer.status.ok_or_else(|| incomplete("PodSandboxStatus"))
    }

    /// Sandboxes in every state that have all the given labels.
    pub async fn list_pod_sandboxes(&self, labels: HashMap<String, String>) -> Result<Vec<PodSandbox>, CriError> {
        let filter = PodSandboxFilter { label_selector: labels, ..PodSandboxFilter::default() };
        let request = ListPodSandboxRequest { filter: Some(filter) };
        Ok(self.limited("ListPodSandbox", READ, self.runtime().list_pod_sandbox(request)).await?.items)
    }

    /// Containers in every state that have all the given labels.
    pub async fn list_containers(&self, labels: HashMap<String, String>) -> Result<Vec<Container>, CriError> {
        let filter = ContainerFilter { label_selector: labels, ..ContainerFilter::default() };
        let request = ListContainersRequest { filter: Some(filter) };
        Ok(self.limited("ListContainers", READ, self.runtime().list_containers(request)).await?.containers)
    }

    pub async fn container_status(&self, id: &str) -> Result<ContainerStatus, CriError> {
        let request = ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        let answer = self.limited("ContainerStatus", READ, self.runtime().container_status(request)).await?;
        answer.status.ok_or_else(|| incomplete("ContainerStatus"))
    }

    /// Creates a container in a sandbox; gives its id.
    pub async fn create_container(
        &self,
        sandbox: &str,
        config: ContainerConfig,
        sandbox_config: PodSandboxConfig,
    ) -> Result<String, CriError> {
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        Ok(self.limited("CreateContainer", WRITE, self.runtime().create_container(request)).await?.container_id)
    }

    pub async fn start_container(&self, id: &str) -> Result<(), CriError> {
        let request = StartContainerRequest { container_id: id.to_owned() };
        self.limited("StartContainer", WRITE, self.runtime().start_container(request)).await.map(drop)
    }

    /// Sends the stop signal, and SIGKILL after `grace` seconds. Returns when the container has stopped.
    pub async fn stop_container(&self, id: &str, grace: i64) -> Result<(), CriError> {
        let request = StopContainerRequest { container_id: id.to_owned(), timeout: grace };
        let limit = WRITE + Duration::from_secs(u64::try_from(grace).unwrap_or(0));
        gone_is_fine(self.limited("StopContainer", limit, self.runtime().stop_container(request)).await)
    }

    pub async fn remove_container(&self, id: &str) -> Result<(), CriError> {
        let request = RemoveContainerRequest { container_id: id.to_owned() };
        gone_is_fine(self.limited("RemoveContainer", WRITE, self.runtime().remove_container(request)).await)
    }

    pub async fn update_container_resources(
        &self,
        id: &str,
        resources: LinuxContainerResources,
    ) -> Result<(), CriError> {
        let request = UpdateContainerResourcesRequest {
            container_id: id.to_owned(),
            linux: Some(resources),
            ..UpdateContainerResourcesRequest::default()
        };
        self.limited("UpdateContainerResources", READ, self.runtime().update_container_resources(request))
            .await
            .map(drop)
    }

    /// Makes the runtime write to a new log file after the old one was moved away.
    pub async fn reopen_container_log(&self, id: &str) -> Result<(), CriError> {
        let request = ReopenContainerLogRequest { container_id: id.to_owned() };
        self.limited("ReopenContainerLog", READ, self.runtime().reopen_container_log(request)).await.map(drop)
    }

    /// Runs a command in a container to its end, or kills it after `limit`.
    pub async fn exec_sync(
        &self,
        id: &str,
        command: Vec<String>,
        limit: Duration,
    ) -> Result<ExecSyncResponse, CriError> {
        let seconds = i64::try_from(limit.as_secs()).unwrap_or(0);
        let request = ExecSyncRequest { container_id: id.to_owned(), cmd: command, timeout: seconds };
        // The runtime keeps the time itself; the margin only covers a runtime that hangs.
        let outer = if limit.is_zero() { Duration::from_secs(24 * 3600) } else { limit + Duration::from_secs(10) };
        self.limited("ExecSync", outer, self.runtime().exec_sync(request)).await
    }

    /// The URL on which the runtime serves this command's streams once.
    pub async fn exec(&self, request: ExecRequest) -> Result<String, CriError> {
        Ok(self.limited("Exec", READ, self.runtime().exec(request)).await?.url)
    }

    pub async fn attach(&self, request: AttachRequest) -> Result<String, CriError> {
        Ok(self.limited("Attach", READ, self.runtime().attach(request)).await?.url)
    }

    pub async fn port_forward(&self, sandbox: &str, ports: Vec<i32>) -> Result<String, CriError> {
        let request = PortForwardRequest { pod_sandbox_id: sandbox.to_owned(), port: ports };
        Ok(self.limited("PortForward", READ, self.runtime().port_forward(request)).await?.url)
    }

    /// Writes the state of a running container to a file; `limit` zero leaves the time to the runtime.
    pub async fn checkpoint_container(&self, id: &str, file: &str, limit: Duration) -> Result<(), CriError> {
        let timeout = i64::try_from(limit.as_secs()).unwrap_or(0);
        let request = CheckpointContainerRequest { container_id: id.to_owned(), location: file.to_owned(), timeout };
        self.limited("CheckpointContainer", WRITE + limit, self.runtime().checkpoint_container(request)).await.map(drop)
    }

    /// Usage of the running containers that have all the given labels.
    pub async fn container_stats(&self, labels: HashMap<String, String>) -> Result<Vec<ContainerStats>, CriError> {
        let filter = ContainerStatsFilter { label_selector: labels, ..ContainerStatsFilter::default() };
        let request = ListContainerStatsRequest { filter: Some(filter) };
        Ok(self.limited("ListContainerStats", READ, self.runtime().list_container_stats(request)).await?.stats)
    }
}

fn gone_is_fine<T>(result: Result<T, CriError>) -> Result<(), CriError> {
    match result {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}
