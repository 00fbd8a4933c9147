"""Helm's own library (version 4) installs, upgrades, rolls back, tests and removes a chart with hooks."""

import json
import pathlib
import subprocess

import helm_python

CHART = str(pathlib.Path(__file__).parent / "chart")
NAMESPACE = "shops"
PATIENT = {"wait": "watcher", "timeout": 180}


def get(*arguments):
    output = subprocess.run(
        ["kubectl", "get", "-n", NAMESPACE, *arguments], capture_output=True, text=True, check=False
    )
    assert output.returncode == 0, output.stderr
    return output.stdout.strip()


def check(message, replicas):
    """The cluster has what a release with these values says."""
    data = json.loads(get("configmap", "web", "-o", "jsonpath={.data}"))
    uid = get("namespace", "kube-system", "-o", "jsonpath={.metadata.uid}")
    assert data == {"message": message, "crates": "true", "cluster": uid}, data
    assert get("crate", "web", "-o", "jsonpath={.spec.label}") == message
    status = json.loads(get("deployment", "web", "-o", "jsonpath={.status}"))
    assert status["readyReplicas"] == status["updatedReplicas"] == replicas, status


def hooks():
    """The jobs that have run."""
    jobs = get("jobs", "-o", "jsonpath={.items[*].metadata.name}")
    return set(jobs.split())


def main():
    print("Helm", helm_python.helm_sdk_version())
    helm = helm_python.Config(namespace=NAMESPACE)
    helm.check_reachable()

    helm.install(CHART, "web", create_namespace=True, namespace=NAMESPACE, **PATIENT)
    check("hello", 2)
    assert hooks() == {"web-pre-install", "web-post-install"}, hooks()

    helm.upgrade(CHART, "web", {"message": "bye", "replicas": 3}, namespace=NAMESPACE, **PATIENT)
    check("bye", 3)

    try:
        helm.upgrade(CHART, "web", {"message": "never", "fail": True}, namespace=NAMESPACE, **PATIENT)
        raise AssertionError("a hook that fails stops the upgrade")
    except helm_python.HelmError as error:
        assert "web-pre-upgrade" in str(error), error
    check("bye", 3)

    helm.rollback("web", version=1, **PATIENT)
    check("hello", 2)
    states = [(release["revision"], release["status"]) for release in helm.history("web")]
    assert sorted(states) == [(1, "superseded"), (2, "superseded"), (3, "failed"), (4, "deployed")], states

    answer = helm.test("web", logs=True, timeout=60)
    assert "hello" in json.dumps(answer), answer

    helm.uninstall("web", **PATIENT)
    assert {"web-pre-delete", "web-post-delete", "web-post-rollback"} <= hooks(), hooks()
    left = get("deployments,services,crates,secrets", "-o", "name")
    assert left == "", left
    assert get("configmaps", "-o", "name") == "configmap/kube-root-ca.crt"


main()
