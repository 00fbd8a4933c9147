//! One server with its worker: what runs, what is answered, and what survives.

use kube1_test::{Cluster, eventually};

const WORKLOADS: &str = include_str!("manifests/workloads.yaml");

/// Shows what its volumes hold: files, its token's namespace, and memory.
const AFTER_RESTART: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: late}
data: {a: "b\n"}
---
apiVersion: v1
kind: Pod
metadata: {name: late}
spec:
  restartPolicy: Never
  volumes: [{name: map, configMap: {name: late}}, {name: memory, emptyDir: {medium: Memory}}]
  containers:
  - name: c
    image: kube1.local/busybox:1
    command: [sh, -c, "cat /map/a; cat /var/run/secrets/kubernetes.io/serviceaccount/namespace; echo; stat -f -c %T /memory"]
    volumeMounts: [{name: map, mountPath: /map}, {name: memory, mountPath: /memory}]
"#;

fn contains(output: String, expected: &str) -> Result<(), String> {
    if output.contains(expected) { Ok(()) } else { Err(output) }
}

fn started() -> Cluster {
    let cluster = Cluster::start(&[]);
    cluster.import_images(1);
    cluster
}

/// `wget` from inside a pod.
fn fetch(cluster: &Cluster, url: &str) -> String {
    let output = cluster.kubectl(&["exec", "client", "--", "timeout", "5", "wget", "-qO-", url]);
    format!("{}{}", output.stdout, output.stderr)
}

