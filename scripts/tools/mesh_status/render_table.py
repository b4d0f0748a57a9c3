"""The mesh as tables: 100 columns are enough, and a pipe gets the same without colours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from .advice import duration
from .model import Endpoint, Health, Mesh, Network, Workload

WIDTH = 100
STYLES: dict[Health, str] = {"healthy": "green", "unhealthy": "red", "missing": "red", "unknown": "yellow"}


def show(mesh: Mesh, console: Console | None = None) -> None:
    """Print the mesh."""
    console = console or Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = WIDTH
    with console.capture() as captured:
        console.print(Group(*_parts(mesh)))
    console.file.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def _parts(mesh: Mesh) -> Iterator[RenderableType]:
    updated = f", updated {duration(mesh.read - mesh.updated)} ago" if mesh.updated else ""
    verified = f", verified {duration(mesh.read - mesh.verified)} ago" if mesh.verified else ", never verified"
    yield Text.assemble((f"Mesh {mesh.id} of stack {mesh.stack}", "bold"), f"{updated}{verified}: ", _health(mesh.health))
    yield _overview(mesh)
    for workload in mesh.workloads:
        yield Text()
        yield _heading(workload, mesh.read)
        yield Padding(_endpoints(workload, mesh.read), (0, 0, 0, 2))
    if mesh.calls:
        yield Text("\nCalls that the last verification proved, mutual TLS under these names", style="bold")
        yield Padding(_calls(mesh), (0, 0, 0, 2))
    if mesh.verification:
        yield Text()
        ok = not mesh.verification.error
        yield Text(
            "Verified: everything answers" if ok else f"The verification failed: {mesh.verification.error}", style="green" if ok else "red"
        )
    if advice := list(_advice(mesh)):
        yield Text("\nWhat to do", style="bold")
        yield Padding(Group(*advice), (0, 0, 0, 2))


def _health(health: Health) -> Text:
    return Text(health, style=STYLES[health])


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _overview(mesh: Mesh) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    plane = mesh.control_plane
    table.add_row("control plane", f"istiod {plane.version}", f"{plane.ready} of {plane.pods} ready", _health(plane.health))
    for network in mesh.networks:
        table.add_row(f"network {network.name}", _gateway(network), ", ".join(network.ranges), _gateway_health(network))
    return table


def _gateway(network: Network) -> str:
    if not network.gateway:
        return "no gateway"
    return f"{network.gateway.name} {' '.join(network.gateway.addresses)}"


def _gateway_health(network: Network) -> Text:
    return _health(network.gateway.health) if network.gateway else Text()


def _heading(workload: Workload, now: datetime) -> Text:
    services = ", ".join(f"{host}:{'/'.join(map(str, ports))}" for host, ports in workload.services.items())
    kind = "Gateway" if workload.is_gateway else "Workload"
    verified = f", verified {duration(now - workload.verified)} ago" if workload.verified else ""
    behind = f" behind {services}" if services else ""
    return Text.assemble((f"{kind} {workload.namespace}/{workload.name}", "bold"), f"{behind}{verified}: ", _health(workload.health))


def _endpoints(workload: Workload, now: datetime) -> Table:
    """Two lines each: the name, and under it the WorkloadEntry or a pod's address."""
    table = _table("", "name, WorkloadEntry", "health", "version", "up", "certificate", "token")
    for each in workload.endpoints:
        machine = each.kind == "machine"
        table.add_row(
            each.kind,
            Text.assemble(each.name, "\n", (each.entry or each.address or "-", "dim")),
            _health(each.health),
            each.agent or "-",
            duration(now - each.active) if each.active else "-",
            _until(each.certificate_ends, now) if machine else "",
            _until(each.token_expires, now) if machine else "",
        )
    return table


def _until(time: datetime | None, now: datetime) -> Text:
    """How long something is good for, or since when it is not."""
    if time is None:
        return Text("-")
    return Text(f"{duration(time - now)} left") if time > now else Text(f"ended {duration(now - time)}", style="yellow")


def _calls(mesh: Mesh) -> Table:
    names = {each.address: f"{each.kind} {each.name}" for workload in mesh.workloads for each in workload.endpoints if each.address}
    table = _table("caller", "Service", "answered by", "path")
    for call in mesh.calls:
        address = call.endpoint.partition(":")[0]
        callee = call.path.removeprefix("through ") if call.path != "direct" else names.get(address, call.endpoint)
        table.add_row(call.caller, call.service.partition(".svc.")[0], callee, "direct" if call.path == "direct" else "gateway")
    return table


def _advice(mesh: Mesh) -> Iterator[Text]:
    for sentence in mesh.advice:
        yield _sentence("the mesh", sentence)
    for sentence in mesh.control_plane.advice:
        yield _sentence("control plane", sentence)
    for network in mesh.networks:
        for sentence in network.gateway.advice if network.gateway else ():
            yield _sentence(f"gateway {network.gateway.name if network.gateway else ''}", sentence)
    for workload in mesh.workloads:
        for sentence in workload.advice:
            yield _sentence(f"workload {workload.name}", sentence)
        yield from _of_endpoints(workload.endpoints)


def _of_endpoints(endpoints: Iterable[Endpoint]) -> Iterator[Text]:
    """Yield the advice of endpoints. Advice that several have is one line."""
    endpoints_of: dict[tuple[str, str], list[str]] = {}
    for endpoint in endpoints:
        for sentence in endpoint.advice:
            endpoints_of.setdefault((endpoint.kind, sentence), []).append(endpoint.name)
    for (kind, sentence), names in endpoints_of.items():
        yield _sentence(f"{kind}{'s' if len(names) > 1 else ''} {', '.join(names)}", sentence)


def _sentence(who: str, sentence: str) -> Text:
    return Text.assemble("- ", (who, "bold"), f": {sentence}")
