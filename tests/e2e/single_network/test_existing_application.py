"""An application that was in the cluster before, in a mesh that plain Helm installed as a revision with a tag.

Its machines get its identity, serve its Service, and take nothing of it along.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from components.verification.evidence import is_path
from tests.support import corporate_mesh
from tests.support.existing_lab import NAMESPACE, AdoptingStack, ExistingMachines
from tests.support.lab import Lab
from tests.support.traffic import parse_answers
from tests.support.waiting import wait_until

ACCOUNT = "billing-app"
LABELS = {"app": "billing", "tier": "back"}
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
    }
    template = {"metadata": {"labels": LABELS}, "spec": {"serviceAccountName": ACCOUNT, "containers": [container]}}
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
            "spec": {"host": "billing", "subsets": [subset]},
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
        self.kubectl("rollout", "status", "deployment/billing", "--timeout=90s")

    def callees(self) -> set[str]:
        """The host names of those who answer the application's own pod."""
        client = ("/usr/local/bin/client", "http://billing/", "--count", "40", "--qps", "100", "--timeout", "30s")
        text = self.kubectl("exec", "deployment/billing", "--container", "application", "--", *client)
        return {answer.hostname for answer in parse_answers(text)}

    def objects(self) -> dict[str, Any]:
        """What identifies the application's objects, and what is theirs: all but their status."""
        text = self.kubectl("get", "service/billing", f"serviceaccount/{ACCOUNT}", "deployment/billing", "--output", "json")
        kept = ("uid", "labels", "annotations")
        return {
            item["kind"]: [{key: item["metadata"].get(key) for key in kept}, item.get("spec")]
            for item in json.loads(text)["items"]
        }  # fmt: skip


@pytest.fixture(scope="module")
def app(single_network_lab: Lab) -> Iterator[Application]:
    """The application, in a namespace of its own that the mesh's tag injects."""
    single_network_lab.ensure_any()
    with corporate_mesh.corporate_mesh(single_network_lab):
        single_network_lab.run("kubectl", "create", "namespace", NAMESPACE)
        labels = (f"{key}={value}" for key, value in corporate_mesh.INJECTED.items())
        single_network_lab.run("kubectl", "label", "namespace", NAMESPACE, *labels)
        try:
            app = Application(single_network_lab)
            app.deploy()
            yield app
        finally:
            single_network_lab.run("kubectl", "delete", "namespace", NAMESPACE, check=False)


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
        )
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


def test_a_machine_serves_the_applications_service_with_its_identity(
    stack: AdoptingStack, app: Application, before: dict[str, Any]
) -> None:
    stack.up()
    assert stack.healthy() == {"one"}
    output = json.loads(stack.pulumi("stack", "output", "--json").stdout)
    identity = f"spiffe://{corporate_mesh.TRUST_DOMAIN}/ns/{NAMESPACE}/sa/{ACCOUNT}"
    calls = [call for call in output["verification"]["billing"]["calls"] if is_path(call)]
    assert calls and {call["peer"] for call in calls} == {identity}
    callees = {"one", "pod"}
    wait_until(lambda: app.callees() == callees, 20, "pods and the machine answer")
    assert app.objects() == before
    stack.assert_no_changes()


def test_the_application_stays_when_the_stack_goes(stack: AdoptingStack, app: Application, before: dict[str, Any]) -> None:
    stack.destroy()
    assert app.objects() == before
    assert app.callees() == {"pod"}
