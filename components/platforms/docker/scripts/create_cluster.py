"""Creates a kind cluster, or keeps the one of that name if kind completed it.

A cluster that a killed run left incomplete is recreated. It may answer and still lack kind's last
steps, so a mark on its node shows that kind completed. One with the mark is never deleted here: it
may only be slow, or stopped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from time import monotonic, sleep

from ....local import scripting
from ....local.cluster_access import ClusterAccess, kubectl, read_kind_kubeconfig
from ..names import kind_node
from .owner import is_in_network

MARK = "/kind/istio-vm-mesh.whole"
READY_S = 180
"""Seconds in which the node of a cluster that exists must be ready."""
PAUSE_S = 2.0


@dataclass(frozen=True)
class Payload:
    """A kind cluster.

    name: its name.
    image: the image of its node.
    network: the Docker network of its node.
    configuration: kind's configuration, YAML.
    """

    name: str
    image: str
    network: str
    configuration: str


@dataclass(frozen=True)
class Result:
    """How the cluster is reached.

    kubeconfig: the administrator's kubeconfig, with its key.
    address: the node's address in its Docker network.
    """

    kubeconfig: str = field(repr=False)
    address: str


def run(payload: Payload) -> Result:
    """Make the cluster.

    Raises scripting.Failed with kind's last words where kind fails, and where a cluster that exists
    is not ready.
    """
    name, node = payload.name, kind_node(payload.name)
    if _exists(name):
        _require_network(payload, node)
        if not _was_completed(node):
            _kind("delete", "cluster", "--name", name)
    if _exists(name):
        _wait_until_ready(name, node)
    else:
        _create(payload, node)
    mark = ["docker", "exec", node, "touch", MARK]
    scripting.check(mark, f"the node {node} of the cluster {name} does not run")
    template = f'{{{{(index .NetworkSettings.Networks "{payload.network}").IPAddress}}}}'
    address = scripting.check(
        ["docker", "inspect", "--format", template, node],
        f"the node {node} is not in the Docker network {payload.network}",
    )
    return Result(read_kind_kubeconfig(name), address.text)


def _kind(*words: str) -> scripting.Done:
    return scripting.call(["kind", *words])


def _require_network(payload: Payload, node: str) -> None:
    """Require that a cluster is of this stack. Raises scripting.Failed."""
    if not is_in_network(node, payload.network):
        raise scripting.Failed(
            f"kind has a cluster {payload.name}, which is not of this program: its node {node} is not in the "
            f"Docker network {payload.network}. It was not changed: rename the stack, or delete the cluster "
            f"(kind delete cluster --name {payload.name})"
        )


def _exists(name: str) -> bool:
    return name in _kind("get", "clusters").text.splitlines()


def _was_completed(node: str) -> bool:
    """Return whether kind completed the cluster. A node that is stopped is started for that."""
    look = ["docker", "exec", node, "test", "-e", MARK]
    done = scripting.call(look)
    if done.error:  # Docker's: `test` prints nothing
        scripting.call(["docker", "start", node])
        done = scripting.call(look)
    return done.status == 0


def _wait_until_ready(name: str, node: str) -> None:
    """Wait for the node, which may have been started a moment ago. Raises scripting.Failed."""
    end = monotonic() + READY_S
    words = ["wait", "--for=condition=Ready", "node", "--all", "--timeout=20s"]
    with kubectl(ClusterAccess(kind=name)) as program:
        while True:
            waited = program.call("--request-timeout=30s", *words)
            if waited.status == 0:
                return
            if monotonic() > end:
                break
            sleep(PAUSE_S)
    raise scripting.Failed(
        f"the kind cluster {name} exists, and its node is not ready within {READY_S} s "
        f"({scripting.last_words(waited.error)}): see 'docker logs {node}'. If nothing in the cluster is "
        f"needed, delete it (kind delete cluster --name {name}), and run the update again"
    )


def _create(payload: Payload, node: str) -> None:
    with scripting.private_directory() as directory:
        words = ["kind", "create", "cluster", "--name", payload.name, "--image", payload.image]
        words += ["--config", "-", "--kubeconfig", str(directory / "kubeconfig")]
        done = scripting.call(
            [*words, "--wait", "180s", "--retain"],
            stdin=payload.configuration.encode(),
            environment={"KIND_EXPERIMENTAL_DOCKER_NETWORK": payload.network},
        )
    if done.status:
        log = "\n".join(f"{done.text}\n{done.error}".strip().splitlines()[-15:])
        problem = f"kind could not create the cluster {payload.name} from {payload.image}"
        raise scripting.Failed(f"{log}\n{problem}: see above, and 'docker logs {node}'")
