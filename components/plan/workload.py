"""A workload in the cluster: its namespace, identity, WorkloadGroup, Services and, where this program runs them, its pods."""

from __future__ import annotations

from typing import Any

from components.plan.mesh import TRUST_DOMAIN
from components.settings import ExistingCluster, Probe, Settings, Workload


def service_account(name: str, workload: Workload) -> str:
    """The name of the workload's ServiceAccount: the workload's own unless the stack says otherwise."""
    return workload.service_account or name


def identity(name: str, workload: Workload) -> str:
    """The SPIFFE identity of the workload's pods and machines."""
    return f"spiffe://{TRUST_DOMAIN}/ns/{workload.namespace}/sa/{service_account(name, workload)}"


def strict(settings: Settings, workload: Workload) -> bool:
    """Whether this program sees to it that nothing of the workload takes plaintext: in its own mesh, and in its own namespaces of another's."""
    return not settings.mesh.adopt or not (
        isinstance(settings.cluster, ExistingCluster) and workload.namespace in settings.cluster.namespaces
    )


def namespace(name: str) -> dict[str, Any]:
    """A namespace whose pods get a sidecar."""
    return {"metadata": {"name": name, "labels": {"istio-injection": "enabled"}}}


def account(name: str, workload: Workload) -> dict[str, Any]:
    """The workload's ServiceAccount."""
    return {"metadata": {"name": service_account(name, workload), "namespace": workload.namespace}}


def probe_method(settings: Probe) -> dict[str, Any]:
    """What is asked: an HTTP GET or a TCP connect, in the words that Kubernetes and Istio share."""
    if settings.http:
        return {"httpGet": {"path": settings.http.path, "port": settings.http.port}}
    return {"tcpSocket": {"port": settings.port}}


def probe(settings: Probe) -> dict[str, Any]:
    """The probe as WorkloadGroup and the agent's readinessProbe have it.

    failureThreshold is always given: the code's default is 1 where the API reference says 3.
    """
    times = {"periodSeconds": settings.period, "timeoutSeconds": settings.timeout, "failureThreshold": settings.failure_threshold}
    return {**probe_method(settings), **times}


def workload_group(name: str, workload: Workload, network: str) -> dict[str, Any]:
    """The WorkloadGroup: what istiod makes WorkloadEntries from.

    `network` is that of the machines that name none when they register; ours always name theirs.
    """
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "WorkloadGroup",
        "metadata": {"name": name, "namespace": workload.namespace},
        "spec": {
            "metadata": {"labels": dict(workload.labels)},
            "template": {
                "ports": dict(workload.ports),
                "serviceAccount": service_account(name, workload),
                "network": network,
            },
            "probe": probe(workload.probe),
        },
    }


def pod_labels(workload: Workload) -> dict[str, str]:
    """The labels of the workload's pods."""
    return {**workload.labels, **(workload.pods.labels if workload.pods else {})}


def services(workload: Workload) -> dict[str, dict[str, Any]]:
    """The workload's Services by name.

    skipAwait: the provider would wait for endpoints, and Kubernetes never lists machines there (istio/istio#34755).
    """
    return {
        name: {
            "metadata": {"name": name, "namespace": workload.namespace, "annotations": {"pulumi.com/skipAwait": "true"}},
            "spec": {
                "selector": service.selected(workload.labels),
                "ports": [
                    {"name": port_name, "port": port, "targetPort": workload.ports[port_name], "protocol": "TCP"}
                    for port_name, port in service.ports.items()
                ],
            },
        }
        for name, service in workload.services.items()
    }


def deployment(name: str, workload: Workload) -> dict[str, Any] | None:
    """The workload's Deployment, or None where this program does not run its pods."""
    pods = workload.pods
    if pods is None:
        return None
    container: dict[str, Any] = {
        "name": name,
        "image": pods.image,
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"name": port_name[:15], "containerPort": port} for port_name, port in workload.ports.items()],
        "readinessProbe": {**probe_method(workload.probe), "periodSeconds": workload.probe.period},
    }
    if pods.args:
        container["args"] = list(pods.args)
    # A Deployment's selector cannot change, the workload's labels may.
    own = {"istio-vm-mesh/workload": name}
    return {
        "metadata": {"name": name, "namespace": workload.namespace},
        "spec": {
            "replicas": pods.replicas,
            "selector": {"matchLabels": own},
            "template": {
                "metadata": {"labels": {**pod_labels(workload), **own}},
                "spec": {"serviceAccountName": service_account(name, workload), "containers": [container]},
            },
        },
    }


def host(service: str, workload: Workload) -> str:
    """The name by which a Service is called throughout the mesh."""
    return f"{service}.{workload.namespace}.svc.cluster.local"
