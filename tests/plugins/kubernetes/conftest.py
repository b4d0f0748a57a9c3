"""The `kubernetes` provider, and helm."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from tests.support import control_plane
from tests.support.cli_stack import Stack
from tests.support.control_plane import ControlPlane
from tools.standins.kubernetes.plugin import Kubernetes
from tools.standins.provider import Provider


@pytest.fixture(scope="session")
def helm() -> Iterator[None]:
    """The lab's helm on PATH."""
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{control_plane.program('helm').parent}{os.pathsep}{before}"
    yield
    os.environ["PATH"] = before


@pytest.fixture
def provider(plane: ControlPlane) -> Kubernetes:
    """The provider, configured; Services settle at once."""
    provider = Kubernetes(settle=0.2)
    provider.configure({"kubeconfig": plane.kubeconfig})
    return provider


@pytest.fixture
def objects(stack: Stack, provide: Callable[[Provider], None]) -> Stack:
    """An empty stack with the `kubernetes` provider."""
    provide(Kubernetes(settle=0.2))
    return stack
