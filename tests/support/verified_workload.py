"""A workload that is verified: its payload, an API server with its objects, and what ran in its pods."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from components.local.cluster_access import ClusterAccess
from components.names import CALLED_ANNOTATION, DEFAULT_DOMAIN, LISTENER_PORT, service_host, spiffe_id
from components.verification.evidence import Entry
from components.verification.scripts import calling_pods, verify_workload
from components.verification.scripts.calling_pods import Pair
from components.verification.scripts.cluster_objects import Cluster, WorkloadPods
from components.verification.target import Caller, Target
from tests.support.fake_programs import ProgramsInMemory

ENTRY = Entry("product-1", "product-192.0.2.7-pods", "192.0.2.7:8080")
CALL = json.dumps({"calls": {"service": "product", "port": 80, "endpoint": "192.0.2.7:8080", "answers": 3}}) + "\n"
UPDATE = "0123456789abcdef"
SHARED, OWN = f"verify-account-{UPDATE[:8]}", f"verification-product-{UPDATE[:8]}"
TERMINATED = "command terminated with exit code 1\n"


def manifest(which: str) -> dict[str, Any]:
    containers = [{"name": "calls"}]
    return {"metadata": {"labels": {"app": which}, "annotations": {}}, "spec": {"template": {"spec": {"containers": containers}}}}


def called(endpoint: str, **values: str) -> str:
    return json.dumps({"calls": {"endpoint": endpoint, **values}}) + "\n"


OF_POD = called("10.244.0.9:8080")


def result(endpoint: str, result: str) -> str:
    return json.dumps({"plaintext": {"endpoint": endpoint, "result": result}}) + "\n"


PAYLOAD = verify_workload.Payload(
    access=ClusterAccess(context="theirs"),
    workload="product",
    entries=(ENTRY,),
    pods=WorkloadPods("shop", {"app": "product", "version": "v1"}, 8080),
    port=8080,
    target=Target(
        service_host("product", "shop", DEFAULT_DOMAIN),
        80,
        "http",
        "/",
        ("200-399",),
        3,
        "fail",
        (spiffe_id(DEFAULT_DOMAIN, "shop", "product"),),
    ),
    caller=Caller("Job verify-product", "pods", 30, LISTENER_PORT),
    network="pods",
    gateways={},
    pair=Pair("verification-product", "shop", manifest("inside"), manifest("outside"), "mesh.dev"),
    shared="verify-account",
    strict=True,
    warn_only=False,
    timeout_s=60,
)


class ApiServer:
    """What the API server has; `write` tells the fake kubectl.

    inside, outside: status, stdout and stderr of the scripts in the pods; None: their containers do
    not run. called: the workloads of the shared pair; "" for none.
    """

    def __init__(self, programs: ProgramsInMemory) -> None:
        self.programs = programs
        self.entries = {ENTRY.entry: entry(ENTRY.entry, "192.0.2.7", "True")}
        self.pods = [pod("product-abc", "10.244.0.9", "True"), pod("product-def", "10.244.0.10", "False")]
        self.inside: tuple[int, str, str] | None = (0, CALL + OF_POD, "")
        refused = result("192.0.2.7:8080", "refused") + result("10.244.0.9:8080", "refused")
        self.outside: tuple[int, str, str] | None = (0, refused, "")
        self.service: Mapping[str, Any] | None = {"selector": {"app": "product"}}
        self.called = "product"
        self.conditions: list[dict[str, str]] | None = None
        self.job_metadata: dict[str, str] = {}
        self.answers, self.refusal, self.sidecar, self.stranger_sidecar = True, "", True, False
        self.events: list[dict[str, Any]] = []
        self.write()

    def write(self) -> None:
        self.programs.add("kubectl", *self.rules())

    def rules(self) -> list[tuple[str, int, str, str]]:
        def caller(which: str, runs: bool) -> str:
            state = {"running": {}} if runs else {"waiting": {"reason": "ImagePullBackOff"}}
            statuses = [{"name": "istio-proxy", "state": {"running": {}}}, {"name": "calls", "state": state}]
            has_sidecar = self.sidecar if which == "inside" else self.stranger_sidecar
            sidecar = [{"name": "istio-proxy"}] if has_sidecar else []
            spec = {"containers": [{"name": "calls"}], "initContainers": sidecar}
            name = {"name": f"pod-{which}", "namespace": "shop"}
            return json.dumps({"items": [{"metadata": name, "spec": spec, "status": {"containerStatuses": statuses}}]})

        of_pods = [(which, ran) for which, ran in (("inside", self.inside), ("outside", self.outside))]
        annotations = {CALLED_ANNOTATION: self.called}
        status = {"conditions": self.conditions}
        shared = [
            {"metadata": {"name": f"{SHARED}-{which}", "annotations": annotations, **self.job_metadata}, "status": status}
            for which, _ in of_pods
        ]
        return [
            ("get namespace shop", 0 if self.answers else 1, "{}" if not self.answers else '{"kind": "Namespace"}', self.refusal),
            ("get service product ", 0, "" if self.service is None else json.dumps({"spec": self.service}), ""),
            ("get workloadentry ", 0, json.dumps({"items": list(self.entries.values())}), ""),
            ("get job --selector", 0, json.dumps({"items": shared if self.called else []}), ""),
            *((f"-{which} --namespace", 0, caller(which, ran is not None), "") for which, ran in of_pods),
            *((f"exec --stdin pod-{which} ", *_ended(ran or (1, "", ""))) for which, ran in of_pods),
            ("get events ", 0, json.dumps({"items": self.events}), ""),
            ("get pods --selector app=product,version=v1", 0, json.dumps({"items": self.pods}), ""),
        ]


def _ended(ran: tuple[int, str, str]) -> tuple[int, str, str]:
    """What kubectl prints of a script that has run to its end."""
    status, stdout, stderr = ran
    return status, stdout + ("" if status else f"{calling_pods.DONE}\n"), stderr


def entry(name: str, address: str, healthy: str | None, network: str = "pods") -> dict[str, Any]:
    conditions = [{"type": "Healthy", "status": healthy, "message": "HTTP 503\n"}] if healthy else []
    return {
        "metadata": {"name": name},
        "spec": {"address": address, "network": network},
        "status": {"conditions": conditions},
    }


def pod(name: str, address: str, ready: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "status": {"podIP": address, "conditions": [{"type": "Ready", "status": ready}]}}


def scripts(programs: ProgramsInMemory) -> dict[str, str]:
    """What ran in the pods, by pod."""
    return {call.words[call.words.index("exec") + 2]: call.stdin for call in programs.calls("kubectl") if "exec" in call.words}


def target(programs: ProgramsInMemory) -> list[str]:
    """The columns of the target in the script that calls."""
    [line] = re.findall(r"^TARGETS='(.*)'$", scripts(programs)["pod-inside"], re.MULTILINE)
    return str(line).split("\t")


def cluster_of(payload: verify_workload.Payload) -> Cluster:
    with verify_workload.kubectl(payload.access) as program:
        return Cluster(program, payload.pods)
