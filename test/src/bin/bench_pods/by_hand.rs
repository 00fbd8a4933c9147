//! The CRI calls that a kubelet makes for a pod, and nothing else.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::Context;
use futures::future::try_join_all;
use kube1_cri::Runtime;
use kube1_cri::v1::{
    ContainerConfig, ContainerMetadata, DnsConfig, ImageSpec, LinuxContainerConfig, LinuxContainerResources,
    LinuxContainerSecurityContext, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, Mount, NamespaceMode,
    NamespaceOption, PodSandboxConfig, PodSandboxMetadata, SecurityProfile, security_profile::ProfileType,
};
use tempfile::TempDir;

use crate::COMMAND;

/// Sandboxes and containers that no kubelet knows of.
pub struct Hand {
    runtime: Runtime,
    image: String,
    files: TempDir,
    cgroup: String,
    /// Sandbox and container ids, with the name.
    made: Mutex<Vec<(String, String, String)>>,
}

impl Hand {
    /// `pod` is the uid of a pod that runs: its cgroup's neighbours weigh the same.
    pub async fn new(socket: &Path, image: &str, pod: &str) -> anyhow::Result<Self> {
        let runtime = Runtime::new(socket);
        let found = runtime.image_status(image).await.context("the container runtime does not answer")?;
        let image = found.with_context(|| format!("the node has no image {image}"))?.id;
        let files = tempfile::Builder::new().prefix("kube1-bench-pods-").tempdir()?;
        let of_pod = format!("pod{pod}");
        let parent = cgroup_hierarchies().into_iter().find_map(|root| parent_of(&root, &root, &of_pod));
        let parent = parent.context("the pod has no cgroup on this machine")?;
        let cgroup = format!("/{}/by-hand-{}", parent.display(), std::process::id());
        Ok(Self { runtime, image, files, cgroup, made: Mutex::default() })
    }

    /// Makes a sandbox with a container that runs.
    pub async fn make(&self, name: &str) -> anyhow::Result<()> {
        let dir = self.files.path().join(name);
        std::fs::create_dir_all(dir.join("log/c"))?;
        std::fs::create_dir_all(dir.join("account"))?;
        for file in ["hosts", "termination-log"] {
            std::fs::write(dir.join(file), [])?;
        }
        let sandbox = self.sandbox(name, &dir);
        let id = self.runtime.run_pod_sandbox(sandbox.clone(), "").await?;
        let container = self.runtime.create_container(&id, self.container(&dir), sandbox).await?;
        self.runtime.start_container(&container).await?;
        self.made.lock().expect("nothing panics while it holds the lock").push((id, container, name.to_owned()));
        Ok(())
    }

    /// [`Self::make`] for all names at the same time.
    pub async fn make_all(&self, names: &[String]) -> anyhow::Result<()> {
        try_join_all(names.iter().map(|name| self.make(name))).await.map(drop)
    }

    /// Ends and removes everything at the same time.
    pub async fn end_all(&self) -> anyhow::Result<()> {
        let made = std::mem::take(&mut *self.made.lock().expect("nothing panics while it holds the lock"));
        let end = |(sandbox, container, name): (String, String, String)| async move {
            self.runtime.stop_container(&container, 30).await?;
            self.runtime.stop_pod_sandbox(&sandbox).await?;
            self.runtime.remove_pod_sandbox(&sandbox).await?;
            for hierarchy in cgroup_hierarchies() {
                // Not there in every hierarchy.
                let _ = std::fs::remove_dir(hierarchy.join(format!("{}-{name}", self.cgroup).trim_start_matches('/')));
            }
            Ok(())
        };
        try_join_all(made.into_iter().map(end)).await.map(drop)
    }

    fn sandbox(&self, name: &str, dir: &Path) -> PodSandboxConfig {
        let security = LinuxSandboxSecurityContext {
            namespace_options: Some(namespaces()),
            seccomp: Some(SecurityProfile { profile_type: ProfileType::RuntimeDefault.into(), ..Default::default() }),
            ..LinuxSandboxSecurityContext::default()
        };
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.to_owned(),
                uid: format!("{}-{name}", std::process::id()),
                namespace: "by-hand".to_owned(),
                attempt: 0,
            }),
            hostname: name.to_owned(),
            log_directory: dir.join("log").display().to_string(),
            dns_config: Some(DnsConfig { servers: vec!["10.43.0.10".to_owned()], ..DnsConfig::default() }),
            labels: HashMap::from([("by-hand".to_owned(), name.to_owned())]),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: format!("{}-{name}", self.cgroup),
                security_context: Some(security),
                ..LinuxPodSandboxConfig::default()
            }),
            ..PodSandboxConfig::default()
        }
    }

    fn container(&self, dir: &Path) -> ContainerConfig {
        let mounts = [
            ("hosts", "/etc/hosts", false),
            ("termination-log", "/dev/termination-log", false),
            ("account", "/var/run/secrets/kubernetes.io/serviceaccount", true),
        ];
        let mount = |(file, target, readonly): (&str, &str, bool)| Mount {
            container_path: target.to_owned(),
            host_path: dir.join(file).display().to_string(),
            readonly,
            ..Mount::default()
        };
        let security = LinuxContainerSecurityContext {
            namespace_options: Some(namespaces()),
            seccomp: Some(SecurityProfile { profile_type: ProfileType::Unconfined.into(), ..Default::default() }),
            ..LinuxContainerSecurityContext::default()
        };
        ContainerConfig {
            metadata: Some(ContainerMetadata { name: "c".to_owned(), attempt: 0 }),
            image: Some(ImageSpec { image: self.image.clone(), ..ImageSpec::default() }),
            command: COMMAND.map(str::to_owned).to_vec(),
            mounts: mounts.into_iter().map(mount).collect(),
            log_path: "c/0.log".to_owned(),
            linux: Some(LinuxContainerConfig {
                resources: Some(LinuxContainerResources {
                    cpu_shares: 2,
                    oom_score_adj: 1000,
                    ..LinuxContainerResources::default()
                }),
                security_context: Some(security),
            }),
            ..ContainerConfig::default()
        }
    }
}

fn namespaces() -> NamespaceOption {
    NamespaceOption { pid: NamespaceMode::Container.into(), ..NamespaceOption::default() }
}

/// The root of each cgroup hierarchy: one with version 2, one for each controller with version 1.
fn cgroup_hierarchies() -> Vec<PathBuf> {
    let root = PathBuf::from("/sys/fs/cgroup");
    if root.join("cgroup.controllers").exists() {
        return vec![root];
    }
    std::fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect()
}

/// The cgroup that holds one of a name, relative to its hierarchy.
fn parent_of(root: &Path, dir: &Path, name: &str) -> Option<PathBuf> {
    if dir.join(name).is_dir() {
        return dir.strip_prefix(root).ok().map(Path::to_owned);
    }
    let below = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    below.filter(|path| path.is_dir()).find_map(|path| parent_of(root, &path, name))
}
