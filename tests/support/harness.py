"""Run the whole program under Pulumi's mocks: the graph is what the program requests of the engine."""

from __future__ import annotations

import base64
import copy
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pulumi.runtime import mocks

from components import mesh_facts, names
from components.config import reader
from components.local import scripting
from components.platforms.docker.names import CLUSTER, CONTAINER, attachment_name, network_resource_name
from tools import mock_engine
from tools.mock_engine import Node

ROOT = Path(__file__).parents[2]
PROJECT = names.PROJECT

CANARIES = {"kubeconfig": "canary-kubeconfig", "private key": "canary-private-key"}
"""Secret outputs of the mocked resources, by their kinds. None may be readable in a graph."""


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


THEIR_CLUSTER: dict[str, Any] = {
    "uid": "0a1b2c3d",
    "recorded": {"context": "production", "uid": "0a1b2c3d"},
    "kubeconfig": "{}",
    "kubernetes": "1.35",
}
"""What a look at the cluster gives."""


THEIR_MESH = mesh_facts.from_values(
    {
        "global": {
            "network": "pods",
            "meshID": "theirs",
            "multiCluster": {"clusterName": "their-cluster"},
            "hub": "registry.example.com/istio",
            "tag": "1.31.0",
        }
    },
    names.ISTIO_NAMESPACE,
)
"""What a mesh is that is adopted."""


# Outputs that the program reads, by the resource's name.
ANSWERS: dict[str, dict[str, Any]] = {
    "cluster-kind": {"stdout": json.dumps({"kubeconfig": CANARIES["kubeconfig"], "address": "172.31.6.2"})},
    "cluster-check": THEIR_CLUSTER,
    "ssh-key": {"stdout": json.dumps({"private": CANARIES["private key"], "public": "ssh-ed25519 AAAA"})},
    "root-certificate": {"data": {"root-cert.pem": "-----BEGIN CERTIFICATE-----\n"}},
}


# Outputs that Google Cloud adds to resources, by type.
GOOGLE: dict[str, dict[str, Any]] = {
    "gcp:container/cluster:Cluster": {"controlPlaneEndpointsConfig": {"dnsEndpointConfig": {"endpoint": "gke-0123.europe-west1.gke.goog"}}},
}


def of_google(name: str, type_: str) -> dict[str, Any]:
    """Return the outputs that Google Cloud adds to one resource."""
    number = zlib.crc32(name.encode()) & 0xFF
    if type_ == "gcp:compute/instance:Instance":
        return {"instanceId": str(number), "networkInterfaces": [{"networkIp": f"10.11.0.{number}"}], "selfLink": f"https://google/{name}"}
    if type_ == "gcp:serviceaccount/account:Account":
        email = f"{name}@project.iam.gserviceaccount.com"
        return {"email": email, "member": f"serviceAccount:{email}", "uniqueId": str(10**20 + number)}
    if type_ == "gcp:compute/address:Address":
        return {"address": "10.10.0.250" if name == "gateway-address" else f"10.40.0.{number}"}
    if type_ == "gcp:compute/regionInstanceGroupManager:RegionInstanceGroupManager":
        return {"selfLink": f"https://google/{name}", "instanceGroup": f"https://google/{name}/group"}
    return {"selfLink": f"https://google/{name}", **GOOGLE.get(type_, {})}


def result(name: str) -> Any:
    """What the script of a command returns."""
    if name.startswith(network_resource_name("")):
        return {"name": "docker-network"}
    if name.startswith(attachment_name(CLUSTER, "")):
        return {"address": "172.31.9.9"}
    if names.is_part(name, names.DRAIN):
        return {"host_key": "ssh-ed25519 AAAA"}
    if names.is_part(name, names.JOIN):
        return {"digest": "0123456789abcdef"}
    return {}


def payload(node: Node, operation: str = "create") -> dict[str, Any]:
    """What a command gives its script."""
    stdin = node.inputs["stdin"]
    payloads: dict[str, dict[str, Any]] = json.loads(stdin["secret"] if isinstance(stdin, dict) else stdin)
    return payloads[operation]


def on_machine(node: Node) -> bool:
    """Whether a command runs a script on a machine."""
    return any(
        script in str(node.inputs.get("create")) for script in ("verification/scripts/prove_machine.py", "machines/scripts/join_machine.py")
    )


