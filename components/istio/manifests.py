"""Manifests of objects of Istio and of Kubernetes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..config.existing import ExistingCluster
from ..config.stack import NamespaceSettings, Settings
from ..config.workload import Pods, Probe, WorkloadSettings
from ..grammar import is_port_name
from ..manifest import Manifest
from ..mesh_facts import MeshFacts
from ..mesh_namespaces import injected_pod_labels
from ..names import (
    CROSS_NETWORK_PORT,
    GATEWAY_SELECTOR,
    ISTIOD_EXPOSURE,
    MACHINES_ANNOTATION,
    MAX_UNAVAILABLE_ANNOTATION,
    SERVICES_EXPOSURE,
    WORKLOAD_LABEL,
    XDS_PORT,
    slots_lease_name,
)


def strict_mtls(namespace: str) -> Manifest:
    """Return the PeerAuthentication that refuses plaintext in a namespace.

    In the root namespace it holds for the complete mesh.
    """
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": "default", "namespace": namespace},
        "spec": {"mtls": {"mode": "STRICT"}},
    }


def istiod_gateway(facts: MeshFacts) -> Manifest:
    """Return the Gateway by which control-plane connections reach istiod with their TLS.

    Only istiod's own name is routed (Istio's sample `expose-istiod` takes any), so nothing else in
    the cluster can be reached this way.
    """
    port = {"name": "tls-istiod", "number": XDS_PORT, "protocol": "TLS"}
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "Gateway",
        "metadata": {"name": ISTIOD_EXPOSURE, "namespace": facts.namespace},
        "spec": {
            "selector": GATEWAY_SELECTOR,
            "servers": [{"port": port, "tls": {"mode": "PASSTHROUGH"}, "hosts": [facts.istiod]}],
        },
    }


def istiod_route(facts: MeshFacts) -> Manifest:
    """Return the VirtualService that leads from that Gateway to istiod."""
    destination = {"host": facts.istiod_host, "port": {"number": facts.istiod_port}}
    match = {"port": XDS_PORT, "sniHosts": [facts.istiod]}
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": ISTIOD_EXPOSURE, "namespace": facts.namespace},
        "spec": {
            "hosts": [facts.istiod],
            "gateways": [ISTIOD_EXPOSURE],
            "tls": [{"match": [match], "route": [{"destination": destination}]}],
        },
    }


def services_exposure(namespace: str, cluster_domain: str) -> Manifest:
    """Return the Gateway that forwards requests from other networks to the mesh's Services.

    namespace: Istio's own. cluster_domain: the domain of the cluster's Services.

    Source: Istio's sample `expose-services`.
    """
    port = {"name": "tls", "number": CROSS_NETWORK_PORT, "protocol": "TLS"}
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "Gateway",
        "metadata": {"name": SERVICES_EXPOSURE, "namespace": namespace},
        "spec": {
            "selector": GATEWAY_SELECTOR,
            "servers": [{"port": port, "tls": {"mode": "AUTO_PASSTHROUGH"}, "hosts": [f"*.{cluster_domain}"]}],
        },
    }


def enforces_strict_mtls(settings: Settings, workload: WorkloadSettings) -> bool:
    """Return whether objects of this program refuse plaintext to a workload.

    They do in a mesh that it installs, and in namespaces that it creates.
    """
    return not settings.mesh.adopt or not (
        isinstance(settings.cluster, ExistingCluster) and workload.namespace in settings.cluster.namespaces
    )


def namespace_metadata(stated: NamespaceSettings, labels: Mapping[str, str]) -> Manifest:
    """Return the metadata of a namespace: what the stack states, and labels of this program."""
    annotations = {"annotations": dict(stated.annotations)} if stated.annotations else {}
    return {"name": stated.name, "labels": {**stated.labels, **labels}, **annotations}


def service_account(workload: WorkloadSettings) -> Manifest:
    """Return the workload's ServiceAccount."""
    metadata = {"name": workload.service_account_name, "namespace": workload.namespace}
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}


def probe_method(settings: Probe) -> Manifest:
    """Return what a probe does: an HTTP GET or a TCP connection. Kubernetes and Istio have the
    same form.
    """
    if http := settings.http:
        scheme = {} if http.scheme == "HTTP" else {"scheme": http.scheme}
        # The agent sends `Host` only where it is written like this.
        names = {"-".join(map(str.capitalize, name.split("-"))): value for name, value in http.headers.items()}
        headers = [{"name": name, "value": value} for name, value in sorted(names.items())]
        more = {**scheme, **({"httpHeaders": headers} if headers else {})}
        return {"httpGet": {"path": http.path, "port": http.port, **more}}
    return {"tcpSocket": {"port": settings.port}}


def probe(settings: Probe) -> Manifest:
    """Return the probe of a WorkloadGroup, which is the agent's readinessProbe too.

    failureThreshold is always there: the code's default is 1, and that of the API reference 3.
    """
    times = {"periodSeconds": settings.period, "timeoutSeconds": settings.timeout, "failureThreshold": settings.failure_threshold}
    return {**probe_method(settings), **times}


