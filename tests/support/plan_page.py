"""The figures in docs/plan.md: how many changes are compared with what updates did. `python -m tests.support.plan_page` writes them."""

from __future__ import annotations

import re

from tests.engine.plan.steps import counted
from tests.support.acceptance_page import ROOT

PAGE = ROOT / "docs" / "plan.md"
_BLOCK = re.compile(r"(<!-- compared -->\n).*?(<!-- /compared -->\n)", re.DOTALL)


def page(text: str) -> str:
    """Return the text of the page with its figures."""
    return _BLOCK.sub(lambda block: f"{block[1]}{figures()}{block[2]}", text)


def figures() -> str:
    """Return the figures, as Markdown."""
    changes = counted()
    rows = [f"| `{stack}` | {len(names)} | {'; '.join(names)} |\n" for stack, names in changes.items()]
    return (
        f"{sum(map(len, changes.values()))} changes of {len(changes)} stacks are compared; none of their plans is false.\n\n"
        f"| stack | changes | what changes |\n|---|---|---|\n{''.join(rows)}"
    )


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
