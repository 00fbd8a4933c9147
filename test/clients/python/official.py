"""The official Python client against a running kube1: python3 official.py [test names]. KUBECONFIG says where."""

import os
import tempfile
import threading
import time
import unittest
import uuid

import kubernetes
from kubernetes import client, config, dynamic, watch
from kubernetes.client.rest import ApiException
from kubernetes.config.incluster_config import InClusterConfigLoader
from kubernetes.stream import portforward, stream

IMAGE = "kube1.local/busybox:1"
DEADLINE = 60
VERSION = tuple(int(part) for part in kubernetes.__version__.split(".")[:2] if part.isdigit())


def setUpModule():
    config.load_kube_config()


def eventually(what, condition):
    """Asks until `condition` gives something true."""
    end = time.monotonic() + DEADLINE
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {DEADLINE} s")
        time.sleep(0.1)


def config_map(name, labels=None, **data):
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name, labels=labels), data=data)


def pod(name, command, service_account=None):
    container = client.V1Container(
        name="main", image=IMAGE, command=["sh", "-c", command], stdin=True, ports=[client.V1ContainerPort(container_port=8080)]
    )
    spec = client.V1PodSpec(
        containers=[container], termination_grace_period_seconds=0, service_account_name=service_account
    )
    return client.V1Pod(metadata=client.V1ObjectMeta(name=name), spec=spec)


class InNamespace(unittest.TestCase):
    """A namespace of its own for each class."""

    @classmethod
    def setUpClass(cls):
        cls.core = client.CoreV1Api()
        made = cls.core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(generate_name="python-")))
        cls.ns = made.metadata.name
        # What the controllers put into every namespace would else come while tests watch.
        eventually("the service account", lambda: cls.core.list_namespaced_service_account(cls.ns).items)
        eventually("the authorities", lambda: cls.core.list_namespaced_config_map(cls.ns).items)

    @classmethod
    def tearDownClass(cls):
        cls.core.delete_namespace(cls.ns)

    def refused(self, status, reason, call, *args, **kwargs):
        with self.assertRaises(ApiException) as raised:
            call(*args, **kwargs)
        self.assertEqual(raised.exception.status, status, raised.exception)
        self.assertIn(f'"reason":"{reason}"', raised.exception.body)
        return raised.exception


