"""Derived names, labels, ports and identities: the only place that builds them. Pure.

What one platform alone has is in the `names.py` of that platform.
"""

from __future__ import annotations

import hashlib
import re

PROJECT = "istio-vm-mesh"
"""Pulumi's project: the prefix of the configuration's keys."""

# Types of components.
MESH_TYPE = f"{PROJECT}:mesh:Mesh"
WORKLOAD_TYPE = f"{PROJECT}:workloads:Workload"
MACHINE_TYPE = f"{PROJECT}:machines:Machine"

# Istio's objects and hosts.
ISTIO_NAMESPACE = "istio-system"
"""Istio's own default for its namespace; that of a mesh is a fact of it."""
ISTIOD_DEPLOYMENT = "istiod"
DEFAULT_DOMAIN = "cluster.local"
"""Istio's default trust domain, and Kubernetes' default domain of Services."""
DEFAULT_ROOT_CONFIG_MAP = "istio-ca-root-cert"
"""A ConfigMap with the trust anchor, which istiod writes into every namespace."""
DEFAULT_CLUSTER_ID = "Kubernetes"
EASTWEST_GATEWAY = f"{PROJECT}-gateway"
"""Not the name of the gateway in Istio's samples, which a mesh of others may have, nor its
label.
"""
ISTIOD_EXPOSURE, SERVICES_EXPOSURE = f"{PROJECT}-istiod", f"{PROJECT}-services"
"""Objects by which the east-west gateway leads to istiod, and to Services.

Istio's samples have other names (istiod-gateway, istiod-vs, cross-network-gateway).
"""
DISCONNECT_GRACE = 10
"""Seconds from an agent's last connection until istiod removes its WorkloadEntry, by default."""
MAX_DISCONNECT_GRACE = 120
"""The longest one that a machine's unit waits for when it stops (`TimeoutStopSec`)."""
TOKEN_AUDIENCE = "istio-ca"

SSH_PORT = 22
"""The default of SSH. It is never redirected to the proxy."""

# Ports of the agent and of Envoy (istio.io: Application Requirements, "Ports used by Istio").
ENVOY_ADMIN_PORT = 15000
OUTBOUND_PORT = 15001
DEBUG_PORT = 15004
INBOUND_PORT = 15006
TUNNEL_PORT = 15008
XDS_PORT = 15012
"""Discovery and certificates; the east-west gateway passes it through."""
AGENT_PORT = 15020
"""The agent's own metrics and debug pages."""
STATUS_PORT = 15021
DNS_PORT = 15053
METRICS_PORT = 15090
CROSS_NETWORK_PORT = 15443
LISTENER_PORT = 15088
"""On loopback in a pod that verifies: its Envoy's listener for calls of one endpoint."""
MACHINE_PORTS = frozenset(
    {
        ENVOY_ADMIN_PORT,
        OUTBOUND_PORT,
        DEBUG_PORT,
        INBOUND_PORT,
        TUNNEL_PORT,
        AGENT_PORT,
        STATUS_PORT,
        DNS_PORT,
        METRICS_PORT,
    }
)
"""Ports of Istio's proxy, which no application of a machine may have."""

PROXY_USER = 1337
"""The user of the agent and of Envoy in pods: its traffic is not redirected."""

