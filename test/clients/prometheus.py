"""Debian's Prometheus finds and scrapes what a running kube1 offers: prometheus.py PROMETHEUS. KUBECONFIG says where."""

import base64
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

import yaml
from kubernetes import client, config, utils

DEADLINE = 60
LISTEN = "127.0.0.1:19090"
OBJECTS = """
apiVersion: v1
kind: Namespace
metadata: {name: monitoring}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: prometheus, namespace: monitoring}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: prometheus}
rules:
- {apiGroups: [""], resources: [nodes, services, endpoints, pods], verbs: [get, list, watch]}
- {apiGroups: [""], resources: [nodes/metrics], verbs: [get]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [get, list, watch]}
- {apiGroups: [networking.k8s.io], resources: [ingresses], verbs: [get, list, watch]}
- {nonResourceURLs: [/metrics, /metrics/cadvisor], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: prometheus}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: prometheus}
subjects: [{kind: ServiceAccount, name: prometheus, namespace: monitoring}]
---
apiVersion: v1
kind: Pod
metadata:
  name: app
  namespace: monitoring
  labels: {app: app}
  annotations: {prometheus.io/scrape: "true"}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: kube1.local/busybox:1
    command: [sh, -c, "mkdir /w; echo 'app_requests_total 42' > /w/metrics; exec httpd -f -p 8080 -h /w"]
    ports: [{name: web, containerPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: app, namespace: monitoring, annotations: {prometheus.io/probe: "true"}}
spec: {selector: {app: app}, ports: [{name: web, port: 80, targetPort: web}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: app, namespace: monitoring}
spec:
  rules:
  - host: app.example.com
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: app, port: {number: 80}}}}]}
"""
NODE_PATHS = {"kubelet": "/metrics", "cadvisor": "/metrics/cadvisor", "resource": "/metrics/resource"}
# Each must give at least one sample.
QUERIES = """
sum(rate(apiserver_request_total{verb="LIST",code="200"}[1m]))
histogram_quantile(0.99, sum by (le, verb) (rate(apiserver_request_duration_seconds_bucket{verb!="WATCH"}[1m])))
apiserver_current_inflight_requests{request_kind="readOnly"}
sum by (resource) (apiserver_storage_objects{resource="pods"})
apiserver_longrunning_requests{verb="WATCH"}
kubernetes_build_info{job="apiserver"}
kubernetes_build_info{job="kubelet"}
process_resident_memory_bytes{job="apiserver"}
rate(process_cpu_seconds_total{job="apiserver"}[1m])
process_start_time_seconds{job="kubelet"}
apiserver_flowcontrol_dispatched_requests_total
kubelet_node_name{node!=""}
kubelet_running_pods >= 1
kubelet_running_containers{container_state="running"} >= 1
sum(rate(kubelet_runtime_operations_total[1m]))
container_memory_working_set_bytes{namespace="monitoring",pod="app",container="main"} > 0
container_memory_rss{namespace="monitoring",pod="app",container="main"}
sum by (pod) (rate(container_cpu_usage_seconds_total{namespace="monitoring",container!=""}[1m]))
container_spec_memory_limit_bytes{pod="app",container="main"}
container_start_time_seconds{pod="app",container="main"}
container_fs_usage_bytes{pod="app",container="main"}
container_network_receive_bytes_total{namespace="monitoring",pod="app",interface="eth0"} > 0
container_processes{pod="app",container="main"}
machine_cpu_cores > 0
machine_memory_bytes > 0
node_memory_working_set_bytes{job="resource"} > 0
node_cpu_usage_seconds_total{job="resource"} > 0
container_memory_working_set_bytes{job="resource",pod="app",container="main"}
pod_memory_working_set_bytes{job="resource",pod="app"}
resource_scrape_error{job="resource"} == 0
app_requests_total{job="pods"} == 42
app_requests_total{job="services"} == 42
app_requests_total{job="endpoints",service="app"} == 42
app_requests_total{job="endpointslices"} == 42
""".strip().splitlines()


def eventually(what, condition):
    end = time.monotonic() + DEADLINE
    while True:
        value, seen = condition()
        if value:
            return value
        assert time.monotonic() < end, f"{what}: not within {DEADLINE} s; last seen: {seen}"
        time.sleep(0.2)


