"""A comment says the most important first, and is complete or says that it is not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from markdown_it import MarkdownIt

from tests.support.tiers import some_quick
from tests.unit.tools.plan.plans import (
    MESH,
    change,
    happens,
    hostile,
    machine,
    mesh,
    plan,
    workload,
)
from tests.unit.tools.plan.samples import EVERYTHING, NOTHING
from tests.unit.tools.plan.test_untrusted import assert_harmless
from tools.plan import mermaid, render_markdown
from tools.plan.model import Action, Operation, Plan, Reason, Verdict

LARGE = replace(
    plan(
        *(change(*(happens(Action.LEAVES, f"web-{n}-{m}") for m in range(20))) for n in range(60))
    ),
    verdict=Verdict.LEAVES,
    operations=tuple(
        Operation(op="delete", type="a:b:C", name=f"web-{n}", destructive=True, diff="x\n" * 40)
        for n in range(900)
    ),
)
NOTE = "**This plan is cut.** The rest is in the artefact of this run."


def headings(markdown: str) -> list[str]:
    return [line.lstrip("# ") for line in markdown.splitlines() if line.startswith("#")]


def test_a_broken_rule_stands_first_and_the_rest_by_importance() -> None:
    markdown = render_markdown.text(EVERYTHING)
    assert markdown.startswith("### ❌ 1 rule is broken\n")
    assert headings(markdown)[1:] == [
        "🔴 Plan of stack `multi-network`",
        "Workloads",
        "Services",
        "Identities",
        "Paths between networks",
        "What opens or closes",
        "Versions",
        "Cost",
        "Verification",
        "The program",
        "The mesh as it is",
        "Rules that the stack file disables",
        "The mesh after the change",
        "Deleted or replaced",
    ]
    assert markdown.index("<summary>All resources") < markdown.index("<summary>Differences")


def test_a_plan_without_changes_is_a_verdict_and_its_origin() -> None:
    markdown = render_markdown.text(replace(NOTHING, picture=None))
    assert headings(markdown) == ["⚪ Plan of stack `lab`"]
    assert "**Nothing: no resource changes.**" in markdown


@pytest.mark.parametrize("large", [LARGE, hostile("`" * 90), hostile("é</details>")])
@pytest.mark.parametrize(
    "limit", some_quick([900, 2_000, 5_000, 12_345, 30_000, 65_536], 900, 65_536)
)
def test_a_cut_plan_fits_and_says_so(large: Plan, limit: int) -> None:
    markdown = render_markdown.text(large, limit=limit)
    assert len(markdown.encode()) <= limit
    if len(render_markdown.text(large, limit=10**9).encode()) > limit:
        # As a paragraph: no fold and no code block is open any more.
        last = [each for each in MarkdownIt("commonmark").parse(markdown) if each.type == "inline"][
            -1
        ]
        assert (last.content, last.level) == (NOTE, 1)
    assert_harmless(markdown)


def test_a_plan_is_cut_from_its_end() -> None:
    large = replace(LARGE, picture=None)
    complete = render_markdown.text(large, limit=10**9).splitlines()
    cut = render_markdown.text(large, limit=200_000).removesuffix(f"\n{NOTE}\n")
    shown, all_ = (
        [line for line in lines if line not in ("", "```", "</details>")]
        for lines in (cut.splitlines(), complete)
    )
    assert shown == all_[: len(shown)]
    assert len(cut.encode()) > 199_500


def test_a_picture_is_complete_or_left_out() -> None:
    for limit in range(2_000, 60_000, 1_777):
        markdown = render_markdown.text(EVERYTHING, limit=limit)
        assert ("```mermaid" in markdown) == ("classDef same" in markdown)


def test_the_place_of_the_rest_is_named() -> None:
    assert "It is elsewhere." in render_markdown.text(LARGE, limit=5_000, rest="It is elsewhere.")


def test_three_hundred_machines_with_one_cause_are_one_sentence() -> None:
    version = Reason(key="version", before="1.30.0", after="1.31.0")
    restarts = [happens(Action.RESTARTS, f"web-{n:03}", version) for n in range(300)]
    markdown = render_markdown.text(plan(change(*restarts)))
    sentence = "  - 300 machines in network `pods` restart their agents: `web-000`, "
    assert markdown.count("restart their agents: ") == 1
    assert sentence in markdown and "and 292 more, because of Istio's version" in markdown


def test_a_large_mesh_is_drawn_within_the_limits_of_mermaid() -> None:
    many = [workload(f"w{n}", *(machine(f"w{n}-{m}") for m in range(40))) for n in range(200)]
    lines = mermaid.picture(plan(picture=mesh(*many)))
    assert len("\n".join(lines)) < 50_000
    assert any("40 machines" in line for line in lines)
    assert any("140 more" in line for line in lines)


def test_a_picture_marks_what_joins_and_what_leaves() -> None:
    changes = change(happens(Action.JOINS, "web-2"), happens(Action.LEAVES, "web-9"))
    lines = mermaid.picture(plan(changes, picture=MESH))
    assert '    b0["web-1<br/>web"]:::same' in lines
    assert '    b1["web-2<br/>web<br/>joins"]:::added' in lines
    assert '    b2["web-9<br/>web<br/>leaves"]:::removed' in lines
