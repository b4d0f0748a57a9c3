"""docs/plan.md: the figures are those of the comparison."""

from __future__ import annotations

from tests.support import plan_page


def test_the_figures_are_those_of_the_comparison() -> None:
    text = plan_page.PAGE.read_text()
    assert text == plan_page.page(text), f"run {plan_page.COMMAND}"
    assert plan_page.figures() in text, "the page lacks the comments between which the figures are"


def test_enough_is_compared() -> None:
    changes = {(stack, change) for stack, changes in plan_page.counted().items() for change in changes}
    assert len(changes) == sum(map(len, plan_page.counted().values())), "each has a name of its own"
    assert len(changes) >= 30
    assert sum(plan_page.updates_of_labs().values()) >= 10