class Objects(InNamespace):
    def test_create_read_replace_delete(self):
        made = self.core.create_namespaced_config_map(self.ns, config_map("one", a="1"))
        self.assertTrue(made.metadata.uid and made.metadata.creation_timestamp.tzinfo)
        self.refused(409, "AlreadyExists", self.core.create_namespaced_config_map, self.ns, config_map("one"))
        read = self.core.read_namespaced_config_map("one", self.ns)
        read.data["a"] = "2"
        replaced = self.core.replace_namespaced_config_map("one", self.ns, read)
        self.assertNotEqual(replaced.metadata.resource_version, made.metadata.resource_version)
        self.refused(409, "Conflict", self.core.replace_namespaced_config_map, "one", self.ns, read)
        wrong = client.V1DeleteOptions(preconditions=client.V1Preconditions(uid=str(uuid.uuid4())))
        self.refused(409, "Conflict", self.core.delete_namespaced_config_map, "one", self.ns, body=wrong)
        status = self.core.delete_namespaced_config_map("one", self.ns)
        status = status if isinstance(status, dict) else status.to_dict()
        self.assertEqual((status["status"], status["details"]["uid"]), ("Success", made.metadata.uid))
        self.refused(404, "NotFound", self.core.read_namespaced_config_map, "one", self.ns)
        dry = self.core.create_namespaced_config_map(self.ns, config_map("dry"), dry_run="All")
        self.assertEqual(dry.metadata.name, "dry")
        self.refused(404, "NotFound", self.core.read_namespaced_config_map, "dry", self.ns)
        self.refused(422, "Invalid", self.core.create_namespaced_config_map, self.ns, config_map("A_b"))

    def test_lists_in_pages_and_by_selector(self):
        for number in range(7):
            labels = {"app": "paged", "odd": str(number % 2)}
            self.core.create_namespaced_config_map(self.ns, config_map(f"page-{number}", labels))
        names, token, pages = [], None, 0
        while True:
            page = self.core.list_namespaced_config_map(
                self.ns, label_selector="app=paged", limit=3, _continue=token
            )
            names += [item.metadata.name for item in page.items]
            pages, token = pages + 1, page.metadata._continue
            if not token:
                break
        self.assertEqual((names, pages), ([f"page-{n}" for n in range(7)], 3))
        odd = self.core.list_namespaced_config_map(self.ns, label_selector="app in (paged),odd notin (0)")
        self.assertEqual(len(odd.items), 3)
        one = self.core.list_config_map_for_all_namespaces(
            field_selector=f"metadata.name=page-1,metadata.namespace={self.ns}"
        )
        self.assertEqual(len(one.items), 1)
        self.refused(400, "BadRequest", self.core.list_namespaced_config_map, self.ns, field_selector="data.a=1")
        self.core.delete_collection_namespaced_config_map(self.ns, label_selector="app=paged")
        self.assertEqual(self.core.list_namespaced_config_map(self.ns, label_selector="app=paged").items, [])

    def test_every_patch_type(self):
        spec = {
            "selector": {"matchLabels": {"app": "patched"}},
            "replicas": 0,
            "template": {
                "metadata": {"labels": {"app": "patched"}},
                "spec": {"containers": [{"name": "a", "image": IMAGE}, {"name": "b", "image": IMAGE}]},
            },
        }
        apps = client.AppsV1Api()
        apps.create_namespaced_deployment(self.ns, {"metadata": {"name": "patched"}, "spec": spec})
        patch = apps.patch_namespaced_deployment
        # The client sends an object as a strategic merge patch and a list as a JSON patch.
        container = {"name": "b", "env": [{"name": "K", "value": "v"}]}
        changed = patch("patched", self.ns, {"spec": {"template": {"spec": {"containers": [container]}}}})
        self.assertEqual([c.name for c in changed.spec.template.spec.containers], ["a", "b"])
        operations = [
            {"op": "test", "path": "/metadata/name", "value": "patched"},
            {"op": "add", "path": "/metadata/annotations", "value": {"by": "json"}},
        ]
        self.assertEqual(patch("patched", self.ns, operations).metadata.annotations["by"], "json")
        operations[0]["value"] = "another"
        self.refused(422, "Invalid", patch, "patched", self.ns, operations)
        merged = client.CustomObjectsApi().patch_namespaced_custom_object(
            "apps", "v1", self.ns, "deployments", "patched", {"metadata": {"annotations": {"by": None, "m": "1"}}}
        )
        self.assertEqual(merged["metadata"]["annotations"].get("by"), None)
        scale = apps.patch_namespaced_deployment_scale("patched", self.ns, {"spec": {"replicas": 2}})
        self.assertEqual(scale.spec.replicas, 2)
        self.assertEqual(apps.read_namespaced_deployment("patched", self.ns).spec.replicas, 2)
        apps.delete_namespaced_deployment("patched", self.ns, propagation_policy="Foreground")

    def test_versions_and_discovery(self):
        self.assertEqual((client.VersionApi().get_code().major, client.VersionApi().get_code().minor), ("1", "36"))
        self.assertIn("v1", client.CoreApi().get_api_versions().versions)
        groups = {group.name for group in client.ApisApi().get_api_versions().groups}
        self.assertTrue({"apps", "batch", "rbac.authorization.k8s.io"} <= groups)
        kinds = {resource.kind for resource in client.AppsV1Api().get_api_resources().resources}
        self.assertIn("Deployment", kinds)
        access = client.V1SelfSubjectAccessReview(
            spec=client.V1SelfSubjectAccessReviewSpec(
                resource_attributes=client.V1ResourceAttributes(verb="create", resource="pods", namespace=self.ns)
            )
        )
        self.assertTrue(client.AuthorizationV1Api().create_self_subject_access_review(access).status.allowed)


