"""The layers of the program: pure modules work without Pulumi, and packages beside them import nothing."""

from __future__ import annotations

import ast
import re
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
    "components.cluster_check.ClusterCheck.recorded": "an output of a dynamic provider, from which a record is made",
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
    "components.local.cluster_access.ContextEntries.cluster": "an entry of a kubeconfig, with whatever its user has in it",
    "components.local.cluster_access.ContextEntries.user": "an entry of a kubeconfig, with whatever its user has in it",
    "components.local.scripting.decode": "JSON of a script, from which a record is made",
    "components.mesh_facts.merge": "maps of any kind, as Helm merges them",
    "components.machines.registration.RegistrationProvider.check": "Pulumi's interface of dynamic providers",
    "components.machines.registration.RegistrationProvider.create": "Pulumi's interface of dynamic providers",
    "components.machines.registration.RegistrationProvider.delete": "Pulumi's interface of dynamic providers",
    "components.machines.registration.RegistrationProvider.diff": "Pulumi's interface of dynamic providers",
    "components.machines.registration.RegistrationProvider.update": "Pulumi's interface of dynamic providers",
    "components.stack.build": "the outputs of a stack, which Pulumi exports by name",
    "components.stack.configuration": "a stack's configuration before it is checked",
}
"""Functions that take or return maps of anything, and fields that hold one, each with its reason."""


RAW_MAP = re.compile(r"\b(?:dict|[A-Za-z]*Mapping)\[str, (?:Any|object)\]")
"""How a type has a map of anything in it."""


def public_types(node: ast.AST, prefix: str) -> Iterator[tuple[str, str]]:
    """Yield names and types of the parameters and results of public functions and methods, and of the fields of public classes.

    A constructor is public. A field has its class's name before its own, parameters and a result have their function's.
    """
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) if not name.startswith("_") or name == "__init__":
                annotations = [each.annotation for each in ast.walk(child.args) if isinstance(each, ast.arg)]
                yield from ((f"{prefix}.{name}", ast.unparse(each)) for each in (*annotations, child.returns) if each)
            case ast.ClassDef(name=name) if not name.startswith("_"):
                yield from public_types(child, f"{prefix}.{name}")
            case ast.AnnAssign(target=ast.Name(id=name), annotation=type_) if isinstance(node, ast.ClassDef) and name[0] != "_":
                yield f"{prefix}.{name}", ast.unparse(type_)


def test_modules_exchange_records_and_manifests() -> None:
    raw = {
        name for module in MODULES for name, text in public_types(parsed(module), module.removesuffix(".__init__")) if RAW_MAP.search(text)
    }
    assert raw == set(RAW), "take or return a frozen record, or a `Manifest`"


def test_objects_reach_kubectl_in_one_way() -> None:
    """Otherwise kubectl reads OpenAPI documents first, for which a busy API server may need longer than it waits."""
    writing = re.compile(r'"(apply|create|replace)",[^()]*"(-f|--filename)\b')
    assert [str(file) for file in (ROOT / "components").rglob("*.py") if writing.search(file.read_text())] == [], "use FROM_STDIN"
