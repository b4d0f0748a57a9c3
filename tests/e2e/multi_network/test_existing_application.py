"""An application that was in the cluster before, in a mesh that plain Helm installed as a revision with a tag.

Its machines get its identity, serve its Service, and take nothing of it along.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from components.names import DEFAULT_DOMAIN, ENVOY_ADMIN_PORT, service_host, spiffe_id
from components.verification.evidence import by_workload
from tests.support import corporate_mesh
from tests.support.existing_lab import NAMESPACE, AdoptingStack, ExistingMachines
from tests.support.lab import Lab
from tests.support.traffic import parse_answers
from tests.support.waiting import wait_until
from tools.lab.offline import images

ACCOUNT = "billing-app"
SERVICE_HOST = service_host("billing", NAMESPACE, DEFAULT_DOMAIN)
LABELS = {"app": "billing", "tier": "back"}
PLACE = {"region": "north", "zone": "north-1"}
"""Where the cluster's node is. The machine states the same."""
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
LIMITS = {"limits.cpu": "30", "limits.memory": "20Gi", "requests.cpu": "4", "requests.memory": "8Gi"}
"""A quota by which every container needs requests and limits."""


def application() -> list[dict[str, Any]]:
    """The manifests of somebody else: names of ports and labels are theirs."""
    container = {
        "name": "application",
        "image": "istio-vm-mesh/echo:1.31.0",
        "imagePullPolicy": "IfNotPresent",
        "args": ["--port", "8080"],
        "ports": [{"name": "web", "containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/", "port": "web"}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "1", "memory": "256Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True},
    }
    pod = {"serviceAccountName": ACCOUNT, "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}}, "containers": [container]}
    template = {"metadata": {"labels": LABELS}, "spec": pod}
    ports = [{"name": "http", "port": 80, "targetPort": "web"}]
    subset = {"name": "back", "labels": {"tier": "back"}}
    routes = [{"route": [{"destination": {"host": "billing", "subset": "back"}}]}]
    return [
        {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "limits"}, "spec": {"hard": LIMITS}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "billing"}, "spec": {"selector": {"app": "billing"}, "ports": ports}},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "billing"},
            "spec": {"replicas": 1, "selector": {"matchLabels": LABELS}, "template": template},
        },
        {
            "apiVersion": "networking.istio.io/v1",
            "kind": "DestinationRule",
            "metadata": {"name": "billing"},
            "spec": {"host": "billing", "subsets": [subset], "trafficPolicy": {"outlierDetection": {"consecutive5xxErrors": 5}}},
        },
        {
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": {"name": "billing"},
            "spec": {"hosts": ["billing"], "http": routes},
        },
    ]


class Application:
    """The application in the cluster of a lab."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def kubectl(self, *words: str, stdin: str = "") -> str:
        return self.lab.run("kubectl", "--namespace", NAMESPACE, *words, stdin=stdin).stdout

    def deploy(self) -> None:
        items = {"apiVersion": "v1", "kind": "List", "items": application()}
        self.kubectl("apply", "--filename", "-", stdin=json.dumps(items))
        self.lab.wait_until_rolled_out("deployment/billing", NAMESPACE)

    def callees(self) -> set[str]:
        """The host names of those who answer the application's own pod."""
        client = ("/usr/local/bin/client", "http://billing/", "--count", "40", "--qps", "100", "--timeout", "30s")
        text = self.kubectl("exec", "deployment/billing", "--container", "application", "--", *client)
        return {answer.hostname for answer in parse_answers(text)}

    def endpoints(self) -> dict[str, dict[str, str]]:
        """What istiod gave the application's own proxy of each endpoint: region, zone, priority, by the endpoint's address."""
        ask = ("pilot-agent", "request", "GET", "clusters")
        endpoints: dict[str, dict[str, str]] = {}
        for line in self.kubectl("exec", "deployment/billing", "--container", "istio-proxy", "--", *ask).splitlines():
            cluster, _, rest = line.partition("::")
            place, _, value = rest.partition("::")
            if cluster == f"outbound|80|back|{SERVICE_HOST}" and place[:1].isdigit():
                key, _, value = value.partition("::")
                endpoints.setdefault(place.rpartition(":")[0], {})[key] = value
        return {address: {key: each[key] for key in (*PLACE, "priority")} for address, each in endpoints.items()}

    def objects(self) -> dict[str, Any]:
        """What identifies the application's objects, and what is theirs: all but their status."""
        text = self.kubectl("get", "service/billing", f"serviceaccount/{ACCOUNT}", "deployment/billing", "--output", "json")
        kept = ("uid", "labels", "annotations")
        return {
            item["kind"]: [{key: item["metadata"].get(key) for key in kept}, item.get("spec")]
            for item in json.loads(text)["items"]
        }  # fmt: skip


@pytest.fixture(scope="module")
def app(multi_network_lab: Lab) -> Iterator[Application]:
    """The application, in a namespace of its own that the mesh's tag injects."""
    multi_network_lab.ensure_any()
    with corporate_mesh.corporate_mesh(multi_network_lab):
        multi_network_lab.run("kubectl", "create", "namespace", NAMESPACE)
        labels = (f"{key}={value}" for key, value in {**corporate_mesh.INJECTED, **RESTRICTED}.items())
        multi_network_lab.run("kubectl", "label", "namespace", NAMESPACE, *labels)
        node = ("label", "nodes", "--all", "--overwrite")
        multi_network_lab.run("kubectl", *node, *(f"topology.kubernetes.io/{key}={value}" for key, value in PLACE.items()))
        try:
            app = Application(multi_network_lab)
            app.deploy()
            yield app
        finally:
            multi_network_lab.run("kubectl", "delete", "namespace", NAMESPACE, check=False)
            multi_network_lab.run("kubectl", *node, *(f"topology.kubernetes.io/{key}-" for key in PLACE), check=False)


