"""A control plane for the whole test run, a namespace for each test, and the provider."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator

import control_plane
import pytest
from cli_stack import Stack
from control_plane import ControlPlane

from tools.standins.kubernetes.plugin import Kubernetes
from tools.standins.provider import Provider

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with control_plane.running(tmp_path_factory.mktemp("control-plane")) as running:
        yield running


@pytest.fixture(scope="session")
def helm() -> Iterator[None]:
    """The lab's helm on PATH."""
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{control_plane.program('helm').parent}{os.pathsep}{before}"
    yield
    os.environ["PATH"] = before


@pytest.fixture
def namespace(plane: ControlPlane) -> str:
    """A namespace of the test's own."""
    name = f"test-{os.getpid()}-{next(_numbers)}"
    plane.cluster.call("POST", "/api/v1/namespaces", body={"metadata": {"name": name}})
    return name


@pytest.fixture
def provider(plane: ControlPlane) -> Kubernetes:
    """The provider, configured; Services settle at once."""
    found = Kubernetes(settle=0.2)
    found.configure({"kubeconfig": plane.kubeconfig})
    return found


@pytest.fixture
def objects(stack: Stack, provide: Callable[[Provider], None]) -> Stack:
    """An empty stack with the `kubernetes` provider."""
    provide(Kubernetes(settle=0.2))
    return stack