# Labels and annotations.
NETWORK_LABEL = "topology.istio.io/network"
POD_SECURITY_LABEL = "pod-security.kubernetes.io/enforce"
INJECTION_LABEL = "istio-injection"
INJECT_LABEL = "sidecar.istio.io/inject"
"""Of a pod: whether it gets a sidecar."""
REVISION_LABEL = "istio.io/rev"
"""Of a namespace: the revision or tag that injects its pods. Of istiod: its revision."""
AMBIENT_LABEL = "istio.io/dataplane-mode"
"""Of a namespace or a pod: whether ambient mode has it."""
TAG_LABEL = "istio.io/tag"
"""Of a MutatingWebhookConfiguration: the tag that it gives a revision."""
LOCALITY_LABEL = "istio-locality"
"""Of a proxy: its region, zone and subzone, by slashes. istiod copies it into the entry's
locality.
"""
WORKLOAD_LABEL = "istio-vm-mesh/workload"
"""The selector of a workload's Deployment."""
CANONICAL_NAME_LABEL = "service.istio.io/canonical-name"
CANONICAL_REVISION_LABEL = "service.istio.io/canonical-revision"
"""Of a workload: its canonical service, and the revision of that."""
WORKLOAD_NAME_LABEL = "service.istio.io/workload-name"
"""Of a workload: its name in telemetry."""
LISTENER_ANNOTATION = "istio-vm-mesh/listener"
"""Of a pod that verifies: the bootstrap override that adds the listener at `LISTENER_PORT`."""
MACHINE_LABEL, REGISTRATION_LABEL = "istio-vm-mesh/machine", "istio-vm-mesh/registration"
"""Of a WorkloadEntry: the machine that registered it, and the id of that registration."""
MAX_UNAVAILABLE_ANNOTATION = "istio-vm-mesh/max-unavailable"
"""Of a workload's Lease: how many of its agents may be stopped at once, by its setting."""
MACHINES_ANNOTATION = "istio-vm-mesh/machines"
"""Of a workload's Lease: the names of the workload's machines in the stack, by commas."""
SLOTS_ANNOTATION = "istio-vm-mesh/slots"
"""Of a workload's Lease: which joins hold a slot, and which updates are halted, as JSON."""
JOINED_ANNOTATION_PREFIX = "joined.istio-vm-mesh/"
"""Of a workload's Lease, before a machine's name: the id of the registration that joined it."""
CALLERS_LABEL = "istio-vm-mesh/callers"
"""Of the Jobs that call workloads to verify them: their pair, and the update that started it."""
CALLED_ANNOTATION = "istio-vm-mesh/called"
"""Of these Jobs: the names of the workloads that their pair calls, by commas."""
UPDATE_LABEL = "istio-vm-mesh/update"
"""Of these Jobs: the update that started them."""
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
"""Every object that this program creates in a cluster has it, with `PROJECT`."""
STACK_LABEL = "istio-vm-mesh/stack"
"""Every object that this program creates in a cluster names its stack in it (`stack_label`)."""
DISCONNECTED_ANNOTATION = "istio.io/disconnectedAt"
"""istiod sets it on the WorkloadEntry of a machine whose agent disconnected."""
GROUP_ANNOTATION = "istio.io/autoRegistrationGroup"
"""The WorkloadGroup of a WorkloadEntry that istiod made."""
QUARANTINE_LABEL = "istio-vm-mesh/quarantine"
"""On a WorkloadEntry that keeps a machine out of the mesh: the machine's name."""
QUARANTINE_ACCOUNT = "Quarantined-by-istio-vm-mesh"
"""The service account of such an entry. Kubernetes refuses upper case, so none can have the
name.
"""
STACK_ANNOTATION, REASON_ANNOTATION = "istio-vm-mesh/stack", "istio-vm-mesh/reason"
"""On such an entry: `<project>/<stack>` that gave the machine up, and why."""
CONNECTED_ANNOTATION = "istio.io/connectedAt"
"""istiod sets it on the WorkloadEntry of a machine whose agent is connected."""
GATEWAY_SELECTOR = {"istio": EASTWEST_GATEWAY.removeprefix("istio-")}
"""Selects the east-west gateway's pods; the chart derives the label from the release's name."""

# What the names of Pulumi resources end with, after the name of what they belong to (`part_name`).
REGISTRATION, JOIN, PROOF, DRAIN = "registration", "join", "proof", "drain"
"""Of a machine."""
CALLERS = "callers"
"""Of a service account: the pods that call its workloads."""
ACCOUNT, WORKLOAD_GROUP, PODS, VERIFICATION = "account", "group", "pods", "verification"
SLOTS = "slots"
"""Of a workload."""
REMOVAL = "removal"
"""Of a namespace."""
DYNAMIC = "dynamic"
"""Of a look at a cluster: the provider of resources that this program implements."""
SSH_KEY = "ssh-key"
"""The complete name of the key of a stack."""


def part_name(owner: str, part: str) -> str:
    """Return the name of a Pulumi resource that belongs to the machine, workload, … `owner`."""
    return f"{owner}-{part}"


def is_part(resource: str, *parts: str) -> bool:
    """Return whether a resource's name is that of one of `parts`, whatever it belongs to."""
    return resource.endswith(tuple(f"-{part}" for part in parts))


def child_name(component: str, default: str, child: str) -> str:
    """Return the resource name of a component's child.

    component: the component's name. default: the name that stacks of this program give it.
    Children of a component of another name are prefixed by it, so two components of one type fit
    into one program.
    """
    return child if component == default else part_name(component, child)


def config_key(key: str) -> str:
    """Return a key of the configuration as stack files and Pulumi have it."""
    return f"{PROJECT}:{key}"


