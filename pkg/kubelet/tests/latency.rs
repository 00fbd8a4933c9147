//! How long a pod takes to be ready, beside the same calls made by hand. Run with `--run-ignored all`.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Instant;

use futures::StreamExt;
use kube::runtime::{WatchStreamExt, watcher};
use kube1_cri::v1::{ContainerConfig, ContainerMetadata, ImageSpec, PodSandboxConfig, PodSandboxMetadata};
use serde_json::json;
use support::{TestNode, condition, shell};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "a measurement"]
async fn pods_are_ready_soon() {
    let Some(node) = TestNode::start().await else { return };
    let runtime = node.containerd.runtime();
    let (mut by_hand, mut by_kubelet) = (Vec::new(), Vec::new());
    for n in 0..10 {
        let start = Instant::now();
        let meta =
            PodSandboxMetadata { name: format!("h{n}"), uid: format!("h{n}"), namespace: "n".into(), attempt: 0 };
        let config = PodSandboxConfig { metadata: Some(meta), log_directory: "/tmp".into(), ..Default::default() };
        let sandbox = runtime.run_pod_sandbox(config.clone(), "").await.unwrap();
        let container = ContainerConfig {
            metadata: Some(ContainerMetadata { name: "c".into(), attempt: 0 }),
            image: Some(ImageSpec { image: "kube1.local/busybox:1".into(), ..ImageSpec::default() }),
            command: ["sleep", "1000"].map(str::to_owned).to_vec(),
            ..ContainerConfig::default()
        };
        let container = runtime.create_container(&sandbox, container, config).await.unwrap();
        runtime.start_container(&container).await.unwrap();
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

/// CPU time of this process, which is apiserver and kubelet together.
fn cpu_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}
