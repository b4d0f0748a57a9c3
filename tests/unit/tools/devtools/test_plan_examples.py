"""The examples of the documents are what the program prints."""

from __future__ import annotations

from tools.devtools import plan_examples
from tools.plan.model import Verdict


def test_the_examples_in_the_documents_are_up_to_date() -> None:
    text = plan_examples.PAGE.read_text()
    assert plan_examples.page(text) == text, "run ./scripts/schema"
    assert {name: plan.verdict for name, plan in plan_examples.examples()} == {verdict.value: verdict for verdict in Verdict}


def test_the_page_has_an_example_of_each_verdict() -> None:
    text = plan_examples.PAGE.read_text()
    for verdict in Verdict:
        assert f"<!-- example: {verdict.value} -->" in text
