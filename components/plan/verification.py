"""The proof that a workload answers: what is called, by whom, and what its evidence says."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from components.plan import script
from components.plan import workload as workload_plan
from components.plan.mesh import CROSS_NETWORK_PORT
from components.settings import Mesh, Workload, is_address

PODS = "PODS-OF-THE-WORKLOAD"
"""Stands for the pods' endpoints, which only the cluster knows, until the script that verifies fills them in."""
PATIENCE = 60  # seconds to wait for an entry's health, and for endpoints to answer


def job_name(workload: str) -> str:
    """What the Jobs that call a workload are called, before their random ending."""
    return f"verify-{workload}"


def called(workload: Workload) -> tuple[str, int, int] | None:
    """What is called: Service, its port, and the endpoints' port. The probe's port, or the first that any Service offers; None if none does."""
    offers = [(service, port, workload.ports[name]) for service, spec in workload.services.items() for name, port in spec.ports.items()]
    return next((offer for offer in offers if offer[2] == workload.probe.port), offers[0] if offers else None)


def seen_at(viewer: str, network: str, address: str, port: int, gateways: Mapping[str, Sequence[str]]) -> list[str]:
    """The endpoints under which callers in the network `viewer` see a machine of `network`: itself, its network's gateways, or none.

    `gateways` are addresses by network. As istiod filters endpoints (istio/istio: pilot/pkg/xds/endpoints/ep_filters.go).
    """
    if viewer == network:
        return [f"{address}:{port}"]
    return [f"{gateway}:{CROSS_NETWORK_PORT}" for gateway in gateways.get(network, ())]


def calls(
    name: str, workload: Workload, *, caller: str, mode: str, wanted: Sequence[str] = (), ranges: Sequence[str] = (), answered: bool = False
) -> str:
    """The script that calls a workload from inside the mesh until the endpoints `wanted`, and one in `ranges` if given, have answered.

    With `answered` the caller, a machine of the workload, must have been called itself.
    """
    service, port, target = called(workload) or ("", 0, 0)
    probed = workload.probe.http if workload.probe.port == target else None
    variables: dict[str, str | int] = {
        "CALLER": caller,
        "MODE": mode,
        "HOST": workload_plan.host(service, workload),
        "PORT": port,
        "URL_PATH": probed.path if probed else "",
        "IDENTITY": workload_plan.identity(name, workload),
        "WANTED": " ".join(dict.fromkeys(wanted)),
        "RANGES": " ".join(ranges),
        "PATIENCE": PATIENCE // 2,
        "ANSWERED": target if answered else "",
    }
    return script.assignments(variables) + script.body("calls")


def outside(workload: Workload, endpoints: Sequence[str]) -> str:
    """The script that calls `endpoints` (and, where `PODS` stands in it, those of the pods) from outside the mesh."""
    service, port, _ = called(workload) or ("", 0, 0)
    variables: dict[str, str | int] = {
        "ENDPOINTS": " ".join([*dict.fromkeys(endpoints), PODS]),
        "SNI": f"outbound_.{port}_._.{workload_plan.host(service, workload)}",
    }
    return script.assignments(variables) + script.body("outside")


def job(name: str, workload: Workload, mesh: Mesh, text: str, inside: bool = True) -> dict[str, Any]:
    """A Job that runs `text` in a pod with a sidecar, as the workload's own service account; its image is the mesh's proxy, which every node has.

    Its labels keep it out of every Service; it goes by itself five minutes after its end. One that is not `inside` the mesh has neither sidecar
    nor service account.
    """
    labels = {"app": job_name(name), "app.kubernetes.io/managed-by": "istio-vm-mesh"}
    container = {
        "name": "calls",
        "image": f"{mesh.hub}/proxyv2:{mesh.version}",
        "imagePullPolicy": "IfNotPresent",
        "command": ["bash", "-c", text],
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    account = {"serviceAccountName": workload_plan.service_account(name, workload)} if inside else {"automountServiceAccountToken": False}
    pod = {"restartPolicy": "Never", **account, "containers": [container]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"generateName": f"{job_name(name)}-", "namespace": workload.namespace, "labels": labels},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": 120,
            "ttlSecondsAfterFinished": 300,
            "template": {"metadata": {"labels": labels, "annotations": {"sidecar.istio.io/inject": str(inside).lower()}}, "spec": pod},
        },
    }


