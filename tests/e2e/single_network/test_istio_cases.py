"""Istio's own machine test cases in the lab with one network."""

from __future__ import annotations

import pytest

from tests.support.istio_cases import IstioCases
from tests.support.lab import Lab, with_version_labels


@pytest.fixture(scope="module")
def lab(single_network_lab: Lab) -> Lab:
    """The stack `lab` with version labels."""
    single_network_lab.ensure(with_version_labels)
    return single_network_lab


class TestSingleNetwork(IstioCases):
    """Of the one machine."""
