"""The layers of the program: pure modules work without Pulumi, and packages beside them import nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
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


@cache
def parsed(module: str) -> ast.Module:
    """Parse a module."""
    return ast.parse((ROOT / module.replace(".", "/")).with_suffix(".py").read_text())


def imports(module: str) -> Iterator[str]:
    """Yield the modules that a module imports: those of the program, and "pulumi" for Pulumi's."""
    for node in ast.walk(parsed(module)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        place = (getattr(node, "module", None) or "").split(".") if names else []
        if level := getattr(node, "level", 0):
            base = [*module.split(".")[:-level], *filter(None, place)]
            yield from (".".join([*base, *more]) for more in ([], *([name] for name in names)))
        else:
            yield from ("pulumi" for name in [*names, *place] if name.split(".")[0].startswith("pulumi"))


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
    """So no module is left out of the list of pure ones. It may need Pulumi by another module."""
    assert set(imports(module)) & {"pulumi", *MODULES} - set(pure_modules())


@pytest.mark.parametrize("package", [module for module in MODULES if module.endswith("__init__")])
def test_packages_import_nothing(package: str) -> None:
    tree = parsed(package)
    assert not [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]


RAW = {
    "components.cluster_check.ClusterCheckProvider.check": "Pulumi's interface of dynamic providers",
    "components.cluster_check.ClusterCheckProvider.create": "Pulumi's interface of dynamic providers",
    "components.cluster_check.ClusterCheckProvider.delete": "Pulumi's interface of dynamic providers",
    "components.cluster_check.ClusterCheckProvider.diff": "Pulumi's interface of dynamic providers",
    "components.cluster_check.ClusterCheckProvider.update": "Pulumi's interface of dynamic providers",
    "components.config.checks.texts.check_readable": "a stack's configuration before it is checked",
    "components.config.load": "a stack's configuration before it is checked",
    "components.config.reader.load": "a stack's configuration before it is checked",
    "components.config.reader.read_document": "a stack file before it is checked",
    "components.config.reader.read_file": "a stack file before it is checked",
    "components.istio.mesh_reading.MeshReadingProvider.check": "Pulumi's interface of dynamic providers",
    "components.istio.mesh_reading.MeshReadingProvider.create": "Pulumi's interface of dynamic providers",
    "components.istio.mesh_reading.MeshReadingProvider.delete": "Pulumi's interface of dynamic providers",
    "components.istio.mesh_reading.MeshReadingProvider.diff": "Pulumi's interface of dynamic providers",
    "components.istio.mesh_reading.MeshReadingProvider.update": "Pulumi's interface of dynamic providers",
    "components.local.scripting.decode": "JSON of a script, from which a record is made",
    "components.mesh_facts.merge": "maps of any kind, as Helm merges them",
    "components.machines.registration.RegistrationProvider.check": "Pulumi's interface of dynamic providers",
    "components.machines.registration.RegistrationProvider.create": "Pulumi's interface of dynamic providers",
    "components.machines.registration.RegistrationProvider.delete": "Pulumi's interface of dynamic providers",
    "components.machines.registration.RegistrationProvider.diff": "Pulumi's interface of dynamic providers",
    "components.machines.registration.RegistrationProvider.update": "Pulumi's interface of dynamic providers",
    "components.stack.configuration": "a stack's configuration before it is checked",
}
"""Functions that take or return maps of anything, each with its reason."""


def public_functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Yield name and node of each public function and method, constructors included."""
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.FunctionDef(name=name) if not name.startswith("_") or name == "__init__":
                yield f"{prefix}.{name}", child
            case ast.ClassDef(name=name) if not name.startswith("_"):
                yield from public_functions(child, f"{prefix}.{name}")


def signature(function: ast.FunctionDef) -> list[str]:
    """Return the types of a function's parameters and of its result."""
    parameters = [node.annotation for node in ast.walk(function.args) if isinstance(node, ast.arg)]
    return [ast.unparse(node) for node in (*parameters, function.returns) if node]


def test_modules_exchange_records_and_manifests() -> None:
    raw = {
        name
        for module in MODULES
        for name, function in public_functions(parsed(module), module.removesuffix(".__init__"))
        if any("ict[str, Any]" in text or "Mapping[str, Any]" in text for text in signature(function))
    }
    assert raw == set(RAW), "take or return a frozen record, or a `Manifest`"
