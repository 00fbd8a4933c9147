//! A server and an agent joined by token: the overlay, Services and DNS across nodes, and an absent server.

use kube1_test::{Cluster, eventually, tool};

const WORKLOADS: &str = include_str!("manifests/workloads.yaml");

fn contains(output: String, expected: &str) -> Result<(), String> {
    if output.contains(expected) { Ok(()) } else { Err(output) }
}

/// A pod that sleeps on a given node.
fn client_on(node: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: on-{node}, labels: {{app: on-{node}}}}}\nspec:\n  nodeName: {node}\n  \
         terminationGracePeriodSeconds: 0\n  containers:\n  - {{name: sh, image: kube1.local/busybox:1, command: [sleep, \"100000\"]}}\n"
    )
}

fn fetch(cluster: &Cluster, pod: &str, url: &str) -> String {
    let output = cluster.kubectl(&["exec", pod, "--", "timeout", "5", "wget", "-qO-", url]);
    format!("{}{}", output.stdout, output.stderr)
}

#[test]
fn pods_of_both_nodes_reach_services_and_an_agent_lives_on_without_its_server() {
    let mut cluster = Cluster::start(&[]);
    cluster.join(&[]);
    cluster.import_images(1);
    cluster.import_images(2);
    for node in ["node-1", "node-2"] {
        cluster.apply(&client_on(node));
    }
    cluster.apply(WORKLOADS);
    cluster.k(&["rollout", "status", "deployment/web", "--timeout=120s"]);
    for node in ["node-1", "node-2"] {
        cluster.k(&["wait", &format!("pod/on-{node}"), "--for=condition=Ready", "--timeout=60s"]);
    }
    let nodes = cluster.k(&["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].spec.nodeName}"]);
    assert!(nodes.contains("node-1") && nodes.contains("node-2"), "replicas are spread: {nodes}");
    let addresses = cluster.k(&["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].status.podIP}"]);
    let busybox = tool("busybox");
    for node in [1, 2] {
        let pod = format!("on-node-{node}");
        for address in addresses.split(' ') {
            let url = format!("http://{address}:8080/");
            eventually(&format!("{pod} to {url}"), || contains(fetch(&cluster, &pod, &url), "hello from web-"));
        }
        eventually("DNS and ClusterIP", || contains(fetch(&cluster, &pod, "http://web.default/"), "hello from web-"));
        let line = format!("curl -sm 5 http://{}:30080/", cluster.node(node).address);
        eventually("NodePort", || contains(cluster.node(1).shell(&line).stdout, "hello from web-"));
    }

    let ids = "jsonpath={range .items[*]}{.metadata.name}{.status.containerStatuses[*].containerID}{\"\\n\"}{end}";
    let before = cluster.k(&["get", "pods", "-o", ids]);
    cluster.node_mut(1).kill();
    let agent_fetch = format!("curl -sm 5 http://{}:30080/", cluster.node(2).address);
    eventually("Services without the server", || {
        contains(cluster.node(2).shell(&agent_fetch).stdout, "hello from web-")
    });
    let lookup = format!("{} nslookup web.default.svc.cluster.local 10.43.0.10", busybox.display());
    eventually("DNS without the server", || contains(cluster.node(2).shell(&lookup).stdout, "Address"));
    cluster.node_mut(2).kill();
    cluster.node_mut(2).start();
    cluster.node_mut(1).start();
    cluster.wait_node_ready("node-1");
    cluster.wait_node_ready("node-2");
    eventually("the same containers", || {
        let now = cluster.kubectl(&["get", "pods", "-o", ids]).stdout;
        if now == before { Ok(()) } else { Err(now) }
    });
}

#[test]
fn a_drained_node_is_emptied_and_a_kubelet_is_confined_to_its_own() {
    let mut cluster = Cluster::start(&[]);
    cluster.join(&[]);
    cluster.import_images(1);
    cluster.import_images(2);
    cluster.k(&[
        "create",
        "deployment",
        "web",
        "--image=kube1.local/busybox:1",
        "--replicas=2",
        "--",
        "sleep",
        "100000",
    ]);
    cluster.k(&["rollout", "status", "deployment/web", "--timeout=120s"]);
    cluster.k(&["drain", "node-2", "--ignore-daemonsets", "--force", "--timeout=90s"]);
    cluster.k(&["rollout", "status", "deployment/web", "--timeout=120s"]);
    let nodes = cluster.k(&[
        "get",
        "pods",
        "-l",
        "app=web",
        "--field-selector=status.phase=Running",
        "-o",
        "jsonpath={.items[*].spec.nodeName}",
    ]);
    assert!(!nodes.contains("node-2"), "{nodes}");
    cluster.k(&["uncordon", "node-2"]);
    let kubeconfig = cluster.node(2).data_dir.join("agent/kubelet.kubeconfig").display().to_string();
    let as_kubelet = |args: &[&str]| cluster.kubectl(&[&["--kubeconfig", &kubeconfig][..], args].concat());
    let own = as_kubelet(&["get", "node", "node-2"]);
    assert!(own.success, "{own}");
    let other = as_kubelet(&["annotate", "node", "node-1", "a=b"]);
    assert!(!other.success && other.stderr.contains("forbidden"), "{other}");
    let secrets = as_kubelet(&["get", "secrets", "-A"]);
    assert!(!secrets.success && secrets.stderr.contains("forbidden"), "{secrets}");
}