def settings(folder):
    """Prometheus' configuration: the jobs that its own example for Kubernetes has, and one for each other role."""
    configuration = client.Configuration.get_default_copy()
    token = {"credentials_file": f"{folder}/token"}
    tls = {"ca_file": f"{folder}/ca.crt"}
    served = {"scheme": "https", "authorization": token, "tls_config": tls}

    # The pod's little server says nothing of the type of what it serves.
    untyped = {"fallback_scrape_protocol": "PrometheusText0.0.4"}

    def job(name, role, relabel, **more):
        discovery = {"role": role, "api_server": configuration.host, "authorization": token, "tls_config": tls}
        return {"job_name": name, "kubernetes_sd_configs": [discovery], "relabel_configs": relabel, **untyped, **more}

    def keep(labels, regex):
        labels = [f"__meta_kubernetes_{label}" for label in labels]
        return {"source_labels": labels, "action": "keep", "regex": regex}

    def take(label, target):
        return {"source_labels": [f"__meta_kubernetes_{label}"], "target_label": target}

    jobs = [
        job("apiserver", "endpoints", [keep(["namespace", "service_name", "endpoint_port_name"], "default;kubernetes;https")], **served),
        job("pods", "pod", [keep(["pod_annotation_prometheus_io_scrape"], "true")]),
        job("services", "service", [keep(["service_annotation_prometheus_io_probe"], "true"), take("service_cluster_ip", "__address__")]),
        job("endpoints", "endpoints", [keep(["service_name"], "app"), take("service_name", "service")]),
        job("endpointslices", "endpointslice", [keep(["service_name"], "app"), keep(["endpointslice_endpoint_conditions_ready"], "true")]),
        job("ingresses", "ingress", [keep(["ingress_host", "ingress_path"], "app.example.com;/")]),
    ]
    jobs += [job(name, "node", [take("node_name", "node")], metrics_path=path, **served) for name, path in NODE_PATHS.items()]
    return {"global": {"scrape_interval": "2s", "scrape_timeout": "2s"}, "scrape_configs": jobs}


def ask(path, **query):
    with urllib.request.urlopen(f"http://{LISTEN}/api/v1/{path}?{urllib.parse.urlencode(query)}", timeout=10) as answer:
        return json.load(answer)["data"]


def targets():
    """The state of each job's targets; the ingress' host does not exist, so that it is only found."""
    wanted = {"apiserver", "pods", "services", "endpoints", "endpointslices", *NODE_PATHS}
    try:
        found = ask("targets", state="active")["activeTargets"]
    except OSError as error:
        return False, error
    states = {(t["labels"]["job"], t["health"], t["lastError"]) for t in found}
    hosts = {t["discoveredLabels"].get("__meta_kubernetes_ingress_host") for t in found}
    up = {job for job, health, _ in states if health == "up"}
    down = {job for job, health, _ in states if health != "up" and job != "ingresses"}
    return up == wanted and not down and "app.example.com" in hosts, states


def main():
    config.load_kube_config()
    for document in yaml.safe_load_all(OBJECTS):
        eventually("created", lambda: created(document))
    core = client.CoreV1Api()
    token = core.create_namespaced_service_account_token("prometheus", "monitoring", {"spec": {}}).status.token
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/token", "w") as file:
            file.write(token)
        with open(client.Configuration.get_default_copy().ssl_ca_cert) as ca, open(f"{folder}/ca.crt", "w") as file:
            file.write(ca.read())
        with open(f"{folder}/prometheus.yml", "w") as file:
            yaml.safe_dump(settings(folder), file)
        command = [sys.argv[1], f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data", f"--web.listen-address={LISTEN}"]
        with open(f"{folder}/log", "w") as log:
            prometheus = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            eventually("every target up", targets)
            missing = list(QUERIES)

            def answered():
                missing[:] = [query for query in missing if not ask("query", query=query)["result"]]
                return not missing, "\n".join(missing)

            eventually("an answer to each query", answered)
            # What is gone is no target any more.
            core.delete_namespaced_pod("app", "monitoring")
            jobs = ("pods", "endpoints", "endpointslices")
            eventually("the pod's targets gone", lambda: gone(jobs))
        finally:
            prometheus.send_signal(signal.SIGTERM)
            prometheus.wait()
            with open(f"{folder}/log") as log:
                print(*log.readlines()[-20:])


def gone(jobs):
    found = [t["labels"]["job"] for t in ask("targets", state="active")["activeTargets"]]
    return not set(found) & set(jobs), found


def created(document):
    try:
        utils.create_from_dict(client.ApiClient(), document)
        return True, None
    except utils.FailToCreateError as error:
        # The service account that a pod needs comes a moment after its namespace.
        return False, error


if __name__ == "__main__":
    main()
