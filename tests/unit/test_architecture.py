"""The layers of the program: pure modules work without Pulumi, and packages beside them import nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
PURE = next(contract["source_modules"] for contract in CONTRACTS if contract["name"] == "Pure modules never import pulumi")
MODULES = sorted(
    ".".join(file.relative_to(ROOT).with_suffix("").parts) for file in (ROOT / "components").rglob("*.py") if "scripts" not in file.parts
)
LOAD_EACH = """
import importlib, os, sys, traceback
import pydantic, yaml  # what several modules import, once for all
for module in sys.argv[1:]:
    child = os.fork()
    if not child:
        status = 1
        try:
            importlib.import_module(module)
            status = any(name.split(".")[0].startswith("pulumi") for name in sys.modules)
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(status)
    if os.waitpid(child, 0)[1]:
        print(module, flush=True)
"""
"""A program that loads each of its arguments in a fork of itself, and prints those that fail or load Pulumi."""


def pure_modules() -> list[str]:
    """Every module that a contract calls pure, the modules of pure packages included."""
    return [module for module in MODULES if any(module == name or module.startswith(f"{name}.") for name in PURE)]


def test_pure_modules_load_without_pulumi() -> None:
    """Each in a process that has loaded nothing of this program yet."""
    command = [sys.executable, "-c", LOAD_EACH, *(module.removesuffix(".__init__") for module in pure_modules())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, [], ""), "these need Pulumi"


@pytest.mark.parametrize("module", [module for module in MODULES if module not in pure_modules() and not module.endswith("__init__")])
def test_every_other_module_needs_pulumi(module: str) -> None:
    """So no module is left out of the list of pure ones."""
    tree = ast.parse((ROOT / module.replace(".", "/")).with_suffix(".py").read_text())
    imports = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    imports += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    assert any(name.split(".")[0].startswith("pulumi") for name in imports)


@pytest.mark.parametrize("package", [module for module in MODULES if module.endswith("__init__")])
def test_packages_import_nothing(package: str) -> None:
    tree = ast.parse((ROOT / package.replace(".", "/")).with_suffix(".py").read_text())
    assert not [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]


def test_nothing_is_imported_under_another_name() -> None:
    aliases = [
        f"{module}: {alias.name} as {alias.asname}"
        for module in MODULES
        for node in ast.walk(ast.parse((ROOT / module.replace(".", "/")).with_suffix(".py").read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
        if alias.asname
    ]
    assert not aliases
