"""Proxies that istiod takes for machines': they get certificates, register, subscribe and acknowledge.

No Envoy runs and no call is answered. So one process stands for many machines, and what is measured
is istiod, the API server and the gateway. What a proxy sends is what pilot-agent and Envoy send
(istio/istio: pkg/istio-agent/xds_proxy_delta.go, pkg/model/proxy.go), but it subscribes to no routes
(RDS), listeners' certificates or extensions.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, struct_pb2  # type: ignore[import-untyped]

from components.names import DEFAULT_CLUSTER_ID

CLUSTERS = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
ENDPOINTS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENERS = "type.googleapis.com/envoy.config.listener.v3.Listener"
NAMES = "type.googleapis.com/istio.networking.nds.v1.NameTable"
HEALTH = "type.googleapis.com/istio.v1.HealthInformation"

_STREAM = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
_SIGN = "/istio.v1.auth.IstioCertificateService/CreateCertificate"
_AT_ONCE = 20
"""Requests for certificates that wait for an answer at a time."""
_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.5, 30.0
"""The longest pause before the second connection, and before any."""


def _messages() -> Mapping[str, Any]:
    """Return the classes of the messages, with the fields that are used here.

    Source of the numbers: envoyproxy/envoy, api/envoy/service/discovery/v3/discovery.proto, and
    istio/api, security/v1alpha1/ca.proto.
    """
    text, repeated = descriptor_pb2.FieldDescriptorProto.TYPE_STRING, descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
    fields: dict[str, list[tuple[str, int, str, bool]]] = {
        "Node": [("id", 1, "", False), ("cluster", 2, "", False), ("metadata", 3, ".google.protobuf.Struct", False)],
        "Request": [("node", 1, ".bench.Node", False), ("type_url", 2, "", False), ("subscribe", 3, "", True), ("nonce", 6, "", False)],
        "Resource": [("name", 3, "", False)],
        "Response": [("resources", 2, ".bench.Resource", True), ("type_url", 4, "", False), ("nonce", 5, "", False)],
        "SigningRequest": [("csr", 1, "", False)],
        "Signed": [("chain", 1, "", True)],
    }
    file = descriptor_pb2.FileDescriptorProto(
        name="bench/xds.proto", package="bench", syntax="proto3", dependency=[struct_pb2.DESCRIPTOR.name]
    )
    for name, each in fields.items():
        message = file.message_type.add(name=name)
        for field_name, number, type_name, is_list in each:
            added = message.field.add(name=field_name, number=number, type=text)
            added.label = repeated if is_list else descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
            if type_name:
                added.type, added.type_name = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE, type_name
    pool = descriptor_pool.Default()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"bench.{name}")) for name in fields}


_MESSAGES = _messages()


@dataclass(frozen=True)
class ControlPlane:
    """Where istiod is reached, and as whom.

    gateway: address and port of the east-west gateway.
    name: istiod's name in its certificate.
    root_certificate: the mesh's trust anchor, in PEM.
    token: of the machines' service account, with the audience `istio-ca`.
    identity: that account as a SPIFFE URI.
    cluster_id: the cluster, as the mesh calls it.
    """

    gateway: str
    name: str
    root_certificate: str
    token: str = field(repr=False)
    identity: str
    cluster_id: str = DEFAULT_CLUSTER_ID


@dataclass(frozen=True)
class Certificate:
    """A private key and a chain for it, in PEM."""

    key: bytes = field(repr=False)
    chain: bytes


async def certificates(control_plane: ControlPlane, count: int) -> list[Certificate]:
    """Return as many certificates of istiod, each from a call of its own.

    They share a private key and its signing request: what it costs to generate keys is no cost of
    istiod's.

    Raises grpc.aio.AioRpcError where istiod refuses.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(control_plane.identity)])
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(name, critical=True)
    csr = request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    slots = asyncio.Semaphore(_AT_ONCE)
    async with _channel(control_plane) as channel:
        sign = channel.unary_unary(
            _SIGN,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=_MESSAGES["Signed"].FromString,
        )

        async def one() -> Certificate:
            async with slots:
                metadata = (("authorization", f"Bearer {control_plane.token}"), ("clusterid", control_plane.cluster_id))
                signed = await sign(_MESSAGES["SigningRequest"](csr=csr), metadata=metadata, timeout=60)
            return Certificate(pem, "".join(signed.chain).encode())

        return await asyncio.gather(*(one() for _ in range(count)))


