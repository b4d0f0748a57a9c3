"""Istio's own machine test cases in the lab with two networks."""

from __future__ import annotations

import pytest

from tests.support.istio_cases import IstioCases
from tests.support.lab import MultiNetworkLab


@pytest.fixture(scope="module")
def lab(multi_network_lab: MultiNetworkLab) -> MultiNetworkLab:
    """The stack `lab-multi-network`."""
    multi_network_lab.ensure()
    return multi_network_lab


class TestMultiNetwork(IstioCases):
    """Of a far machine, wherever it matters."""