@pytest.fixture(scope="module")
def before(app: Application) -> dict[str, Any]:
    """The application's objects before anything joined it."""
    return app.objects()


@pytest.fixture(scope="module")
def stack(app: Application, before: dict[str, Any]) -> Iterator[AdoptingStack]:
    """A stack that joins one machine to it. It is not up."""
    machines = ExistingMachines(app.lab)
    machines.remove()
    try:
        machines.make("one")
        stack = AdoptingStack(machines, "join", corporate_mesh.NETWORK)
        stack.mesh |= {"namespace": corporate_mesh.NAMESPACE, "revision": corporate_mesh.TAG}
        stack.gateway["port"] = corporate_mesh.GATEWAY_PORT
        stack.workload(
            labels=LABELS,
            ports={"web": 8080},
            serviceAccount={"name": ACCOUNT, "create": False},
            services={"billing": {"existing": True}},
            locality="/".join(PLACE.values()),
        )
        stack.workload("ledger", services={}, pods={"image": images.ECHO, "args": ["--port", "8080"]})
        stack.declare("billing-1", "one")
        stack.init()
        yield stack
        stack.remove()
    finally:
        machines.remove()


def test_a_service_that_would_never_lead_to_machines_is_refused_in_the_preview(stack: AdoptingStack) -> None:
    stack.workloads["billing"]["labels"] = {"app": "invoices"}
    stack.write()
    done = stack.pulumi("preview", check=False)
    stack.workloads["billing"]["labels"] = LABELS
    stack.write()
    assert done.returncode
    assert "the Service billing/billing selects app: billing, so machines would never be its endpoints" in done.stdout + done.stderr


@pytest.fixture(scope="module")
def joined(stack: AdoptingStack) -> AdoptingStack:
    """The stack, which is up."""
    stack.up()
    return stack


def test_a_machine_serves_the_applications_service_with_its_identity(
    joined: AdoptingStack, app: Application, before: dict[str, Any]
) -> None:
    stack = joined
    assert stack.healthy() == {"one"}
    clusters = stack.machines.root("one", f"curl --silent --fail http://127.0.0.1:{ENVOY_ADMIN_PORT}/clusters")
    assert "inbound|8080||::" in clusters, "its proxy has the port, though the Service leads to it by a name"
    output = json.loads(stack.pulumi("stack", "output", "--json").stdout)
    identity = spiffe_id(corporate_mesh.TRUST_DOMAIN, NAMESPACE, ACCOUNT)
    calls = [call for call in by_workload(output["verification"])["billing"].calls if call.is_path]
    assert calls and {call.peer for call in calls} == {identity}
    callees = {"one", "pod"}
    wait_until(lambda: app.callees() == callees, description="pods and the machine answer")
    assert app.objects() == before
    stack.assert_no_changes()


def test_pods_of_ours_run_where_the_level_restricted_is_enforced(joined: AdoptingStack, app: Application) -> None:
    """As the Jobs do, whose calls the test before this one reads."""
    namespace, pods = (json.loads(app.kubectl("get", *what, "--output", "json")) for what in (("namespace", NAMESPACE), ("pods",)))
    assert namespace["metadata"]["labels"].items() >= RESTRICTED.items()
    (pod,) = (each for each in pods["items"] if each["metadata"]["labels"].get("app") == "ledger")
    assert ("Ready", "True") in [(each["type"], each["status"]) for each in pod["status"]["conditions"]]
    assert "istio-validation" in [each["name"] for each in pod["spec"]["initContainers"]], "the CNI plugin redirects its traffic"


@pytest.mark.istio_case(16)
def test_outlier_detection_starves_no_machine_whose_place_is_known(joined: AdoptingStack, app: Application) -> None:
    """By istiod's own configuration of the application's proxy: with outlier detection, what is nearer comes first."""
    stack = joined
    machine = stack.machines.addresses["one"]
    near, far = {**PLACE, "priority": "0"}, {"region": "", "zone": "", "priority": "1"}
    wait_until(lambda: machine in app.endpoints(), description="the application's proxy has the machine")
    assert list(app.endpoints().values()) == [near, near]
    entry = f"workloadentry/{stack.entries()[machine]['metadata']['name']}"
    app.kubectl("patch", entry, "--type", "merge", "--patch", json.dumps({"spec": {"locality": None}}))
    wait_until(lambda: app.endpoints()[machine] == far, description="a machine without a place comes last")
    assert app.callees() == {"pod"}
    app.kubectl("patch", entry, "--type", "merge", "--patch", json.dumps({"spec": {"locality": "/".join(PLACE.values())}}))
    wait_until(lambda: app.callees() == {"one", "pod"}, description="pods and the machine answer")


def test_the_application_stays_when_the_stack_goes(joined: AdoptingStack, app: Application, before: dict[str, Any]) -> None:
    joined.destroy()
    assert app.objects() == before
    assert app.callees() == {"pod"}
