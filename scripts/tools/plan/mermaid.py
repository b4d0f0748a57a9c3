"""A picture of the mesh after an update, with what changes: a flowchart of Mermaid.

GitHub and GitLab draw it in Markdown. Their limits: 50,000 characters and 500 edges.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from .mesh_model import MeshPicture, Path, WorkloadPicture
from .model import Action, Mark, Plan
from .untrusted import mermaid_label

MOST_MACHINES = 24
"""Machines that have a box each; more are counted by workload, network and what happens to them."""

MOST_WORKLOADS, MOST_NETWORKS = 60, 12
"""What is drawn at most, by name; the rest is counted in a box."""

_CLASSES = {
    "added": "fill:#dafbe1,stroke:#1a7f37,color:#000",
    "changed": "fill:#fff8c5,stroke:#9a6700,color:#000",
    "removed": "fill:#ffebe9,stroke:#cf222e,color:#000,stroke-dasharray:4",
    "same": "fill:#f6f8fa,stroke:#57606a,color:#000",
}
_MARKS = {
    Action.JOINS: ("added", "joins"),
    Action.REJOINS: ("changed", "joins again"),
    Action.RESTARTS: ("changed", "restarts"),
    Action.REGISTERS: ("changed", "registers again"),
    Action.REPLACED: ("changed", "replaced"),
    Action.MOVES: ("removed", "moves away"),
    Action.LEAVES: ("removed", "leaves"),
    Action.FORGOTTEN: ("removed", "given up"),
}
"""The class and the words of what happens to a machine: colours alone are not for everyone."""

_ARROWS = {Path.DIRECT: "-->|direct|", Path.GATEWAY: "-.->|gateway|"}


@dataclass(frozen=True)
class _Box:
    """A box: its network, the lines of its label as texts of Mermaid, and its class."""

    network: str
    label: str
    style: str


def picture(plan: Plan) -> tuple[str, ...]:
    """Return the lines of the flowchart; none where the mesh after the update is not known."""
    mesh = plan.picture
    if mesh is None or not mesh.networks:
        return ()
    return ("flowchart LR", *_body(plan, mesh), *_styles())


def _styles() -> Iterator[str]:
    for name, style in _CLASSES.items():
        yield f"  classDef {name} {style}"


def _body(plan: Plan, mesh: MeshPicture) -> Iterator[str]:
    boxes = [*_machines(plan, mesh), *_pods(plan, mesh), *_gateways(mesh)]
    shown = sorted(mesh.networks, key=lambda each: each.name)[:MOST_NETWORKS]
    ids = {network.name: f"n{index}" for index, network in enumerate(shown)}
    number = 0
    for network in shown:
        yield f'  subgraph {ids[network.name]}["network {mermaid_label(network.name)}"]'
        for box in (each for each in boxes if each.network == network.name):
            yield f'    b{number}["{box.label}"]:::{box.style}'
            number += 1
        yield "  end"
    hidden = len(mesh.networks) - len(shown) + max(0, len(mesh.workloads) - MOST_WORKLOADS)
    if hidden:
        yield f'  more["{hidden} more networks and workloads"]:::same'
    changed = {(each.source, each.target) for each in plan.paths if not each.workload}
    for path in mesh.paths:
        if path.source == path.target or path.path not in _ARROWS:
            continue
        if path.source in ids and path.target in ids:
            arrow = _ARROWS[path.path]
            if (path.source, path.target) in changed:
                arrow = arrow.replace("|", "|changed: ", 1)
            yield f"  {ids[path.source]} {arrow} {ids[path.target]}"


def _drawn(mesh: MeshPicture) -> tuple[WorkloadPicture, ...]:
    return mesh.workloads[:MOST_WORKLOADS]


def _machines(plan: Plan, mesh: MeshPicture) -> Iterator[_Box]:
    """Yield the machines after the update, and those that leave in this update."""
    drawn = {(each.namespace, each.name) for each in _drawn(mesh)}
    actions = {
        (each.namespace, each.name, machine.machine): machine
        for each in plan.workloads
        for machine in each.machines
    }
    machines = [
        (workload.namespace, workload.name, machine.name, machine.network, machine.count)
        for workload in _drawn(mesh)
        for machine in workload.machines
    ]
    present = {each[:3] for each in machines}
    gone = [
        (*key, machine.network, machine.count)
        for key, machine in actions.items()
        if key not in present and (key[:2] in drawn or len(drawn) < MOST_WORKLOADS)
    ]
    groups: Counter[tuple[str, str, str, Action | None]] = Counter()
    for namespace, workload, name, network, count in (*machines, *gone):
        change = actions.get((namespace, workload, name))
        action = change.action if change else None
        if len(machines) + len(gone) <= MOST_MACHINES:
            many = f" (at least {count})" if count > 1 else ""
            label = f"{mermaid_label(name)}{many}<br/>{mermaid_label(workload)}"
            yield _box(network, label, action)
        else:
            groups[(f"{namespace}/{workload}", workload, network, action)] += count
    for (_, workload, network, action), count in groups.items():
        machines_ = "machine" if count == 1 else "machines"
        yield _box(network, f"{count} {machines_}<br/>{mermaid_label(workload)}", action)


def _box(network: str, label: str, action: Action | None) -> _Box:
    style, words = _MARKS[action] if action else ("same", "")
    return _Box(network, f"{label}<br/>{words}" if words else label, style)


def _pods(plan: Plan, mesh: MeshPicture) -> Iterator[_Box]:
    changes = {(each.namespace, each.name): each for each in plan.workloads}
    network = next((each.name for each in mesh.networks if each.pods), "")
    for workload in _drawn(mesh):
        if not workload.replicas:
            continue
        change = changes.get((workload.namespace, workload.name))
        style, words = "same", ""
        if change and change.pods:
            added = change.mark is Mark.ADDED or not change.pods.before
            style, words = ("added", "new") if added else ("changed", "pods change")
        pods = "pod" if workload.replicas == 1 else "pods"
        label = f"{workload.replicas} {pods}<br/>{mermaid_label(workload.name)}"
        yield _Box(network, f"{label}<br/>{words}" if words else label, style)


def _gateways(mesh: MeshPicture) -> Iterator[_Box]:
    """Yield the control plane, whose network is that of the pods."""
    for network in mesh.networks:
        if network.pods:
            version = mesh.versions.control_plane
            text = f"<br/>{mermaid_label(version)}" if version else ""
            yield _Box(network.name, f"istiod{text}", "same")
