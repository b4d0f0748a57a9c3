"""What verifications call, and the Jobs whose pods call it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .. import names
from ..config.workload import HTTP_PROTOCOLS, OfferedPort, WorkloadSettings
from ..existing_objects import pod_port
from ..istio.manifests import RESTRICTED_POD, image_pull_secrets, pod_labels, restricted_container
from ..manifest import Manifest
from ..mesh_facts import MeshFacts
from ..mesh_namespaces import injected_pod_labels
from .addressing import Destination, pod_annotations
from .scripts.calling_pods import Pair
from .scripts.cluster_objects import WorkloadPods
from .target import Target

DEFAULT_STATUSES = ("200-399",)
"""The statuses of HTTP that pass where a workload states none."""
_NOBODY = 65534
"""The user of a Job's container: the image's is root. Only the proxy's user bypasses the sidecar."""
_LIFETIME_S = 7200
"""Seconds that the pods run at most: joins may wait for slots. What ends them is elsewhere."""
# It ends at once when it is told to, as no other process of the pod does.
_WAIT = "trap exit TERM; sleep infinity & wait"


@dataclass(frozen=True)
class Called:
    """What is called: a workload in a mesh, with the ports that its Services have."""

    workload: WorkloadSettings
    facts: MeshFacts

    def host(self, service: str) -> str:
        """Return the DNS name of one of its Services."""
        return names.service_host(service, self.workload.namespace, self.facts.cluster_domain)

    @property
    def port(self) -> int:
        """The port of machines that is verified."""
        return self.workload.verified_port.target if self.workload.verified_port else self.workload.probe.port

    def pods(self, existing: Mapping[str, Manifest]) -> WorkloadPods:
        """Return which pods are the workload's. existing: the specs of Services that exist, by name."""
        offered = self.workload.verified_port
        port: int | str = self.port
        if offered and offered.service in existing:
            port = pod_port(existing[offered.service], offered.port)
        return WorkloadPods(self.workload.namespace, pod_labels(self.workload), port)

    @property
    def identities(self) -> tuple[str, ...]:
        """The SPIFFE IDs of which one must answer."""
        return self.facts.spiffe_ids(self.workload.namespace, self.workload.service_account_name)


def target(called: Called, mode: str) -> Target | None:
    """Return what callers of a workload call, without its endpoints; None if no Service leads there."""
    workload, port = called.workload, called.workload.verified_port
    if port is None:
        return None
    is_http = _protocol(called, port) in HTTP_PROTOCOLS
    return Target(
        service=called.host(port.service),
        port=port.port,
        protocol=_protocol(called, port),
        headers=tuple(f"{name}: {value}" for name, value in workload.verified_headers.items()) if is_http else (),
        path=workload.verified_path if is_http else "",
        expect=(tuple(workload.verify.expect_status) or DEFAULT_STATUSES) if is_http else (),
        timeout_s=workload.verify.timeout,
        mode=mode,
        identities=called.identities,
    )


def _protocol(called: Called, port: OfferedPort) -> str:
    return "tls" if called.workload.ends_tls else port.protocol


def _destination(called: Called, port: OfferedPort) -> Destination:
    return Destination(called.host(port.service), port.port, _protocol(called, port), called.identities, called.workload.verify.timeout)


def pair(name: str, called: Sequence[Called], stack: str) -> Pair:
    """Return the Jobs that call workloads of one service account.

    name: how their names begin. called: the workloads, at least one.
    stack: whose they are, as in labels.
    """
    ports = [(each, each.workload.verified_port) for each in called]
    destinations = [_destination(each, port) for each, port in ports if port is not None]
    namespace = called[0].workload.namespace
    return Pair(name, namespace, _job(name, called, destinations), _job(name, called, None), stack)


def _job(name: str, called: Sequence[Called], destinations: Sequence[Destination] | None) -> Manifest:
    """Return a Job whose pod waits for scripts to run; its image is the mesh's proxy, which every node has.

    destinations: what the pod calls, with a sidecar; None for a pod outside the mesh, which has
        neither that nor a token.

    Its labels keep it out of every Service.
    """
    first, facts = called[0].workload, called[0].facts
    labels = {"app": name, names.MANAGED_BY_LABEL: names.PROJECT}
    inside = destinations is not None
    injection = injected_pod_labels(facts) if inside else {names.INJECT_LABEL: "false"}
    container = {
        "name": "calls",
        "image": facts.proxy_image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["bash", "-c", _WAIT],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "500m", "memory": "128Mi"}},
        "securityContext": restricted_container(_NOBODY),
    }
    stated = [secret for each in called for secret in each.workload.image_pull_secrets]
    pod = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        # Of both: nodes may pull images by the account's secrets.
        "serviceAccountName": first.service_account_name,
        **({} if inside else {"automountServiceAccountToken": False}),
        **image_pull_secrets(stated if inside else [*stated, *facts.pull_secrets]),
        "securityContext": RESTRICTED_POD,
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "containers": [container],
    }
    metadata = {
        "labels": {**labels, **injection},
        **({"annotations": pod_annotations(destinations)} if destinations is not None else {}),
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "namespace": first.namespace,
            "labels": labels,
            "annotations": {names.CALLED_ANNOTATION: ",".join(each.workload.name for each in called)},
        },
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": _LIFETIME_S,
            "ttlSecondsAfterFinished": 60,
            "template": {"metadata": metadata, "spec": pod},
        },
    }
