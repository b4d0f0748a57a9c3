"""The mutations of the program that tests must notice, and the copies in which tests run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest

from tools import PYTHONPATH, ROOT
from tools.devtools import copies, mutate, test_runner
from tools.devtools.mutate import mutations


def test_every_mutation_finds_its_place_and_its_test() -> None:
    """So that `./scripts/mutations` can be run any day: it takes minutes, so it is not run with every change."""
    for mutation in mutations():
        assert (ROOT / mutation.file).read_text().count(mutation.before) == 1, mutation.what
        file, _, test = mutation.test.partition("::")
        assert f"\ndef {test}(" in (ROOT / file).read_text(), mutation.what
    names = [mutation.what for mutation in mutations()]
    assert len(names) == len(set(names)) >= 20


def test_no_golden_graph_is_what_notices_a_mutation() -> None:
    """It fails on almost every change and explains little: a rule must fail too."""
    assert not [mutation.what for mutation in mutations() if "the_graph_is_the_one_that_was_reviewed" in mutation.test]


def test_words_that_no_mutation_has_are_an_error_without_a_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["mutations", "nothing-of-this-name"])
    monkeypatch.setattr(test_runner, "prepare", pytest.fail)
    assert mutate.main() == 1
    assert "No mutation has one of these words: nothing-of-this-name" in capsys.readouterr().err


OPENED = ("open to the world", "lets everybody in", "public", "lets plaintext in", "no secret")
"""Words of the mutations that open machines or the mesh to others, or show a secret."""


@pytest.mark.slow
def test_changes_that_open_the_mesh_to_others_are_noticed() -> None:
    """By the command itself. All mutations take longer than the whole test may."""
    command = [sys.executable, "-m", "tools.devtools.mutate", *OPENED]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    done = subprocess.run(command, cwd=ROOT, env={**environment, "PYTHONPATH": PYTHONPATH}, capture_output=True, text=True)
    wanted = [each.what for each in mutations() if any(word in each.what for word in OPENED)]
    assert (done.returncode, re.findall(r"^(\w+) +(.+)$", done.stdout, re.MULTILINE)[: len(wanted)]) == (
        0,
        [("noticed", what) for what in wanted],
    ), done.stdout + done.stderr
    assert len(wanted) >= 8


class _Copy(copies.Copy):
    """A copy without files. answers: the first failure of each run of tests."""

    def __init__(self, answers: list[str]) -> None:
        self._answers = iter(answers)

    @contextmanager
    def changed(self, file: str, source: bytes) -> Iterator[None]:
        assert (ROOT / file).read_bytes() != source
        yield

    def first_failure(self, *tests: str) -> str:
        return next(self._answers)


def test_a_mutation_is_noticed_by_the_test_that_it_names(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A change after which no test runs shows nothing about the test."""
    some = mutations()[:3]
    copy = _Copy(["", f"{some[0].test}[case]", "the tests do not run", some[2].test.partition("::")[0]])
    monkeypatch.setattr("sys.argv", ["mutations", "--jobs=1"])
    monkeypatch.setattr(mutate, "mutations", lambda: some)
    monkeypatch.setattr(test_runner, "prepare", lambda with_lab: {})
    monkeypatch.setattr(copies, "copies", lambda count, environment: nullcontext(copies.Copies([copy])))
    assert mutate.main() == 1
    *lines, summary = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["noticed", "MISSED", "MISSED"]
    assert summary == "3 mutations: 1 noticed, 2 missed, in 0.0 min"


@pytest.mark.slow
def test_tests_of_a_copy_see_each_change_of_its_files() -> None:
    """Also two changes of one size within a second, of which Python's bytecode would be the same."""
    name, test = "components/names.py", "tests/unit/test_names.py::test_an_entry_has_the_name_that_istiod_gives_it"
    source = (ROOT / name).read_bytes()
    bad, good = source.replace(b"def entry_name(", b"def entry_nama("), source.replace(b'"""Derived', b'"""derived')
    assert len({source, bad, good}) == 3 and len(bad) == len(good)
    with copies.copies(1, {}) as free, free.one() as copy:
        seen = [copy.first_failure(test)]
        for text in (bad, good, bad):
            with copy.changed(name, text):
                seen.append(copy.first_failure(test))
        seen.append(copy.first_failure(test))
    assert seen == ["", test, "", test, ""]
