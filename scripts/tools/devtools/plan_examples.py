"""Examples of plans in `docs/plan.md`: one of each verdict, computed from a shipped stack file."""

from __future__ import annotations

import copy
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from rich.console import Console

from components.config.rules import Rules
from tools import ROOT
from tools.plan import describe, files, mermaid, render_text, rules
from tools.plan.model import Mark, Plan, ProgramChange

PAGE = ROOT / "docs" / "plan.md"
STACK = "existing"

_BLOCK = re.compile(r"(<!-- example: ([a-z]+) -->\n```(?:text|mermaid)\n).*?```\n", re.DOTALL)
_SCRIPT = "components/machines/scripts/withdraw.sh"


def page(text: str) -> str:
    """Return the text of the page with its examples, each in its block."""
    plans = dict(examples())
    shown = {name: _text(plan) for name, plan in plans.items()}
    shown["picture"] = "".join(f"{line}\n" for line in mermaid.picture(plans["leaves"]))
    return _BLOCK.sub(lambda block: f"{block[1]}{shown[block[2]]}```\n", text)


def _text(plan: Plan) -> str:
    file = io.StringIO()
    render_text.show(plan, console=Console(file=file, highlight=False, markup=False, emoji=False))
    return file.getvalue()


def examples() -> Iterator[tuple[str, Plan]]:
    """Yield a plan of each verdict, by its name."""
    yield "nothing", _plan({})
    another = {
        "platform": "ssh",
        "workload": "billing",
        "network": "pods",
        "host": "10.11.0.7",
        "hostKey": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ4PAGoNG2Yn3kXVSPFcGAGiqcXZNkHdHnzAlVnoUhS1",
    }
    yield "safe", _plan({"machines/billing-3": another})
    changed = ProgramChange(what="machine-files", name=_SCRIPT, mark=Mark.CHANGED)
    yield "program", _plan({}, changed)
    labels = {"app": "billing", "version": "v2"}
    yield "pauses", _plan({"workloads/billing/labels": labels, "workloads/billing/maxUnavailable": "100%"})
    yield "leaves", _plan({"machines/billing-2": None})
    yield "refused", _plan({"workloads/billing/services/billing/ports/http": 80000})


def _plan(changes: Mapping[str, Any], *program: ProgramChange) -> Plan:
    """Return the plan of changes of the stack file. changes: values by path; None: removed."""
    from components.config import reader

    before = reader.read_file(STACK)
    after = copy.deepcopy(before)
    for path, value in changes.items():
        *parents, last = path.split("/")
        place = after
        for key in parents:
            place = place[key]
        place.pop(last, None) if value is None else place.update({last: value})
    plan = files.compared(STACK, _described(json.dumps(before)), _described(json.dumps(after)), program)
    plan = replace(plan, base="4f1a2b3c4d5e", head="9e8d7c6b5a4f")
    return replace(plan, broken=rules.broken_rules(plan, Rules()))


@cache
def _described(config: str) -> files.Description:
    declared = describe.declared(ROOT / "__main__.py", STACK, json.loads(config))
    return files.decode(json.dumps(declared))
