"""The scripts and Jobs that verify a workload."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from .. import names, shell
from ..config.mesh import MeshSettings
from ..config.workload import WorkloadSettings
from ..istio import manifests
from . import targets
from .targets import POD_ENDPOINTS, TIMEOUT_S


def job_name(workload: str) -> str:
    """What the Jobs that call a workload are called, before their random ending."""
    return f"verify-{workload}"


def call_script(
    name: str,
    workload: WorkloadSettings,
    *,
    caller: str,
    mode: str,
    wanted: Sequence[str] = (),
    ranges: Sequence[str] = (),
    answered: bool = False,
) -> str:
    """The script that calls a workload from inside the mesh until the endpoints `wanted`, and one in `ranges` if given, have answered.

    With `answered` the caller, a machine of the workload, must have been called itself.
    """
    service, port, target = targets.probe_target(workload) or ("", 0, 0)
    probed = workload.probe.http if workload.probe.port == target else None
    variables: dict[str, str | int] = {
        "CALLER": caller,
        "MODE": mode,
        "HOST": names.service_host(service, workload.namespace),
        "PORT": port,
        "URL_PATH": probed.path if probed else "",
        "IDENTITY": names.spiffe_id(workload.namespace, workload.service_account_name),
        "EXPECTED": " ".join(dict.fromkeys(wanted)),
        "CIDRS": " ".join(ranges),
        "TIMEOUT_S": TIMEOUT_S // 2,
        "INBOUND_PORT": target if answered else "",
    }
    return shell.remote_script("verification/call-service", variables)


def plaintext_probe_script(workload: WorkloadSettings, endpoints: Sequence[str]) -> str:
    """The script that calls `endpoints` (and, where `PODS` stands in it, those of the pods) from outside the mesh."""
    service, port, _ = targets.probe_target(workload) or ("", 0, 0)
    variables: dict[str, str | int] = {
        "ENDPOINTS": " ".join([*dict.fromkeys(endpoints), POD_ENDPOINTS]),
        "SNI": f"outbound_.{port}_._.{names.service_host(service, workload.namespace)}",
    }
    return shell.remote_script("verification/plaintext-probe", variables)


def caller_job(name: str, workload: WorkloadSettings, mesh: MeshSettings, text: str, inside: bool = True) -> dict[str, Any]:
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
    account = {"serviceAccountName": workload.service_account_name} if inside else {"automountServiceAccountToken": False}
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


def verification_script(
    name: str,
    workload: WorkloadSettings,
    mesh: MeshSettings,
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
    target = targets.probe_target(workload)
    text = call_script(name, workload, caller=f"Job {job_name(name)}", mode="fail", wanted=wanted)
    manifest = caller_job(name, workload, mesh, text) if target and from_pods else None
    stranger = caller_job(name, workload, mesh, plaintext_probe_script(workload, wanted), inside=False)
    port = target[2] if target else workload.probe.port
    variables: dict[str, str | int] = {
        "WORKLOAD": name,
        "NAMESPACE": workload.namespace,
        "ENTRIES": " ".join(f"{machine}={entries[machine]}={addresses[machine]}:{port}" for machine in entries),
        "SELECTOR": ",".join(f"{key}={value}" for key, value in manifests.pod_labels(workload).items()),
        "PORT": port,
        "JOB_MANIFEST_BASE64": shell.b64encode(json.dumps(manifest)) if manifest else "",
        "OUTSIDE_MANIFEST_BASE64": shell.b64encode(json.dumps(stranger)),
        "PODS": POD_ENDPOINTS,
        "STRICT": "yes" if strict else "",
        "PATIENCE": TIMEOUT_S,
        "MODE": mode,
    }
    if fleet:
        variables["FLEET"] = fleet
    return shell.with_kubeconfig("verification/verify", kubeconfig, variables)
