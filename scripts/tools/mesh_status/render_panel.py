"""The mesh as a picture for terminals: a box for each network, with its gateway, machines and pods in the colour of their health."""

from __future__ import annotations

from collections.abc import Iterator

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from .model import Endpoint, Health, Mesh, Network, Workload
from .render_table import STYLES

SIGNS: dict[Health, str] = {"healthy": "●", "unhealthy": "✗", "missing": "○", "unknown": "?"}


def picture(mesh: Mesh) -> RenderableType:
    """Return the networks side by side where there is room, one under the other where there is
    none.
    """
    return Columns([_network(mesh, network) for network in mesh.networks], padding=(0, 1))


def _network(mesh: Mesh, network: Network) -> Panel:
    title = Text.assemble(" network ", (network.name, "bold"), " ")
    return Panel(
        Group(*_lines(mesh, network)),
        title=title,
        title_align="left",
        subtitle=Text(f" {', '.join(network.ranges)} "),
        expand=False,
        padding=(0, 1),
    )


def _lines(mesh: Mesh, network: Network) -> Iterator[Text]:
    if network.name == mesh.network:
        plane = mesh.control_plane
        yield _line(plane.health, "istiod", plane.version)
    if network.gateway:
        yield _line(network.gateway.health, f"gateway {network.gateway.name}", " ".join(network.gateway.addresses))
    for workload in mesh.workloads:
        endpoints = [each for each in workload.endpoints if each.network == network.name]
        if endpoints:
            yield Text.assemble("\n", (workload.name, "bold"), (f"  {_behind(workload)}", "dim"))
        yield from map(_endpoint, endpoints)


def _behind(workload: Workload) -> str:
    return ", ".join(f"{host}:{'/'.join(map(str, ports))}" for host, ports in workload.services.items())


def _endpoint(each: Endpoint) -> Text:
    return _line(each.health, f"{each.kind} {each.name}", each.address)


def _line(health: Health, name: str, what: str) -> Text:
    return Text.assemble(
        (f"{SIGNS[health]} ", STYLES[health]),
        name,
        (f"  {what}", "dim"),
        *([] if health == "healthy" else [(f"  {health}", STYLES[health])]),
    )