def workload_group(workload: WorkloadSettings, network: str) -> Manifest:
    """Return the WorkloadGroup, from which istiod creates WorkloadEntries.

    network: of machines that register without one. Machines of this program always state one.
    """
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "WorkloadGroup",
        "metadata": {"name": workload.name, "namespace": workload.namespace},
        "spec": {
            "metadata": {"labels": dict(workload.labels)},
            "template": {
                "ports": dict(workload.ports),
                "serviceAccount": workload.service_account_name,
                "network": network,
                # Of machines that state none when they register.
                **({"locality": workload.locality} if workload.locality else {}),
            },
            "probe": probe(workload.probe),
        },
    }


def slots_lease(workload: WorkloadSettings, machines: Sequence[str]) -> Manifest:
    """Return the Lease of the slots in which the workload's agents restart.

    machines: the names of the workload's machines in the stack.

    Joins add annotations of their own and its `spec` (components/machines/scripts/slots.py).
    """
    annotations = {
        MAX_UNAVAILABLE_ANNOTATION: workload.max_unavailable,
        MACHINES_ANNOTATION: ",".join(sorted(machines)),
    }
    metadata = {
        "name": slots_lease_name(workload.name),
        "namespace": workload.namespace,
        "annotations": annotations,
    }
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata}


def pod_labels(workload: WorkloadSettings) -> dict[str, str]:
    """Return the labels of the workload's pods."""
    return {**workload.labels, **(workload.pods.labels if workload.pods else {})}


def services(workload: WorkloadSettings) -> dict[str, Manifest]:
    """Return the Services that this program creates for the workload, by name.

    skipAwait: the provider would wait for endpoints, and Kubernetes never lists machines there
    (istio/istio#34755).
    """
    return {
        name: {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": name,
                "namespace": workload.namespace,
                "annotations": {**service.annotations, "pulumi.com/skipAwait": "true"},
            },
            "spec": {
                **({"clusterIP": "None"} if service.headless else {}),
                "selector": service.selected(workload.labels),
                "ports": [
                    {
                        "name": port_name,
                        "port": port,
                        "targetPort": workload.ports[port_name],
                        "protocol": "TCP",
                        **({"appProtocol": service.app_protocols[port_name]} if port_name in service.app_protocols else {}),
                    }
                    for port_name, port in service.ports.items()
                ],
            },
        }
        for name, service in workload.services.items()
        if not service.existing
    }


# Pod Security Standards, level "restricted" (kubernetes.io). The injected sidecar states no seccomp
# profile of its own, so that one is the pod's.
RESTRICTED_POD: Manifest = {"seccompProfile": {"type": "RuntimeDefault"}}


def restricted_container(user: int | None) -> Manifest:
    """Return the security context of a container that Pod Security's level `restricted` admits.

    user: the ID that it runs as; None: that of its image.
    """
    context = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True}
    return context if user is None else {**context, "runAsUser": user}


def image_pull_secrets(secrets: Iterable[str]) -> Manifest:
    """Return pull secrets as a pod's manifest has them.

    A pod that states any does not get those of its ServiceAccount. So pods with sidecars state what
    the stack states alone: the injection adds the mesh's (kubernetes.io: Configure Service Accounts
    for Pods; istio/istio: injection-template.yaml).
    """
    listed = [{"name": name} for name in dict.fromkeys(secrets)]
    return {"imagePullSecrets": listed} if listed else {}


def _security(pods: Pods) -> tuple[Manifest, Manifest]:
    """Return the security contexts of the application's pod and of its container, each as part
    of a manifest.
    """
    if pods.restricted:
        return {"securityContext": RESTRICTED_POD}, {"securityContext": restricted_container(pods.run_as_user)}
    user = {} if pods.run_as_user is None else {"securityContext": {"runAsUser": pods.run_as_user}}
    return {}, user


def _container_port(name: str, number: int) -> Manifest:
    """Return a port of a container. Its name is left out where Kubernetes takes none so long."""
    return {**({"name": name} if is_port_name(name) else {}), "containerPort": number}


def deployment_metadata(workload: WorkloadSettings) -> Manifest:
    """Return the metadata of the workload's Deployment, which follows from the settings alone."""
    return {"name": workload.name, "namespace": workload.namespace}


def deployment(workload: WorkloadSettings, facts: MeshFacts) -> Manifest | None:
    """Return the workload's Deployment; None where this program does not run its pods."""
    name, pods = workload.name, workload.pods
    if pods is None:
        return None
    pod_security, security = _security(pods)
    container: Manifest = {
        "name": name,
        "image": pods.image,
        "imagePullPolicy": "IfNotPresent",
        "ports": [_container_port(*port) for port in workload.ports.items()],
        "readinessProbe": {**probe_method(workload.probe), "periodSeconds": workload.probe.period},
        "resources": {"requests": dict(pods.resources.requests), "limits": dict(pods.resources.limits)},
        **security,
    }
    if pods.args:
        container["args"] = list(pods.args)
    # A Deployment's selector cannot change. The workload's labels may.
    selector = {WORKLOAD_LABEL: name}
    return {
        "metadata": deployment_metadata(workload),
        "spec": {
            "replicas": pods.replicas,
            "selector": {"matchLabels": selector},
            "template": {
                "metadata": {"labels": {**pod_labels(workload), **injected_pod_labels(facts), **selector}},
                "spec": {
                    "serviceAccountName": workload.service_account_name,
                    **image_pull_secrets(workload.image_pull_secrets),
                    **pod_security,
                    "containers": [container],
                },
            },
        },
    }
