//! Pods on a real node: apiserver, kubelet and containerd together.
#![allow(clippy::unwrap_used)]

#[path = "../../apiserver/tests/support/grpc.rs"]
mod grpc;
mod support;

use std::sync::{Arc, Mutex};

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
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
    let (socket, traced) = (node.containerd.dir.path().join("otlp.sock"), Arc::new(Mutex::new(Vec::new())));
    let told = traced.clone();
    let _collector = grpc::serve(&socket, move |_, message| {
        told.lock().unwrap().extend_from_slice(&message);
        Ok(Vec::new())
    });
    let endpoint = format!("unix://{}", socket.display());
    node.config.tracing = Some(kube1_trace::Settings::new(Some(&endpoint), Some(1_000_000), &mut Vec::new()));
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
    let traced = traced.lock().unwrap();
    for text in ["service.name", "kubelet", "syncPod", "k8s.pod.name", "short", "ContainerStatus"] {
        assert!(traced.windows(text.len()).any(|part| part == text.as_bytes()), "no span tells of {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crashes_wait_and_failures_say_why() {
    let Some(node) = TestNode::start().await else { return };
    node.create("crash", json!({"containers": [shell("c", "echo no such database; exit 1")]})).await;
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
    assert!(status["state"]["waiting"]["message"].as_str().unwrap().ends_with("; it last said: no such database"));
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
    let script = "echo one; sleep 0.3; echo two >&2; sleep 2; echo three; sleep 1000";
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
    let (code, index) = node.get("/logs/", true).await;
    assert!(code == 200 && index.contains("<pre>"), "{code} {index}");
    let (_, metrics) = node.get("/metrics/resource", true).await;
    assert!(metrics.contains("pod_memory_working_set_bytes{namespace=\"default\",pod=\"talk\"}"), "{metrics}");

    // The fourth version is the runtime's own; the fifth is translated by the kubelet.
    for version in ["v4.channel.k8s.io", "v5.channel.k8s.io"] {
        let path = "/exec/default/talk/c?command=echo&command=hello&output=1&error=1";
        let (status, output) = exec(&node, path, version).await;
        assert_eq!((status, output.as_str()), (101, "hello\n"), "{version}");
    }
    for (path, start) in
        [("/statusz", "\nkubelet statusz\n"), ("/flagz", "\nkubelet flagz\n"), ("/healthz/syncloop", "ok")]
    {
        let (code, page) = node.get(path, true).await;
        assert!(code == 200 && page.starts_with(start), "{path}: {code} {page}");
    }
    let (code, message) = node.send("POST", "/checkpoint/default/talk/none", true).await;
    assert_eq!((code, message.as_str()), (404, "container none does not exist\n"));
    node.delete("talk").await;
    node.stop().await;
}

/// Runs a command over a WebSocket; gives the status of the handshake and what came on standard output.
async fn exec(node: &TestNode, path: &str, version: &str) -> (u16, String) {
    use futures::StreamExt;
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;
    let mut request = format!("wss://node{path}").into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", version.parse().unwrap());
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_hooks_sidecars_and_order() {
    let Some(node) = TestNode::start().await else { return };
    let mut sidecar = shell(
        "side",
        "trap 'echo side >> /shared/order; exit 0' TERM; echo side > /shared/began; while true; do sleep 0.1; done",
    );
    sidecar["restartPolicy"] = "Always".into();
    sidecar["startupProbe"] = json!({"exec": {"command": ["test", "-e", "/shared/began"]}, "periodSeconds": 1});
    let mut main = shell(
        "main",
        "cat /shared/began > /shared/main; trap 'echo main >> /shared/order; exit 0' TERM; while true; do sleep 0.1; done",
    );
    main["lifecycle"] = json!({
        "postStart": {"exec": {"command": ["sh", "-c", "echo post > /shared/post"]}},
        "preStop": {"exec": {"command": ["sh", "-c", "echo pre >> /shared/order"]}},
    });
    let mounts = json!([{"name": "shared", "mountPath": "/shared"}]);
    for container in [&mut sidecar, &mut main] {
        container["volumeMounts"] = mounts.clone();
    }
    let shared = node.containerd.dir.path().join("shared");
    let volume = json!({"name": "shared", "hostPath": {"path": shared, "type": "DirectoryOrCreate"}});
    let spec = json!({
        "initContainers": [sidecar], "containers": [main], "volumes": [volume], "terminationGracePeriodSeconds": 20,
    });
    node.create("order", spec).await;
    let pod = node.wait_ready("order").await;
    assert_eq!(pod["status"]["initContainerStatuses"][0]["started"], true);
    let read = |name: &str| std::fs::read_to_string(shared.join(name)).unwrap_or_default();
    assert_eq!((read("main").as_str(), read("post").as_str()), ("side\n", "post\n"));
    node.delete("order").await;
    assert_eq!(read("order"), "pre\nmain\nside\n");

    let mut dies = shell("c", "sleep 1; rm /tmp/alive; sleep 1000");
    dies["command"] = json!(["sh", "-c", "touch /tmp/alive; sleep 1; rm /tmp/alive; sleep 1000"]);
    dies["livenessProbe"] =
        json!({"exec": {"command": ["test", "-e", "/tmp/alive"]}, "periodSeconds": 1, "failureThreshold": 1});
    node.create("dies", json!({"containers": [dies], "terminationGracePeriodSeconds": 1})).await;
    let restarted = |pod: &serde_json::Value| pod["status"]["containerStatuses"][0]["restartCount"].as_i64() > Some(0);
    node.wait("dies", "restarted", restarted).await;
    let events = node.events("dies").await;
    assert!(
        events.iter().any(|(r, m)| r == "Killing" && m == "Container c failed liveness probe, will be restarted"),
        "{events:?}"
    );
    assert!(events.iter().any(|(r, m)| r == "Unhealthy" && m.starts_with("Liveness probe failed: ")), "{events:?}");
    node.delete("dies").await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_restarts_all_containers_in_place() {
    let Some(node) = TestNode::start().await else { return };
    let mounts = json!([{"name": "data", "mountPath": "/data"}]);
    let mut init = shell("init", "echo began >> /data/rounds");
    let mut side = shell("side", "sleep 100000");
    side["restartPolicy"] = "Always".into();
    let main = shell("main", "sleep 100000");
    let mut asks =
        shell("asks", "wc -l < /data/rounds; grep -c began /data/rounds | grep -q 2 || exit 42; sleep 100000");
    asks["restartPolicy"] = "Never".into();
    asks["restartPolicyRules"] =
        json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}]);
    for container in [&mut init, &mut asks] {
        container["volumeMounts"] = mounts.clone();
    }
    let spec = json!({
        "restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "volumes": [{"name": "data", "emptyDir": {}}],
        "initContainers": [init, side], "containers": [main, asks],
    });
    node.create("again", spec).await;
    let statuses = |pod: &serde_json::Value| {
        let of = |list: &str| pod["status"][list].as_array().cloned().unwrap_or_default();
        [of("initContainerStatuses"), of("containerStatuses")].concat()
    };
    let again = |pod: &serde_json::Value| {
        condition(pod, "Ready") == "True" && statuses(pod).iter().all(|status| status["restartCount"] == 1)
    };
    let pod = node.wait("again", "all containers restarted", again).await;
    assert_eq!(
        (condition(&pod, "AllContainersRestarting").as_str(), &pod["status"]["phase"]),
        ("False", &json!("Running"))
    );
    let ended: Vec<_> = statuses(&pod).iter().map(|s| s["lastState"]["terminated"]["reason"].clone()).collect();
    assert_eq!(ended, ["Completed", "RestartingAllContainers", "RestartingAllContainers", "Error"]);
    assert_eq!(node.log(&pod, "asks", 1).trim(), "2");
    node.delete("again").await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mounts_follow_their_sources_and_jobs_end() {
    let Some(node) = TestNode::start().await else { return };
    let maps: kube::Api<k8s_openapi::api::core::v1::ConfigMap> = kube::Api::namespaced(node.admin.clone(), "default");
    let map = |value: &str| serde_json::from_value(json!({"metadata": {"name": "m"}, "data": {"k": value}})).unwrap();
    maps.create(&Default::default(), &map("old")).await.unwrap();
    let mut container = shell(
        "c",
        "cat /sub/k; until grep -q new /m/k; do sleep 0.1; done; cat /etc/labels; id -u; id -G; ls -ld /data | cut -c1-10",
    );
    container["volumeMounts"] = json!([
        {"name": "m", "mountPath": "/m"},
        {"name": "m", "mountPath": "/sub/k", "subPath": "k"},
        {"name": "labels", "mountPath": "/etc/labels", "subPath": "labels"},
        {"name": "data", "mountPath": "/data"},
    ]);
    let spec = json!({
        "restartPolicy": "Never",
        "securityContext": {"runAsUser": 1000, "runAsGroup": 3000, "fsGroup": 2000},
        "containers": [container],
        "volumes": [
            {"name": "m", "configMap": {"name": "m"}},
            {"name": "labels", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
            {"name": "data", "emptyDir": {}},
        ],
    });
    node.create("job", spec).await;
    node.wait_phase("job", "Running").await;
    maps.replace("m", &Default::default(), &map("new\n")).await.unwrap();
    let pod = node.wait_phase("job", "Succeeded").await;
    assert_eq!(node.log(&pod, "c", 0), "oldapp=\"job\"1000\n3000 2000\ndrwxrwsrwx\n");
    let ready = pod["status"]["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Ready").unwrap();
    assert_eq!(ready["reason"], "PodCompleted");
    node.delete("job").await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn static_pods_run_and_are_mirrored() {
    let Some(node) = TestNode::start().await else { return };
    let manifest = node.config.static_pod_dir.join("web.yaml");
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  terminationGracePeriodSeconds: 1\n  hostNetwork: true\n  containers: [{name: c, image: 'kube1.local/busybox:1', command: [sleep, '1000']}]\n";
    std::fs::create_dir_all(&node.config.static_pod_dir).unwrap();
    std::fs::write(&manifest, text).unwrap();
    let pod = node.wait_ready("web-node-1").await;
    assert_eq!(pod["metadata"]["annotations"]["kubernetes.io/config.source"], "file");
    assert_eq!(pod["status"]["podIP"], "127.0.0.1");
    node.pods().delete("web-node-1", &kube::api::DeleteParams::default().grace_period(0)).await.unwrap();
    let again = node.wait("web-node-1", "mirrored again", |new| {
        new["metadata"]["uid"] != pod["metadata"]["uid"] && condition(new, "Ready") == "True"
    });
    assert_eq!(
        again.await["status"]["containerStatuses"][0]["containerID"],
        pod["status"]["containerStatuses"][0]["containerID"]
    );
    std::fs::remove_file(manifest).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    let runs = || async { !node.containerd.runtime().list_pod_sandboxes(Default::default()).await.unwrap().is_empty() };
    while runs().await || node.pods().get_opt("web-node-1").await.unwrap().is_some() {
        assert!(std::time::Instant::now() < deadline, "the static pod stays");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn running_pods_are_resized_debugged_and_ended_in_time() {
    let Some(node) = TestNode::start().await else { return };
    let mut container = shell("c", "sleep 1000");
    container["resources"] = json!({"requests": {"cpu": "100m"}, "limits": {"memory": "64Mi", "cpu": "500m"}});
    node.create(
        "grow",
        json!({"containers": [container], "shareProcessNamespace": true, "terminationGracePeriodSeconds": 1}),
    )
    .await;
    let pod = node.wait_ready("grow").await;
    assert_eq!(pod["status"]["qosClass"], "Burstable");
    let uid = pod["metadata"]["uid"].as_str().unwrap().to_owned();
    let id = pod["status"]["containerStatuses"][0]["containerID"].as_str().unwrap().replace("containerd://", "");
    let group = format!("{}/kubepods/burstable/pod{uid}", node.config.cgroup_root);
    let read =
        |controller: &str, path: &str| std::fs::read_to_string(format!("/sys/fs/cgroup/{controller}/{group}/{path}"));
    if let Ok(quota) = read("cpu", &format!("{id}/cpu.cfs_quota_us")) {
        assert_eq!(quota.trim(), "50000");
        assert_eq!(read("memory", "memory.limit_in_bytes").unwrap().trim(), (64 << 20).to_string());
    }
    let resize = |cpu: &str| {
        let resources = json!({"requests": {"cpu": cpu}, "limits": {"memory": "128Mi", "cpu": cpu}});
        kube::api::Patch::Strategic(json!({"spec": {"containers": [{"name": "c", "resources": resources}]}}))
    };
    let params = kube::api::PatchParams::default();
    node.pods().patch_subresource("resize", "grow", &params, &resize("800m")).await.unwrap();
    node.wait("grow", "resized", |pod| pod["status"]["containerStatuses"][0]["resources"]["limits"]["cpu"] == "800m")
        .await;
    if let Ok(quota) = read("cpu", &format!("{id}/cpu.cfs_quota_us")) {
        assert_eq!(quota.trim(), "80000");
        assert_eq!(read("memory", &format!("{id}/memory.limit_in_bytes")).unwrap().trim(), (128 << 20).to_string());
    }
    // Another pod leaves too little for more.
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap().matches("processor\t").count();
    let mut rest = shell("c", "sleep 1000");
    rest["resources"] = json!({"requests": {"cpu": format!("{}", cpus - 1)}});
    node.create("rest", json!({"containers": [rest], "terminationGracePeriodSeconds": 1})).await;
    node.wait_ready("rest").await;
    node.pods().patch_subresource("resize", "grow", &params, &resize("1500m")).await.unwrap();
    let stuck = node.wait("grow", "stuck", |pod| condition(pod, "PodResizePending") == "True").await;
    assert_eq!(stuck["status"]["containerStatuses"][0]["resources"]["limits"]["cpu"], "800m");
    // What waits for room takes none.
    let mut beside = shell("c", "sleep 1000");
    beside["resources"] = json!({"requests": {"cpu": "100m"}});
    node.create("beside", json!({"containers": [beside], "terminationGracePeriodSeconds": 1})).await;
    node.wait_ready("beside").await;
    node.pods().patch_subresource("resize", "grow", &params, &resize("700m")).await.unwrap();
    // What is made smaller shrinks below a pod limit that is no longer looser.
    let shrunk =
        |pod: &serde_json::Value| pod["status"]["containerStatuses"][0]["resources"]["limits"]["cpu"] == "700m";
    let pod = node.wait("grow", "resized again", shrunk).await;
    assert_eq!([condition(&pod, "PodResizePending"), condition(&pod, "PodResizeInProgress")], ["", ""]);
    if let Ok(quota) = read("cpu", "cpu.cfs_quota_us") {
        assert_eq!(quota.trim(), "70000");
    }

    let debug = json!({"spec": {"ephemeralContainers": [{
        "name": "debug", "image": "kube1.local/busybox:1", "targetContainerName": "c",
        "command": ["sh", "-c", "ps | grep -c 'sleep 100[0]'"],
    }]}});
    node.pods()
        .patch_subresource("ephemeralcontainers", "grow", &params, &kube::api::Patch::Strategic(debug))
        .await
        .unwrap();
    let debugged = |pod: &serde_json::Value| {
        pod["status"]["ephemeralContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 0
    };
    let pod = node.wait("grow", "debugged", debugged).await;
    assert_eq!(node.log(&pod, "debug", 0), "1\n");

    node.create("late", json!({"containers": [shell("c", "sleep 1000")], "activeDeadlineSeconds": 2, "terminationGracePeriodSeconds": 1})).await;
    let late = node.wait_phase("late", "Failed").await;
    assert_eq!(late["status"]["reason"], "DeadlineExceeded");
    let mut huge = shell("c", "true");
    huge["resources"] = json!({"requests": {"cpu": "1000"}});
    node.create("huge", json!({"containers": [huge]})).await;
    let refused = node.wait_phase("huge", "Failed").await;
    assert_eq!(refused["status"]["reason"], "OutOfcpu");
    assert!(refused["status"]["containerStatuses"].is_null(), "{refused}");
    let mut nowhere = shell("c", "true");
    nowhere["image"] = "127.0.0.1:9/none:1".into();
    node.create("nowhere", json!({"containers": [nowhere]})).await;
    node.wait("nowhere", "backing off", |pod| {
        let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
        waiting["reason"] == "ImagePullBackOff"
            && waiting["message"].as_str().unwrap().contains("ErrImagePull: failed to pull image")
    })
    .await;
    let whole =
        |cpu: &str| json!({"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": cpu, "memory": "64Mi"}});
    let spec = json!({"containers": [shell("c", "sleep 1000")], "resources": whole("100m"), "terminationGracePeriodSeconds": 1});
    node.create("whole", spec).await;
    let pod = node.wait_ready("whole").await;
    assert_eq!(pod["status"]["resources"], whole("100m"));
    assert_eq!(pod["status"]["allocatedResources"], whole("100m")["requests"]);
    let patch = kube::api::Patch::Strategic(json!({"spec": {"resources": whole("200m")}}));
    node.pods().patch_subresource("resize", "whole", &params, &patch).await.unwrap();
    node.wait("whole", "resized", |pod| pod["status"]["resources"] == whole("200m")).await;
    let group =
        format!("{}/kubepods/burstable/pod{}", node.config.cgroup_root, pod["metadata"]["uid"].as_str().unwrap());
    if let Ok(quota) = std::fs::read_to_string(format!("/sys/fs/cgroup/cpu/{group}/cpu.cfs_quota_us")) {
        assert_eq!(quota.trim(), "20000");
    }
    let mut full = shell("c", "head -c 1000000 /dev/zero > /v/x; sleep 1000");
    full["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
    let volume = json!({"name": "v", "emptyDir": {"sizeLimit": "64Ki"}});
    node.create("full", json!({"containers": [full], "volumes": [volume], "terminationGracePeriodSeconds": 1})).await;
    let evicted = node.wait_phase("full", "Failed").await;
    assert_eq!(evicted["status"]["reason"], "Evicted");
    for name in ["grow", "rest", "beside", "late", "huge", "nowhere", "whole", "full"] {
        node.delete(name).await;
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_may_be_an_image() {
    let Some(node) = TestNode::start().await else { return };
    let version = node.containerd.runtime().version().await.unwrap().runtime_version;
    let number = |n| version.trim_start_matches('v').split('.').nth(n).and_then(|v| v.parse::<u32>().ok()).unwrap_or(0);
    if (number(0), number(1)) < (2, 1) {
        eprintln!("skipped: containerd {version} cannot mount images");
        return node.stop().await;
    }
    let mut container = shell("c", "ls /img/bin/busybox /part/busybox; touch /part/y; touch /img/x");
    let part = json!({"name": "img", "mountPath": "/part", "subPathExpr": "$(DIR)"});
    container["env"] = json!([{"name": "DIR", "value": "bin"}]);
    container["volumeMounts"] = json!([{"name": "img", "mountPath": "/img"}, part]);
    let volume = json!({"name": "img", "image": {"reference": "kube1.local/busybox:1", "pullPolicy": "IfNotPresent"}});
    node.create("img", json!({"restartPolicy": "Never", "containers": [container], "volumes": [volume]})).await;
    let pod = node.wait_phase("img", "Failed").await;
    let log = node.log(&pod, "c", 0);
    assert!(log.starts_with("/img/bin/busybox\n/part/busybox\n"), "{log}");
    assert_eq!(log.matches("Read-only").count(), 2, "{log}");
    node.delete("img").await;
    let left = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    assert!(!left.contains(uid), "mounts of the pod are left");
    node.stop().await;
}

/// A block device that is a file; gone with this.
struct Loop {
    name: String,
    _dir: tempfile::TempDir,
}

impl Loop {
    /// `None` where there are no such devices.
    fn new() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("disk");
        std::fs::File::create(&file).unwrap().set_len(16 << 20).unwrap();
        let made = std::process::Command::new("losetup").args(["--find", "--show"]).arg(&file).output().ok()?;
        let name = String::from_utf8_lossy(&made.stdout).trim().to_owned();
        made.status.success().then_some(Self { name, _dir: dir })
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = std::process::Command::new("losetup").args(["--detach", &self.name]).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_volume_may_be_a_device() {
    let (Some(node), Some(raw), Some(blank)) = (TestNode::start().await, Loop::new(), Loop::new()) else { return };
    for (name, mode, path) in [("raw", "Block", &raw.name), ("fs", "Filesystem", &blank.name)] {
        let spec = json!({"capacity": {"storage": "16Mi"}, "accessModes": ["ReadWriteOnce"], "volumeMode": mode,
            "local": {"path": path}, "claimRef": {"namespace": "default", "name": name},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "Exists"}]}]}}});
        let volumes: kube::Api<PersistentVolume> = kube::Api::all(node.admin.clone());
        let volume = json!({"metadata": {"name": name}, "spec": spec});
        volumes.create(&Default::default(), &serde_json::from_value(volume).unwrap()).await.unwrap();
        let claims: kube::Api<PersistentVolumeClaim> = kube::Api::namespaced(node.admin.clone(), "default");
        let claim = json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"], "volumeMode": mode,
            "volumeName": name, "storageClassName": "", "resources": {"requests": {"storage": "1Mi"}}}});
        claims.create(&Default::default(), &serde_json::from_value(claim).unwrap()).await.unwrap();
        let bound = kube::api::Patch::Merge(json!({"status": {"phase": "Bound"}}));
        claims.patch_status(name, &Default::default(), &bound).await.unwrap();
    }
    let script = "test -b /dev/raw && echo kept > /dev/raw && head -c 4 /dev/raw && echo file > /fs/a && df -T /fs | grep -c ext4";
    let mut container = shell("c", script);
    container["volumeDevices"] = json!([{"name": "raw", "devicePath": "/dev/raw"}]);
    container["volumeMounts"] = json!([{"name": "fs", "mountPath": "/fs"}]);
    let volumes = ["raw", "fs"].map(|name| json!({"name": name, "persistentVolumeClaim": {"claimName": name}}));
    node.create("disks", json!({"restartPolicy": "Never", "containers": [container], "volumes": volumes})).await;
    let pod =
        node.wait("disks", "over", |pod| ["Succeeded", "Failed"].iter().any(|p| pod["status"]["phase"] == *p)).await;
    assert_eq!(node.log(&pod, "c", 0), "kept1\n", "{}", pod["status"]);
    node.delete("disks").await;
    node.stop().await;
}