def stack_label(project: str, stack: str) -> str:
    """Return what stands for a stack in labels: `<project>.<stack>` where that is a label's value.

    Other names are cut and end with a digest of both (a value has at most 63 letters, digits,
    dots, dashes and underscores).
    """
    name = f"{project}.{stack}"
    if "." not in project and re.fullmatch(r"[A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?", name, re.ASCII):
        return name
    digest = hashlib.sha256(f"{project}\n{stack}".encode()).hexdigest()[:12]
    kept = re.sub(r"[^A-Za-z0-9.-]", "-", name)[:50].strip("-.")
    return f"{kept}-{digest}".lstrip("-")


def stack_resource_name(stack: str) -> str:
    """Return the name of the resource that is the stack itself."""
    return f"{PROJECT}-{stack}"


def service_resource_name(workload: str, service: str) -> str:
    """Return the resource name of a workload's Service."""
    return part_name(workload, f"service-{service}")


def failover_resource_name(workload: str, service: str) -> str:
    """Return the resource name of the failover rule of a Service."""
    return failover_rule_name(service_resource_name(workload, service))


def namespace_resource_name(namespace: str) -> str:
    """Return the resource name of a namespace for workloads."""
    return f"namespace-{namespace}"


def strict_mtls_resource_name(namespace: str) -> str:
    """Return the resource name of the PeerAuthentication of a namespace."""
    return part_name(namespace_resource_name(namespace), "mtls")


def gateway_addresses_resource_name(network: str) -> str:
    """Return the resource name of the Gateway that publishes where a network is entered."""
    return part_name(network, "gateway-addresses")


def gateway_workload_name(network: str) -> str:
    """Return the name of the workload that is the gateway of `network`."""
    return f"{network}-gateway"


def gateway_machine_name(network: str, number: int) -> str:
    """Return the name of a network's gateway machine; `number` begins with 1."""
    return f"{gateway_workload_name(network)}-{number}"


def gateway_group_name(network: str) -> str:
    """Return the name of the instance group that is a network's gateway."""
    return f"{gateway_workload_name(network)}-machines"


def gateway_labels(network: str) -> dict[str, str]:
    """Return the labels that select the gateway's machines."""
    return {"istio": gateway_workload_name(network)}


def blackhole_gateway_name(network: str) -> str:
    """Return the name of the Gateway object of a network without a gateway."""
    return f"{network}-no-gateway"


def failover_rule_name(service: str) -> str:
    """Return the name of the DestinationRule by which calls of a Service change gateways."""
    return f"{service}-failover"


def verification_job_name(account: str) -> str:
    """Return how the names of the Jobs begin that call as a service account."""
    return _job_name("verify", account)


def lone_verification_job_name(workload: str) -> str:
    """Return how the names of the Jobs begin that call one workload alone."""
    return _job_name("verification", workload)


def _job_name(prefix: str, name: str) -> str:
    """Return the beginning of a Job's name, to which at most 17 characters are added.

    Names of Jobs have at most 63 characters. One with a dot ends with a digest.
    """
    full = f"{prefix}-{name.replace('.', '-')}"
    if "." in name:
        full = f"{full}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    return _limited(full, 46)


def _limited(name: str, length: int) -> str:
    """Return a name; one that is too long is cut, and ends with a digest of it."""
    if len(name) <= length:
        return name
    return f"{name[: length - 13]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def callers_resource_name(namespace: str, account: str) -> str:
    """Return the resource name of the pods that call as a service account of a namespace."""
    return part_name(part_name(namespace, account), CALLERS)


def slots_lease_name(workload: str) -> str:
    """Return the name of the Lease of the slots in which a workload's agents restart."""
    return f"{workload}-slots"


def token_role_name(workload: str) -> str:
    """Return the name of the Role by which a workload's machines mint their own tokens."""
    return f"{workload}-machines"


def entry_name(workload_group: str, address: str, network: str) -> str:
    """Return the name of the WorkloadEntry that istiod makes for a machine.

    Source: istio/istio, pilot/pkg/autoregistration/controller.go.
    """
    parts = [workload_group, address.replace(":", "-"), *([network] if network else [])]
    return "-".join(parts)[-253:]


def entry_network(entry: str, workload_group: str, address: str) -> str:
    """Return the network that the name of a machine's WorkloadEntry ends with; "" for none."""
    prefix = entry_name(workload_group, address, "")
    if not address or not entry.startswith(prefix):
        return ""
    return entry.removeprefix(prefix).removeprefix("-")


def spiffe_id(trust_domain: str, namespace: str, service_account: str) -> str:
    """Return the SPIFFE identity of a ServiceAccount (istio.io: Istio Identity)."""
    return f"spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}"


def service_host(service: str, namespace: str, cluster_domain: str) -> str:
    """Return the DNS name of a Service throughout the mesh."""
    return f"{service}.{namespace}.svc.{cluster_domain}"
