//! Clients that no one here wrote, against real nodes. What each of them tries is in `test/clients`.

use std::path::{Path, PathBuf};
use std::process::Command;

use kube1_test::{Cluster, Output, run, try_run};

/// Debian's Python, which has Debian's client.
const DEBIAN_PYTHON: &str = "/usr/bin/python3";

/// A file of the clients that are not Debian's; the part it is of is installed beside the project by the first test
/// that needs it.
fn installed(part: &str, file: &str) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../hack/clients");
    Path::new(run(Command::new(script).arg(part)).trim()).join(file)
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name)
}

/// Runs a trial in the network of the server, as the administrator.
fn trial(cluster: &Cluster, command: &mut Command) {
    let output = try_run(command.env("KUBECONFIG", cluster.kubeconfig()), "");
    assert!(output.success, "{output}\n{}", cluster.logs());
    report(&output);
}

/// Shows what a trial said, for those who ask for the output of tests.
fn report(output: &Output) {
    println!("{}\n{}", output.stdout, output.stderr);
}

fn with_images() -> Cluster {
    let cluster = Cluster::start(&[]);
    cluster.import_images(1);
    cluster
}

#[test]
fn the_official_python_client() {
    let python = installed("python", "venv/bin/python");
    let cluster = with_images();
    trial(&cluster, cluster.command(&python).arg(script("python/official.py")));
}

#[test]
fn debians_python_client() {
    let cluster = with_images();
    trial(&cluster, cluster.command(Path::new(DEBIAN_PYTHON)).arg(script("python/official.py")));
}

#[test]
fn the_official_javascript_client() {
    let folder = installed("javascript", "javascript");
    let cluster = with_images();
    // Modules are looked for from where the script is.
    std::fs::copy(script("javascript/official.mjs"), folder.join("official.mjs")).expect("a copy of the script");
    let mut node = cluster.command(&installed("javascript", "venv/bin/node"));
    trial(&cluster, node.arg("--test").arg(folder.join("official.mjs")));
}

/// Debian 12's own build finds no targets in Kubernetes; sid's does.
#[test]
fn prometheus_finds_and_scrapes_everything() {
    let cluster = with_images();
    let mut driver = cluster.command(Path::new(DEBIAN_PYTHON));
    trial(&cluster, driver.arg(script("prometheus.py")).arg(installed("prometheus", "sid/usr/bin/prometheus")));
}

#[test]
fn patroni_keeps_its_leader_in_endpoints_and_in_configmaps() {
    let cluster = with_images();
    trial(&cluster, cluster.command(Path::new(DEBIAN_PYTHON)).arg(script("patroni.py")));
}

#[test]
fn an_operator_with_conversion_and_admission_webhooks() {
    let python = installed("python", "venv/bin/python");
    let cluster = with_images();
    trial(&cluster, cluster.command(&python).arg(script("gadgets.py")));
}

#[test]
fn helm_installs_upgrades_rolls_back_and_removes_a_chart() {
    let python = installed("python", "venv/bin/python");
    let cluster = with_images();
    trial(&cluster, cluster.command(&python).arg(script("helm.py")));
}

#[test]
fn kustomize_makes_applies_and_deletes_objects() {
    let cluster = Cluster::start(&["--disable-agent"]);
    let folder = script("kustomize").display().to_string();
    cluster.k(&["apply", "-k", &folder]);
    assert_eq!(cluster.k(&["get", "service", "made-web", "-o", "jsonpath={.spec.ports[0].port}"]), "81");
    assert_eq!(cluster.k(&["get", "configmaps", "-l", "by=kustomize", "-o", "jsonpath={.items[*].data.size}"]), "3");
    assert!(cluster.k(&["apply", "-k", &folder, "--server-side", "--force-conflicts"]).contains("serverside-applied"));
    assert!(cluster.kubectl(&["diff", "-k", &folder]).success);
    cluster.k(&["delete", "-k", &folder]);
    assert_eq!(cluster.k(&["get", "services,configmaps", "-l", "by=kustomize", "-o", "name"]), "");
}
