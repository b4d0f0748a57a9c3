"""Derived names, labels, ports and identities: the only place that builds them. Pure."""

from __future__ import annotations

ISTIO_NAMESPACE = "istio-system"
EASTWEST_GATEWAY = "istio-eastwestgateway"
ISTIOD = f"istiod.{ISTIO_NAMESPACE}.svc"
XDS_PORT = 15012  # discovery and certificates, passed through by the gateway
STATUS_PORT = 15021
CROSS_NETWORK_PORT = 15443
ROOT_CERTIFICATE_CONFIG_MAP = f"{ISTIO_NAMESPACE}/istio-ca-root-cert"  # a ConfigMap that istiod writes into every namespace
TRUST_DOMAIN = "cluster.local"
TOKEN_MARGIN_S = 300  # a token that expires sooner than this is not delivered any more
DISCONNECT_GRACE = 10  # seconds from an agent's last connection until istiod removes its WorkloadEntry

# What the east-west gateway's pods are selected by: the chart derives the label from the release's name.
GATEWAY_SELECTOR = {"istio": EASTWEST_GATEWAY.removeprefix("istio-")}


def gateway_workload_name(network: str) -> str:
    """The name of the workload that is the gateway of `network`."""
    return f"{network}-gateway"


def gateway_labels(network: str) -> dict[str, str]:
    """What selects the gateway's machines."""
    return {"istio": gateway_workload_name(network)}


def entry_name(group: str, address: str, network: str) -> str:
    """The name of the WorkloadEntry that istiod makes for a machine (istio/istio: pilot/pkg/autoregistration/controller.go)."""
    return f"{group}-{address}-{network}".replace(":", "-")[-253:]


def spiffe_id(namespace: str, service_account: str) -> str:
    """Return the SPIFFE identity of a ServiceAccount (istio.io: Istio Identity)."""
    return f"spiffe://{TRUST_DOMAIN}/ns/{namespace}/sa/{service_account}"


def service_host(service: str, namespace: str) -> str:
    """Return the DNS name of a Service throughout the mesh."""
    return f"{service}.{namespace}.svc.cluster.local"


def child_name(component: str, default: str, child: str) -> str:
    """Return the resource name of a component's child.

    component: the component's name. default: the name that stacks of this program give it.
    Children of a component of another name are prefixed by it, so two components of one type fit
    into one program.
    """
    return child if component == default else f"{component}-{child}"
