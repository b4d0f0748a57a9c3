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
MODULES = sorted(".".join(file.relative_to(ROOT).with_suffix("").parts) for file in (ROOT / "components").rglob("*.py"))
LOAD = """
import importlib, sys
for module in sys.argv[1:]:
    importlib.import_module(module)
    if any(name.split(".")[0].startswith("pulumi") for name in sys.modules):
        sys.exit(f"{module} loads Pulumi")
"""
"""A program that loads its arguments, one after the other, and fails at the first that loads Pulumi."""


def pure_modules() -> list[str]:
    """Every module that a contract calls pure, the modules of pure packages included."""
    return [module for module in MODULES if any(module == name or module.startswith(f"{name}.") for name in PURE)]


def load(*modules: str) -> subprocess.CompletedProcess[str]:
    """Load modules in a new interpreter."""
    names = [module.removesuffix(".__init__") for module in modules]
    return subprocess.run([sys.executable, "-c", LOAD, *names], cwd=ROOT, capture_output=True, text=True)


def test_pure_modules_load_without_pulumi() -> None:
    done = load(*pure_modules())
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("module", pure_modules())
def test_a_pure_module_loads_alone(module: str) -> None:
    done = load(module)
    assert done.returncode == 0, done.stderr


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
