//! The clients against a real containerd.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use futures::StreamExt;
use kube1_cri::events::ContainerEvent;
use kube1_cri::v1::{
    ContainerConfig, ContainerMetadata, ImageSpec, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceMode,
    NamespaceOption, PodSandboxConfig, PodSandboxMetadata,
};

fn sandbox(dir: &std::path::Path) -> PodSandboxConfig {
    let namespaces = NamespaceOption { network: NamespaceMode::Node.into(), ..NamespaceOption::default() };
    let security = LinuxSandboxSecurityContext { namespace_options: Some(namespaces), ..Default::default() };
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata { name: "p".into(), uid: "u".into(), namespace: "n".into(), attempt: 0 }),
        log_directory: dir.join("log").display().to_string(),
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: format!("/{CGROUP}"),
            security_context: Some(security),
            ..LinuxPodSandboxConfig::default()
        }),
        ..PodSandboxConfig::default()
    }
}

/// Holds the sandbox; empty and removed at the end.
const CGROUP: &str = "kube1-cri-test";

#[tokio::test]
async fn images_load_and_a_container_runs_and_its_end_is_told() {
    let Some(containerd) = support::Containerd::start().await else { return };
    let names: Vec<String> =
        kube1_cri::images::list(&containerd.socket()).await.unwrap().into_iter().flat_map(|i| i.names).collect();
    assert!(names.contains(&"kube1.local/pause:1".to_owned()), "{names:?}");
    assert!(names.contains(&"kube1.local/busybox:1".to_owned()), "{names:?}");

    let runtime = containerd.runtime();
    assert_eq!(runtime.pinned_images().await, ["kube1.local/busybox:1", "kube1.local/pause:1"]);
    assert!(runtime.image_status("kube1.local/none:1").await.unwrap().is_none());
    let config = sandbox(containerd.dir.path());
    let id = runtime.run_pod_sandbox(config.clone(), "").await.unwrap();
    let container = ContainerConfig {
        metadata: Some(ContainerMetadata { name: "c".into(), attempt: 0 }),
        image: Some(ImageSpec { image: "kube1.local/busybox:1".into(), ..ImageSpec::default() }),
        command: ["sh", "-c", "cat; exit 3"].map(str::to_owned).to_vec(),
        stdin: true,
        log_path: "c.log".into(),
        ..ContainerConfig::default()
    };
    let container = runtime.create_container(&id, container, config).await.unwrap();
    runtime.start_container(&container).await.unwrap();
    let output =
        runtime.exec_sync(&container, vec!["echo".into(), "hi".into()], Duration::from_secs(20)).await.unwrap();
    assert_eq!((output.exit_code, output.stdout.as_slice()), (0, &b"hi\n"[..]));

    let events = runtime.events();
    let wanted = ContainerEvent::Exited { container_id: container.clone() };
    let told = tokio::spawn(async move {
        let exits = events.map(Result::unwrap).boxed();
        exits.any(async |e| e == wanted).await
    });
    runtime.stop_container(&container, 1).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(30), told).await.unwrap().unwrap());
    let status = runtime.container_status(&container).await.unwrap();
    assert_eq!(status.exit_code, 143);
    assert!(runtime.container_status("none").await.unwrap_err().is_not_found());
    containerd.stop().await;
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        // Not every hierarchy has it.
        let _ = std::fs::remove_dir(hierarchy.path().join(CGROUP));
    }
}
