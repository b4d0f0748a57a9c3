"""A unit test's file has the path and the name of what it tests: a module, a script or a package."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import ROOT

UNIT = ROOT / "tests" / "unit"
TREES = {"tools": "scripts", "support": "tests"}
"""What the directories of `tests/unit` mirror, by their names. All others mirror `components`."""


def subjects(file: Path) -> set[str]:
    """Return the modules, scripts and packages whose name a unit test's file has.

    file: relative to `tests/unit`.
    """
    directory = ROOT / TREES.get(file.parts[0], "components") / file.parent
    code = (path for path in directory.glob("*") if path.is_dir() or path.suffix in {".py", ".sh"})
    names = {path.stem.replace("-", "_") for path in code}
    return {name for name in names if f"{file.stem}_".startswith(f"test_{name}_")}


def test_each_file_has_the_name_of_what_it_tests() -> None:
    files = [path.relative_to(UNIT) for path in UNIT.rglob("test_*.py")]
    assert len(files) > 50
    unnamed = [str(file) for file in files if not subjects(file)]
    assert not unnamed, "name it after a module, a script or a package at its path"


@pytest.mark.parametrize(
    ("file", "names"),
    [
        ("test_names.py", {"names"}),
        ("istio/test_charts.py", {"charts"}),
        ("machines/scripts/test_join_transaction.py", {"join"}),
        ("verification/scripts/test_call_service.py", {"call_service"}),
        ("config/test_checks_hostile_text.py", {"checks"}),
        ("tools/lab/test_stacks.py", {"stacks"}),
        ("support/test_skips.py", {"skips"}),
        ("machines/test_join.py", set()),
        ("istio/test_chart.py", set()),
        ("nowhere/test_charts.py", set()),
    ],
)
def test_a_name_is_compared_with_the_code_at_its_path(file: str, names: set[str]) -> None:
    assert subjects(Path(file)) == names
