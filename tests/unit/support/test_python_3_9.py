"""What the check for Python 3.9 reports of a file, and what it accepts."""

from __future__ import annotations

import pytest

from tests.support import python_3_9

LAZY = "from __future__ import annotations\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("match word:\n    case 'a':\n        pass\n", "3: Pattern matching is only supported in Python 3.10 and greater"),
        ("import json\nimport pulumi.runtime\n", "2: import pulumi.runtime"),
        ("from yaml import load\n", "1: import yaml"),
        ("import tomllib\n", "1: import tomllib"),
        (f"{LAZY}Text = str | Callable[[], str]\n", "2: str | Callable[[], str]"),
        (f"{LAZY}isinstance(value, list | tuple)\n", "2: list | tuple"),
        (f"{LAZY}cast(io.IO | None, value)\n", "2: io.IO | None"),
        ("def run(text: str | None): pass\n", "1: str | None"),
        ("def run() -> str | None: pass\n", "1: str | None"),
        ("value: str | None = None\n", "1: str | None"),
        (f"{LAZY}from typing import get_type_hints\nvalue: str | None = None\n", "3: str | None"),
        ("zip(a, b, strict=True)\n", "1: zip(strict=)"),
        ("@dataclass(frozen=True, slots=True)\nclass Target: pass\n", "1: dataclass(slots=)"),
        ("@dataclasses.dataclass(kw_only=True)\nclass Target: pass\n", "1: dataclass(kw_only=)"),
        ("from itertools import pairwise\n", "1: itertools.pairwise"),
        ("itertools.pairwise(values)\n", "1: itertools.pairwise"),
        ("datetime.fromisoformat(text)\n", "1: .fromisoformat"),
        ("raise ExceptionGroup('two', errors)\n", "1: ExceptionGroup"),
    ],
)
def test_what_python_3_9_lacks_is_reported_by_line(text: str, problem: str) -> None:
    assert python_3_9.problems(text) == [problem]


@pytest.mark.parametrize(
    "text",
    [
        f"{LAZY}def run(text: str | None) -> str | None: pass\n",
        f"{LAZY}class Payload:\n    text: str | None = None\n",
        "import os\nflags = os.O_WRONLY | os.O_CREAT | os.O_EXCL\n",
        "{'a': 1} | others\n",
        "{name for name in names} | others\n",
        "names |= others\n",
        "from ..names import pairwise\nfrom . import yaml\n",
        "zip(a, b)\n",
        "@dataclass(frozen=True)\nclass Target: pass\n",
    ],
)
def test_what_python_3_9_has_is_accepted(text: str) -> None:
    assert python_3_9.problems(text) == []