#[test]
fn a_deployment_is_reached_by_every_kind_of_address_and_outlives_kube1() {
    let mut cluster = started();
    cluster.apply(WORKLOADS);
    cluster.k(&["rollout", "status", "deployment/web", "--timeout=120s"]);
    cluster.k(&["wait", "pod/client", "--for=condition=Ready", "--timeout=60s"]);
    let service_ip = cluster.k(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"]);
    for url in [format!("http://{service_ip}/"), "http://web/".into(), "http://web.default.svc.cluster.local/".into()] {
        eventually(&url, || contains(fetch(&cluster, &url), "hello from web-"));
    }
    let line = format!("curl -sm 5 http://{}:30080/", cluster.node(1).address);
    eventually("NodePort", || contains(cluster.node(1).shell(&line).stdout, "hello from web-"));

    // kill -9: nothing restarts, Services answer meanwhile, and everything is adopted.
    let running = || {
        cluster.k(&["get", "pods", "-o", "jsonpath={range .items[*]}{.status.containerStatuses[*].containerID}{.status.containerStatuses[*].restartCount}{\"\\n\"}{end}"])
    };
    let before = running();
    cluster.node_mut(1).kill();
    eventually("NodePort without kube1", || contains(cluster.node(1).shell(&line).stdout, "hello from web-"));
    cluster.node_mut(1).start();
    cluster.wait_node_ready("node-1");
    let running = || {
        cluster.kubectl(&["get", "pods", "-o", "jsonpath={range .items[*]}{.status.containerStatuses[*].containerID}{.status.containerStatuses[*].restartCount}{\"\\n\"}{end}"]).stdout
    };
    eventually("the same containers", || if running() == before { Ok(()) } else { Err(running()) });
    contains(fetch(&cluster, &format!("http://{service_ip}/")), "hello from web-").unwrap_or_else(|e| panic!("{e}"));
    // Each start of a node makes a mount namespace of its own; volumes must be mounted where containerd is.
    cluster.apply(AFTER_RESTART);
    cluster.k(&["wait", "pod/late", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s"]);
    assert_eq!(cluster.k(&["logs", "late"]), "b\ndefault\ntmpfs\n");
    cluster.k(&["delete", "pod", "late"]);

    // kill -9 of containerd: it comes back, pods are kept.
    let containerd = cluster.node(1).containerd_pid().expect("containerd runs");
    cluster.node(1).shell(&format!("kill -9 {containerd}"));
    eventually("a new containerd", || match cluster.node(1).containerd_pid() {
        Some(pid) if pid != containerd => Ok(()),
        other => Err(format!("{other:?}")),
    });
    eventually("exec again", || contains(fetch(&cluster, &format!("http://{service_ip}/")), "hello from web-"));
    assert_eq!(running(), before);
}

#[test]
fn workloads_of_every_kind_run() {
    let cluster = started();
    cluster.apply(include_str!("manifests/controllers.yaml"));
    cluster.k(&["rollout", "status", "statefulset/db", "--timeout=120s"]);
    cluster.k(&["rollout", "status", "daemonset/agent", "--timeout=60s"]);
    let names = cluster.k(&["get", "pods", "-l", "app=db", "-o", "jsonpath={.items[*].metadata.name}"]);
    assert_eq!(names, "db-0 db-1");
    cluster.k(&["wait", "job/good", "--for=condition=Complete", "--timeout=60s"]);
    cluster.k(&["wait", "job/bad", "--for=condition=Failed", "--timeout=120s"]);
    let failed = cluster.k(&[
        "get",
        "job",
        "bad",
        "-o",
        "jsonpath={.status.failed} {.status.conditions[?(@.type==\"Failed\")].reason}",
    ]);
    assert_eq!(failed, "2 BackoffLimitExceeded");
    cluster.k(&["wait", "pod/sidecar", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s"]);
    assert_eq!(cluster.k(&["logs", "sidecar", "-c", "main"]), "served\n");
    cluster.k(&["create", "job", "now", "--from=cronjob/tick"]);
    cluster.k(&["wait", "job/now", "--for=condition=Complete", "--timeout=60s"]);
}

#[test]
fn what_is_wrong_is_said_where_the_user_is() {
    let cluster = Cluster::start(&["--disable-agent"]);
    let refused = |manifest: &str| {
        let output = cluster.kubectl_with(&["apply", "-f", "-"], manifest);
        assert!(!output.success, "{output}");
        output.stderr
    };
    let pod = |spec: &str| format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec: {spec}\n");
    assert!(
        refused(&pod("{containers: [{name: a, image: i, imagge: x}]}"))
            .contains("unknown field \"spec.containers[0].imagge\"")
    );
    assert!(
        refused(&pod("{containers: [{name: A_b, image: i}]}"))
            .contains("spec.containers[0].name: Invalid value: \"A_b\"")
    );
    assert!(refused(&pod("{containers: []}")).contains("spec.containers: Required value"));
    assert!(refused("apiVersion: v1\nkind: [").contains("error"));
    assert!(
        refused("apiVersion: v2\nkind: Pod\nmetadata: {name: p}\n")
            .contains("no matches for kind \"Pod\" in version \"v2\"")
    );
    assert_eq!(cluster.k(&["get", "pods", "-o", "name"]), "");
    let anonymous = cluster.node(1).shell(&format!(
        "curl -sk https://{}:6443/api/v1/secrets; curl -sk https://{}:6443/livez",
        cluster.node(1).address,
        cluster.node(1).address
    ));
    assert!(
        anonymous.stdout.contains("\"reason\":\"Forbidden\"") || anonymous.stdout.contains("\"reason\": \"Forbidden\""),
        "{anonymous}"
    );
    assert!(anonymous.stdout.ends_with("ok"), "{anonymous}");
    let address = &cluster.node(1).address;
    let heads = cluster.node(1).shell(&format!(
        "for v in --http1.1 --http2; do curl -sk $v -I -o /dev/null -w '%{{http_code}} ' https://{address}:6443/livez; \
         curl -sk $v -I -w '%{{http_code}} ' -o /dev/null https://{address}:6443/api/v1/nodes; done"
    ));
    // Anonymous clients may only GET what tells the health.
    assert_eq!(heads.stdout, "403 403 403 403 ", "{heads}");
    let taken = cluster.kube1(&["--data-dir", "/nonexistent/kube1-second", "server", "--disable-agent"]);
    assert!(!taken.success, "{taken}");
    let token = cluster.kube1(&["token", "create"]).stdout;
    let wrong = token.trim().replace(token.trim().split_at(token.trim().len() - 4).1, "zzzz");
    let join = cluster.kube1(&["agent", "--join", &wrong]);
    assert!(!join.success, "{join}");
}

#[test]
fn an_acknowledged_write_survives_a_kill() {
    let mut cluster = Cluster::start(&["--disable-agent"]);
    for number in 0..20 {
        cluster.k(&["create", "configmap", &format!("kept-{number}"), "--from-literal=a=b"]);
    }
    cluster.node_mut(1).kill();
    cluster.node_mut(1).start();
    eventually("all configmaps", || {
        let names = cluster.kubectl(&["get", "configmaps", "-o", "name"]).stdout;
        if names.matches("kept-").count() == 20 { Ok(()) } else { Err(names) }
    });
}
