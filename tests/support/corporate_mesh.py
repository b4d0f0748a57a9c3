"""A mesh with a past beside the lab's own: plain Helm installs it, and this program has no part in it.

It is a revision with a tag. Its namespace, trust domain, network's name and trust anchor are others
than the lab's. Its CNI plugin redirects the traffic of pods, so they run under Pod Security's level
`restricted`. It sees the namespaces with its label alone, so that it leaves the lab's mesh alone.
The lab's istiod sees all namespaces. So nothing here has a label that selects its gateway, or the
address and port of its gateway.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from components.names import DEFAULT_DOMAIN, REVISION_LABEL, XDS_PORT, service_host
from components.platforms.docker.names import CLUSTER, docker_name
from tests.support import plain_helm
from tests.support.lab import Lab, make_image
from tests.support.module_files import directory
from tools.lab.offline import images, versions

NAMESPACE = "corp-istio"
REVISION = "1-31"
TAG = "stable"
NETWORK = "corp-network"
TRUST_DOMAIN = "corp.example"
GATEWAY = "corp-eastwest"
CNI_PLUGIN = "istio-cni"
GATEWAY_PORT = 15112
"""What the node has for machines, beside the port of the lab's own gateway."""
ISTIOD_PORT = XDS_PORT
SELECTED = {"mesh": "corp"}
"""The label of the namespaces that istiod sees."""
INJECTED = {**SELECTED, REVISION_LABEL: TAG}
"""The labels of a namespace of applications."""


def istiod_values() -> dict[str, Any]:
    """Return the values of istiod, in addition to what the lab's Envoy needs."""
    return {
        "revision": REVISION,
        "revisionTags": [TAG],
        "meshConfig": {"trustDomain": TRUST_DOMAIN, "discoverySelectors": [{"matchLabels": SELECTED}]},
        # The lab's istiod writes the default ConfigMap into all namespaces, with its own trust anchor.
        "global": {
            "istioNamespace": NAMESPACE,
            "network": NETWORK,
            "meshID": "corp-mesh",
            "trustBundleName": "corp-root-cert",
            **plain_helm.IMAGES,
        },
        "env": {"PILOT_ENABLE_GATEWAY_API": "false"},
        "pilot": {"cni": {"enabled": True}},
    }


def cni_values() -> dict[str, Any]:
    """Return the values of the CNI plugin, which is chained to the node's own. It repairs no pod, because its image has no iptables."""
    return {
        "image": images.INSTALL_CNI.name,
        "repair": {"enabled": False, "repairPods": False},
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
        "global": {"tag": versions.ISTIO},
    }


def gateway_values(address: str) -> dict[str, Any]:
    """Return the values of the gateway. address: of the node, where machines reach it."""
    ports = [{"name": "tls-istiod", "port": GATEWAY_PORT, "targetPort": ISTIOD_PORT}]
    return {
        "revision": REVISION,
        "imagePullPolicy": "IfNotPresent",
        "autoscaling": {"enabled": False},
        "service": {"type": "ClusterIP", "externalIPs": [address], "ports": ports},
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
    }


def exposure() -> list[dict[str, Any]]:
    """Return what has the gateway pass on connections to istiod, as Istio's sample `expose-istiod-rev` does."""
    name, version = f"istiod-{REVISION}", "networking.istio.io/v1"
    port = {"name": "tls-istiod", "number": ISTIOD_PORT, "protocol": "TLS"}
    server = {"port": port, "tls": {"mode": "PASSTHROUGH"}, "hosts": ["*"]}
    route = {
        "match": [{"port": ISTIOD_PORT, "sniHosts": ["*"]}],
        "route": [{"destination": {"host": service_host(name, NAMESPACE, DEFAULT_DOMAIN), "port": {"number": ISTIOD_PORT}}}],
    }
    metadata = {"name": name, "namespace": NAMESPACE}
    return [
        {"apiVersion": version, "kind": "Gateway", "metadata": metadata, "spec": {"selector": {"istio": GATEWAY}, "servers": [server]}},
        {
            "apiVersion": version,
            "kind": "VirtualService",
            "metadata": metadata,
            "spec": {"hosts": ["*"], "gateways": [name], "tls": [route]},
        },
    ]


@dataclass
class CorporateMesh:
    """The mesh in the cluster of a lab."""

    lab: Lab

    def install(self) -> None:
        self.lab.run("kubectl", "create", "namespace", NAMESPACE)
        self.lab.run("kubectl", "label", "namespace", NAMESPACE, *(f"{key}={value}" for key, value in SELECTED.items()))
        charts = plain_helm.charts(self.lab)
        self.lab.run("kind", "load", "docker-image", "--name", docker_name(self.lab.stack, CLUSTER), make_image(images.INSTALL_CNI))
        plain_helm.install(self.lab, NAMESPACE, CNI_PLUGIN, directory("istio-cni-chart"), cni_values())
        # Helm waits for all but the one pod that the chart lets be unavailable.
        self.lab.wait_until_rolled_out(f"daemonset/{CNI_PLUGIN}-node", NAMESPACE)
        values = plain_helm.istiod_values(self.lab, istiod_values())
        plain_helm.install(self.lab, NAMESPACE, f"istiod-{REVISION}", charts / "istiod", values)
        plain_helm.install(self.lab, NAMESPACE, GATEWAY, charts / "gateway", gateway_values(self.lab.outputs()["gateway"]))
        objects = {"apiVersion": "v1", "kind": "List", "items": exposure()}
        self.lab.run("kubectl", "apply", "--filename", "-", stdin=json.dumps(objects))

    def remove(self) -> None:
        plain_helm.uninstall(self.lab, NAMESPACE, GATEWAY, f"istiod-{REVISION}", CNI_PLUGIN)


@contextmanager
def corporate_mesh(lab: Lab) -> Iterator[CorporateMesh]:
    """The mesh, in the cluster of a lab that is up, during the block."""
    mesh = CorporateMesh(lab)
    mesh.remove()
    try:
        mesh.install()
        yield mesh
    finally:
        mesh.remove()
