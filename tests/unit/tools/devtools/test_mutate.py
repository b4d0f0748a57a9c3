"""The mutations of the program that tests must notice."""

from __future__ import annotations

import pytest

from tools import ROOT
from tools.devtools import mutate, test_runner
from tools.devtools.mutate import mutations, nearest


def test_every_mutation_finds_its_place() -> None:
    """So that `./scripts/mutations` can be run any day: it takes minutes, so it is not run with every change."""
    for mutation in mutations():
        assert (ROOT / mutation.file).read_text().count(mutation.before) == 1, mutation.what
    names = [mutation.what for mutation in mutations()]
    assert len(names) == len(set(names)) >= 20


@pytest.mark.parametrize(
    ("file", "tests"),
    [
        ("components/machines/scripts/join.sh", "tests/unit/machines"),
        ("components/config/checks/rules.py", "tests/unit/config"),
        ("scripts/tools/plan/forge/settle.py", "tests/unit/tools/plan/forge"),
        ("components/ownership.py", "tests/unit/test_ownership.py"),
        ("components/stack.py", ""),
    ],
)
def test_the_tests_of_a_part_come_first(file: str, tests: str) -> None:
    assert nearest(file) == tests


def test_words_that_no_mutation_has_are_an_error_without_a_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["mutations", "nothing-of-this-name"])
    monkeypatch.setattr(test_runner, "prepare", pytest.fail)
    assert mutate.main() == 1
    assert "No mutation has one of these words: nothing-of-this-name" in capsys.readouterr().err