class Watches(InNamespace):
    def test_a_list_followed_by_a_watch(self):
        listed = self.core.list_namespaced_config_map(self.ns)
        version = listed.metadata.resource_version
        made = self.core.create_namespaced_config_map(self.ns, config_map("seen", a="1"))
        self.core.patch_namespaced_config_map("seen", self.ns, {"data": {"a": "2"}})
        self.core.delete_namespaced_config_map("seen", self.ns)
        watcher, seen = watch.Watch(), []
        for event in watcher.stream(
            self.core.list_namespaced_config_map, self.ns, resource_version=version, timeout_seconds=30
        ):
            seen.append((event["type"], event["object"].metadata.name, event["object"].data.get("a")))
            if event["type"] == "DELETED":
                watcher.stop()
        self.assertEqual(seen, [("ADDED", "seen", "1"), ("MODIFIED", "seen", "2"), ("DELETED", "seen", "2")])
        self.assertGreater(int(watcher.resource_version), int(made.metadata.resource_version))

    def test_ends_at_its_timeout(self):
        started = time.monotonic()
        events = list(watch.Watch().stream(self.core.list_namespaced_secret, self.ns, timeout_seconds=1))
        self.assertEqual(events, [])
        self.assertLess(time.monotonic() - started, 10)

    def test_bookmarks(self):
        bookmark = None
        for event in watch.Watch().stream(
            self.core.list_namespaced_config_map,
            self.ns,
            allow_watch_bookmarks=True,
            send_initial_events=True,
            resource_version_match="NotOlderThan",
            timeout_seconds=20,
        ) if supports("list_namespaced_config_map", "send_initial_events") else []:
            if event["type"] == "BOOKMARK":
                bookmark = event["object"]
                break
        if bookmark is None and not supports("list_namespaced_config_map", "send_initial_events"):
            self.skipTest("this client does not know streamed lists")
        metadata = bookmark["metadata"] if isinstance(bookmark, dict) else bookmark.metadata.to_dict()
        self.assertEqual(metadata["annotations"], {"k8s.io/initial-events-end": "true"})


def supports(method, parameter):
    return f"{parameter}:" in (getattr(client.CoreV1Api, method).__doc__ or "")


CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "gadgets.python.example.com"},
    "spec": {
        "group": "python.example.com",
        "scope": "Namespaced",
        "names": {"plural": "gadgets", "singular": "gadget", "kind": "Gadget"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "properties": {
                                    "size": {"type": "integer", "default": 3, "maximum": 10},
                                    "tags": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
                                },
                            },
                            "status": {"type": "object", "properties": {"phase": {"type": "string"}}},
                        },
                    }
                },
            }
        ],
    },
}


