"""Istio's own machine test cases in the lab with one network."""

from __future__ import annotations

import pytest

from tests.support.istio_cases import IstioCases
from tests.support.lab import Lab


@pytest.fixture(scope="module")
def lab(single_network_lab: Lab) -> Lab:
    """The stack `lab`."""
    single_network_lab.ensure()
    return single_network_lab


class TestSingleNetwork(IstioCases):
    """Of the one machine."""
