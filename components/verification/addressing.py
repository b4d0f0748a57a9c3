"""How a pod that verifies calls one endpoint that it names, with its sidecar's certificate.

Callers cannot choose an endpoint of a Service. With a headless Service or a ServiceEntry they
could. But that changes listeners of all proxies of the namespace, and its removal ends connections
of applications. So the calling pod's Envoy alone has one more listener, by a bootstrap override in
annotations of the pod. It is deleted with the pod.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..names import ENVOY_ADMIN_PORT, LISTENER_ANNOTATION, LISTENER_PORT

ENDPOINT_HEADER, TARGET_HEADER = "x-istio-vm-mesh-endpoint", "x-istio-vm-mesh-target"
"""Headers of a request to the listener: `address:port`, and `service:port`."""
_DIRECTORY, _FILE = "/etc/istio-vm-mesh", "listener.json"
"""Where a downward API volume makes the override a file, which the annotation holds."""

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Destination:
    """What the listener leads to: a port of a Service.

    service: its FQDN.
    port: of the Service.
    protocol: `http`, `http2`, `grpc`, or anything else for bytes.
    identities: SPIFFE IDs. The endpoints' certificates must have one of them.
    timeout_s: seconds that a caller waits for an answer.
    """

    service: str
    port: int
    protocol: str
    identities: tuple[str, ...]
    timeout_s: int

    @property
    def name(self) -> str:
        """Return `service:port`."""
        return f"{self.service}:{self.port}"


def pod_annotations(destinations: Sequence[Destination]) -> dict[str, str]:
    """Return the annotations of a pod whose sidecar gets the listener.

    The sidecar is ready before the pod's own containers start, where it is not a native one.
    Source: istio/istio, manifests/charts/istio-control/istio-discovery/files/injection-template.yaml.
    """
    item = {"path": _FILE, "fieldRef": {"fieldPath": f"metadata.annotations['{LISTENER_ANNOTATION}']"}}
    volume = {"istio-vm-mesh": {"downwardAPI": {"items": [item]}}}
    mount = {"istio-vm-mesh": {"mountPath": _DIRECTORY, "readOnly": True}}
    metadata = {"ISTIO_BOOTSTRAP_OVERRIDE": f"{_DIRECTORY}/{_FILE}"}
    # The script that calls reads Envoy's counters on this port, and a mesh may state another.
    proxy = {"holdApplicationUntilProxyStarts": True, "proxyAdminPort": ENVOY_ADMIN_PORT, "proxyMetadata": metadata}
    return {
        "proxy.istio.io/config": json.dumps(proxy),
        "sidecar.istio.io/userVolume": json.dumps(volume),
        "sidecar.istio.io/userVolumeMount": json.dumps(mount),
        LISTENER_ANNOTATION: json.dumps(bootstrap(destinations)),
    }


def _from_agent(name: str) -> Config:
    """Return where Envoy has a secret from: the sidecar's agent (`sds-grpc` in its bootstrap)."""
    service = {"envoy_grpc": {"cluster_name": "sds-grpc"}}
    source = {
        "api_type": "GRPC",
        "transport_api_version": "V3",
        "set_node_on_first_message_only": True,
        "grpc_services": [service],
    }
    return {
        "name": name,
        "sds_config": {"resource_api_version": "V3", "initial_fetch_timeout": "0s", "api_config_source": source},
    }


def bootstrap(destinations: Sequence[Destination], port: int = LISTENER_PORT) -> Config:
    """Return what is added to Envoy's bootstrap: a listener on loopback, and clusters.

    A request that has `TARGET_HEADER` goes to the endpoint in its `ENDPOINT_HEADER`, over mutual
    TLS. CONNECT opens a connection for bytes. Headers of a response describe the endpoint's answer.
    """
    return {
        "static_resources": {
            "listeners": [_listener(destinations, port)],
            "clusters": [_cluster(each) for each in destinations],
        }
    }


def _listener(destinations: Sequence[Destination], port: int) -> Config:
    facts = {
        "details": "%RESPONSE_CODE_DETAILS%",
        "failure": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
        "peer": "%UPSTREAM_PEER_URI_SAN%",
    }
    headers = [
        {"header": {"key": f"x-istio-vm-mesh-{name}", "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
        for name, value in facts.items()
    ]
    host = {
        "name": "endpoints",
        "domains": ["*"],
        "routes": [_route(each) for each in destinations],
        "request_headers_to_remove": [TARGET_HEADER],
        "response_headers_to_add": headers,
    }
    router = {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
        # Else the time of the callee's proxy, which shows that its application answered, is lost.
        "suppress_envoy_headers": True,
    }
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "istio-vm-mesh",
        "server_header_transformation": "PASS_THROUGH",
        "http_protocol_options": {"enable_trailers": True},
        # Else Envoy holds a connection for bytes open for a second after its peer has closed it.
        "delayed_close_timeout": "0s",
        "upgrade_configs": [{"upgrade_type": "CONNECT"}],
        "route_config": {"name": "endpoints", "virtual_hosts": [host]},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {"name": "istio-vm-mesh", "address": address, "filter_chains": [chain]}


def _is_http(destination: Destination) -> bool:
    return destination.protocol in ("http", "http2", "grpc")


def _route(destination: Destination) -> Config:
    header = {"name": TARGET_HEADER, "string_match": {"exact": destination.name}}
    action: dict[str, Any] = {"cluster": _cluster_name(destination), "timeout": "0s"}
    if _is_http(destination):
        return {"match": {"prefix": "/", "headers": [header]}, "route": action}
    action["upgrade_configs"] = [{"upgrade_type": "CONNECT", "connect_config": {}}]
    return {"match": {"connect_matcher": {}, "headers": [header]}, "route": action}


def _cluster_name(destination: Destination) -> str:
    return f"istio-vm-mesh|{destination.port}||{destination.service}"


def _connect_timeout(destination: Destination) -> float:
    """Return the seconds for a connection: so few that Envoy names the cause before the caller has gone."""
    return min(2.0, destination.timeout_s / 2)


def _cluster(destination: Destination) -> Config:
    """Return a cluster as Istio has it for a Service, but for one endpoint that the caller names.

    Source: istio/istio, pilot/pkg/networking/core/cluster_tls.go.
    """
    is_h2 = destination.protocol in ("http2", "grpc")
    options = {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        # Behind a gateway each request must meet an endpoint of its own.
        "common_http_protocol_options": {"max_requests_per_connection": 1},
        "explicit_http_config": {"http2_protocol_options": {}} if is_h2 else {"http_protocol_options": {}},
    }
    versions = ["istio-h2", "istio", "h2"] if is_h2 else ["istio-http/1.1", "istio", "http/1.1"]
    sans = [{"san_type": "URI", "matcher": {"exact": identity}} for identity in destination.identities]
    tls = {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": f"outbound_.{destination.port}_._.{destination.service}",
        "common_tls_context": {
            # Without it Envoy's clients refuse TLS 1.3, which a mesh may demand.
            "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},
            "alpn_protocols": versions if _is_http(destination) else ["istio"],
            "tls_certificate_sds_secret_configs": [_from_agent("default")],
            "combined_validation_context": {
                "default_validation_context": {"match_typed_subject_alt_names": sans},
                "validation_context_sds_secret_config": _from_agent("ROOTCA"),
            },
        },
    }
    return {
        "name": _cluster_name(destination),
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": f"{_connect_timeout(destination)}s",
        "original_dst_lb_config": {"use_http_header": True, "http_header_name": ENDPOINT_HEADER},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
        "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
    }
