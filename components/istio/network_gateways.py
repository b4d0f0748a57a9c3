"""Gateways of networks that are machines: expanded into an ordinary workload and ordinary machines, with the role `router`.

Istio's own manual installs no gateway on the machines' side, so pods dial machines directly or not at all (istio/istio#56855). Here an
agent in router mode takes calls on 15443 and passes them on by the name in their TLS, without ending it.
"""

from __future__ import annotations

from collections.abc import Sequence

from .. import names
from ..config import gateway_machines
from ..config.addresses import is_address
from ..config.google import GceMachine
from ..config.stack import Settings
from ..config.workload import WorkloadSettings
from ..manifest import Manifest
from ..names import CROSS_NETWORK_PORT, service_host
from .manifests import services_exposure

GATEWAY_CLASS = "istio-remote"  # a Gateway API class for which Istio deploys nothing: it only states addresses
HTTP_PROTOCOLS = frozenset({"grpc", "grpc-web", "http", "http2", "kubernetes.io/h2c", "kubernetes.io/ws"})
"""Protocols, as names of ports begin with them or `appProtocol` has them, in which Envoy sees single calls."""
MAX_CONNECTION_DURATION = "10s"
"""How long a caller keeps a connection through a gateway to a machine that is no endpoint any more."""


def networks_without_gateway(settings: Settings) -> list[str]:
    """The networks of machines that have no gateway: their machines call pods, nothing outside calls them."""
    inhabited = {machine.network for machine in settings.machines.values()} - {settings.cluster.network}
    return sorted(name for name in inhabited if not settings.networks[name].gateway)


def connectivity_notes(settings: Settings) -> list[str]:
    """What people should know of the networks of a stack, where it is as they said but perhaps not as they meant."""
    notes: list[str] = []
    for network in networks_without_gateway(settings):
        of_here = {machine.workload for machine in settings.machines.values() if machine.network == network}
        out_of_reach = [name for name in sorted(of_here) if settings.workloads[name].services and not settings.is_reachable_from_pods(name)]
        so = f", so no pod reaches the Services of {', '.join(out_of_reach)}" if out_of_reach else ""
        notes.append(f"network {network} has no gateway: its machines call pods, and nothing outside of it calls them{so}")
    return notes


def has_load_balancer(settings: Settings, network: str) -> bool:
    """Whether the machines of a network's gateway are behind a load balancer, so that others know one address: on Google Cloud."""
    return any(isinstance(settings.machines[name], GceMachine) for name in gateway_machines.gateway_machine_names(settings, network))


def needs_failover(settings: Settings, workload: str) -> bool:
    """Whether calls of a workload have more than one gateway to go through, so that one may fail."""
    gateways = [settings.networks[machine.network].gateway for machine in settings.single_machines_of(workload).values()]
    return any(gateway and gateway.machines > 1 for gateway in gateways)


def clients_see_several_gateways(settings: Settings, workload: str) -> bool:
    """Whether callers of a workload know several gateways of a network, rather than a balancer before them."""
    return any(
        len(gateway_machines.gateway_machine_names(settings, machine.network)) > 1 and not has_load_balancer(settings, machine.network)
        for machine in settings.single_machines_of(workload).values()
    )