def verify(
    name: str,
    workload: Workload,
    mesh: Mesh,
    mode: str,
    *,
    kubeconfig: str,
    entries: Mapping[str, str],
    addresses: Mapping[str, str],
    wanted: Sequence[str],
    strict: bool,
    from_pods: bool = True,
    fleet: int = 0,
) -> str:
    """The script that verifies a workload from the cluster's side. `entries` and `addresses` are by machine, `wanted` as pods see them.

    Without `from_pods` no pod can call it, so none tries. With `strict`, nobody outside the mesh may be answered; else it is only said. `fleet` is
    how many machines of groups there are at least.
    """
    target = called(workload)
    text = calls(name, workload, caller=f"Job {job_name(name)}", mode="fail", wanted=wanted)
    manifest = job(name, workload, mesh, text) if target and from_pods else None
    stranger = job(name, workload, mesh, outside(workload, wanted), inside=False)
    port = target[2] if target else workload.probe.port
    variables: dict[str, str | int] = {
        "WORKLOAD": name,
        "NAMESPACE": workload.namespace,
        "ENTRIES": " ".join(f"{machine}={entries[machine]}={addresses[machine]}:{port}" for machine in entries),
        "SELECTOR": ",".join(f"{key}={value}" for key, value in workload_plan.pod_labels(workload).items()),
        "PORT": port,
        "JOB_MANIFEST_BASE64": script.encoded(json.dumps(manifest)) if manifest else "",
        "OUTSIDE_MANIFEST_BASE64": script.encoded(json.dumps(stranger)),
        "PODS": PODS,
        "STRICT": "yes" if strict else "",
        "PATIENCE": PATIENCE,
        "MODE": mode,
    }
    if fleet:
        variables["FLEET"] = fleet
    return script.with_cluster("verify", kubeconfig, variables)


_ENDPOINT = ("name", "entry", "address", "health")
_CALL = ("caller", "callerIdentity", "service", "endpoint", "identity", "answers")
_ANSWERED = ("machine", "requests")
_CARRIED = ("gateway", "service", "endpoint", "connections")
_OUTSIDE = ("endpoint", "result")


def evidence(stdout: str, gateways: Mapping[str, str]) -> dict[str, list[dict[str, str]]]:
    """What the scripts printed, as data. `gateways`: their names by address; one that has a DNS name for an address is at every address that is nobody's.

    `endpoints`: machines and pods (`kind`, and `_ENDPOINT`); `calls`: who called whom (`_CALL`) by which `path`, "direct" or "through" a gateway;
    `answered`: what reached each machine (`_ANSWERED`); `carried`: what each gateway of machines passed on (`_CARRIED`); `outside`: what came of
    a call from outside the mesh, "refused", "unreachable" or "answered" (`_OUTSIDE`).
    """
    found: dict[str, list[dict[str, str]]] = {"endpoints": [], "calls": [], "answered": [], "carried": [], "outside": []}
    by_name = next((name for address, name in gateways.items() if not is_address(address)), None)
    for line in stdout.splitlines():
        kind, *values = line.split("\t")
        if kind in ("entry", "pod") and len(values) == len(_ENDPOINT):
            found["endpoints"].append({"kind": "machine" if kind == "entry" else "pod", **dict(zip(_ENDPOINT, values, strict=True))})
        elif kind == "call" and len(values) == len(_CALL):
            call = dict(zip(_CALL, values, strict=True))
            address, _, port = call["endpoint"].rpartition(":")
            through = f"through {gateways.get(address, by_name or address)}" if port == str(CROSS_NETWORK_PORT) else "direct"
            found["calls"].append({**call, "path": through})
        elif kind == "answered" and len(values) == len(_ANSWERED):
            found["answered"].append(dict(zip(_ANSWERED, (values[0].removeprefix("machine "), values[1]), strict=True)))
        elif kind == "carried" and len(values) == len(_CARRIED):
            found["carried"].append(dict(zip(_CARRIED, values, strict=True)))
        elif kind == "outside" and len(values) == len(_OUTSIDE):
            found["outside"].append(dict(zip(_OUTSIDE, values, strict=True)))
    return found