def answer(name: str, type_: str) -> dict[str, Any]:
    """Return the outputs of one resource besides its inputs."""
    if name in ANSWERS:
        return ANSWERS[name]
    if type_.endswith(":MeshReading"):
        return {"facts": mesh_facts.encode(THEIR_MESH)}
    if names.is_part(name, CONTAINER):
        number = zlib.crc32(name.encode()) & 0xFFFF  # another address for each
        address = f"172.31.{number >> 8}.{number & 255}"
        return {"stdout": json.dumps({"id": f"{name}-id", "address": address, "host_key": "ssh-ed25519 AAAA"})}
    if names.is_part(name, names.REGISTRATION):
        return {"checked": ""}
    if type_.startswith("command:"):
        return {"stdout": scripting.encode(result(name))}
    if type_.startswith("gcp:"):
        return of_google(name, type_)
    return {}


@dataclass(frozen=True)
class Run:
    """The resources of a program by name, and its outputs; an output that a preview does not know is empty."""

    graph: dict[str, Node]
    outputs: dict[str, Any]
    secret_outputs: frozenset[str]


class Echo(mocks.Mocks):
    """Return the inputs of every resource and what `answer` adds; in a preview, ids are unknown."""

    def __init__(self, preview: bool) -> None:
        self.preview = preview

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[Any, Any]]:
        read = args.typ.endswith(":MeshReading")  # in previews too, by the provider's check
        outputs = {} if self.preview and not read else dict(answer(args.name, args.typ))
        if args.typ.startswith("gcp:"):  # its provider names things in previews too
            outputs["name"] = args.inputs.get("name") or f"{args.name}-0123456"
        return (None if self.preview else f"{args.name}-id", {**args.inputs, **outputs})

    def call(self, args: mocks.MockCallArgs) -> tuple[dict[Any, Any], list[tuple[str, str]] | None]:
        raise AssertionError(f"the program calls {args.token}: it must not look anything up")


class Recorder(mock_engine.Recorder):
    """A recorder whose resources are what `Echo` makes of them."""

    def __init__(self, preview: bool) -> None:
        super().__init__(Echo(preview))


def stacks() -> list[str]:
    """List the stacks that have a file."""
    return reader.stacks()


def configuration(stack: str) -> dict[str, Any]:
    """Return the configuration of a stack file, keys without the project's name, to be changed freely.

    The path of a package's digest is replaced by a digest.
    """
    return copy.deepcopy(_parsed(stack))


@cache
def _parsed(stack: str) -> dict[str, Any]:
    config = reader.read_file(stack)
    if "sha256" in config["mesh"].get("package", {}):
        config["mesh"]["package"]["sha256"] = "0" * 64
    return config


def declared(stack: str, preview: bool = False) -> Run:
    """Run the program with a stack file as it is, once for all tests; none of them may change the result."""
    return _declared(stack, preview)


@cache  # by all parameters: with a default, the same graph would be computed for each way to call it
def _declared(stack: str, preview: bool) -> Run:
    return run(configuration(stack), preview=preview)


def run(
    config: Mapping[str, Any],
    *,
    preview: bool = False,
    recorder: Recorder | None = None,
    program: mock_engine.Program = mock_engine.MAIN,
    stack: str = "test",
) -> Run:
    """Run a program with a configuration, and return its graph; raises what the program raises.

    A `recorder` of the caller holds the resources up to a failure.
    """
    monitor = recorder or Recorder(preview)
    outputs, secret_outputs = mock_engine.run_program(monitor, config, preview=preview, program=program, stack=stack)
    names = [node.name for node in monitor.nodes]
    assert len(set(names)) == len(names), f"resources share names: {sorted(name for name in names if names.count(name) > 1)}"
    return Run({node.name: node for node in monitor.nodes}, outputs, secret_outputs)


def texts(value: Any) -> Iterator[str]:
    """Yield every string of a value that is outside of secrets, keys included."""
    if isinstance(value, dict):
        if set(value) == {"secret"}:
            return
        for key, item in value.items():
            yield key
            yield from texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from texts(item)
    elif isinstance(value, str):
        yield value
