//! kubectl 1.36 simply works: every verb against a real server and real containers.

use kube1_test::{Cluster, Output, eventually};

fn ok(output: Output, expected: &str) {
    assert!(output.success && output.stdout.contains(expected), "expected {expected:?} from {output}");
}

fn with_deployment() -> Cluster {
    let cluster = Cluster::start(&[]);
    cluster.import_images(1);
    let web = ["create", "deployment", "web", "--image=kube1.local/busybox:1", "--replicas=2", "--", "sleep", "100000"];
    cluster.k(&web);
    cluster.k(&["rollout", "status", "deployment/web", "--timeout=120s"]);
    cluster
}

#[test]
fn kubectl_reads_and_writes_objects() {
    let cluster = Cluster::start(&["--disable-agent"]);
    let k = |args: &[&str]| cluster.kubectl(args);
    ok(k(&["create", "configmap", "c", "--from-literal=a=1"]), "configmap/c created");
    ok(k(&["get", "configmaps", "c"]), "NAME");
    ok(k(&["get", "configmaps", "c", "-o", "yaml"]), "a: \"1\"");
    ok(k(&["get", "configmaps", "c", "-o", "wide"]), "AGE");
    ok(k(&["get", "configmaps", "-o", "custom-columns=N:.metadata.name"]), "c");
    ok(k(&["label", "configmap", "c", "tier=x"]), "labeled");
    ok(k(&["get", "configmaps", "-l", "tier in (x,y)", "-o", "name"]), "configmap/c");
    ok(k(&["annotate", "configmap", "c", "note=y"]), "annotated");
    ok(k(&["patch", "configmap", "c", "-p", "{\"data\":{\"b\":\"2\"}}"]), "patched");
    ok(k(&["patch", "configmap", "c", "--type=json", "-p", "[{\"op\":\"remove\",\"path\":\"/data/a\"}]"]), "patched");
    ok(k(&["describe", "configmap", "c"]), "tier=x");
    ok(k(&["api-resources"]), "deployments");
    ok(k(&["api-versions"]), "apps/v1");
    ok(k(&["explain", "pod.spec.containers.image"]), "FIELD: image");
    ok(k(&["cluster-info"]), "is running at");
    ok(k(&["version"]), "Server Version: v1.36");
    ok(k(&["auth", "can-i", "create", "pods"]), "yes");
    ok(k(&["auth", "whoami"]), "kubernetes-admin");
    let no = k(&["auth", "can-i", "list", "secrets", "--as", "nobody"]);
    assert!(no.stdout.contains("no"), "{no}");
    let server_side = |manifest: &str, args: &[&str]| {
        cluster.kubectl_with(&[&["apply", "--server-side", "-f", "-"], args].concat(), manifest)
    };
    let manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: s}\ndata: {a: \"1\"}\n";
    ok(server_side(manifest, &[]), "serverside-applied");
    let conflict = server_side(&manifest.replace("\"1\"", "\"2\""), &["--field-manager=other"]);
    assert!(!conflict.success && conflict.stderr.contains("conflict with \"kubectl\""), "{conflict}");
    ok(
        server_side(&manifest.replace("\"1\"", "\"2\""), &["--field-manager=other", "--force-conflicts"]),
        "serverside-applied",
    );
    let diff = cluster
        .kubectl_with(&["diff", "-f", "-"], "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {z: \"9\"}\n");
    assert!(diff.stdout.contains("+  z: \"9\""), "{diff}");
    ok(cluster.kubectl_with(&["replace", "-f", "-"], manifest), "replaced");
    ok(k(&["create", "namespace", "n"]), "created");
    ok(k(&["create", "secret", "generic", "x", "-n", "n", "--from-literal=k=v"]), "created");
    ok(k(&["create", "serviceaccount", "robot", "-n", "n"]), "created");
    ok(k(&["create", "token", "robot", "-n", "n"]), "ey");
    ok(k(&["create", "role", "r", "-n", "n", "--verb=get", "--resource=secrets"]), "created");
    ok(k(&["create", "rolebinding", "b", "-n", "n", "--role=r", "--serviceaccount=n:robot"]), "created");
    ok(k(&["auth", "can-i", "get", "secrets", "-n", "n", "--as", "system:serviceaccount:n:robot"]), "yes");
    ok(k(&["create", "quota", "q", "-n", "n", "--hard=configmaps=3"]), "created");
    ok(k(&["delete", "namespace", "n", "--timeout=60s"]), "deleted");
    let gone = k(&["get", "namespace", "n"]);
    assert!(gone.stderr.contains("NotFound"), "{gone}");
    ok(k(&["delete", "configmap", "--all"]), "deleted");
}

