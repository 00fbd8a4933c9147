"""What the operator does: run by kopf, in a pod."""

import http.server
import json
import os
import ssl
import threading

import kopf
from kubernetes import client, config

CERTIFICATES = os.environ["CERTIFICATES"]
GADGETS = ("operator.example.com", "v1", "gadgets")


class Conversion(http.server.BaseHTTPRequestHandler):
    """The two versions differ in the name and type of one field."""

    def do_POST(self):
        review = json.loads(self.rfile.read(int(self.headers["content-length"])))
        request = review["request"]
        converted = []
        for given in request["objects"]:
            spec = given.get("spec", {})
            if request["desiredAPIVersion"].endswith("/v1"):
                spec["replicas"] = int(spec.pop("size", "1"))
            else:
                spec["size"] = str(spec.pop("replicas"))
            converted.append({**given, "apiVersion": request["desiredAPIVersion"], "spec": spec})
        response = {"uid": request["uid"], "convertedObjects": converted, "result": {"status": "Success"}}
        body = json.dumps({"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def serve_conversion():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{CERTIFICATES}/tls.crt", f"{CERTIFICATES}/tls.key")
    server = http.server.ThreadingHTTPServer(("0.0.0.0", 8444), Conversion)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()


@kopf.on.startup()
def start(settings, **_):
    serve_conversion()
    config.load_incluster_config()
    settings.admission.server = kopf.WebhookServer(
        addr="0.0.0.0", port=8443, certfile=f"{CERTIFICATES}/tls.crt", pkeyfile=f"{CERTIFICATES}/tls.key"
    )


@kopf.on.mutate(*GADGETS, id="greeting")
def greet(spec, patch, **_):
    if "greeting" not in spec:
        patch.spec["greeting"] = "hello"


@kopf.on.validate(*GADGETS, id="limit")
def limit(spec, warnings, **_):
    if spec["replicas"] > 3:
        raise kopf.AdmissionError("a gadget has at most 3 replicas", code=422)
    if spec["replicas"] == 0:
        warnings.append("this gadget does nothing")


def wanted(name, spec):
    labels = {"gadget": name}
    container = {"name": "main", "image": "kube1.local/busybox:1", "command": ["sleep", "10000"]}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container], "terminationGracePeriodSeconds": 0}}
    return {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"replicas": spec["replicas"], "selector": {"matchLabels": labels}, "template": template},
    }


@kopf.on.create(*GADGETS)
def create(name, namespace, spec, body, **_):
    deployment = wanted(name, spec)
    kopf.adopt(deployment)
    client.AppsV1Api().create_namespaced_deployment(namespace, deployment)
    kopf.info(body, reason="Made", message="the deployment is made")


@kopf.on.field(*GADGETS, field="spec.replicas")
def scale(old, new, name, namespace, **_):
    if old is not None:
        client.AppsV1Api().patch_namespaced_deployment(name, namespace, {"spec": {"replicas": new}})


@kopf.on.event("apps", "v1", "deployments", labels={"owned-by-gadget": kopf.ABSENT})
def follow(body, name, namespace, **_):
    owners = [owner for owner in body["metadata"].get("ownerReferences", []) if owner["kind"] == "Gadget"]
    if owners and body["metadata"].get("deletionTimestamp") is None:
        ready = body.get("status", {}).get("readyReplicas", 0)
        phase = "Ready" if ready == body["spec"]["replicas"] else "Waiting"
        status = {"status": {"replicas": ready, "phase": phase}}
        try:
            client.CustomObjectsApi().patch_namespaced_custom_object_status(*GADGETS[:2], namespace, GADGETS[2], owners[0]["name"], status)
        except client.ApiException as error:
            if error.status != 404:
                raise


@kopf.on.resume(*GADGETS)
def resume(patch, **_):
    patch.status["resumed"] = os.environ["HOSTNAME"]


@kopf.on.delete(*GADGETS)
def farewell(name, namespace, **_):
    client.CoreV1Api().create_namespaced_config_map(namespace, {"metadata": {"name": f"farewell-{name}"}})
