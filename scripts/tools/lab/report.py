"""What `lab up` shows at its end: the mesh as a picture, and who called whom over which path under which identity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from components.verification.evidence import Call, Evidence, GatewayTraffic, Plaintext, by_workload
from tools.mesh_status.model import Mesh
from tools.mesh_status.render_panel import picture

PLAIN_WIDTH = 120
"""Columns where standard output is no terminal: nothing of a row is cut off or folded there."""


def show(mesh: Mesh, outputs: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the mesh, and the evidence among the stack's outputs (`verification`) where the stack has any."""
    console = console or Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = max(console.width, PLAIN_WIDTH)
    console.print("", picture(mesh), sep="\n")
    evidence = outputs.get("verification")
    if evidence is None:
        console.print("\nNothing was called: the stack has `verify: none`.")
        return
    for workload, proof in by_workload(evidence).items():
        console.print(_workload(workload, proof))
    console.print(
        f"\nMachines reach the control plane through the east-west gateway at {outputs.get('gateway')}, port {outputs.get('gatewayPort')}."
    )


def _workload(name: str, evidence: Evidence) -> RenderableType:
    """The tables of one workload; those without a row are left out."""
    entries, pods, calls = evidence.entries, evidence.pods, [call for call in evidence.calls if call.is_path]
    gateway_traffic = evidence.gateway_traffic
    if not entries and not pods and not calls:
        return Text(f"\n{name}: nothing was verified, see the warnings above", style="yellow")
    names = {_host(entry.endpoint): f"machine {entry.machine}" for entry in entries}
    names |= {pod.address: f"pod {pod.name}" for pod in pods}
    parts: list[RenderableType] = []
    if calls:
        services = " and ".join(dict.fromkeys(f"{call.service}:{call.port}" for call in calls))
        parts += [Text(f"\nCalls to {services}", style="bold"), _calls(calls, names, evidence.plaintext)]
    if gateway_traffic:
        parts += [Text("\nCarried by gateways", style="bold"), _gateway_traffic(gateway_traffic)]
    return Group(*parts)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _calls(calls: Sequence[Call], names: Mapping[str, str], outside: Sequence[Plaintext]) -> Table:
    """Two lines a call: the names, and under them the identities that the proxies showed each other. Last what came of calls from `outside`."""
    table = _table("caller", "answered by", "path")
    for call in calls:
        gateway = call.path.removeprefix("through ") if call.path != "direct" else ""
        callee = f"{gateway or names.get(_host(call.endpoint), 'endpoint')} ({call.endpoint})"
        table.add_row(
            Text.assemble(call.caller, "\n", (call.caller_identity, "cyan")),
            Text.assemble(callee, "\n", (call.peer, "cyan")),
            f"{'gateway' if gateway else 'direct'}\n{call.answers} answers",
        )
    for result in dict.fromkeys(each.result for each in outside):
        endpoints = [each.endpoint for each in outside if each.result == result]
        callees = "\n".join(f"{names.get(_host(endpoint), 'gateway')} ({endpoint})" for endpoint in endpoints)
        style = "red" if result == "answered" else "green"
        table.add_row(Text("a pod outside the mesh\nno identity"), callees, Text(result, style=style))
    return table


def _gateway_traffic(gateway_traffic: Sequence[GatewayTraffic]) -> Table:
    table = _table("gateway", "to", "at", "connections")
    for each in gateway_traffic:
        table.add_row(each.gateway, each.service, each.endpoint, str(each.connections))
    return table


def _host(address: str) -> str:
    """An address without its port."""
    return address.partition(":")[0]
