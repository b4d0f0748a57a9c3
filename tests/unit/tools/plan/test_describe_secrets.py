"""No secret of a stack is in what a plan is made of, nor in what is printed of it."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from typing import Any

import pytest
from rich.console import Console

from tests.support.tiers import some_quick
from tests.unit.tools.plan.changes import config_of
from tools import ROOT
from tools.plan import describe, files, mocks, preview, render_json, render_markdown, render_text
from tools.plan.compare import compare
from tools.plan.differences import operations
from tools.plan.mesh_model import MeshPicture
from tools.plan.model import Plan
from tools.plan.resources import SECRET

CANARY = "canary-c0ffee"
SECRETS = {"kubeconfig": CANARY, "private": CANARY}
"""What scripts return that is secret, by the keys of their results."""


def shown(plan: Plan) -> str:
    file = io.StringIO()
    render_text.show(plan, verbose=True, console=Console(file=file, width=1000))
    markdown = render_markdown.text(plan, limit=10**9)
    return "\n".join((file.getvalue(), markdown, render_json.text(plan)))


def assert_hidden(text: str) -> None:
    for form in (CANARY, base64.b64encode(CANARY.encode()).decode(), CANARY.encode().hex()):
        assert form not in text


@pytest.mark.parametrize(
    "stack", some_quick(["lab-multi-network", "multi-network"], "lab-multi-network")
)
def test_a_plan_of_files_holds_no_secret(stack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = mocks.Answers._result

    def with_secrets(self: mocks.Answers, *arguments: Any) -> Mapping[str, Any]:
        result = answer(self, *arguments)
        return {key: SECRETS.get(key, value) for key, value in result.items()}

    monkeypatch.setattr(mocks.Answers, "_result", with_secrets)
    text = json.dumps(describe.declared(ROOT / "__main__.py", stack, config_of(stack)))
    assert SECRET in text, "the stack has no secret: the test proves nothing"
    assert_hidden(text)
    described = files.decode(text)
    mesh, nothing = described.mesh(stack), MeshPicture(stack=stack)
    for before, after, changes in (
        (nothing, mesh, operations((), described.resources)),
        (mesh, nothing, operations(described.resources, ())),
    ):
        plan = compare(before, after, changes)
        assert plan.operations
        assert_hidden(shown(plan))


def step(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return a step of `pulumi preview --json`, which shows secrets as `[secret]`."""
    urn = f"urn:pulumi:s::istio-vm-mesh::command:local:Command::{name}"
    common = {"urn": urn, "type": "command:local:Command"}
    return {
        "op": "update",
        "urn": urn,
        "oldState": {**common, "inputs": before},
        "newState": {**common, "inputs": after},
    }


def test_a_secret_that_changes_is_one_line_without_its_value() -> None:
    steps = [
        step("one", {"stdin": SECRET, "create": "a"}, {"stdin": "x", "create": "b"}),
        step("two", {"stdin": {"key": SECRET}}, {"stdin": {"key": SECRET, "more": 1}}),
    ]
    previewed = preview.decode(json.dumps({"steps": steps}, indent=2))
    diffs = [each.diff for each in previewed.operations]
    assert diffs == [f"create: a -> b\nstdin: {SECRET} -> x", "stdin.more: (none) -> 1"]
