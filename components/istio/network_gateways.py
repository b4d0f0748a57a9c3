"""Objects of Istio and of the Gateway API by which requests enter the networks of machines.

Which machines are a network's gateway is in `config/gateway_machines.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

from .. import names
from ..config import gateway_machines
from ..config.addresses import is_address
from ..config.google import GceInstanceGroup, GceMachine
from ..config.stack import Settings
from ..config.workload import WorkloadSettings
from ..manifest import Manifest
from ..names import CROSS_NETWORK_PORT, service_host
from .manifests import services_exposure

GATEWAY_CLASS = "istio-remote"
"""The class of Gateways for which Istio deploys nothing: such a Gateway states addresses alone."""
HTTP_PROTOCOLS = frozenset({"grpc", "grpc-web", "http", "http2", "kubernetes.io/h2c", "kubernetes.io/ws"})
"""Protocols in which Envoy sees single requests, as names of ports or `appProtocol` have them."""
MAX_CONNECTION_DURATION = "10s"
"""How long a client uses one connection through a gateway. Its machine may be no endpoint any
more.
"""


def networks_without_gateway(settings: Settings) -> list[str]:
    """Return the networks of machines that have no gateway, sorted.

    Their machines call pods. No client outside of the network calls them.
    """
    inhabited = {machine.network for machine in settings.machines.values()} - {settings.cluster.network}
    return sorted(name for name in inhabited if not settings.networks[name].gateway)


def connectivity_notes(settings: Settings) -> list[str]:
    """Return notes on networks that clients outside cannot call, which may not be intended."""
    notes: list[str] = []
    for network in networks_without_gateway(settings):
        of_here = {machine.workload for machine in settings.machines.values() if machine.network == network}
        out_of_reach = [name for name in sorted(of_here) if settings.workloads[name].services and not settings.is_reachable_from_pods(name)]
        so = f", so no pod reaches the Services of {', '.join(out_of_reach)}" if out_of_reach else ""
        notes.append(f"network {network} has no gateway: its machines call pods, and no client outside of it calls them{so}")
    return notes


def has_load_balancer(settings: Settings, network: str) -> bool:
    """Return whether a load balancer is in front of the gateway machines of a network.

    That is so on Google Cloud. Clients then have one address.
    """
    names_of_gateway = gateway_machines.gateway_machine_names(settings, network)
    return any(isinstance(settings.machines[name], (GceMachine, GceInstanceGroup)) for name in names_of_gateway)


def needs_failover(settings: Settings, workload: str) -> bool:
    """Return whether clients reach machines of a workload through several gateways, so that one
    may fail.
    """
    gateways = [settings.networks[network].gateway for network in _networks_of(settings, workload)]
    return any(gateway and gateway.machines > 1 for gateway in gateways)


def _networks_of(settings: Settings, workload: str) -> set[str]:
    return {machine.network for machine in settings.machines.values() if machine.workload == workload}


def clients_see_several_gateways(settings: Settings, workload: str) -> bool:
    """Return whether clients of a workload have the addresses of several gateways of a network.

    Where a load balancer is in front of them, they have one.
    """
    return any(
        len(gateway_machines.gateway_machine_names(settings, network)) > 1 and not has_load_balancer(settings, network)
        for network in _networks_of(settings, workload)
    )


def failover_rule(service: str, workload: WorkloadSettings, cluster_domain: str, several_gateways: bool = True) -> Manifest:
    """Return the DestinationRule by which clients abandon a gateway that does not answer.

    service: the Service's name. workload: the workload's settings.
    cluster_domain: the domain of the cluster's Services.
    several_gateways: whether clients see several gateways of the network.

    A connection attempt ends after a second, and Istio's own retries use another endpoint. With
    `several_gateways`, two failures in a row eject the gateway for ten seconds. Responses of the
    application eject no gateway.

    A gateway forwards connections, so clients keep those to a machine that is removed. During the
    agent's five-second drain, every client connection must either carry a request or be closed by
    the client as idle. Envoy closes a connection with its response. A request sent on a connection
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
    others = outliers if several_gateways else {}
    declared = workload.services[service]
    # `grpc-web` is a protocol, `http-admin` a name that begins with one.
    protocols = {name: declared.app_protocols.get(name, name.partition("-")[0]) for name in declared.ports}
    ports = [port for name, port in declared.ports.items() if protocols[name] in HTTP_PROTOCOLS]
    # Settings of a port replace all others (Istio: "Destination Rule", `portLevelSettings`).
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
    """Return the Gateway by which the gateway machines of `network` forward requests.

    namespace: Istio's own. cluster_domain: the domain of the cluster's Services.
    """
    manifest = services_exposure(namespace, cluster_domain)
    manifest["metadata"]["name"] = names.gateway_workload_name(network)
    manifest["spec"]["selector"] = names.gateway_labels(network)
    return manifest


def blackhole_gateway(network: str, namespace: str) -> Manifest:
    """Return the Gateway by which proxies outside of a network without a gateway get no endpoint in
    it.

    network: its name. namespace: Istio's own.

    Without any Gateway, istiod gives proxies the machines' own addresses, which they cannot reach.
    With a gateway that no IPv4 proxy can reach it gives none (istio/istio:
    pilot/pkg/xds/endpoints/ep_filters.go, since 1.30). The address is one of RFC 3849.
    """
    manifest = remote_gateway(network, namespace, ["2001:db8::1"])
    manifest["metadata"]["name"] = names.blackhole_gateway_name(network)
    return manifest


def remote_gateway(network: str, namespace: str, gateway_addresses: Sequence[str]) -> Manifest:
    """Return the Gateway of the Gateway API that states by which addresses requests enter
    `network`.

    namespace: Istio's own. gateway_addresses: IP addresses.

    istiod reads it. Values of its chart would need a new release for each address.
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