#[test]
fn kubectl_works_with_running_pods() {
    let cluster = with_deployment();
    let k = |args: &[&str]| cluster.kubectl(args);
    ok(k(&["get", "all"]), "deployment.apps/web");
    ok(k(&["describe", "deployment", "web"]), "ScalingReplicaSet");
    ok(
        k(&[
            "run",
            "one",
            "--image=kube1.local/busybox:1",
            "--restart=Never",
            "--",
            "sh",
            "-c",
            "echo first; sleep 100000",
        ]),
        "pod/one created",
    );
    ok(k(&["wait", "pod/one", "--for=condition=Ready", "--timeout=60s"]), "condition met");
    ok(k(&["describe", "pod", "one"]), "Started");
    ok(k(&["logs", "one"]), "first");
    ok(k(&["exec", "one", "--", "echo", "inside"]), "inside");
    let input = cluster.kubectl_with(&["exec", "-i", "one", "--", "cat"], "through\n");
    ok(input, "through");
    ok(cluster.old_kubectl(&["exec", "one", "--", "echo", "over SPDY"]), "over SPDY");
    ok(cluster.old_kubectl(&["logs", "one"]), "first");
    let status = k(&["exec", "one", "--", "sh", "-c", "exit 7"]);
    assert!(!status.success && status.stderr.contains("exit code 7"), "{status}");
    let attached = cluster.kubectl_with(
        &["run", "-i", "--rm", "two", "--image=kube1.local/busybox:1", "--restart=Never", "--", "cat"],
        "attached\n",
    );
    ok(attached, "attached");
    ok(k(&["exec", "one", "--", "sh", "-c", "echo copied > /f"]), "");
    let local = cluster.kubeconfig().with_file_name("copied");
    ok(k(&["cp", "one:/f", &local.display().to_string()]), "");
    assert_eq!(std::fs::read_to_string(&local).expect("the copy"), "copied\n");
    ok(k(&["scale", "deployment", "web", "--replicas=3"]), "scaled");
    ok(k(&["rollout", "status", "deployment/web", "--timeout=60s"]), "successfully rolled out");
    ok(k(&["set", "env", "deployment/web", "A=b"]), "env updated");
    ok(k(&["rollout", "status", "deployment/web", "--timeout=120s"]), "successfully rolled out");
    ok(k(&["rollout", "history", "deployment/web"]), "2");
    ok(k(&["rollout", "undo", "deployment/web"]), "rolled back");
    ok(k(&["rollout", "restart", "deployment/web"]), "restarted");
    ok(k(&["rollout", "status", "deployment/web", "--timeout=120s"]), "successfully rolled out");
    ok(k(&["expose", "deployment", "web", "--port=80"]), "exposed");
    eventually("endpoints", || {
        let slices = k(&["get", "endpointslices", "-o", "jsonpath={.items[*].endpoints[*].addresses}"]);
        if slices.stdout.contains("10.42.") { Ok(()) } else { Err(slices) }
    });
    ok(k(&["autoscale", "deployment", "web", "--min=1", "--max=3"]), "autoscaled");
    ok(k(&["taint", "node", "node-1", "a=b:NoSchedule"]), "tainted");
    ok(k(&["taint", "node", "node-1", "a-"]), "untainted");
    ok(k(&["cordon", "node-1"]), "cordoned");
    ok(k(&["uncordon", "node-1"]), "uncordoned");
    let debug = ["debug", "one", "-i", "--image=kube1.local/busybox:1", "--target=one", "--", "echo", "debugged"];
    eventually("debug", || {
        let output = k(&debug);
        if output.stdout.contains("debugged") { Ok(()) } else { Err(output) }
    });
    ok(k(&["delete", "pod", "one", "--grace-period=1"]), "deleted");
}

#[test]
fn kubectl_forwards_ports() {
    let cluster = Cluster::start(&[]);
    cluster.import_images(1);
    cluster.k(&[
        "run",
        "web",
        "--image=kube1.local/busybox:1",
        "--",
        "sh",
        "-c",
        "echo served > /index.html; httpd -f -p 8080 -h /",
    ]);
    cluster.k(&["wait", "pod/web", "--for=condition=Ready", "--timeout=60s"]);
    let kubectl = kube1_test::tool("kubectl");
    let kubeconfig = cluster.kubeconfig();
    let script = format!(
        "{} --kubeconfig {} port-forward pod/web 18080:8080 >/dev/null 2>&1 & pid=$!; for i in 1 2 3 4 5 6 7 8 9 10; do \
         curl -sm 2 http://127.0.0.1:18080/ && break; sleep 1; done; kill $pid",
        kubectl.display(),
        kubeconfig.display()
    );
    ok(cluster.node(1).shell(&script), "served");
}
