//! Pods on a real node: apiserver, kubelet and containerd together.
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::json;
use support::{TestNode, condition, shell};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_runs_reports_and_goes_away() {
    let Some(node) = TestNode::start().await else { return };
    let mut init = shell("init", "echo made > /data/x");
    init["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    let spec = json!({
        "terminationGracePeriodSeconds": 5,
        "initContainers": [init],
        "containers": [{
            "name": "main", "image": "kube1.local/busybox:1",
            "command": ["sh", "-c", "cat /data/x /config/key; echo $NODE $HELLO; trap 'exit 0' TERM; while true; do sleep 1; done"],
            "env": [
                {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                {"name": "HELLO", "value": "$(NODE)-hello"},
            ],
            "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "config", "mountPath": "/config"}],
            "readinessProbe": {"exec": {"command": ["test", "-e", "/data/x"]}, "periodSeconds": 1},
        }],
        "volumes": [
            {"name": "data", "emptyDir": {"medium": "Memory"}},
            {"name": "config", "configMap": {"name": "late"}},
        ],
    });
    node.create("web", spec).await;
    node.wait("web", "waiting for its volume", |pod| {
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "PodInitializing"
    })
    .await;
    let map = json!({"metadata": {"name": "late"}, "data": {"key": "value\n"}});
    let maps: kube::Api<k8s_openapi::api::core::v1::ConfigMap> = kube::Api::namespaced(node.admin.clone(), "default");
    maps.create(&Default::default(), &serde_json::from_value(map).unwrap()).await.unwrap();

    let pod = node.wait_ready("web").await;
    let status = &pod["status"];
    assert_eq!(status["phase"], "Running");
    assert_eq!(status["podIP"], "10.99.0.7");
    assert_eq!(status["qosClass"], "BestEffort");
    assert_eq!(status["initContainerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
    assert!(status["containerStatuses"][0]["containerID"].as_str().unwrap().starts_with("containerd://"));
    let log = node.log(&pod, "main", 0);
    assert!(log.starts_with("made\nvalue\n"), "{log}");
    assert!(log.contains("node-1 node-1-hello\n"), "{log}");
    let reasons: Vec<String> = node.events("web").await.into_iter().map(|(reason, _)| reason).collect();
    for wanted in ["FailedMount", "Pulled", "Created", "Started"] {
        assert!(reasons.iter().any(|r| r == wanted), "{wanted} is missing: {reasons:?}");
    }
    let uid = pod["metadata"]["uid"].as_str().unwrap().to_owned();
    node.delete("web").await;
    assert!(!node.config.data_dir.join("pods").join(uid).exists());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_kubelet_goes_on_with_what_runs() {
    let Some(mut node) = TestNode::start().await else { return };
    node.create("keep", json!({"containers": [shell("c", "sleep 1000")], "terminationGracePeriodSeconds": 1})).await;
    node.create("short", json!({"restartPolicy": "Never", "containers": [shell("c", "sleep 2; echo bye > /dev/termination-log; exit 3")]})).await;
    let before = node.wait_ready("keep").await;
    node.wait_ready("short").await;
    node.stop_kubelet().await;
    node.start_kubelet();
    let ended = node.wait_phase("short", "Failed").await;
    let terminated = &ended["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!((terminated["exitCode"].as_i64(), terminated["message"].as_str()), (Some(3), Some("bye\n")));
    assert_eq!(condition(&ended, "Ready"), "False");
    let after = node.wait_ready("keep").await;
    let id = |pod: &serde_json::Value| pod["status"]["containerStatuses"][0]["containerID"].clone();
    assert_eq!(id(&before), id(&after));
    assert_eq!(after["status"]["containerStatuses"][0]["restartCount"], 0);
    node.delete("keep").await;
    node.delete("short").await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crashes_wait_and_failures_say_why() {
    let Some(node) = TestNode::start().await else { return };
    node.create("crash", json!({"containers": [shell("c", "exit 1")]})).await;
    let mut bad = shell("c", "true");
    bad["image"] = "kube1.local/none:1".into();
    bad["imagePullPolicy"] = "Never".into();
    node.create("noimage", json!({"containers": [bad]})).await;
    let mut env = shell("c", "true");
    env["env"] = json!([{"name": "A", "valueFrom": {"secretKeyRef": {"name": "none", "key": "k"}}}]);
    node.create("noenv", json!({"containers": [env]})).await;
    let waits = |name: &'static str, reason: &'static str| {
        let node = &node;
        async move {
            let wanted =
                |pod: &serde_json::Value| pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == reason;
            node.wait(name, reason, wanted).await
        }
    };
    let crashed = waits("crash", "CrashLoopBackOff").await;
    let status = &crashed["status"]["containerStatuses"][0];
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 1);
    assert!(
        status["state"]["waiting"]["message"]
            .as_str()
            .unwrap()
            .starts_with("back-off 10s restarting failed container=c")
    );
    assert_eq!(crashed["status"]["phase"], "Running");
    waits("noimage", "ErrImageNeverPull").await;
    waits("noenv", "CreateContainerConfigError").await;
    for name in ["crash", "noimage", "noenv"] {
        node.delete(name).await;
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_https_api_shows_logs_and_runs_commands() {
    let Some(node) = TestNode::start().await else { return };
    let script = "echo one; echo two >&2; sleep 2; echo three; sleep 1000";
    node.create("talk", json!({"containers": [shell("c", script)], "terminationGracePeriodSeconds": 1})).await;
    let pod = node.wait_ready("talk").await;

    assert_eq!(node.get("/pods", false).await.0, 401);
    assert_eq!(node.get("/healthz", true).await, (200, "ok".into()));
    let (_, pods) = node.get("/pods", true).await;
    assert!(pods.contains(pod["metadata"]["uid"].as_str().unwrap()));
    let (_, lines) = node.get("/containerLogs/default/talk/c?limitBytes=11&follow=true", true).await;
    assert_eq!(lines, "one\ntwo\nthr");
    let (_, lines) = node.get("/containerLogs/default/talk/c?tailLines=1&timestamps=true", true).await;
    assert!(lines.starts_with("20") && lines.ends_with("Z three\n"), "{lines}");
    assert_eq!(node.get("/containerLogs/default/talk/none", true).await.0, 404);
    assert_eq!(node.get("/containerLogs/default/talk/c?previous=true", true).await.0, 400);
    let (code, summary) = node.get("/stats/summary", true).await;
    assert_eq!(code, 200);
    assert!(summary.contains("workingSetBytes"), "{summary}");
    let (_, metrics) = node.get("/metrics/resource", true).await;
    assert!(metrics.contains("pod_memory_working_set_bytes{namespace=\"default\",pod=\"talk\"}"), "{metrics}");

    let (status, output) = exec(&node, "/exec/default/talk/c?command=echo&command=hello&output=1&error=1").await;
    assert_eq!((status, output.as_str()), (101, "hello\n"));
    node.delete("talk").await;
    node.stop().await;
}

/// Runs a command over a WebSocket; gives the status of the handshake and what came on standard output.
async fn exec(node: &TestNode, path: &str) -> (u16, String) {
    use futures::StreamExt;
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;
    let mut request = format!("wss://node{path}").into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "v4.channel.k8s.io".parse().unwrap());
    let (mut socket, answer) = tokio_tungstenite::client_async(request, node.connect(true).await).await.unwrap();
    let mut output = String::new();
    while let Some(Ok(message)) = socket.next().await {
        let data = message.into_data();
        if data.first() == Some(&1) {
            output.push_str(std::str::from_utf8(&data[1..]).unwrap());
        }
    }
    (answer.status().as_u16(), output)
}