def failover_rule(service: str, workload: WorkloadSettings, cluster_domain: str, callers_choose: bool = True) -> Manifest:
    """Return the DestinationRule by which clients abandon a gateway that does not answer.

    service: the Service's name. workload: the workload's settings.
    cluster_domain: the domain of the cluster's Services.
    callers_choose: whether clients see several gateways of the network.

    A connection attempt ends after a second, and Istio's own retries use another endpoint. With
    `callers_choose`, two failures in a row eject the gateway for ten seconds. Responses of the
    application eject no gateway.

    A gateway forwards connections, so clients keep those to a machine that is removed. During the
    agent's five-second drain, every client connection must either carry a request (Envoy then
    closes it with the response) or be closed by the client as idle. A request sent on a connection
    that is being closed is lost.

    For the same reason, clients would keep using connections to an unhealthy machine. Envoy
    replaces each connection after `MAX_CONNECTION_DURATION`, between two requests. It does so for
    HTTP and gRPC alone: it sees no requests of other protocols.
    """
    outliers = {
        # Outlier detection would switch on failover between localities too.
        "loadBalancer": {"localityLbSetting": {"enabled": False}},
        "outlierDetection": {
            "splitExternalLocalOriginErrors": True,
            "consecutiveLocalOriginFailures": 2,
            "consecutive5xxErrors": 0,
            "consecutiveGatewayErrors": 0,
            "interval": "1s",
            "baseEjectionTime": "10s",
            "maxEjectionPercent": 50,
        },
    }
    tcp = {"connectTimeout": "1s", "tcpKeepalive": {"time": "5s", "interval": "1s", "probes": 3}}
    http = {"idleTimeout": "3s"}
    others = outliers if callers_choose else {}
    declared = workload.services[service]
    # `grpc-web` is a protocol, `http-admin` a name that begins with one.
    protocols = {name: declared.app_protocols.get(name, name.partition("-")[0]) for name in declared.ports}
    ports = [port for name, port in declared.ports.items() if protocols[name] in HTTP_PROTOCOLS]
    # What is said of a port holds in place of all that is said of the others (Istio: "Destination Rule", `portLevelSettings`).
    of_http = {"connectionPool": {"tcp": {**tcp, "maxConnectionDuration": MAX_CONNECTION_DURATION}, "http": http}, **others}
    by_port = [{"port": {"number": port}, **of_http} for port in ports]
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": {"name": names.failover_rule_name(service), "namespace": workload.namespace},
        "spec": {
            "host": service_host(service, workload.namespace, cluster_domain),
            "trafficPolicy": {
                "connectionPool": {"tcp": tcp, "http": http},
                **others,
                **({"portLevelSettings": by_port} if by_port else {}),
            },
        },
    }


def passthrough_gateway(network: str, namespace: str, cluster_domain: str) -> Manifest:
    """The Gateway that has the machines of `network`'s gateway pass calls through.

    namespace: Istio's own. cluster_domain: the domain of the cluster's Services.
    """
    manifest = services_exposure(namespace, cluster_domain)
    manifest["metadata"]["name"] = names.gateway_workload_name(network)
    manifest["spec"]["selector"] = names.gateway_labels(network)
    return manifest


def blackhole_gateway(network: str, namespace: str) -> Manifest:
    """Keeps everybody outside of a closed network from being given endpoints in it.

    For a network without any gateway istiod hands out the machines' own addresses, which lead nowhere. With a gateway that no IPv4 proxy
    can reach it hands out none (istio/istio: pilot/pkg/xds/endpoints/ep_filters.go, since 1.30); the address is one for documentation.
    """
    manifest = remote_gateway(network, namespace, ["2001:db8::1"])
    manifest["metadata"]["name"] = names.blackhole_gateway_name(network)
    return manifest


def remote_gateway(network: str, namespace: str, gateway_addresses: Sequence[str]) -> Manifest:
    """The Gateway API Gateway from which istiod learns where calls into `network` go.

    namespace: Istio's own. No value of istiod's chart changes with it.
    """
    listener = {
        "name": "cross-network",
        "port": CROSS_NETWORK_PORT,
        "protocol": "TLS",
        "tls": {"mode": "Passthrough", "options": {"gateway.istio.io/listener-protocol": "auto-passthrough"}},
    }
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {
            "name": names.gateway_workload_name(network),
            "namespace": namespace,
            "labels": {names.NETWORK_LABEL: network},
        },
        "spec": {
            "gatewayClassName": GATEWAY_CLASS,
            "addresses": [{"type": "IPAddress" if is_address(address) else "Hostname", "value": address} for address in gateway_addresses],
            "listeners": [listener],
        },
    }
