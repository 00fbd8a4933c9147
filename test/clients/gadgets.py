"""An operator written with kopf, in a pod of a running kube1, with conversion, mutating and validating webhooks.
KUBECONFIG says where; run by the Python of the environment that has kopf."""

import base64
import os
import subprocess
import sys
import tempfile
import time

import yaml
from kubernetes import client, config, utils
from kubernetes.client.rest import ApiException

DEADLINE = 90
HERE = os.path.dirname(os.path.abspath(__file__))
GROUP, PLURAL = "operator.example.com", "gadgets"


def eventually(what, condition):
    """Asks until `condition` gives something true; it may fail meanwhile."""
    end = time.monotonic() + DEADLINE
    while True:
        try:
            value = seen = condition()
        except (ApiException, KeyError, TypeError, utils.FailToCreateError) as error:
            value, seen = None, error
        if value:
            return value
        assert time.monotonic() < end, f"{what}: not within {DEADLINE} s; last seen: {seen}"
        time.sleep(0.2)


def certificate(folder):
    """A certificate for the operator's Service that signs itself."""
    key, crt, name = f"{folder}/tls.key", f"{folder}/tls.crt", "operator.operator.svc"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-keyout", key, "-out", crt, "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"],
        check=True, capture_output=True,
    )
    return [base64.b64encode(open(path, "rb").read()).decode() for path in (crt, key)]


def create(name, words):
    with open(os.path.join(HERE, name)) as file:
        text = file.read()
    for word, value in words.items():
        text = text.replace(word, value)
    for document in yaml.safe_load_all(text):
        utils.create_from_dict(client.ApiClient(), document)


def main():
    config.load_kube_config()
    core, apps, gadgets = client.CoreV1Api(), client.AppsV1Api(), client.CustomObjectsApi()
    core.create_namespace({"metadata": {"name": "operator"}})
    with tempfile.TemporaryDirectory() as folder:
        crt, key = certificate(folder)
    secret = {"metadata": {"name": "operator-certificates"}, "data": {"tls.crt": crt, "tls.key": key}}
    core.create_namespaced_secret("operator", secret)
    create("gadgets.yaml", {"caBundle: CA": f"caBundle: {crt}", "PREFIX": sys.prefix, "SCRIPTS": HERE})
    try:
        trial(core, apps, gadgets, crt)
    except BaseException:
        for pod in core.list_namespaced_pod("operator").items:
            print("---", pod.metadata.name, pod.status.phase)
            print(core.read_namespaced_pod_log(pod.metadata.name, "operator", tail_lines=60))
        raise


def trial(core, apps, gadgets, crt):
    ready = lambda: apps.read_namespaced_deployment("operator", "operator").status.ready_replicas == 1
    eventually("the operator ready", ready)
    create("gadgets_webhooks.yaml", {"caBundle: CA": f"caBundle: {crt}"})

    def get(version="v1", name="one"):
        return gadgets.get_namespaced_custom_object(GROUP, version, "default", PLURAL, name)

    def make(version, name, spec):
        body = {"apiVersion": f"{GROUP}/{version}", "kind": "Gadget", "metadata": {"name": name}, "spec": spec}
        return gadgets.create_namespaced_custom_object(GROUP, version, "default", PLURAL, body)

    # Written in the old version: converted, then changed and judged in the new one.
    made = eventually("a gadget", lambda: make("v1alpha1", "one", {"size": "2"}))
    assert made["spec"] == {"size": "2", "greeting": "hello"}, made
    assert get()["spec"] == {"replicas": 2, "greeting": "hello"}, get()
    eventually("its status", lambda: get()["status"]["phase"] == "Ready" and get("v1alpha1")["status"]["replicas"] == 2)
    deployment = apps.read_namespaced_deployment("one", "default")
    owner = deployment.metadata.owner_references[0]
    assert (owner.kind, owner.controller) == ("Gadget", True), owner
    eventually("an event", lambda: any(e.reason == "Made" for e in core.list_namespaced_event("default").items))

    for version, spec in (("v1", {"replicas": 9}), ("v1alpha1", {"size": "9"})):
        try:
            make(version, "many", spec)
            raise AssertionError("nine replicas were accepted")
        except ApiException as error:
            assert error.status == 422 and "at most 3 replicas" in error.body, error
    try:
        make("v1", "none", {"replicas": "many"})
        raise AssertionError("a wrong type was accepted")
    except ApiException as error:
        assert error.status == 422 and "spec.replicas" in error.body, error

    gadgets.patch_namespaced_custom_object_scale(GROUP, "v1", "default", PLURAL, "one", {"spec": {"replicas": 3}})
    eventually("three replicas", lambda: apps.read_namespaced_deployment("one", "default").status.ready_replicas == 3)
    eventually("three in the old version", lambda: get("v1alpha1")["spec"]["size"] == "3" and get()["status"]["replicas"] == 3)

    # Another pod goes on where the first was.
    old = core.list_namespaced_pod("operator").items[0].metadata.name
    core.delete_namespaced_pod(old, "operator")
    eventually("work resumed", lambda: get()["status"]["resumed"].startswith("operator-") and get()["status"]["resumed"] != old)

    # The finalizer holds the gadget until the operator has said farewell; what it owned goes with it.
    assert get()["metadata"]["finalizers"], get()
    gadgets.delete_namespaced_custom_object(GROUP, "v1", "default", PLURAL, "one")
    eventually("a farewell", lambda: core.read_namespaced_config_map("farewell-one", "default"))
    eventually("no gadget", lambda: not gadgets.list_namespaced_custom_object(GROUP, "v1", "default", PLURAL)["items"])
    eventually("no deployment", lambda: not apps.list_namespaced_deployment("default").items)


if __name__ == "__main__":
    main()
