"""The wheel of this checkout, and the program in docs/how-to/library.md."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools import ROOT, mock_engine

PAGE = ROOT / "docs" / "how-to" / "library.md"
PACKAGE, PROJECT = "istio_vm_mesh", "billing"


@dataclass(frozen=True)
class Documented:
    """The program of the page.

    program: its file, exactly as the page has it.
    config: its configuration, keys without the project's name.
    """

    program: mock_engine.Program
    config: Mapping[str, Any]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel."""
    directory = tmp_path_factory.mktemp("wheel")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    build = [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(directory), str(ROOT)]
    subprocess.run(build, check=True)
    [built] = directory.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def documented(tmp_path_factory: pytest.TempPathFactory) -> Documented:
    """Write the page's program into a project."""
    text = PAGE.read_text()
    blocks: dict[str, list[str]] = {}
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        blocks.setdefault(language, []).append(block)
    [program], [config] = blocks["python"], blocks["yaml"]
    file = tmp_path_factory.mktemp("project") / "__main__.py"
    file.write_text(program)
    prefix = f"{PROJECT}:"
    values = {key.removeprefix(prefix): value for key, value in yaml.safe_load(config)["config"].items()}
    return Documented(mock_engine.Program(file, PROJECT), values)


@pytest.fixture
def package(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make the wheel's package importable in this process, and return its directory."""
    directory = tmp_path / "site-packages"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(directory)
    monkeypatch.syspath_prepend(str(directory))
    yield directory / PACKAGE
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]