class Dynamic(InNamespace):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.dynamic = dynamic.DynamicClient(client.ApiClient())
        cls.crds = cls.dynamic.resources.get(api_version="apiextensions.k8s.io/v1", kind="CustomResourceDefinition")
        cls.crds.create(body=CRD)

        def established():
            status = cls.crds.get(name=CRD["metadata"]["name"]).to_dict().get("status") or {}
            # Null at first, as upstream writes it.
            conditions = status.get("conditions") or []
            return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)

        eventually("the definition established", established)

    @classmethod
    def tearDownClass(cls):
        cls.crds.delete(name=CRD["metadata"]["name"])
        super().tearDownClass()

    def gadgets(self):
        return self.dynamic.resources.get(api_version="python.example.com/v1", kind="Gadget")

    def test_custom_objects(self):
        gadgets = self.gadgets()
        made = gadgets.create(body={"metadata": {"name": "g"}, "spec": {}, "kind": "Gadget", "apiVersion": "python.example.com/v1"}, namespace=self.ns)
        self.assertEqual(made.spec.size, 3)
        with self.assertRaises(dynamic.exceptions.UnprocessibleEntityError) as raised:
            gadgets.patch(body={"spec": {"size": 11}}, name="g", namespace=self.ns, content_type="application/merge-patch+json")
        self.assertIn("spec.size", raised.exception.summary())
        gadgets.status.patch(
            body={"status": {"phase": "done"}}, name="g", namespace=self.ns, content_type="application/merge-patch+json"
        )
        self.assertEqual(gadgets.get(name="g", namespace=self.ns).status.phase, "done")
        seen = []
        for event in gadgets.watch(namespace=self.ns, timeout=10):
            seen.append((event["type"], event["object"].metadata.name))
            break
        self.assertEqual(seen, [("ADDED", "g")])
        gadgets.delete(name="g", namespace=self.ns)
        with self.assertRaises(dynamic.exceptions.NotFoundError):
            gadgets.get(name="g", namespace=self.ns)

    def test_server_side_apply(self):
        gadgets = self.gadgets()
        if VERSION < (24,):
            self.skipTest("this client cannot send the content type of server-side apply")
        body = {"apiVersion": "python.example.com/v1", "kind": "Gadget", "metadata": {"name": "applied"}}

        def apply(manager, spec, **options):
            return self.dynamic.server_side_apply(
                gadgets, body={**body, "spec": spec}, name="applied", namespace=self.ns, field_manager=manager, **options
            )

        apply("one", {"size": 4, "tags": ["a"]})
        both = apply("two", {"tags": ["b"]})
        self.assertEqual(sorted(both.spec.tags), ["a", "b"])
        with self.assertRaises(dynamic.exceptions.ConflictError) as raised:
            apply("two", {"size": 5})
        self.assertIn("conflict with \\\"one\\\"", raised.exception.body.decode() if isinstance(raised.exception.body, bytes) else raised.exception.body)
        self.assertEqual(apply("two", {"size": 5}, force_conflicts=True).spec.size, 5)
        left = apply("one", {})
        self.assertEqual((left.spec.size, left.spec.tags), (5, None))
        managers = {(m.manager, m.operation) for m in left.metadata.managedFields}
        self.assertIn(("two", "Apply"), managers)

    def test_built_in_kinds(self):
        pods = self.dynamic.resources.get(api_version="v1", kind="Pod")
        self.assertTrue(pods.namespaced and "watch" in pods.verbs)
        services = self.dynamic.resources.get(api_version="v1", kind="Service")
        made = services.create(
            body={"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}, "kind": "Service", "apiVersion": "v1"}, namespace=self.ns
        )
        self.assertTrue(made.spec.clusterIP)


class Pods(InNamespace):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        serve = "mkdir /w; echo served > /w/index.html; httpd -p 8080 -h /w; echo ready; while read line; do echo got $line; done; sleep 1000"
        cls.core.create_namespaced_pod(cls.ns, pod("main", serve))
        eventually("the pod running", lambda: cls.core.read_namespaced_pod("main", cls.ns).status.phase == "Running")

    def exec(self, *command, **options):
        arguments = {"stderr": True, "stdin": False, "stdout": True, "tty": False, **options}
        return stream(self.core.connect_get_namespaced_pod_exec, "main", self.ns, command=list(command), **arguments)

    def test_exec(self):
        self.assertEqual(self.exec("echo", "with space", "&?"), "with space &?\n")
        shell = self.exec("sh", stdin=True, _preload_content=False)
        shell.write_stdin("echo out; echo err >&2; cat /nonexistent; exit 7\n")
        shell.run_forever(timeout=DEADLINE)
        self.assertEqual(shell.read_stdout(), "out\n")
        self.assertTrue(shell.read_stderr().startswith("err\n"))
        self.assertEqual(shell.returncode, 7)
        large = self.exec("sh", "-c", "yes 0123456789abcde | head -c 3000000")
        self.assertEqual(len(large), 3000000)
        with self.assertRaises(ApiException) as raised:
            stream(self.core.connect_get_namespaced_pod_exec, "none", self.ns, command=["true"], stdout=True)
        self.assertIn("404", str(raised.exception))

    def test_exec_on_a_terminal(self):
        shell = self.exec("sh", "-c", "stty size; tty; read x; echo $x", stdin=True, tty=True, _preload_content=False)
        shell.write_channel(4, '{"Width": 91, "Height": 17}')
        shell.write_stdin("typed\n")
        shell.run_forever(timeout=DEADLINE)
        self.assertIn("typed\r\n", shell.read_all())

    def test_attach(self):
        attached = stream(
            self.core.connect_get_namespaced_pod_attach,
            "main", self.ns, stdin=True, stdout=True, stderr=True, _preload_content=False,
        )
        attached.write_stdin("hello\n")
        end, output = time.monotonic() + DEADLINE, ""
        while "got hello" not in output and time.monotonic() < end:
            attached.update(timeout=1)
            output += attached.read_stdout(timeout=0) if attached.peek_stdout() else ""
        attached.close()
        self.assertIn("got hello", output)

    def test_logs(self):
        self.assertTrue(self.core.read_namespaced_pod_log("main", self.ns).startswith("ready\n"))
        stamped = self.core.read_namespaced_pod_log("main", self.ns, timestamps=True, tail_lines=1, limit_bytes=20)
        self.assertEqual((len(stamped), stamped[4]), (20, "-"))
        ticks = "for i in 1 2 3; do echo tick $i; sleep 0.3; done"
        self.core.create_namespaced_pod(self.ns, pod("ticks", ticks))
        eventually("started", lambda: self.core.read_namespaced_pod("ticks", self.ns).status.phase in ("Running", "Succeeded"))
        lines = list(watch.Watch().stream(self.core.read_namespaced_pod_log, "ticks", self.ns, follow=True))
        self.assertEqual(lines[:3], ["tick 1", "tick 2", "tick 3"])

    def test_port_forward(self):
        forward = portforward(self.core.connect_get_namespaced_pod_portforward, "main", self.ns, ports="8080,9")
        connection = forward.socket(8080)
        connection.settimeout(DEADLINE)
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b""
        while chunk := connection.recv(4096):
            answer += chunk
        self.assertTrue(answer.endswith(b"served\n"), answer)
        self.assertIsNone(forward.error(8080))
        eventually("an error for the closed port", lambda: forward.error(9))

    def test_proxy(self):
        self.assertEqual(self.core.connect_get_namespaced_pod_proxy("main:8080", self.ns), "served\n")

    def test_eviction_and_ephemeral_containers(self):
        self.core.create_namespaced_pod(self.ns, pod("evicted", "sleep 1000"))
        body = client.V1Eviction(metadata=client.V1ObjectMeta(name="evicted"))
        self.core.create_namespaced_pod_eviction("evicted", self.ns, body)
        container = {"name": "debug", "image": IMAGE, "command": ["sh", "-c", "echo debugging; sleep 1000"]}
        self.core.patch_namespaced_pod_ephemeralcontainers("main", self.ns, {"spec": {"ephemeralContainers": [container]}})

        def started():
            statuses = self.core.read_namespaced_pod("main", self.ns).status.ephemeral_container_statuses
            return statuses and statuses[0].state.running

        eventually("the ephemeral container", started)

    def test_in_cluster_configuration(self):
        """What a pod is given is enough for the client, over the `kubernetes` Service's address."""
        rbac = client.RbacAuthorizationV1Api()
        rbac.create_namespaced_role_binding(self.ns, {
            "metadata": {"name": "view"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
            "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": self.ns}],
        })
        given = "/var/run/secrets/kubernetes.io/serviceaccount"
        environment = dict(line.split("=", 1) for line in self.exec("env").splitlines() if "=" in line)
        with tempfile.TemporaryDirectory() as folder:
            for name in ("token", "ca.crt", "namespace"):
                with open(os.path.join(folder, name), "w") as file:
                    file.write(self.exec("cat", f"{given}/{name}"))
            with open(os.path.join(folder, "namespace")) as file:
                self.assertEqual(file.read(), self.ns)
            inside = client.Configuration()
            InClusterConfigLoader(
                token_filename=os.path.join(folder, "token"),
                cert_filename=os.path.join(folder, "ca.crt"),
                environ=environment,
            ).load_and_set(inside)
            core = client.CoreV1Api(client.ApiClient(inside))
            eventually("the binding in force", lambda: allowed(lambda: core.list_namespaced_pod(self.ns)))
            self.refused(403, "Forbidden", core.list_namespaced_secret, self.ns)
            self.refused(403, "Forbidden", core.list_node)


