"""The conditions of what proves a mesh: parsers list them, and a file explains those that no test notices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from tools import ROOT
from tools.devtools import conditions
from tools.devtools.conditions import changes_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("if a; then b; fi", {"if true; then b; fi", "if ! { a; }; then b; fi"}),
        ("while a; do b; done", {"while true; do b; done", "while ! { a; }; do b; done"}),
        ("while :; do b; done", {"while ! { :; }; do b; done"}),
        ("a && b", {"true && b", "! { a; } && b"}),
        ("a || b", {"false || b", "! { a; } || b"}),
        ("a && is_b", {"true && is_b", "! { a; } && is_b", "a && true", "a && ! { is_b; }"}),
        ("f() { [ x ]; }", {"f() { true; }", "f() { ! { [ x ]; }; }"}),
        ("[[ a && b ]]", {"true", "! { [[ a && b ]]; }", "[[ -z '' && b ]]", "[[ ! ( a ) && b ]]", "[[ a && -z '' ]]", "[[ a && ! ( b ) ]]"}),
        ("((a || b))", {"true", "! { ((a || b)); }", "((0 || b))", "((!(a) || b))", "((a || 0))", "((a || !(b)))"}),
        ("case $1 in a | b) c ;; *) d ;; esac", {
            "case $1 in *) c ;; *) d ;; esac",
            "case $1 in $'\\1') c ;; *) d ;; esac",
            "case $1 in $'\\1' | b) c ;; *) d ;; esac",
            "case $1 in a | $'\\1') c ;; *) d ;; esac",
            "case $1 in a | b) c ;; $'\\1') d ;; esac",
        }),
    ],
)  # fmt: skip
def test_each_condition_of_shell_is_negated_and_dropped(text: str, expected: set[str]) -> None:
    assert {change.applied(text.encode()).decode() for change in changes_of("x.sh", text.encode())} == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("b if a else c", {"b if (True) else c", "b if (not (a)) else c"}),
        ("a and b", {"(True) and b", "(not (a)) and b", "a and (True)", "a and (not (b))"}),
        ("a or b", {"(False) or b", "(not (a)) or b", "a or (False)", "a or (not (b))"}),
        ("[a for a in 'ä' if b]", {"[a for a in 'ä' if (True)]", "[a for a in 'ä' if (not (b))]"}),
        ("while a: b", {"while (True): b", "while (not (a)): b"}),
        ("while True: b", {"while (not (True)): b"}),
        ("f(a < b)", {"f((True))", "f((not (a < b)))"}),
        ("b if a < 1 else c", {"b if (True) else c", "b if (not (a < 1)) else c"}),
    ],
)
def test_each_condition_of_python_is_negated_and_dropped(text: str, expected: set[str]) -> None:
    assert {change.applied(text.encode()).decode() for change in changes_of("x.py", text.encode())} == expected


@pytest.mark.parametrize(
    ("file", "text", "functions"),
    [
        ("x.sh", "f() {\n  [ a ] || g\n}\ng() { # word\n  [ b ]\n}\n[ c ]\n", ["f", "g", "g"]),
        ("x.py", "a if b else c\ndef f(d):\n    if d:\n        pass\n", ["", "f"]),
    ],
)
def test_a_change_names_its_function(file: str, text: str, functions: list[str]) -> None:
    assert [change.function for change in changes_of(file, text.encode()) if change.how == "dropped"] == functions


def test_what_needs_no_test_exists_and_has_a_reason() -> None:
    """So that `./scripts/mutations --conditions` can be run any day: it takes long, so it is not run with every change."""
    reasons = conditions.reasons()
    assert reasons.keys() <= {change.key for file in conditions.FILES for change in conditions.changes(file)}
    assert all(len(reason.split()) >= 4 for reason in reasons.values())


def test_every_script_of_the_verification_is_changed() -> None:
    scripts = (ROOT / "components/verification/scripts").glob("*.*")
    with_conditions = {name for name in (str(path.relative_to(ROOT)) for path in scripts) if conditions.changes(name)}
    assert with_conditions <= conditions.FILES.keys()


def test_the_tests_of_each_file_exist() -> None:
    assert all((ROOT / test).is_file() for tests in conditions.FILES.values() for test in tests)


@pytest.mark.slow
def test_words_that_are_at_no_condition_are_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Otherwise a typo is a run in which nothing is missed."""
    assert conditions.run(1, ["call-service.sh:99999:"]) == 1
    assert "No condition is at one of these places: call-service.sh:99999:" in capsys.readouterr().err


class _Copy:
    """A copy of the checkout, and all of them: its tests notice what is negated."""

    def __init__(self) -> None:
        self._text = b""

    def one(self) -> nullcontext[_Copy]:
        return nullcontext(self)

    @contextmanager
    def changed(self, file: str, source: bytes) -> Iterator[None]:
        self._text = source
        yield
        self._text = b""

    def first_failure(self, *tests: str) -> str:
        return "tests/test_x.py::test_x" if b"not" in self._text else ""


def test_each_change_is_shown_at_once_and_those_that_are_missed_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "x.py").write_text("a if b else c\n")
    monkeypatch.setattr(conditions, "ROOT", tmp_path)
    monkeypatch.setattr(conditions, "FILES", {"x.py": ("tests/test_x.py",)})
    monkeypatch.setattr(conditions, "copies", lambda *_: nullcontext(_Copy()))
    assert conditions.run(1, []) == 1
    missed = "MISSED     x.py:1: dropped: b\n"
    output, progress = capsys.readouterr()
    assert output.startswith(f"{missed}2 changes: 1 noticed, 0 explained, 1 MISSED, 0 NOTICED AGAINST ITS REASON, in ")
    assert progress == f"2 changes; first their tests without one …\n1/2  {missed}2/2  noticed    x.py:1: negated: b\n"
