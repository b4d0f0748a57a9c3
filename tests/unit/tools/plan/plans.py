"""Plans for tests: one in which everything is hostile, and a mesh of which one thing changes."""

from __future__ import annotations

import enum
import types
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any, Union, get_args, get_origin, get_type_hints

from tools.plan.mesh_model import (
    MachinePicture,
    MeshPicture,
    NetworkPicture,
    Versions,
    WorkloadPicture,
)
from tools.plan.model import (
    FORMAT,
    Action,
    Level,
    MachineChange,
    Mark,
    Plan,
    Reason,
    Verdict,
    WorkloadChange,
)

MARK = "zqx"
"""Stands in every hostile text, so that it is seen where it comes out."""

HOSTILE = [
    f"@{MARK}",
    f"#1{MARK}",
    f"owner/repo#1 {MARK}",
    f"<img src=x onerror={MARK}>",
    f"</details>{MARK}",
    f"</summary></details>\n\n{MARK}",
    f"<!-- {MARK}",
    f"`{MARK}`",
    f"`` {MARK} `",
    f"```\n</details>\n{MARK}",
    f"~~~\n{MARK}",
    f"{MARK}`",
    f"`{MARK}",
    f" {MARK} ",
    f"{MARK}\\",
    f"\\`{MARK}",
    f"\n/close\n{MARK}",
    f"::set-output name={MARK}::x",
    f"\n::set-output name={MARK}::x",
    f"\r\n  ::add-mask::{MARK}",
    f"##[add-path]{MARK}",
    f"##vso[task.setvariable variable={MARK}]x",
    f"\u202e{MARK}\u2066",
    f"\u200b{MARK}\ufeff",
    f"\u2028{MARK}\u0085",
    f"\x1b[2J\x1b]0;{MARK}\x07",
    f"\0{MARK}",
    f"[{MARK}](http://evil.example)",
    f"[{MARK}]: http://evil.example",
    f"![{MARK}](http://evil.example/x.png)",
    f"http://evil.example/{MARK}",
    f"www.evil.example/{MARK}",
    f"{MARK}@evil.example",
    f"| {MARK} | b |",
    f"# {MARK}",
    f"- {MARK}\n- b",
    f"> {MARK}",
    f"---\n{MARK}",
    f"**{MARK}** _x_ ~~y~~",
    f"$ {MARK} $",
    f"${{{{ secrets.{MARK} }}}}",
    f"$(touch {MARK})",
    f"{{}} {MARK} {{0}} %s",
    f'"]; click b0 "javascript:{MARK}"',
    f"%%{{init: {{'securityLevel': 'loose'}}}}%% {MARK}",
    f"]:::x\n  end\n  {MARK}",
    f"[bold]{MARK}[/bold]",
    f":tada: {MARK}",
    f"&lt;script&gt;{MARK}",
    "a" + "\u0301" * 50 + MARK,
    MARK + "x" * 100_000,
    f"{MARK}" + "`" * 1_000,
    "`" * 150 + MARK,
    f"{MARK}\ud800",
    f"\U000e0041{MARK}\u3164",
    "",
    " ",
]
"""Texts as a stack file, a cluster or an artefact of a fork may have them."""


_HINTS: dict[type[Any], dict[str, Any]] = {}


def _hints(of: type[Any]) -> dict[str, Any]:
    """Return the types of fields. They are texts, whose evaluation takes longer than all else here."""
    if of not in _HINTS:
        _HINTS[of] = get_type_hints(of)
    return _HINTS[of]


def filled(text: str, of: type[Any] = Plan) -> Any:
    """Return a record whose texts are all `text`, with every value of every enumeration."""
    hints = _hints(of)
    return of(**{each.name: _filled(hints[each.name], text) for each in fields(of)})


def _filled(annotation: Any, text: str) -> Any:
    if get_origin(annotation) is tuple:
        return tuple(_each(get_args(annotation)[0], text))
    return next(_each(annotation, text))


def _each(annotation: Any, text: str) -> Iterator[Any]:
    """Yield values of a type: a record for each value that its enumerations have."""
    if get_origin(annotation) in (Union, types.UnionType):
        yield from _each(
            next(each for each in get_args(annotation) if each is not type(None)), text
        )
    elif annotation is str:
        yield text
    elif annotation is bool:
        yield True
    elif annotation in (int, float):
        yield annotation(2)
    elif isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        yield from annotation
    elif is_dataclass(annotation) and isinstance(annotation, type):
        hints = _hints(annotation)
        chosen = [
            (each.name, list(hints[each.name]))
            for each in fields(annotation)
            if isinstance(hints[each.name], type) and issubclass(hints[each.name], enum.Enum)
        ]
        record = filled(text, annotation)
        for number in range(max((len(values) for _, values in chosen), default=1)):
            yield replace(record, **{name: values[number % len(values)] for name, values in chosen})


def hostile(text: str, verdict: Verdict = Verdict.LEAVES) -> Plan:
    """Return a plan with `text` at every place, and a verdict."""
    plan: Plan = filled(text)
    return replace(plan, verdict=verdict, format=FORMAT)


def machine(name: str, address: str = "10.0.0.1") -> MachinePicture:
    return MachinePicture(name=name, network="pods", address=address)


def workload(name: str, *machines: MachinePicture) -> WorkloadPicture:
    identity = f"spiffe://cluster.local/ns/shop/sa/{name}"
    return WorkloadPicture(name=name, namespace="shop", identity=identity, machines=machines)


def mesh(*workloads: WorkloadPicture) -> MeshPicture:
    versions = Versions(control_plane="1.31.0", machines="1.31.0", pods="1.31.0")
    network = NetworkPicture(name="pods", pods=True)
    return MeshPicture(
        stack="prod", networks=(network,), workloads=workloads, versions=versions, protected=True
    )


MESH = mesh(workload("web", machine("web-1"), machine("web-2")))


def change(*machines: MachineChange) -> WorkloadChange:
    return WorkloadChange(name="web", namespace="shop", mark=Mark.CHANGED, machines=machines)


def happens(action: Action, name: str = "web-1", *reasons: Reason) -> MachineChange:
    return MachineChange(machine=name, network="pods", action=action, reasons=reasons)


def plan(*workloads: WorkloadChange, picture: MeshPicture | None = MESH) -> Plan:
    return Plan(
        stack="prod",
        level=Level.FILES,
        verdict=Verdict.SAFE,
        workloads=workloads,
        picture=picture,
    )
