"""The figures in docs/plan.md: how many changes are compared with what updates did. `python -m tests.support.plan_page` writes them."""

from __future__ import annotations

import ast
import re

from tests.engine.plan.steps import counted
from tests.support.acceptance_page import ROOT

COMMAND = ".venv/bin/python -m tests.support.plan_page"
PAGE = ROOT / "docs" / "plan.md"
_BLOCK = re.compile(r"(<!-- compared -->\n).*?(<!-- /compared -->\n)", re.DOTALL)


def page(text: str) -> str:
    """Return the text of the page with its figures."""
    return _BLOCK.sub(lambda block: f"{block[1]}{figures()}{block[2]}", text)


def figures() -> str:
    """Return the figures, as Markdown."""
    changes, labs = counted(), updates_of_labs()
    rows = [f"| `{stack}` | {len(names)} | {'; '.join(names)} |\n" for stack, names in changes.items()]
    files = ", ".join(f"`{file}`" for file in labs)
    return (
        f"{sum(map(len, changes.values()))} changes of {len(changes)} stacks are compared; none of their plans is false.\n\n"
        f"| stack | changes | what changes |\n|---|---|---|\n{''.join(rows)}\n"
        f"In the labs, {sum(labs.values())} updates are compared with the agents that restarted, and with the\n"
        f"machines that joined or left: {files}.\n"
    )


def updates_of_labs() -> dict[str, int]:
    """Return how many updates each scenario compares with their plans."""
    counts = {file.name: _comparisons(file.read_text()) for file in sorted((ROOT / "tests" / "e2e").rglob("test_*.py"))}
    return {name: count for name, count in counts.items() if count}


def _comparisons(text: str) -> int:
    blocks = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.With))
    return sum(ast.unparse(item.context_expr).startswith("as_planned(") for block in blocks for item in block.items)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
