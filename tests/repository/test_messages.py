"""Messages that documents quote are those of the program."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import messages
from tools import ROOT

OF_OTHERS = {"cannot re-use a name that is still in use", "another operation … is in progress"}
"""Helm's."""
PAGES = sorted(page for page in (ROOT / "docs").rglob("*.md") if messages.quoted(page.read_text()))
PYTHON = '''
"""A docstring is no message."""
raise Failed(
    f"machine {name}: the cluster " "does not answer"
    f" ({reason})"
)
'''
SHELL = """
# a comment is no message
fail "cannot reach $GATEWAY port ${GATEWAY_PORT}: check the" \\
  "gateway's $(words of "it") address"
"""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_messages_in_documents_are_those_of_the_program(page: Path) -> None:
    quotations = [text for text in messages.quoted(page.read_text()) if text not in OF_OTHERS]
    assert [text for text in quotations if not messages.is_printed(text)] == []


def test_the_page_on_messages_has_those_of_every_phase() -> None:
    page = (ROOT / "docs" / "how-to" / "troubleshooting.md").read_text()
    assert len(messages.quoted(page)) > 60


@pytest.mark.parametrize(
    ("quotation", "expected"),
    [
        ("machine …: the cluster does not answer (…)", True),
        ("the cluster does not answer", True),
        ("the cluster has gone away", False),
        ("A docstring is no message", False),
        ("cannot reach … port …: check the gateway's … address", True),
        ("check the gateway's … address: cannot reach", False),
        ("a comment is no message", False),
        ("… the …", False),
    ],
)
def test_a_quotation_is_compared_with_what_is_printed(quotation: str, expected: bool) -> None:
    among = "\n".join([*messages.python_texts(PYTHON), *messages.shell_texts(SHELL)])
    assert messages.is_printed(quotation, among) is expected


def test_only_the_messages_of_a_table_are_quoted() -> None:
    page = "`code`\n\n| key | what |\n|---|---|\n| `key` | x |\n\n| message | fix |\n|---|---|\n| `one …`, `two` | `run` |\n| an `up` fails | |\n"
    assert messages.quoted(page) == ["one …", "two"]