@dataclass
class SimulatedProxy:
    """One connection to istiod, as of the proxy of one machine.

    name, address: of the machine. namespace: of its workload.
    metadata: of its node, as pilot-agent sends it.
    pushed: when a cluster of a name was first pushed to it, by `time.monotonic`.
    ended: how many of its streams ended, and were connected again. problem: why the last one did.
    """

    name: str
    address: str
    namespace: str
    domain: str
    metadata: Mapping[str, Any]
    pushed: dict[str, float] = field(default_factory=dict)
    ended: int = 0
    problem: str = ""

    async def run(self, control_plane: ControlPlane, certificate: Certificate) -> None:
        """Stay connected until this task is cancelled.

        istiod refuses streams beyond its rate (`PILOT_MAX_REQUESTS_PER_SECOND`), and a gateway
        that restarts ends them. These are connected again, with the pauses of Envoy: at random, up
        to a limit that doubles (envoyproxy/envoy: source/extensions/config_subscription/grpc).
        A refusal that lasts is for the caller that waits for the machine: `problem` is the last one.
        """
        limit_s = _FIRST_PAUSE_S
        while True:
            try:
                await self._connect(control_plane, certificate)
            except grpc.aio.AioRpcError as error:
                self.problem = f"{error.code().name}: {error.details()}"
            self.ended += 1
            await asyncio.sleep(random.uniform(0, limit_s))
            limit_s = min(2 * limit_s, _LAST_PAUSE_S)

    async def _connect(self, control_plane: ControlPlane, certificate: Certificate) -> None:
        async with _channel(control_plane, certificate) as channel:
            stream = channel.stream_stream(
                _STREAM,
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=_MESSAGES["Response"].FromString,
            )(wait_for_ready=True)
            await _send(stream, self._subscriptions())
            while (response := await stream.read()) is not grpc.aio.EOF:
                await _send(stream, self._answers(response))

    def _subscriptions(self) -> Iterator[Any]:
        """Yield what a proxy sends first."""
        metadata = struct_pb2.Struct()
        metadata.update(dict(self.metadata))
        node_id = f"sidecar~{self.address}~{self.name}.{self.namespace}~{self.namespace}.svc.{self.domain}"
        node = _MESSAGES["Node"](id=node_id, cluster=f"{self.metadata['WORKLOAD_NAME']}.{self.namespace}", metadata=metadata)
        yield _MESSAGES["Request"](node=node, type_url=CLUSTERS)
        for kind in (LISTENERS, NAMES, HEALTH):
            yield _MESSAGES["Request"](type_url=kind)

    def _answers(self, response: Any) -> Iterator[Any]:
        """Yield the acknowledgement of a response, and the subscription to endpoints of new clusters."""
        yield _MESSAGES["Request"](type_url=response.type_url, nonce=response.nonce)
        if response.type_url != CLUSTERS:
            return
        at = time.monotonic()
        names = [each.name for each in response.resources]
        self.pushed = dict.fromkeys(names, at) | self.pushed
        if subscribe := [name for name in names if name.startswith("outbound|")]:
            yield _MESSAGES["Request"](type_url=ENDPOINTS, subscribe=subscribe)


async def _send(stream: Any, requests: Iterable[Any]) -> None:
    """Write requests to a stream.

    A generator of requests would be a task of gRPC's, which outlives its stream and then prints.
    """
    for request in requests:
        if stream.done():  # reading gives the reason
            return
        await stream.write(request)


def _channel(control_plane: ControlPlane, certificate: Certificate | None = None) -> grpc.aio.Channel:
    credentials = grpc.ssl_channel_credentials(
        control_plane.root_certificate.encode(), certificate and certificate.key, certificate and certificate.chain
    )
    options = [
        ("grpc.ssl_target_name_override", control_plane.name),
        ("grpc.default_authority", control_plane.name),
        ("grpc.use_local_subchannel_pool", 1),  # each proxy has a connection of its own
        ("grpc.max_receive_message_length", -1),
        ("grpc.keepalive_time_ms", 30_000),
    ]
    return grpc.aio.secure_channel(control_plane.gateway, credentials, options)