def allowed(call):
    try:
        return call()
    except ApiException as error:
        if error.status != 403:
            raise
        return None


class Elections(InNamespace):
    def test_one_leads_and_the_next_takes_over(self):
        from kubernetes.leaderelection import electionconfig, leaderelection

        try:
            from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock as Lock
        except ImportError:
            from kubernetes.leaderelection.resourcelock.configmaplock import ConfigMapLock as Lock
        led, stopped = [], threading.Event()

        class Ended(Exception):
            pass

        class Failing(Lock):
            """Lets the holder lose its lock when told to."""

            def update(self, *arguments):
                if self.identity == "first" and stopped.is_set():
                    raise Ended
                return super().update(*arguments)

        def candidate(name):
            lock = Failing("lock", self.ns, name)
            settings = electionconfig.Config(
                lock, lease_duration=3, renew_deadline=2, retry_period=1,
                onstarted_leading=lambda: led.append(name), onstopped_leading=lambda: None,
            )
            try:
                leaderelection.LeaderElection(settings).run()
            except Ended:
                pass

        threading.Thread(target=candidate, args=("first",), daemon=True).start()
        eventually("a first leader", lambda: led == ["first"])
        threading.Thread(target=candidate, args=("second",), daemon=True).start()
        stopped.set()
        eventually("a second leader", lambda: led == ["first", "second"])


if __name__ == "__main__":
    unittest.main(verbosity=2, warnings="ignore")
