"""Debian's Patroni keeps PostgreSQL's leader in a running kube1: election, switchover, failover. KUBECONFIG says where."""

import json
import os
import pwd
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import yaml
from kubernetes import client, config, utils
from kubernetes.client.rest import ApiException
from kubernetes.stream import stream

DEADLINE = 150
NAMESPACE = "postgres"
# The host to ask comes next.
PSQL = ("psql", "-XAtq", "-U", "postgres", "-h")


def eventually(what, condition):
    """Asks until `condition` gives something true; it may fail meanwhile."""
    end = time.monotonic() + DEADLINE
    while True:
        try:
            value = seen = condition()
        except (ApiException, AssertionError, ValueError) as error:
            value, seen = None, error
        if value:
            return value
        assert time.monotonic() < end, f"{what}: not within {DEADLINE} s; last seen: {seen}"
        time.sleep(0.3)


class Cluster:
    """One PostgreSQL cluster of two members."""

    def __init__(self, scope, endpoints):
        self.scope, self.endpoints, self.core = scope, endpoints, client.CoreV1Api()
        postgres = pwd.getpwnam("postgres")
        with open(os.path.join(os.path.dirname(__file__), "patroni.yaml")) as file:
            text = file.read().replace("SCOPE", scope)
        selector = "" if endpoints else f"selector: {{cluster-name: {scope}, role: master}},"
        for word, value in {
            "POSTGRES_UID": postgres.pw_uid, "POSTGRES_GID": postgres.pw_gid, "SELECTOR": selector,
            '"ENDPOINTS"': '"true"' if endpoints else '"false"',
        }.items():
            text = text.replace(word, str(value))
        for document in yaml.safe_load_all(text):
            if document:
                utils.create_from_dict(client.ApiClient(), document, namespace=NAMESPACE)

    def exec(self, pod, *command):
        # The client would make Python's form of an output that is JSON.
        running = stream(
            self.core.connect_get_namespaced_pod_exec, pod, NAMESPACE, container="patroni", command=list(command),
            stdout=True, stderr=True, stdin=False, tty=False, _preload_content=False,
        )
        running.run_forever(timeout=DEADLINE)
        return running.read_all()

    def members(self):
        """Each member's role and state, as Patroni itself says."""
        for pod in (f"{self.scope}-0", f"{self.scope}-1"):
            try:
                text = self.exec(pod, "/usr/bin/python3", "/usr/bin/patronictl", "-c", "/config/patroni.yml", "list", "-f", "json")
                return {m["Member"]: (m["Role"], m.get("State", "")) for m in json.loads(text[text.index("["):])}
            except (ApiException, ValueError) as error:
                seen = error
        raise AssertionError(seen)

    def leader(self):
        """The leader, once Patroni, the pods' labels and the other member agree."""
        members = self.members()
        leaders = [name for name, (role, state) in members.items() if role == "Leader" and state == "running"]
        followers = [state for role, state in members.values() if role != "Leader"]
        labelled = self.core.list_namespaced_pod(NAMESPACE, label_selector=f"cluster-name={self.scope},role=master").items
        good = len(leaders) == 1 and followers in (["running"], ["streaming"]) and [p.metadata.name for p in labelled] == leaders
        assert good, f"{members}, labelled {[p.metadata.name for p in labelled]}"
        return leaders[0]

    def sql(self, statement):
        """Asks the leader by the Service, from the second member. A server's errors are in capitals, psql's own are not."""
        address = self.core.read_namespaced_service(self.scope, NAMESPACE).spec.cluster_ip
        answer = self.exec(f"{self.scope}-1", *PSQL, address, "-c", statement)
        if "error" in answer.lower():
            raise ValueError(answer)
        return answer

    def done(self, statement):
        self.sql(statement)
        return True

    def holds(self, text, member=None):
        """Whether the leader, or one member, has these rows. Replication is asynchronous: only what a member has, it keeps."""
        statement = "SELECT string_agg(x, ',' ORDER BY x) FROM t"
        found = (self.exec(member, *PSQL, self.address(member), "-c", statement) if member else self.sql(statement)).strip()
        assert found == text, found
        return True

    def address(self, member):
        return self.core.read_namespaced_pod(member, NAMESPACE).status.pod_ip

    def run(self):
        first = eventually("a leader", self.leader)
        eventually("a table", lambda: self.done("CREATE TABLE IF NOT EXISTS t (x text)"))
        eventually("a row", lambda: self.done("INSERT INTO t VALUES ('a')"))
        eventually("the row", lambda: self.holds("a"))
        kept = self.core.read_namespaced_endpoints if self.endpoints else self.core.read_namespaced_config_map
        name = self.scope if self.endpoints else f"{self.scope}-leader"
        assert kept(name, NAMESPACE).metadata.annotations["leader"] == first

        second = next(name for name in self.members() if name != first)
        eventually("the other has the row", lambda: self.holds("a", second))
        print(self.exec(first, "/usr/bin/python3", "/usr/bin/patronictl", "-c", "/config/patroni.yml", "switchover", "--master", first, "--candidate", second, "--force"))
        eventually("the other leads", lambda: self.leader() == second)
        eventually("it takes writes", lambda: self.done("INSERT INTO t VALUES ('b')"))
        eventually("it has what was written", lambda: self.holds("a,b"))

        eventually("the first has the rows", lambda: self.holds("a,b", first))
        # The leader dies with all it has, unannounced.
        self.core.delete_namespaced_pod(second, NAMESPACE, grace_period_seconds=0)
        eventually("the first leads again", lambda: self.leader() == first)
        eventually("nothing is lost", lambda: self.holds("a,b"))


def main():
    config.load_kube_config()
    core = client.CoreV1Api()
    core.create_namespace({"metadata": {"name": NAMESPACE}})
    clusters = [Cluster("ep", True), Cluster("cm", False)]
    try:
        with ThreadPoolExecutor() as threads:
            list(threads.map(Cluster.run, clusters))
    except BaseException:
        for pod in core.list_namespaced_pod(NAMESPACE).items:
            print("---", pod.metadata.name, pod.status.phase)
            try:
                print(core.read_namespaced_pod_log(pod.metadata.name, NAMESPACE, tail_lines=40))
            except ApiException as error:
                print(error)
        raise


if __name__ == "__main__":
    sys.exit(main())
