"""The scripts and Jobs that verify a workload."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .. import names, shell
from ..config.workload import HTTP_PROTOCOLS, WorkloadSettings
from ..istio.manifests import RESTRICTED_POD, image_pull_secrets, restricted_container
from ..manifest import Manifest
from ..mesh_facts import MeshFacts
from .targets import POD_ENDPOINTS, TIMEOUT_S

CALL_SCRIPT = "verification/call-service"
"""The script that calls a workload from inside the mesh; `call_variables` stand before it."""
_NOBODY = 65534
"""The user of a Job's container: the image's is root. Only the proxy's user bypasses the sidecar."""


@dataclass(frozen=True)
class Called:
    """What is called: a workload in a mesh."""

    workload: WorkloadSettings
    facts: MeshFacts

    def host(self, service: str) -> str:
        """Return the DNS name of one of its Services."""
        return names.service_host(service, self.workload.namespace, self.facts.cluster_domain)


def call_variables(
    called: Called,
    *,
    caller: str,
    mode: str,
    wanted: Sequence[str] = (),
    ranges: Sequence[str] = (),
    answered: bool = False,
) -> dict[str, str | int]:
    """Return the variables of `CALL_SCRIPT`: it calls until the endpoints `wanted`, and one in `ranges` if given, have answered.

    With `answered` the caller, a machine of the workload, must have been called itself.
    """
    workload = called.workload
    port = workload.verified_port
    return {
        "CALLER": caller,
        "MODE": mode,
        "HOST": called.host(port.service if port else ""),
        "PORT": port.port if port else 0,
        "URL_PATH": workload.verified_path if port and port.protocol in (*HTTP_PROTOCOLS, "grpc") else "",
        "IDENTITY": called.facts.spiffe_id(workload.namespace, workload.service_account_name),
        "EXPECTED": " ".join(dict.fromkeys(wanted)),
        "CIDRS": " ".join(ranges),
        "TIMEOUT_S": TIMEOUT_S // 2,
        "INBOUND_PORT": port.target if port and answered else "",
    }


def call_script(called: Called, *, caller: str, mode: str, wanted: Sequence[str] = (), ranges: Sequence[str] = ()) -> str:
    """Return `CALL_SCRIPT` with its variables, for a pod."""
    return shell.remote_script(CALL_SCRIPT, call_variables(called, caller=caller, mode=mode, wanted=wanted, ranges=ranges))


def plaintext_probe_script(called: Called, endpoints: Sequence[str]) -> str:
    """The script that calls `endpoints` (and, where `PODS` stands in it, those of the pods) from outside the mesh."""
    port = called.workload.verified_port
    variables: dict[str, str | int] = {
        "ENDPOINTS": " ".join([*dict.fromkeys(endpoints), POD_ENDPOINTS]),
        "SNI": f"outbound_.{port.port if port else 0}_._.{called.host(port.service if port else '')}",
    }
    return shell.remote_script("verification/plaintext-probe", variables)


def caller_job(called: Called, text: str, inside: bool = True) -> Manifest:
    """A Job that runs `text` in a pod with a sidecar, as the workload's own service account; its image is the mesh's proxy, which every node has.

    Its labels keep it out of every Service; it goes by itself five minutes after its end. One that is not `inside` the mesh has neither sidecar
    nor service account.
    """
    workload, facts = called.workload, called.facts
    name = names.verification_job_name(workload.name)
    labels = {"app": name, "app.kubernetes.io/managed-by": names.PROJECT}
    container = {
        "name": "calls",
        "image": facts.proxy_image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["bash", "-c", text],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "500m", "memory": "128Mi"}},
        "securityContext": restricted_container(_NOBODY),
    }
    account = {"serviceAccountName": workload.service_account_name} if inside else {"automountServiceAccountToken": False}
    pod = {
        "restartPolicy": "Never",
        **account,
        **image_pull_secrets(workload, facts),
        "securityContext": RESTRICTED_POD,
        "containers": [container],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"generateName": f"{name}-", "namespace": workload.namespace, "labels": labels},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": 120,
            "ttlSecondsAfterFinished": 300,
            "template": {"metadata": {"labels": labels, "annotations": {"sidecar.istio.io/inject": str(inside).lower()}}, "spec": pod},
        },
    }
