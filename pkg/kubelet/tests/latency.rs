//! How long a pod takes to be ready, beside the same calls made by hand. Run with `--run-ignored all`;
//! `RUST_LOG=kube1_cri=trace` shows each call to the runtime.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Instant;

use futures::StreamExt;
use futures::future::join_all;
use kube::runtime::{WatchStreamExt, watcher};
use kube1_cri::v1::security_profile::ProfileType;
use kube1_cri::v1::{
    ContainerConfig, ContainerMetadata, DnsConfig, ImageSpec, LinuxContainerConfig, LinuxContainerResources,
    LinuxContainerSecurityContext, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, Mount, NamespaceMode,
    NamespaceOption, PodSandboxConfig, PodSandboxMetadata, SecurityProfile,
};
use serde_json::json;
use support::{TestNode, condition, shell};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "a measurement"]
async fn pods_are_ready_soon() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let Some(node) = TestNode::start().await else { return };
    let (mut by_hand, mut by_kubelet) = (Vec::new(), Vec::new());
    for n in 0..10 {
        let start = Instant::now();
        start_by_hand(&node, format!("h{n}")).await;
        by_hand.push(start.elapsed());

        let name = format!("k{n}");
        let mut events = watcher(node.pods(), watcher::Config::default()).applied_objects().boxed();
        let start = Instant::now();
        node.create(&name, json!({"containers": [shell("c", "sleep 1000")], "terminationGracePeriodSeconds": 0})).await;
        while let Some(Ok(pod)) = events.next().await {
            let pod = serde_json::to_value(pod).unwrap();
            if pod["metadata"]["name"] == name.as_str() && condition(&pod, "Ready") == "True" {
                break;
            }
        }
        by_kubelet.push(start.elapsed());
    }
    by_hand.sort();
    by_kubelet.sort();
    eprintln!("by hand {by_hand:?}\nby kubelet {by_kubelet:?}");
    let idle = cpu_ticks();
    tokio::time::sleep(std::time::Duration::from_secs(10)).await;
    eprintln!("idle for 10 s: {} ticks of 10 ms", cpu_ticks() - idle);
    let ratio = by_kubelet[5].as_secs_f64() / by_hand[5].as_secs_f64();
    eprintln!("median of the kubelet's to that by hand: {ratio:.2}");
    let start = Instant::now();
    join_all((0..30).map(|n| start_by_hand(&node, format!("j{n}")))).await;
    eprintln!("30 by hand at once: {:?}", start.elapsed());
    let start = Instant::now();
    for n in 0..30 {
        node.create(
            &format!("m{n}"),
            json!({"containers": [shell("c", "sleep 1000")], "terminationGracePeriodSeconds": 0}),
        )
        .await;
    }
    for n in 0..30 {
        node.wait_ready(&format!("m{n}")).await;
    }
    eprintln!("30 at once: {:?}", start.elapsed());
    let start = Instant::now();
    for n in 0..30 {
        node.pods().delete(&format!("m{n}"), &Default::default()).await.unwrap();
    }
    while node.pods().list(&Default::default()).await.unwrap().items.len() > 10 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    eprintln!("30 deleted: {:?}", start.elapsed());
    node.stop().await;
}

/// The calls that the kubelet makes for a pod of one container, with what it tells the runtime.
async fn start_by_hand(node: &TestNode, name: String) {
    let runtime = node.containerd.runtime();
    let seccomp = |kind: ProfileType| Some(SecurityProfile { profile_type: kind.into(), ..Default::default() });
    let meta = PodSandboxMetadata { name: name.clone(), uid: name.clone(), namespace: "n".into(), attempt: 0 };
    let security = LinuxSandboxSecurityContext {
        namespace_options: Some(NamespaceOption { pid: NamespaceMode::Container.into(), ..Default::default() }),
        seccomp: seccomp(ProfileType::RuntimeDefault),
        ..Default::default()
    };
    let logs = node.config.data_dir.join("by-hand").join(&name);
    std::fs::create_dir_all(logs.join("c")).unwrap();
    let config = PodSandboxConfig {
        metadata: Some(meta),
        hostname: name.clone(),
        log_directory: logs.display().to_string(),
        dns_config: Some(DnsConfig { servers: vec!["10.43.0.10".into()], ..Default::default() }),
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: format!("{}/kubepods/besteffort/pod{name}", node.config.cgroup_root),
            security_context: Some(security),
            ..Default::default()
        }),
        ..Default::default()
    };
    let sandbox = runtime.run_pod_sandbox(config.clone(), "").await.unwrap();
    let files = ["/etc/hosts", "/dev/termination-log"].map(|path| {
        let file = logs.join(path.replace('/', "-"));
        std::fs::write(&file, []).unwrap();
        Mount { container_path: path.into(), host_path: file.display().to_string(), ..Default::default() }
    });
    let resources =
        LinuxContainerResources { cpu_shares: 2, cpu_period: 100_000, oom_score_adj: 1000, ..Default::default() };
    let security = LinuxContainerSecurityContext {
        namespace_options: Some(NamespaceOption { pid: NamespaceMode::Container.into(), ..Default::default() }),
        seccomp: seccomp(ProfileType::Unconfined),
        ..Default::default()
    };
    let container = ContainerConfig {
        metadata: Some(ContainerMetadata { name: "c".into(), attempt: 0 }),
        image: Some(ImageSpec { image: "kube1.local/busybox:1".into(), ..ImageSpec::default() }),
        command: ["sleep", "1000"].map(str::to_owned).to_vec(),
        log_path: "c/0.log".into(),
        mounts: files.to_vec(),
        linux: Some(LinuxContainerConfig { resources: Some(resources), security_context: Some(security) }),
        ..ContainerConfig::default()
    };
    let container = runtime.create_container(&sandbox, container, config).await.unwrap();
    runtime.start_container(&container).await.unwrap();
}

/// CPU time of this process, which is apiserver and kubelet together.
fn cpu_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}
