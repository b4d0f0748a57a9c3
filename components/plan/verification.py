"""The proof that a workload answers: what is called, by whom, and what its evidence says."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from components.plan import script
from components.plan import workload as workload_plan
from components.plan.mesh import CROSS_NETWORK_PORT
from components.settings import Mesh, Workload

PATIENCE = 60  # seconds to wait for an entry's health, and for endpoints to answer


def job_name(workload: str) -> str:
    """What the Jobs that call a workload are called, before their random ending."""
    return f"verify-{workload}"


def called(workload: Workload) -> tuple[str, int, int] | None:
    """What is called: Service, its port, and the endpoints' port. The probe's port, or the first that any Service offers; None if none does."""
    offers = [(service, port, workload.ports[name]) for service, spec in workload.services.items() for name, port in spec.ports.items()]
    return next((offer for offer in offers if offer[2] == workload.probe.port), offers[0] if offers else None)


def calls(name: str, workload: Workload, *, caller: str, mode: str, wanted: Sequence[str], ranges: Sequence[str]) -> str:
    """The script that calls a workload from inside the mesh: until the endpoints `wanted`, and one in `ranges` if given, have answered."""
    service, port, target = called(workload) or ("", 0, 0)
    probed = workload.probe.http if workload.probe.port == target else None
    variables: dict[str, str | int] = {
        "CALLER": caller,
        "MODE": mode,
        "HOST": workload_plan.host(service, workload),
        "PORT": port,
        "URL_PATH": probed.path if probed else "",
        "IDENTITY": workload_plan.identity(name, workload),
        "WANTED": " ".join(f"{address}:{target}" for address in wanted),
        "RANGES": " ".join(ranges),
        "PATIENCE": PATIENCE // 2,
    }
    return script.assignments(variables) + script.body("calls")


def job(name: str, workload: Workload, mesh: Mesh, text: str) -> dict[str, Any]:
    """A Job that runs `text` in a pod with a sidecar, as the workload's own service account; its image is the mesh's proxy, which every node has.

    Its labels keep it out of every Service; it goes by itself five minutes after its end.
    """
    labels = {"app": job_name(name), "app.kubernetes.io/managed-by": "istio-vm-mesh"}
    container = {
        "name": "calls",
        "image": f"{mesh.hub}/proxyv2:{mesh.version}",
        "imagePullPolicy": "IfNotPresent",
        "command": ["bash", "-c", text],
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    pod = {"restartPolicy": "Never", "serviceAccountName": workload_plan.service_account(name, workload), "containers": [container]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"generateName": f"{job_name(name)}-", "namespace": workload.namespace, "labels": labels},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": 120,
            "ttlSecondsAfterFinished": 300,
            "template": {"metadata": {"labels": labels, "annotations": {"sidecar.istio.io/inject": "true"}}, "spec": pod},
        },
    }


def verify(
    name: str, workload: Workload, mesh: Mesh, mode: str, *, kubeconfig: str, entries: Mapping[str, str], addresses: Mapping[str, str]
) -> str:
    """The script that verifies a workload from the cluster's side. `entries` and `addresses` are by machine."""
    target = (called(workload) or ("", 0, workload.probe.port))[2]
    manifest = job(
        name, workload, mesh, calls(name, workload, caller=f"Job {job_name(name)}", mode="fail", wanted=list(addresses.values()), ranges=[])
    )
    variables: dict[str, str | int] = {
        "WORKLOAD": name,
        "NAMESPACE": workload.namespace,
        "ENTRIES": " ".join(f"{machine}={entries[machine]}={addresses[machine]}:{target}" for machine in entries),
        "SELECTOR": ",".join(f"{key}={value}" for key, value in workload.labels.items()),
        "JOB_MANIFEST_BASE64": script.encoded(json.dumps(manifest)),
        "PATIENCE": PATIENCE,
        "MODE": mode,
    }
    return script.with_cluster("verify", kubeconfig, variables)


_ENDPOINT = ("name", "entry", "address", "health")
_CALL = ("caller", "callerIdentity", "service", "endpoint", "identity", "answers")


def evidence(stdout: str) -> dict[str, list[dict[str, str]]]:
    """What the scripts printed, as data.

    `endpoints`: machines and pods (`kind`, and `_ENDPOINT`); `calls`: who called whom (`_CALL`), by which `path`: direct or gateway.
    """
    endpoints, calls = [], []
    for line in stdout.splitlines():
        kind, *values = line.split("\t")
        if kind in ("entry", "pod") and len(values) == len(_ENDPOINT):
            endpoints.append({"kind": "machine" if kind == "entry" else "pod", **dict(zip(_ENDPOINT, values, strict=True))})
        elif kind == "call" and len(values) == len(_CALL):
            call = dict(zip(_CALL, values, strict=True))
            calls.append({**call, "path": "gateway" if call["endpoint"].endswith(f":{CROSS_NETWORK_PORT}") else "direct"})
    return {"endpoints": endpoints, "calls": calls}
