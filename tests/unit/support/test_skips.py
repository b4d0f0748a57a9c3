"""Where CI is set, a skipped test fails, however it is skipped and however the tests are run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TESTS = {
    "test_marked.py": "import pytest\n@pytest.mark.skip(reason='not today')\ndef test_it(): pass\n",
    "test_called.py": "import pytest\ndef test_it(): pytest.skip('not today')\n",
    "test_module.py": "import pytest\npytest.importorskip('no_such_module', reason='not today')\ndef test_it(): pass\n",
}


@pytest.mark.parametrize(
    ("ci", "options", "code", "summary"),
    [
        ("", [], 0, "3 skipped"),
        ("true", [], 1, "1 failed, 2 errors"),
        pytest.param("true", ["--numprocesses=1"], 1, "1 failed, 2 errors", marks=pytest.mark.slow),
    ],
    ids=["at home", "in CI", "in CI with workers"],
)
def test_a_skipped_test_fails_in_ci_alone(tmp_path: Path, options: list[str], ci: str, code: int, summary: str) -> None:
    for name, text in TESTS.items():
        (tmp_path / name).write_text(text)
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "pytest",
        "-c",
        os.devnull,
        "--rootdir",
        tmp_path,
        "-p",
        "tests.support.skips",
        "-rA",
        "--continue-on-collection-errors",
        *options,
    ]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "CI": ci, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, summary in done.stdout) == (code, True), done.stdout
    assert "not today" in done.stdout
