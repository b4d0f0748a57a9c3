"""Derived names are built in one place: `components/names.py`, and the `names.py` of a platform."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from components import names
from components.platforms import docker, google
from components.platforms.docker.names import CONTAINER, IMAGES, KIND
from components.platforms.google.names import AUTOSCALER, BACKENDS, BALANCER, CONNECTS, GOOGLE_ACCOUNT, INSTANCE, MANAGER, ROLE, TEMPLATE

ROOT = Path(__file__).parents[2]


def modules(*directories: str) -> list[Path]:
    """Return the modules below directories that could spell a name out."""
    files = [file for directory in directories for file in sorted((ROOT / directory).rglob("*.py"))]
    # The stand-ins are a package of their own, which knows nothing of this program.
    return [file for file in files if file.name != "names.py" and "standins" not in file.parts]


PORTS = {value for name, value in vars(names).items() if name.endswith("_PORT")} - {names.SSH_PORT}  # 22 is the length of a prefix, too
PARTS = {
    *(names.REGISTRATION, names.JOIN, names.PROOF, names.DRAIN),
    *(names.ACCOUNT, names.WORKLOAD_GROUP, names.PODS, names.VERIFICATION),
    *(names.CALLERS, names.SLOTS, names.REMOVAL, names.DYNAMIC),
    *(CONTAINER, KIND, IMAGES),
    *(INSTANCE, TEMPLATE, MANAGER, AUTOSCALER, BALANCER),
    *(BACKENDS, CONNECTS, ROLE, GOOGLE_ACCOUNT),
    *("service", "failover", "mtls", "gateway", "machines", "no-gateway", "control-plane"),
}
DERIVED = (
    rf"^-({'|'.join(sorted(PARTS))})(?![\w.])",
    r"^(firewall|namespace|nat|peering|router|subnet|vpc)-$",
    "^spiffe://$",
)
"""What a text has beside the name that it is derived from."""
LABELS = {
    value
    for module in (names, docker.names, google.names)
    for name, value in vars(module).items()
    if name.endswith(("_LABEL", "_ANNOTATION"))
}
LITERALS = (
    *map(re.escape, (names.ISTIO_NAMESPACE, names.EASTWEST_GATEWAY, names.DEFAULT_DOMAIN, names.JOINED_ANNOTATION_PREFIX)),
    # `istio-vm-mesh/machine:…` is an image.
    *(rf"(?<![\w./-]){re.escape(label)}(?![\w/-]|:(?! ))" for label in sorted(LABELS)),
    *(rf"^{re.escape(name)}$" for name in (names.TOKEN_AUDIENCE, names.DEFAULT_ROOT_CONFIG_MAP, names.QUARANTINE_ACCOUNT)),
    "spiffe://",
    *DERIVED,
    rf"\b({'|'.join(map(str, sorted(PORTS)))})\b",
)
SPELLED_OUT, DERIVED_AGAIN = re.compile("|".join(LITERALS)), re.compile("|".join(DERIVED))


def constants(tree: ast.Module) -> Iterator[ast.Constant]:
    """Yield the constants of a module, without docstrings."""
    strings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in strings:
            yield node


def literals(tree: ast.Module) -> list[str]:
    """Return line and text of every name that a module spells out itself."""
    return [
        f"{node.lineno}: {node.value!r}"
        for node in constants(tree)
        if (isinstance(node.value, str) and SPELLED_OUT.search(node.value)) or (type(node.value) is int and node.value in PORTS)
    ]


def derivations(tree: ast.Module) -> list[str]:
    """Return line and text of every name that a module derives from another one."""
    return [
        f"{node.lineno}: {node.value!r}" for node in constants(tree) if isinstance(node.value, str) and DERIVED_AGAIN.search(node.value)
    ]


def listed(names_in: Callable[[ast.Module], list[str]], *directories: str) -> list[str]:
    """Return file, line and text of each name in the modules below directories."""
    texts = {file.relative_to(ROOT): names_in(ast.parse(file.read_text())) for file in modules(*directories)}
    return [f"{file}:{text}" for file, texts_of_one in texts.items() for text in texts_of_one]


def test_no_other_module_spells_a_name_out() -> None:
    assert listed(literals, "components", "scripts/tools", "tests/support") == []


def test_tests_of_running_parts_derive_no_name() -> None:
    """They read what the program made. A complete name that a test expects is spelled out there."""
    assert listed(derivations, "tests/e2e", "tests/engine", "tests/library", "tests/plugins") == []


@pytest.mark.parametrize(
    "text",
    [
        'f"{machine}-join"',
        'name.endswith("-proof")',
        "port = 15012",
        'f("port 15012:")',
        'x = "istio-system"',
        'f"spiffe://{domain}/ns"',
        'f"{node}-control-plane"',
        'f"firewall-{rule}"',
        'name.removesuffix("-google-account")',
        'fail("its label sidecar.istio.io/inject is false")',
        "f(\"metadata.annotations['istio-vm-mesh/listener']\")",
        'run("label", "istio-injection=enabled")',
        'labels["joined.istio-vm-mesh/" + machine]',
    ],
)
def test_a_name_that_is_spelled_out_is_reported(text: str) -> None:
    assert len(literals(ast.parse(text))) == 1


def test_an_entry_has_the_name_that_istiod_gives_it() -> None:
    assert names.entry_name("product", "172.31.6.130", "pods") == "product-172.31.6.130-pods"
    assert names.entry_name("product", "fd00::1", "pods") == "product-fd00--1-pods"
    for address, network in (("172.31.6.130", "pods"), ("fd00::1", "pods"), ("172.31.6.130", "")):
        assert names.entry_network(names.entry_name("product", address, network), "product", address) == network
    assert names.entry_network("", "product", "") == ""


def test_ports_in_shell_scripts_and_units_are_those_of_the_list() -> None:
    texts = {
        str(file.relative_to(ROOT)): file.read_text()
        for directory in ("components", "scripts/tools/mesh_status")
        for suffix in ("sh", "service", "conf")
        for file in sorted((ROOT / directory).rglob(f"*.{suffix}"))
    }
    ports = {(path, port) for path, text in texts.items() for port in re.findall(r"\b15\d{3}\b", text)}
    assert len(ports) > 5, "the test looks at nothing"
    assert not {(path, port) for path, port in ports if int(port) not in PORTS}


@pytest.mark.parametrize(
    ("project", "stack"),
    [
        ("shop", "lab"),
        ("shop", "lab.eu"),
        ("shop.eu", "lab"),
        ("p" * 60, "lab"),
        ("shop", "s" * 100),
        ("shop", "lab-"),
        ("_shop", "lab_"),
        ("_", "-"),
    ],
)
def test_a_stack_has_a_label_of_its_own(project: str, stack: str) -> None:
    label = names.stack_label(project, stack)
    assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", label)
    assert label != names.stack_label(project, f"{stack}2") and label != names.stack_label(f"{project}2", stack)


def test_a_stacks_label_reads_as_its_name() -> None:
    assert names.stack_label("istio-vm-mesh", "lab") == "istio-vm-mesh.lab"
    assert names.stack_label("shop.eu", "lab") != names.stack_label("shop", "eu.lab")
